"""`hf-lowlabel demo`: the whole chain on an embedded data set, a few of its images labeled, every stage on one test
set."""

from __future__ import annotations

import time
from inspect import signature
from pathlib import Path
from typing import Any

from .api import finetune, pretrain
from .arguments import DataArguments
from .data.dataset import ImageDataset
from .data.splits.splits import Split
from .demo_stages import Demo, Stage
from .errors import UserError
from .files import write_json
from .ladder.auto import auto
from .tasks import get_task
from .tasks.base import Task
from .training.preparing import Run


def demo(
    task: str = "classification", output_dir: str | None = None, num_labels: int | None = None, seed: int = 0
) -> dict[str, Run]:
    """Run the chain of a task's demonstration.

    Args:
        output_dir: an empty or new folder; None: demo-DATA. The finished model lies in its folder `model`.
        num_labels: labels (masks) to keep; None: the demonstration's own number.
        seed: decides labels, weights and views.

    Returns:
        The runs by name.

    Raises:
        UserError: the folder is not empty, or the task has no demonstration.
    """
    kind = get_task(task)
    if kind.demo is None:
        raise UserError(f"There is no demonstration of {task}. Leave out --task.")
    folder = empty_folder(output_dir or f"demo-{kind.demo.dataset}")
    begin = time.perf_counter()
    split = draw(kind, kind.demo, kind.demo.num_labels if num_labels is None else num_labels, seed)
    split.save(folder / "split.json")
    print(
        f"{len(split.labeled)} images with {kind.label_words} among {split_size(kind)}, {len(split.test)} test images "
        "held out"
    )
    runs: dict[str, Run] = {}
    for n, stage in enumerate(kind.demo.stages, 1):
        print(f"{n}/{len(kind.demo.stages)} {stage.title}", flush=True)
        runs[stage.name] = run_stage(kind.demo, stage, folder, runs, seed)
    tell(kind, runs, folder, time.perf_counter() - begin)
    return runs


def empty_folder(output_dir: str) -> Path:
    folder = Path(output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{output_dir} is not empty. Give another --output-dir, so that nothing is lost.")
    return folder


def open_demo(task: Task) -> ImageDataset:
    return task.open(DataArguments(dataset=task.demo.dataset))


def split_size(task: Task) -> int:
    return len(open_demo(task))


def draw(task: Task, what: Demo, num_labels: int, seed: int) -> Split:
    given = dict(class_balanced=False, validation=0, test_fraction=0.0) | dict(what.draw)
    return task.draw_split(open_demo(task), num_labels, seed=seed, **given)


def run_stage(what: Demo, stage: Stage, folder: Path, runs: dict[str, Run], seed: int) -> Run:
    """One stage in folder/NAME, from the weights that it asks for."""
    manifest = str(folder / "split.json")
    settings: dict[str, Any] = {**what.shared, **stage.settings, "seed": seed, "split": manifest}
    settings["output_dir"] = str(folder / stage.name)
    if stage.start is None:
        settings["from_scratch"] = True
    else:
        settings["model"] = str(runs[stage.start].folder)
    if stage.verb == "auto":
        return auto(**{name: value for name, value in settings.items() if name in signature(auto).parameters}).run
    if stage.verb == "pretrain":
        return pretrain(**settings)
    if "supervised" in runs:
        settings["compare_supervised"] = str(folder / "supervised")
    return finetune(**settings)


def tell(task: Task, runs: dict[str, Run], folder: Path, seconds: float) -> None:
    """A table of all stages that have results, on the console and as results.json."""
    score, stages = task.score, {stage.name: stage for stage in task.demo.stages}
    results: dict[str, float] = {}
    for name, run in runs.items():
        if stages[name].verb == "auto":  # what it chose from
            results |= {row.name: row.metrics[score.key] for row in run.recorder.comparisons}
        if score.key in run.metrics:
            results[stages[name].title] = run.metrics[score.key]
    write_json(folder / "results.json", {**results, "seconds": round(seconds, 1)})
    width = max(map(len, results))
    print(f"\n{score.title} on the test images")
    for title, value in results.items():
        print(f"  {title:{width}}  {score.show(value)}")
    print(f"({seconds:.0f} s; model, card and pictures: {folder / 'model'})")
