"""Kinds of answers on the pages: one class, all that apply, or a mask; and the files written for each."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.pixels.mask_colors import lines_of
from ..data.splits.splits import Split
from ..tasks import LABELING, check_task
from .labels import Asked, Labels, write_labels, write_text

CONTROL = "class"  # name of the choice in our labeling interface, which is the key of its value in JSON-MIN


@dataclass(frozen=True)
class Kind:
    """covers: a budget has to reach every class. several: an answer is all classes of an image, as a;b. page: which of
    our own pages labels it. interface: class names -> body of Label Studio's interface. write: the files to answer in.
    next_step: HTML.
    """

    covers: bool
    several: bool
    page: str
    interface: Callable[[list[str]], str]
    write: Callable[[Path, Asked], None]
    next_step: str


def kind_of(task: str) -> Kind:
    """How the images of a task are answered. Raises UserError for a task there is none of."""
    check_task(task)
    return KINDS[LABELING[task]]


def xml(name: str) -> str:
    """An attribute of XML, which has no word for control characters, halves of others, and two numbers of none."""
    none = [c for c in name if unicodedata.category(c) in ("Cc", "Cs") or c in "\ufffe\uffff"]
    return html.escape(name.translate(dict.fromkeys(map(ord, none), "\ufffd")), True)


def _choices(choice: str) -> Callable[[list[str]], str]:
    """choice: "single" or "multiple", as Label Studio calls it."""

    def interface(class_names: list[str]) -> str:
        inside = "".join(f'\n    <Choice value="{xml(name)}"/>' for name in class_names)
        return f'<Choices name="{CONTROL}" toName="image" choice="{choice}" showInline="true">{inside}\n  </Choices>'

    return interface


def _brushes(class_names: list[str]) -> str:
    inside = "".join(f'\n    <Label value="{xml(name)}"/>' for name in class_names)
    return f'<BrushLabels name="mask" toName="image">{inside}\n  </BrushLabels>'


def _write_classes(folder: Path, task: Asked) -> None:
    if task.class_names:
        write_text(folder / "classes.txt", "\n".join(task.class_names) + "\n")
    write_labels(folder / "labels.csv", task, Labels())


def _write_masks(folder: Path, task: Asked) -> None:
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
    if task.class_colors:
        write_text(folder / "classes.txt", lines_of(task.class_names, task.class_colors))


KINDS = {
    "class": Kind(
        covers=True,
        several=False,
        page="class",
        interface=_choices("single"),
        write=_write_classes,
        next_step="label them with <code>hf-lowlabel label</code>, in labels.csv or in Label Studio; then "
        "<code>hf-lowlabel auto --labels</code> this folder, or <code>hf-lowlabel split --from</code> it to train a "
        "network of your own choice",
    ),
    "classes": Kind(
        covers=False,
        several=True,
        page="class",
        interface=_choices("multiple"),
        write=_write_classes,
        next_step="label them with <code>hf-lowlabel label</code>, in labels.csv as <code>a;b</code> or "
        "<code>none</code>, or in Label Studio; then <code>hf-lowlabel auto --task multilabel --labels</code> this "
        "folder",
    ),
    "mask": Kind(
        covers=False,
        several=False,
        page="mask",
        interface=_brushes,
        write=_write_masks,
        next_step="paint their masks with <code>hf-lowlabel label</code> (or in Label Studio, into masks/); then "
        "<code>hf-lowlabel split --task segmentation --from</code> this folder <code>--dataset</code> the images puts "
        "them beside the images",
    ),
}
