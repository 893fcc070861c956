"""Callbacks during a run: `finetune(..., callbacks=[MyCallback()])`.

    class Stop(Callback):
        def on_evaluate(self, state, scores):
            state.stop = scores["validation_accuracy"] > 0.95

Every process of a launch calls them, at the same steps; `state.is_main_process` says which one writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ..objective import Objective
    from ..records import RunRecord


@dataclass
class RunState:
    """State of a run.

    folder: the run folder. objective: the method with its networks; `objective.evaluated` is the one that is saved.
    step: optimizer steps done, of max_steps. history: the logged rows. is_main_process: whether this process writes.
    record: what run.json holds, once it was saved. stop: set it, and training ends after this step as if all steps were
    done.
    """

    folder: Path
    objective: Objective
    max_steps: int
    step: int = 0
    history: list[dict] = field(default_factory=list)
    is_main_process: bool = True
    record: RunRecord | None = None
    stop: bool = False


class Callback:
    """Override what you need; the names are those of transformers.TrainerCallback."""

    def on_step_end(self, state: RunState, scalars: dict[str, Tensor]) -> None:
        """After every optimizer step. scalars are on the device: to read one makes the host wait for it."""

    def on_log(self, state: RunState, row: dict) -> None:
        """A row was logged: numbers by name, "step" among them."""

    def on_evaluate(self, state: RunState, scores: dict[str, float]) -> None:
        """Validation or test images were evaluated."""

    def on_save(self, state: RunState) -> None:
        """Model, record and (but for the last time) a checkpoint are on disk; `state.record` is what run.json holds."""

    def on_train_end(self, state: RunState) -> None:
        """The run is complete in its folder."""
