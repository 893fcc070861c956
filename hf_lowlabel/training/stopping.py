"""Ctrl-C, SIGTERM and SIGHUP ask a run to stop at the end of its step; it saves first."""

from __future__ import annotations

import signal
import threading
import time

import torch
import torch.distributed as dist

from ..distributed import world

EVERY = 10  # steps between the questions of several ranks at most: asking is a collective, and waits for the GPU
WITHIN = 2.0  # seconds between them, where steps are slow: torchrun kills 30 s after its SIGTERM
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(SystemExit):
    """Training was asked to stop by SIGTERM or SIGHUP and saved a checkpoint first; exit codes 143 and 129."""


class StopSignals:
    """`with StopSignals() as signals`: the first signal is kept, a second one of its kind ends the process at once.

    step: how many steps were done before.
    """

    def __init__(self, step: int = 0):
        self.received = 0
        self.before: dict[int, object] = {}
        self.asked, self.due = step, step  # steps: of the latest question, and of the next one
        self.then = time.perf_counter()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            asking = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup stays one
            self.before = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.received = number
        signal.signal(number, self.before[number])

    def agreed(self, step: int, device: torch.device, ended: bool = False) -> int:
        """The signal every rank has agreed on, or 0. ended: no step follows, so that all ask at once."""
        if world() == 1:
            return self.received
        if step < self.due and not ended:
            return 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # else the time would be that of handing work to it
        now = time.perf_counter()
        each = (now - self.then) / max(step - self.asked, 1)
        said = torch.tensor([self.received, each], device=device)
        dist.all_reduce(said, op=dist.ReduceOp.MAX)  # all take the slowest one's time, and so ask again together
        number, each = said.tolist()
        self.asked, self.due, self.then = step, step + max(1, min(EVERY, int(WITHIN / max(each, 1e-9)))), now
        return int(number)


def stop(number: int) -> None:
    """End as others expect it: Ctrl-C stays a KeyboardInterrupt, the other signals become an exit code."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(128 + number)
