"""From finished labels to a manifest: labels.csv, a Label Studio export, or the folder that `select` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..commands import UNKNOWN, command
from ..data.dataset import ImageDataset
from ..data.labels.labels import RULES, LabelRules, class_order, parts_of
from ..data.splits.drawing import make_split
from ..data.splits.splits import Split, manifest, warn_without_label
from ..errors import UserError
from ..text import series
from .answer_kinds import kind_of
from .label_rows import LabelFaults
from .label_studio import is_export, read_label_studio
from .labels import Asked, Labels, read_labels
from .missing_photos import folder_of_labels, of_there
from .other_rounds import after_reviews, refuse_unfinished, taken_off


def import_labels(
    path: str | Path,
    *,
    source: ImageDataset | None = None,
    base: Split | None = None,
    new_classes: bool = False,
    allow_missing: bool = False,
    rules: LabelRules = RULES,
    several: bool = False,
) -> tuple[Split, Labels]:
    """A split from filled-in labels: labels.csv, a Label Studio export, or the folder `select` wrote.

    The images held out and labeled before this round stay so.

    Args:
        path: the file or folder, also one of a whole loop.
        source: the data set; without a selection.json beside the file, it says what the rows name.
        base: manifest whose labels and held-out images stay (None: that given to `select`).
        new_classes: labels may be classes that are not known yet.
        allow_missing: images without a row stay unlabeled.
        rules: what means no label, and whether rows without an image and contradictions are left out.
        several: an image may have several classes; a selection.json beside the file says that itself.

    Returns:
        The split, and what was read.

    Raises:
        UserError: lists every fault, before anything is written.
    """
    path = folder_of_labels(path) or Path(path)  # of a folder of rounds the last one that has a label
    path = path / "labels.csv" if path.is_dir() else path
    folder = path.parent
    task, classes, several = asked_of(path, source, several)
    chosen = (folder / "selection.json").is_file()
    how = dict(new_classes=new_classes, allow_missing=allow_missing or not chosen)
    found = read(path, task, classes, rules, several=several, **how)
    if chosen:
        task, found = after_reviews(folder, task, found)
    if source is not None and chosen:
        task, found = of_there(task, found, source, folder)
    before = base.labeled if base is not None else task.labeled
    own, off = by_part(found, path, before), taken_off(task, found)
    apart = {**own["validation"], **own["test"]}
    labeled = {**{id: label for id, label in before.items() if id not in {*off, *apart}}, **own["train"]}
    used = {
        part
        for label in (*labeled.values(), *apart.values())
        if label
        for part in (parts_of(label) if several else [label])
    }
    if new_classes and classes and used.isdisjoint(classes):  # folders by day or by slide are no classes
        found.notes.append(no_classes(classes, class_order(used), task.dataset, path.name))
        classes = []
    more = [name for name in found.classes if name not in classes] if new_classes or not classes else []
    names = [*classes, *more, *class_order(used - {*classes, *more})]
    if source is not None and base is None and classes and not task.labeled:
        note_unused(found, source, path.name)
    of = base if base is not None else task
    held: dict[str, Any] = dict(
        validation=list(dict.fromkeys([*of.validation, *own["validation"]])),
        test=list(dict.fromkeys([*of.test, *own["test"]])),
        held_labels={**of.held_labels, **apart},
        class_names=names,
        passed_over=[id for id in dict.fromkeys([*of.passed_over, *task.passed_over]) if id not in labeled],
        reviewed=[id for id in dict.fromkeys([*of.reviewed, *task.reviewed]) if id in labeled],
    )
    if source is not None:
        split = manifest(source, labeled, seed=task.seed, **held)
    else:
        split = Split(
            dataset=task.dataset,
            config=task.config,
            revision=task.revision,
            fingerprint=task.fingerprint,
            seed=task.seed,
            labeled=labeled,
            **held,
        )
        warn_without_label(split)
    return split, found


def asked_of(path: Path, source: ImageDataset | None, several: bool) -> tuple[Asked, list[str], bool]:
    """(what a person was asked, the classes, whether an image may have several): by the selection.json beside a file,
    else by the data.

    Raises:
        UserError: neither is there, or masks were asked for.
    """
    folder = path.parent
    if (folder / "selection.json").is_file():
        task = Asked.load(folder)
        refuse_unfinished(folder)
        if kind_of(task.task).page == "mask":
            raise UserError(
                f"{str(folder)!r} is for masks, which go beside the images first: "
                f"`{command('split', task=task.task, **{'from': folder}, dataset=UNKNOWN)}`."
            )
        return task, task.classes(folder), kind_of(task.task).several
    if source is not None:
        return Asked.of(source, files={id: id for id in source.ids}), list(source.class_names), several
    raise UserError(
        f"There is no selection.json beside {str(path)!r}. Keep the file in the folder that `hf-lowlabel select` "
        "wrote, or name the data with --dataset."
    )


def read(path: Path, task: Asked, classes: list[str], rules: LabelRules, *, several: bool, **how: bool) -> Labels:
    """The labels in a file; how: new_classes and allow_missing.

    Raises:
        UserError: lists every fault; or no image has got or lost a label.
    """
    try:
        if is_export(path):
            skips = dict(skip_missing=rules.skip_missing, skip_conflicts=rules.skip_conflicts)
            found = read_label_studio(path, task, classes=classes, **how, **skips, several=several)
        else:
            rules = replace(rules.knowing(classes), several=several)
            found = read_labels(path, task, classes=classes, **how, rules=rules)
    except LabelFaults as error:
        raise error.with_ways() from None
    if not found.labels and found.left_out and not taken_off(task, found):
        raise UserError(
            f"No row of {path.name} is of an image of {task.dataset!r}: {len(found.left_out)} were left out, such as "
            f"{found.left_out[0][0]!r} ({found.left_out[0][1]}). Give the labels of these images."
        )
    if not found.labels and not taken_off(task, found):
        raise UserError(f"There is no label in {str(path)!r}. Fill in the column label, or run `hf-lowlabel label`.")
    return found


def no_classes(folders: list[str], used: list[str], dataset: str, file: str) -> str:
    """The note on folders of the data whose names no label has."""
    count, rest = len(folders), ", ..." if len(folders) > 10 else ""
    return (
        f"{series(folders[:10])}{rest} in {dataset!r} {'is no class' if count == 1 else 'are no classes'} of "
        f"{file} ({series(used[:10])}): its labels alone count"
    )


def note_unused(found: Labels, source: ImageDataset, file: str) -> None:
    """A note on images that have a label in the data and none in the file."""
    there = (id for id, has in zip(source.ids, source.has_target, strict=True) if has)
    others = [id for id in there if id not in found.labels]
    if others:
        found.notes.append(
            f"{len(others)} images have a label in the data and none in {file}, such as {others[0]}: they "
            "count as unlabeled. Without the file, or in the folder that it was made in, their labels are used"
        )


def by_part(found: Labels, path: Path, known: Mapping[str, Any] | None = None) -> dict[str, dict[str, str]]:
    """The labels of each split, by the column that says which image is of which; without one all are for training.
    known: further labels to train with.

    Raises:
        UserError: none is for training.
    """
    own: dict[str, dict[str, str]] = {"train": {}, "validation": {}, "test": {}, "unlabeled": {}}
    for id, label in found.labels.items():
        own[found.parts.get(id, "train")][id] = label
    if not found.parts or {*found.parts.values()} == {"train"}:
        return own
    said = " and ".join(f"{len(own[part])} of split {part!r}" for part in ("train", "validation", "test") if own[part])
    if not own["train"] and not known:
        raise UserError(f"{path.name} has labels of {said or 'no split'}, and none to train with. Label others too.")
    found.notes.append(f"a column of {path.name} says which images are for what: {said}")
    bare = [id for id, part in found.parts.items() if part in ("validation", "test") and id not in found.labels]
    if bare:
        found.notes.append(
            f"{len(bare)} images of split 'validation' or 'test' have no label, such as {bare[0]}: nothing is tested "
            "on them, and they count as unlabeled"
        )
    if gone := own["unlabeled"]:
        found.notes.append(f"{len(gone)} labels of split 'unlabeled' are not used, such as that of {next(iter(gone))}")
    return own


def drawn_from(
    split: Split, source: ImageDataset, num_labels: int | None = None, *, several: bool = False, **draw
) -> Split:
    """Some of the labels of `split`, and a test or validation set of them, as `make_split` draws those of a data set.

    Args:
        split: what `import_labels` returns.
        source: the data set.
        num_labels: labels to keep; None: all that are not held out.
        several: whether an image may have several classes.
        draw: seed, class_balanced, validation and test_fraction of `make_split`.

    Raises:
        UserError: images are held out already, or the labels cannot meet the budget.
    """
    if (split.test or split.validation) and (draw.get("test_fraction") or draw.get("validation")):
        raise UserError(
            f"{len(split.test)} test and {len(split.validation)} validation images are held out already. Leave out "
            "what holds out others (--test-fraction, --validation)."
        )
    index, given = {name: k for k, name in enumerate(split.class_names)}, split.labeled
    if several:
        known = split.answered(source, several=True)
        labels = np.where(np.array([id in given for id in source.ids])[:, None], known.labels, np.int8(-1))
    else:
        labels = np.array([index.get(given.get(id), -1) for id in source.ids], dtype=np.int64)
    table = replace(source, labels=labels, class_names=split.class_names)
    drawn = make_split(table, num_labels, **draw)
    held = {id: name for id in (*drawn.validation, *drawn.test) if (name := given[id]) is not None}
    made = replace(
        drawn,
        labeled={id: given[id] for id in drawn.labeled},
        validation=drawn.validation or split.validation,
        test=drawn.test or split.test,
        held_labels={**split.held_labels, **held},
        passed_over=split.passed_over,
        reviewed=split.reviewed,
    )
    if several:
        warn_without_label(made, None if num_labels is None else table)
    return made
