"""Ctrl-C, SIGTERM and SIGHUP ask a run to stop at the end of its step; it saves first."""

from __future__ import annotations

import signal
import threading

import torch
import torch.distributed as dist

from ..distributed import world

EVERY = 10  # steps between the questions of several ranks, since asking is a collective
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(SystemExit):
    """Training was asked to stop by SIGTERM or SIGHUP and saved a checkpoint first; exit codes 143 and 129."""


class StopSignals:
    """`with StopSignals() as signals`: the first signal is kept, a second one of its kind ends the process at once."""

    def __init__(self):
        self.received = 0
        self.before: dict[int, object] = {}

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

    def agreed(self, step: int, device: torch.device) -> int:
        """The signal every rank has agreed on, or 0."""
        if world() == 1:
            return self.received
        if step % EVERY:
            return 0
        flag = torch.tensor(self.received, device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)


def stop(number: int) -> None:
    """End as others expect it: Ctrl-C stays a KeyboardInterrupt, the other signals become an exit code."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(128 + number)
