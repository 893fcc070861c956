"""The tasks of this library, one object each: everything in which they differ stands in their files."""

from __future__ import annotations

import copy
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, unknown
from ..records import RunRecord

if TYPE_CHECKING:
    from .base import Task

TASKS = {
    "classification": "classification:Classification",
    "multilabel": "multilabel:MultiLabel",
    "segmentation": "segmentation:Segmentation",
}
LABELING = {"classification": "class", "multilabel": "classes", "segmentation": "mask"}  # how a person answers
EMBEDDED = {"classification": "digits", "multilabel": "scenes", "segmentation": "shapes"}  # a data set of each


def check_task(name: str) -> None:
    """UserError for a name of no task, with the nearest."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)


@functools.cache
def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none; the nearest names are offered.
    """
    check_task(name)
    module, cls = TASKS[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), cls)()


def with_threshold(task: Task, threshold: float | None) -> Task:
    """A task whose classes count as predicted above this probability; None: above its own.

    Raises:
        UserError: it is no probability, or an image has one class by this task.
    """
    if threshold is None:
        return task
    if task.threshold is None:
        raise UserError(f"A threshold is for multi-label models; this is a {task.product}. Leave out --threshold.")
    if not 0 <= threshold < 1:
        raise UserError(f"A threshold of {threshold} is not in 0 <= threshold < 1.")
    changed = copy.copy(task)
    changed.threshold = threshold
    return changed


def of_record(kind: str):
    """What speaks for a run with this `RunRecord.kind`: its task, or for a run of pretrain `Backbone`."""
    from .backbone import Backbone

    return Backbone() if kind == Backbone.name else get_task(kind)


def read_record(folder: str | Path) -> RunRecord:
    """The run.json of a finished run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    record = RunRecord.from_json(Path(folder, "run.json"))
    for metrics in (record.metrics, *(row.metrics for row in record.comparisons)):
        of_record(record.kind).check(metrics, f"{folder}/run.json")
    return record


def of_model(config: dict) -> Task:
    """The task of a saved model, by its config.json.

    Raises:
        UserError: none of the tasks knows such a model.
    """
    for name in TASKS:
        if get_task(name).owns(config):
            return get_task(name)
    raise UserError(
        f"A model of type {config.get('model_type') or 'unknown'!r} gives no answers here. Give one that `finetune` "
        "left, or a classifier of timm; an encoder becomes one by `hf-lowlabel finetune --model` and a few labels."
    )
