"""Answers in a folder of images to label, and their form for `auto`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import DataArguments
from ..commands import DONE
from ..data.dataset import ImageDataset
from ..data.files.folders import is_table
from ..data.files.table_files import stem
from ..data.masks.mask_folders import find_files, layout
from ..data.splits.splits import Split
from ..errors import UserError
from ..labeling.answer_kinds import Kind
from ..labeling.labels import Asked
from ..labeling.mask_import import import_masks
from ..labeling.mask_places import find_places, why_not_painted
from ..labeling.next_steps import why_not_mixed
from ..labeling.other_rounds import labels_in, places
from ..tasks.base import Task
from ..tasks.data_classes import as_path, of_images_alone
from ..text import in_memory, listed
from .first_labels import masks_at_first

log = logging.getLogger("hf_lowlabel")
LABELED = "labeled.json"  # manifest of all labels so far, in the folder of the rounds


def unanswered(place: Path, kind: Kind) -> int:
    """How many images of a folder wait for an answer."""
    asked = Asked.load(place)
    if kind.page == "mask":
        painted = find_places(place, selected=True)
        return sum(file not in painted or not painted[file].mask.is_file() for file in asked.files)
    found = labels_in(place, asked)
    return len(set(asked.files.values()) - set(found.labels) - found.skipped)


def check_unanswered(place: Path, kind: Kind) -> None:
    """UserError for answers in a round that is not whole (its page was removed, say), and would be done again."""
    if (place / "selection.json").is_file() and unanswered(place, kind) < len(Asked.load(place).files):
        raise UserError(
            f"The round in {place.parent} is not whole, and there are answers in {place}, which `hf-lowlabel auto "
            f"--labels` reads. Move that folder elsewhere, and start again."
        )


def check_in_order(folder: Path, done: int) -> None:
    """UserError where a round is missing, and later ones are there, which would count as what follows a new one."""
    numbers = [int(name) for path in folder.glob("round-*") if (name := path.name.removeprefix("round-")).isdigit()]
    later = [n for n in sorted(numbers) if n > done + 1 and (folder / f"round-{n}" / DONE).is_file()]
    if later:
        raise UserError(
            f"round-{done + 1} in {folder} is missing or not whole, and round-{later[0]} is there, which learned after "
            f"it. Put round-{done + 1} back, or move round-{later[0]} and all after it elsewhere."
        )


def taken(place: Path, dataset: Any, folder: Path) -> dict[str, Any]:
    """Settings of `auto` that name all masks so far, which are put beside the images of the data set; those that were
    painted there since the rounds began count too.

    Args:
        place: the folder to label. dataset: the images. folder: of the rounds.
    """
    passed = masks_at_first(folder)
    if passed is not None and (first := folder / "round-1" / "split.json").is_file():
        passed -= {*Split.load(first).labeled}  # one that is removed may be painted anew
    split, classes = import_masks(place, dataset, allow_missing=True, rounds=folder, passed=passed)
    split.save(folder / LABELED)
    return dict(split=folder / LABELED, classes=[str(classes)])


def check_paintable(task: Task, dataset: Any, data: Mapping[str, Any]) -> None:
    """UserError for images that no painted mask can be put beside."""
    if not (isinstance(dataset, (str, Path)) and Path(dataset).expanduser().is_dir()):
        given = repr(str(dataset)) if isinstance(dataset, (str, Path)) else in_memory(dataset)
        raise UserError(f"Masks are put beside the images, so that {task.name} needs a folder of images, not {given}.")
    if why := why_not_mixed(data):
        raise UserError(why)
    find_places(Path(dataset).expanduser(), str(data.get("dataset_split") or "train"))


def without_photos(folder: Path, dataset: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of data by which masks are passed over whose photos are gone, where all such masks are of the rounds.

    Args:
        folder: of the rounds. dataset: the images. data: further settings of the data.
    """
    path = Path(dataset).expanduser()
    if data.get("skip_missing") or layout(path) is None:
        return {}
    strange = find_files(path, str(data.get("dataset_split") or "train")).strange
    asked = [Asked.load(place) for place in places(folder, ("to_label",))]
    known = {stem(id) for task in asked for id in (*task.files.values(), *task.labeled)}
    if not strange or not {stem(mask).removesuffix("_mask") for mask in strange} <= known:
        return {}
    log.warning("the photos of %d masks are gone, which are left out: %s", len(strange), listed(strange, 5))
    return dict(skip_missing=True)


def masks_beside(dataset: Any, split: str | None = None) -> list[str]:
    """Images of a folder that have a mask."""
    places = find_places(Path(dataset).expanduser(), split or "train")
    return [id for id, place in places.items() if place.mask.is_file()]


def tell_folders(dataset: ImageDataset) -> None:
    """Say which classes were read off folders, which nobody may have meant: before hours are spent on them."""
    if dataset.labels.ndim > 1:
        return
    at = np.flatnonzero(dataset.labels >= 0)
    names = [dataset.class_names[label] for label in dataset.labels[at]]
    if all(name in dataset.ids[i].split("/")[:-1] for i, name in zip(at, names, strict=True)):
        each = [f"{name} ({count:,})" for name, count in Counter(names).items()]
        log.info("labels from %d folders: %s", len(each), listed(each, 10))


def tell_budget(budget: int | None, first: Mapping[str, Any], task: Task, data: DataArguments) -> None:
    """A warning where images have labels, so that none are chosen to be labeled first. first: labels or split, where
    they are given."""
    if budget is None:
        return
    if (
        first.get("labels")
        or first.get("split")
        or bool(task.open_to_select(data, data.classes or None).has_target.any())
    ):
        log.warning("--budget %d is of no use: it is for images of which none has a label, and some have one", budget)


def without_masks(task: Task, data: DataArguments) -> ImageDataset | None:
    """The images of a folder that masks can be painted for and has none yet, nor any that fits no image; None: other
    data."""
    path, split = as_path(data.dataset), str(data.dataset_split or "train")
    if path is None or not path.is_dir() or is_table(path) or why_not_painted(path, split):
        return None
    if layout(path) is None:
        return task.open_to_select(data) if of_images_alone(path) else None
    found = find_files(path, split)
    return None if found.masks or found.strange else task.open_to_select(data)
