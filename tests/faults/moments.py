"""What comes from outside while a verb runs, at any of its writes: a signal, another process that does the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_lowlabel.cli import main

from .injector import Fault, attempt
from .sandbox import VERBS, clear, run
from .sweeps import Case, finished, said, spread, to_go_on

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HANGS = "THE SECOND ONE DID NOT END"


def signals(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 4, seed: int = 0) -> Iterator[Case]:
    """Each signal before up to `most` of the writes of a verb: it ends as the signal asks or is done, and goes on."""
    for verb, number, answer in whole_runs(box, verbs):
        command, left = VERBS[verb]
        for signum in SIGNALS:
            for at in spread(number, most, seed + signum):
                done = run(box, command, Fault(at, signum))
                ends = done.code in (0, 128 + signum, -signum)
                wrong = "" if ends else done.verdict or f"exit code {done.code}"
                wrong = wrong or ("traceback" if "Traceback" in done.text else "")
                wrong = wrong or finished(box, command, to_go_on(command), left, answer, verb)
                yield Case("signal", f"{verb}: {signum.name} at write {at} of {number}", wrong)
                clear(box)


def writers(box: Path, verbs: Sequence[str] = tuple(VERBS), most: int = 4, seed: int = 0) -> Iterator[Case]:
    """The same command from another process before a write: both end in a sentence, and one whole result is there."""
    for verb, number, answer in whole_runs(box, verbs):
        command, left = VERBS[verb]

        def second(command: str = command) -> None:
            done = attempt(lambda: main(command.split()), seconds=60)
            os.write(1, (HANGS if done.code is None else done.text).encode())

        for at in spread(number, most, seed):
            done = run(box, command, Fault(at, second), seconds=120)
            wrong = done.verdict or (HANGS if HANGS in done.text else "" if done.code in (0, 2) else str(done.code))
            wrong = wrong or finished(box, command, to_go_on(command), left, answer, verb)
            yield Case("two writers", f"{verb} at write {at} of {number}", wrong)
            clear(box)


def whole_runs(box: Path, verbs: Sequence[str]) -> Iterator[tuple[str, int, tuple]]:
    """(verb, its writes, what it says and leaves) of those that end well and leave something."""
    for verb in verbs:
        command, left = VERBS[verb]
        whole = run(box, command)
        answer = said(whole, box, left)
        clear(box)
        if whole.code == 0 and verb != "pretrain --config":
            yield verb, whole.touched, answer
