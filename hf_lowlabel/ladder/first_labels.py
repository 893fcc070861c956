"""The labels that rounds begin with, read again by every further call: what has changed in them since is newer than
what the rounds know.

DIR/first_labels.json    what they said when they were read last
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits import Split
from ..errors import UserError
from ..files import COPY, read_bytes, read_json, write_json
from ..selection.gone import folder_of_labels
from ..selection.importing import import_labels
from ..selection.kinds import Kind
from ..selection.labels import Task, write_labels
from ..selection.other_rounds import labels_in, places
from ..selection.server import only_one
from ..tasks.parts import label_rules
from ..text import listed
from .trained import hushed

log = logging.getLogger("hf_lowlabel")
READ = "first_labels.json"


def note_first(
    folder: Path, first: Mapping[str, Any], opened: Callable[[], ImageDataset], data: DataArguments, kind: Kind
) -> None:
    """Note what the labels say that a loop begins with.

    Args:
        folder: of the rounds. first: labels or split of `auto`; neither: the labels of the data. opened, data: the
            images. kind: of the task.

    Raises:
        UserError: they cannot be read.
    """
    write_json(folder / READ, reading(first, None if kind.page == "mask" else opened(), data, kind))


def take_changes(
    folder: Path, first: Mapping[str, Any], opened: Callable[[], ImageDataset], data: DataArguments, kind: Kind
) -> None:
    """Let all rounds know what has changed in these labels since they were read; a warning counts it. As `note_first`.

    Raises:
        UserError: they cannot be read, hold out other images than before, or changed for masks.
    """
    given = next((str(first[name]) for name in ("labels", "split") if first.get(name)), None)
    if not (folder / READ).is_file():  # of a version that did not note it
        if given:
            log.warning(
                "what %s said when the rounds began is not known: changes from before this call are not taken over",
                given,
            )
        note_first(folder, first, opened, data, kind)
        return
    before = read_json(folder / READ)
    if not isinstance(before, dict) or not {"from", "hash", "labels", "held"} <= before.keys():
        raise UserError(f"{folder / READ} does not say what the rounds began with. {COPY}")
    path = where(first)
    same = path == before["from"]
    if not given and before["from"] or same and path and hash_of(first) == before["hash"] is not None:
        return
    if kind.page == "mask":
        if given:
            new = "has changed" if same else "is another"
            raise UserError(
                f"{given} is read before the first round alone, and it {new} since. "
                "Give another --output-dir for rounds that begin with it; the masks are kept beside the images."
            )
        return
    source = opened()
    now = reading(first, source, data, kind)
    if now["held"] != before["held"] and (same or now["held"]):
        raise UserError(
            f"{given} holds out other images for validation or test than when the rounds began, and what is known of "
            "them would not hold any more. Give another --output-dir for rounds that begin with it."
        )
    old, new = before["labels"], now["labels"]
    changed = {id: label for id, label in new.items() if label is not None and old.get(id) != label}
    gone = {id for id in old if id not in new and id in {*source.ids}} if same else set[str]()
    taken = taken_over(folder, changed, gone, {*old})
    write_json(folder / READ, now)
    if taken:
        name = given or f"the data ({source.name})"
        log.warning(
            "%s has changed since it was read, and what it says now holds for the next round: %d labels are others or "
            "new, %d are gone: %s",
            *(name, len(taken - gone), len(taken & gone), listed(sorted(taken), 5)),
        )


def where(first: Mapping[str, Any]) -> str | None:
    """The file or folder that the labels are from; None: the data itself."""
    given = first.get("labels") or first.get("split")
    return str(Path(given).expanduser().resolve()) if given else None


def hash_of(first: Mapping[str, Any]) -> str | None:
    """Of the file of the labels, so that one that is as it was is not read again; of a folder None."""
    path = where(first)
    return hashlib.sha256(read_bytes(path)).hexdigest() if path and Path(path).is_file() else None


def reading(first: Mapping[str, Any], source: ImageDataset | None, data: DataArguments, kind: Kind) -> dict[str, Any]:
    """What the labels say: {"from", "hash", "labels": id -> class, "held": ids held out}. source: None for masks."""
    split: Split | None = None
    if source is not None:
        if first.get("labels"):
            how = dict(new_classes=True, allow_missing=True, rules=label_rules(data), several=kind.several)
            with hushed(), warnings.catch_warnings():  # `auto` says it
                warnings.simplefilter("ignore")
                split, _ = import_labels(folder_of_labels(first["labels"]) or first["labels"], source=source, **how)
        elif first.get("split"):
            split = Split.load(first["split"])
    if split is not None:
        labels, held = {**split.labeled, **split.held_labels}, sorted({*split.validation, *split.test})
    else:  # several classes of the data are not noted in rounds, but read anew
        labels, held = {} if source is None or kind.several else labels_of(source), []
    return {"from": where(first), "hash": hash_of(first), "labels": labels, "held": held}


def labels_of(source: ImageDataset) -> dict[str, str | None]:
    return {id: source.class_names[k] for id, k in zip(source.ids, source.labels, strict=True) if k >= 0}


def taken_over(folder: Path, changed: Mapping[str, str], gone: set[str], before: set[str]) -> set[str]:
    """Write changed labels into the folders to label of all rounds; returns the ids for which that is something new.

    Args:
        changed: id -> its label now. gone: ids that have none any more; what was answered on a page stays. before: ids
            that had one: those of them that no round knows were not drawn, and are not now.
    """
    known, answered, asked = dict[str, str | None](), dict[str, tuple[Path, str]](), dict[str, Path]()
    for place in places(folder):
        there = Task.load(place)
        known |= {**there.labeled, **there.held_labels}
        if place.name == "to_label":
            asked |= dict.fromkeys(there.files.values(), place)
        answered |= {id: (place, label) for id, label in labels_in(place, there).labels.items()}
    changed = {id: v for id, v in changed.items() if id not in before or id in known or id in answered}
    now = {**known, **{id: label for id, (_, label) in answered.items()}}
    taken = {id for id, v in changed.items() if now.get(id) != v} | {
        id for id in gone if id in known and id not in answered
    }
    for place in places(folder):
        with only_one(place):
            told(place, {id: v for id, v in changed.items() if id in taken}, gone & taken)
            own = {id for id in taken & changed.keys() if answered.get(id, (asked.get(id),))[0] == place}
            if own:
                there = Task.load(place)
                found = labels_in(place, there)
                labels = {**found.labels, **{id: changed[id] for id in own}}
                write_labels(place / "labels.csv", there, replace(found, labels=labels, skipped=found.skipped - own))
    return taken


def told(place: Path, changed: Mapping[str, str], gone: set[str]) -> None:
    """Let selection.json of a folder know labels of images that it does not ask for itself."""
    there = Task.load(place)
    held, own = {*there.validation, *there.test}, {*there.files.values()}
    tested = {**there.held_labels, **{id: v for id, v in changed.items() if id in there.held_labels}}
    labeled = {**there.labeled, **{id: v for id, v in changed.items() if id not in held | own}}
    tested = {id: v for id, v in tested.items() if id not in gone}
    labeled = {id: v for id, v in labeled.items() if id not in gone}
    if (tested, labeled) != (there.held_labels, there.labeled):
        replace(there, labeled=labeled, held_labels=tested).save(place)
