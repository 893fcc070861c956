"""A run of several processes whose steps are slow by their clock, one of which is asked to stop."""

import itertools
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_lowlabel import finetune
from hf_lowlabel.distributed import rank
from hf_lowlabel.training import stopping
from hf_lowlabel.training.callbacks import Callback

ASKED = 3  # step in which the second process gets its signal


class Asks(Callback):
    def on_step_end(self, state, *values) -> None:
        if state.step == ASKED and rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main(settings: dict, folder: Path) -> None:
    clock = itertools.count(0, 4)  # seconds that a step takes
    stopping.time = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    with pytest.raises(SystemExit) as end:
        finetune(**settings, output_dir=str(folder / "run"), callbacks=[Asks()])
    assert end.value.code == 128 + signal.SIGTERM
