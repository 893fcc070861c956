"""How long a step of a run takes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from ..distributed import of_first
from ..training.callbacks import Callback, RunState

WARM, TIMED = 2, 3  # steps before the clock is read, and steps that are timed


class Clock(Callback):
    """Ends a run after a few steps, or the first one after `most` seconds; seconds: of one of them. All processes go by
    the first one's time: one that stops by a time of its own leaves the others waiting for it."""

    def __init__(self, most: float = float("inf")):
        self.start, self.most = of_first(time.perf_counter()), of_first(most)
        self.begin, self.seconds = 0.0, 0.0

    def on_step_end(self, state: RunState, scalars: Mapping[str, torch.Tensor]) -> None:
        if any(v.device.type == "cuda" for v in scalars.values() if isinstance(v, torch.Tensor)):
            torch.cuda.synchronize()  # steps are queued: the host is ahead of them
        now = of_first(time.perf_counter())
        if state.step == WARM + TIMED or now - self.start > self.most:
            warm = state.step > WARM  # else the network is built within that time
            self.seconds = (now - self.begin) / (state.step - WARM) if warm else (now - self.start) / state.step
            state.stop = True
        if state.step == WARM:
            self.begin = now
