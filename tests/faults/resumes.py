"""Every method that trains, killed at a write and resumed: the end is that of a run that was never stopped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from hf_lowlabel.methods import find

from ..training.conftest import NARROW, RUNS
from .injector import KILL, Fault
from .sandbox import NET, SEGMENT, clear, content, run
from .sweeps import Case

DATA = {
    "classification": "--dataset photos --split split.json",
    "multilabel": "--task multilabel --dataset tagged --num-labels 8",
    "segmentation": SEGMENT.replace(NET, ""),
}
SAME = (".safetensors", "config.json", "metrics.json")


def resumes(box: Path, runs: list[tuple[str, str, str]] = RUNS, most: int = 1, seed: int = 0) -> Iterator[Case]:
    """`most` kills of each (verb, task, method), at a write after the first checkpoint is begun, then --resume."""
    for verb, task, method in runs:
        command, rng = command_of(verb, task, method), random.Random(f"{verb} {task} {method} {seed}")
        whole = run(box, command, seconds=120)
        expected = results(box)
        clear(box)
        if whole.code:
            yield Case("resume", f"{verb} {task} {method}", whole.text[-300:])
        for _ in range(0 if whole.code else most):
            at = rng.randint(whole.touched // 8, whole.touched - 1)
            killed = run(box, command, Fault(at, KILL), seconds=120)
            done = run(box, [*command.split(), "--resume"], seconds=120)
            found = results(box)
            differ = sorted(name for name in expected if found.get(name) != expected[name])
            wrong = killed.verdict or done.verdict or (done.text[-300:] if done.code else "")
            wrong = wrong or (f"not bit for bit the same: {differ[:4]}" if differ or not expected else "")
            yield Case("resume", f"{verb} {task} {method} at write {at} of {whole.touched}", wrong)
            clear(box)


def command_of(verb: str, task: str, method: str) -> str:
    given = (
        DATA[task]
        if verb == "finetune"
        else f"--task {task} --dataset {'masked' if task == 'segmentation' else 'photos'}"
    )
    more = f" --method-args {' '.join(f'{k}={v}' for k, v in NARROW[method].items())}" if method in NARROW else ""
    if find(method).prior == "must":
        more += " --prior knn/priors.safetensors"
    ratio = " --unlabeled-ratio 2" if verb == "finetune" else ""
    return f"{verb} {given} {NET}{ratio} --method {method}{more} --output-dir out"


def results(box: Path) -> dict[str, bytes]:
    """The saved network and all tensors of the last checkpoint: optimizer, teacher, queues and tables."""
    return (
        {name: data for name, data in content(box / "out").items() if name.endswith(SAME)}
        if (box / "out").exists()
        else {}
    )
