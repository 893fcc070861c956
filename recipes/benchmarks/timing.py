"""What the benchmarks of steps share: the clock, a training run with its bare passes between the steps, and the report.

On a CPU the clock counts the seconds of the processor, which a busy neighbour does not add to; on a GPU those of the
wall, after the device has finished.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from hf_lowlabel.records import collect_hardware, collect_versions
from hf_lowlabel.training import loop as loops
from hf_lowlabel.training.batches import ViewStream

WARM = 3  # steps that are not counted


def clock() -> float:
    """Seconds."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(train: Callable[[], object], bare: Callable[[loops.Loop, dict], None]) -> dict:
    """Seconds of the steps of a run of `train`, views included, and of `bare(loop, batch)` before each of them.

    The two alternate, and the ratio is the median of their ratios. Views made for many steps in one call count for each
    of them with its share of the call. parts_s: where the steps' time goes, in the order of the step; on a GPU, where
    parts overlap, only the whole is taken. "update" is the optimizer and `after_step`.
    """
    parts: dict[str, list[float]] = defaultdict(list)
    made: dict[str, list[float]] = defaultdict(list)  # stream -> seconds for a step's views, one per call
    original = loops.Loop.__init__, loops.Loop.train_step, torch.Tensor.backward, loops.finite, ViewStream.render
    rendering = [0.0]  # seconds within the present call for a batch

    def timed(part: str, function: Callable):
        def call(*args, **kwargs):
            begin = clock()
            out = function(*args, **kwargs)
            parts[part].append(clock() - begin)
            return out

        return call if not torch.cuda.is_available() else function

    def init(self, objective, batches, *args, **kwargs):
        def measured(start):
            iterator = batches(start)
            while True:
                begin, rendering[0] = clock(), 0.0
                batch = next(iterator)
                parts["views"].append(clock() - begin - rendering[0])
                yield batch

        original[0](self, objective, measured, *args, **kwargs)
        self.objective.forward = timed("forward", self.objective.forward)
        self.guard.before_forward = timed("guard", self.guard.before_forward)
        self.optimizer.step = timed("optimizer", self.optimizer.step)
        self.inner.after_step = timed("after_step", self.inner.after_step)

    def render(self, chunk, images):
        begin = clock()
        out = original[4](self, chunk, images)
        seconds = clock() - begin
        rendering[0] += seconds
        made[self.name].append(seconds / self.chunk)
        return out

    def train_step(self, batch):
        begin = clock()
        bare(self, batch)
        middle = clock()
        loops.finite, torch.Tensor.backward = timed("finite", original[3]), timed("backward", original[2])
        out = original[1](self, batch)
        loops.finite, torch.Tensor.backward = original[3], original[2]
        parts["bare"].append(middle - begin)
        parts["step"].append(clock() - middle)
        return out

    loops.Loop.__init__, loops.Loop.train_step, ViewStream.render = init, train_step, render
    try:
        train()
    finally:
        loops.Loop.__init__, loops.Loop.train_step, torch.Tensor.backward, loops.finite, ViewStream.render = original
    counted = {name: values[WARM:] for name, values in parts.items()}
    views = sum(statistics.median(calls[1:] or calls) for calls in made.values())  # the first call prepares as well
    counted["views"] = [seconds + views for seconds in counted["views"]]
    counted["step"] = [s + v for s, v in zip(counted["step"], counted["views"], strict=False)]
    steps, passes = counted.pop("step"), counted.pop("bare")
    out = {
        "end_to_end_s": statistics.median(steps),
        "bare_s": statistics.median(passes),
        "ratio": statistics.median(s / b for s, b in zip(steps, passes, strict=True)),
    }
    if torch.cuda.is_available():
        return out
    return out | {"parts_s": {name: statistics.median(values) for name, values in counted.items()}}


def report(args, figures: dict) -> None:
    """Print the figures with the command, the machine and the versions, and write them to `args.output`."""
    command = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    machine = {"hardware": collect_hardware(), "versions": collect_versions()}
    text = json.dumps({"command": command, **figures, **machine}, indent=1)
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")
