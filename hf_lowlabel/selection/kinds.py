"""What differs between choosing images to classify and to paint: how the data set is opened, and what is written."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..arguments import DataArguments
from ..data.dataset import ImageDataset, load_source
from ..data.segmentation import load_segmentation
from ..data.splits import Split
from ..errors import unknown
from .labels import Labels, Task, write_labels, write_text

CONTROL = "class"  # name of the choice in our labeling interface, which is the key of its value in JSON-MIN


@dataclass(frozen=True)
class Kind:
    """open: (data, classes) -> the images, with labels where there are any. covers: a budget has to reach every class.
    interface: class names -> body of Label Studio's interface. write: the files to answer in. next_step: HTML.
    """

    open: Callable[[DataArguments, object], ImageDataset]
    covers: bool
    interface: Callable[[list[str]], str]
    write: Callable[[Path, Task], None]
    next_step: str


def kind_of(task: str) -> Kind:
    """The kind of a task, "classification" or "segmentation"; UserError for another."""
    if task not in KINDS:
        raise unknown("task", task, KINDS)
    return KINDS[task]


def _open_classes(data: DataArguments, classes) -> ImageDataset:
    return load_source(**data.where())


def _open_masks(data: DataArguments, classes) -> ImageDataset:
    where = data.where()
    where.pop("label_column")
    source = load_segmentation(classes=classes, **where)
    return replace(source.images(), class_names=source.class_names)


def _choices(class_names: list[str]) -> str:
    inside = "".join(f'\n    <Choice value="{html.escape(name, True)}"/>' for name in class_names)
    return f'<Choices name="{CONTROL}" toName="image" choice="single" showInline="true">{inside}\n  </Choices>'


def _brushes(class_names: list[str]) -> str:
    inside = "".join(f'\n    <Label value="{html.escape(name, True)}"/>' for name in class_names)
    return f'<BrushLabels name="mask" toName="image">{inside}\n  </BrushLabels>'


def _write_classes(folder: Path, task: Task) -> None:
    if task.class_names:
        write_text(folder / "classes.txt", "\n".join(task.class_names) + "\n")
    write_labels(folder / "labels.csv", task, Labels())


def _write_masks(folder: Path, task: Task) -> None:
    Split(
        dataset=task.dataset,
        config=task.config,
        revision=task.revision,
        seed=task.seed,
        class_names=task.class_names,
        labeled={**task.labeled, **dict.fromkeys(task.files.values())},
        validation=task.validation,
        test=task.test,
    ).save(folder / "split.json")


KINDS = {
    "classification": Kind(
        open=_open_classes,
        covers=True,
        interface=_choices,
        write=_write_classes,
        next_step="label them with <code>hf-lowlabel label</code>, in labels.csv or in Label Studio; then "
        "<code>hf-lowlabel split --from</code> this folder",
    ),
    "segmentation": Kind(
        open=_open_masks,
        covers=False,
        interface=_brushes,
        write=_write_masks,
        next_step="paint their masks in Label Studio, put them beside the images of the data set, and train with "
        "split.json",
    ),
}
