"""What the parts of gpu.py share: figures that are kept as they come, a time to stop at, and the line of text of each.

A figure is a dict with "text"; one that compares has both sides and their ratio. It is appended to the file as one line
of JSON at once, so that a part that is cut off has still reported.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from hf_lowlabel.training.stopping import Interrupted

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the recipes


def ratio(
    mine: str, ours: float, against: str, theirs: float, unit: str, value: float | None = None, goal: str = "", **more
) -> dict:
    """The figure of two sides; value: their ratio, where it is not ours / theirs."""
    value = ours / theirs if value is None and theirs else value
    shown = "-" if value is None else f"{value:.3f}"
    text = f"{mine} {ours:.4g} {unit}, {against} {theirs:.4g} {unit}: {shown}" + (f" (goal {goal})" if goal else "")
    return {"text": text, "ours": ours, "theirs": theirs, "unit": unit, "ratio": value, "goal": goal, **more}


class Campaign:
    """The figures of a file, and where and how long to measure more.

    path: the file of JSON lines. dry: everything tiny, to see that it runs. work: folder of run folders. data: folder
    of data sets and weights. only: keys that are measured start with it. minutes: after which nothing new begins, and a
    run that goes on is stopped, saved.
    """

    def __init__(self, path: Path, work: Path, data: Path, dry: bool, minutes: float, only: str = ""):
        self.path, self.work, self.data, self.dry, self.only = path, work, data, dry, only
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes
        self.cuda = torch.cuda.is_available()
        self.device = "cuda" if self.cuda else "cpu"
        self.left: list[str] = []
        rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.done = {row["key"] for row in map(json.loads, rows) if "error" not in row}

    def seconds(self) -> float:
        """That are left."""
        return self.end - time.monotonic()

    def wants(self, key: str) -> bool:
        return key not in self.done and key.startswith(self.only)

    def keep(self, key: str, found: dict) -> None:
        """Write a figure down and print it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:  # a line at a time: several processes may write
            file.write(json.dumps({"key": key, **found}) + "\n")
        print(f"{key}: {found['text']}", flush=True)
        if "error" not in found:
            self.done.add(key)

    def figure(self, key: str, measure: Callable[[], dict]) -> None:
        """Measure and keep, unless it is known; what fails is kept as an error, and measured again next time."""
        if not self.wants(key):
            return
        if self.seconds() <= 0:
            self.left.append(key)
            return
        begin = time.perf_counter()
        try:
            with self.until_the_end():
                found = measure()
        except Interrupted:
            self.left.append(key)
            return
        except Exception as error:
            if self.dry:
                raise
            found = {"text": f"failed: {type(error).__name__}: {error}", "error": traceback.format_exc()[-4000:]}
        self.keep(key, {**found, "seconds": round(time.perf_counter() - begin, 1)})
        if self.cuda:
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def until_the_end(self) -> Iterator[None]:
        """A run that is still going when the time is over saves its checkpoint and raises Interrupted."""

        def over(*_) -> None:
            raise Interrupted(128 + signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, over), signal.signal(signal.SIGALRM, lambda *_: terminate())
        signal.setitimer(signal.ITIMER_REAL, max(self.seconds(), 1))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGTERM, before[0]), signal.signal(signal.SIGALRM, before[1])

    def launch(self, name: str, *flags) -> None:
        """A recipe or benchmark, as its command line has it."""
        module = importlib.import_module(name)
        with mock.patch("sys.argv", [f"{name}.py", *map(str, flags)]):
            module.main()


def terminate() -> None:
    """To this process: the training loop saves at the end of its step."""
    signal.raise_signal(signal.SIGTERM)
