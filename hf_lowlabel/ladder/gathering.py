"""The labels of all rounds of a loop, of the photos that are there now; and whether a folder that moved holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.labels.labels import class_order, parts_of
from ..data.splits.splits import Split, manifest
from ..errors import UserError
from ..files import read_json, write_json
from ..labeling.answer_kinds import kind_of
from ..labeling.importing import by_part
from ..labeling.labels import Asked, write_labels
from ..labeling.missing_photos import folder_of_labels, of_there
from ..labeling.other_rounds import GONE, INTENT, NOTE, after_reviews, beside, labels_in, places, refresh
from ..labeling.page import Session
from ..labeling.same_images import compared
from ..labeling.server import only_one
from ..records import RunRecord
from ..text import listed
from ..training.folder import IGNORED

log = logging.getLogger("hf_lowlabel")
PARTS = ("dataset_split", "dataset_config", "dataset_revision")  # of data, that loop.json says beside their name
LOOKED_AT = 20  # photos by which a folder that moved is told from another one


def brought_up(folder: Path, task: str) -> None:
    """Finish a renaming that was killed, and let the last round know the labels that the others have now.

    Raises:
        UserError: another process is renaming a class, or labels one of the folders.
    """
    if kind_of(task).page == "mask":
        return
    for place in places(folder):
        if (place / INTENT).is_file():
            Session(place)
    for place in places(folder, ("to_label",))[-1:]:
        refresh(place)


def gathered(place: Path, source: ImageDataset, several: bool) -> Split:
    """All labels that a folder to label knows of and holds, of the images that are there; a warning names the others.

    A class that no label has is left out, unless it is one of the data.

    Raises:
        UserError: there is no label in it, or most of its images are not in the data.
    """
    asked = Asked.load(place)
    asked, found = after_reviews(place, asked, labels_in(place, asked))
    if not found.labels and not (asked.labeled and (found.skipped or learned_since(place, asked, source))):
        raise UserError(
            f"There is no label in {str(place / 'labels.csv')!r}. Fill in the column label, or run `hf-lowlabel label`."
        )
    asked, found = of_there(asked, found, source, place)
    own = by_part(found, place / "labels.csv", asked.labeled)
    for note in found.notes:
        log.warning("%s", note)
    apart = {"validation": own["validation"], "test": own["test"]}
    held_labels = {**asked.held_labels, **apart["validation"], **apart["test"]}
    held = {*asked.validation, *asked.test, *apart["validation"], *apart["test"]}
    labeled = {id: label for id, label in {**asked.labeled, **own["train"]}.items() if id not in held}
    given = [*labeled.values(), *held_labels.values()]
    used = {part for label in given if label for part in (parts_of(label) if several else [label])}
    classes = asked.classes(place)
    names = [*classes, *class_order(used - {*classes})]
    if None not in labeled.values():
        of_data = () if used.isdisjoint(source.class_names) else source.class_names
        names = [name for name in names if name in used or name in of_data]
    there = (id for id, has in zip(source.ids, source.has_target, strict=True) if has)
    answers = {*held_labels, *there}  # an image whose class was deleted has none, and nothing is tested on it
    known = {"validation": asked.validation, "test": asked.test}
    parts = {part: [id for id in dict.fromkeys([*known[part], *apart[part]]) if id in answers] for part in known}
    passed = [id for id in asked.passed_over if id not in labeled]
    again = [id for id in asked.reviewed if id in labeled]
    more = dict(held_labels=held_labels, **parts, passed_over=passed, reviewed=again)
    return manifest(source, labeled, seed=asked.seed, class_names=names, **more)


def learned_since(place: Path, asked: Asked, source: ImageDataset) -> bool:
    """Whether a folder knows other labels than the model of its round has learned from: some were corrected."""
    file, there = place.parent / "split.json", {*source.ids}
    known, now = Split.load(file).labeled if file.is_file() else {}, asked.labeled
    return {id: known[id] for id in known.keys() & there} != {id: now[id] for id in now.keys() & there}


def has_new(run: Path, source: ImageDataset) -> bool:
    """Whether the data hold images without a label that they did not when the last round was learned."""
    record, split = RunRecord.from_json(run / "run.json"), Split.load(run / "split.json")
    if record.data is None or record.data.ids_hash in (None, source.ids_hash):
        return False
    return bool({*source.ids} - {*split.labeled, *split.validation, *split.test, *split.passed_over})


def pass_over_gone(place: Path, source: ImageDataset) -> None:
    """Photos of a round that wait for a label and are gone are passed over; those that are there again are not."""
    asked = Asked.load(place)
    found, there = labels_in(place, asked), {*source.ids}
    gone = {*asked.files.values()} - there
    every = [task for folder in (place, *beside(place)) for task in [Asked.load(folder)]]
    ids = {id for task in every for id in (*task.files.values(), *task.labeled)}
    if 2 * len(ids - there) > len(ids):
        raise UserError(
            f"{len(ids - there)} of the {len(ids)} images of the rounds up to {place.parent} are not in "
            f"{source.name!r}, such as {min(ids - there)!r}: give the folder that they are in, or put them back."
        )
    passed = {id for id, why in found.why.items() if why == GONE}
    new = {id for id in gone if id not in found.labels and id not in found.skipped}
    if not new and not passed - gone:
        return
    why = {id: said for id, said in found.why.items() if id not in passed - gone} | dict.fromkeys(new, GONE)
    with only_one(place):
        write_labels(
            place / "labels.csv", asked, replace(found, skipped=(found.skipped - (passed - gone)) | new, why=why)
        )
    if new:
        log.warning("%d of the images to label are gone, and passed over: %s", len(new), listed(sorted(new), 5))


# ---- what data the rounds are about ---------------------------------------------------------------------------------
def check_own(folder: Path, data: DataArguments, task: str, opened: Callable[[], ImageDataset]) -> None:
    """UserError for a folder of other data, of another task, or of something else; an empty one is noted to be of
    these, and so is one whose photos moved there. opened: the data."""
    dataset = data.dataset
    name = str(Path(dataset).expanduser().resolve()) if Path(dataset).expanduser().exists() else str(dataset)
    own = {"dataset": name, "task": task, **{key: getattr(data, key) for key in PARTS}}
    note = folder / NOTE
    if note.is_file():
        said = read_json(note)
        if not isinstance(said, dict) or "dataset" not in said:
            raise UserError(f"{note} does not say what data the rounds are about. Give another --output-dir.")
        known = {**own, "task": "classification", **said}  # notes of older versions say less
        if known["task"] != task:
            raise UserError(
                f"The rounds in {folder} are about {known['task']}, not about {task}. Give another --output-dir."
            )
        other = [key for key in PARTS if known[key] != own[key]]
        if (other or known["dataset"] != name) and not same_photos(folder, opened()):
            before, now = ((f"{some['dataset']}{said_parts(some, other)}") for some in (known, own))
            raise UserError(
                f"The rounds in {folder} are about {before}, not about {now}, which holds other photos. "
                f"Give {'what they are about, or ' if other else ''}another --output-dir.{taken_along(folder)}"
            )
        if known["dataset"] != name:
            log.warning("the photos of the rounds in %s are in %s now; the rounds go on with them", folder, name)
        if known != own or said != known:
            write_json(note, own)
        return
    if found := sorted(p.name for p in folder.iterdir() if p.name not in IGNORED):
        raise UserError(
            f"There is {', '.join(found[:3])}{' ...' if len(found) > 3 else ''} in {folder}, and no {NOTE}, so that "
            "it is not a folder of rounds. Give another --output-dir."
        )
    write_json(note, own)


def said_parts(some: Mapping[str, Any], which: Sequence[str]) -> str:
    """What is given of the data beside their name, in words."""
    said = [f"{key.removeprefix('dataset_')} {some[key] or 'not given'}" for key in which]
    return f" ({', '.join(said)})" if said else ""


def same_photos(folder: Path, source: ImageDataset) -> bool:
    """Whether the images of the rounds in a folder are those of `source`: most of their names are there, and most of
    some are the same picture."""
    there, ids, alike = {*source.ids}, set[str](), list[bool]()
    for place in places(folder, ("to_label",)):
        asked = Asked.load(place)
        ids |= {*asked.files.values(), *asked.labeled}
        if len(alike) < LOOKED_AT:
            alike += compared(place, asked, source).values()
    present = sum(id in there for id in ids)
    return bool(alike) and 2 * present > len(ids) and 2 * sum(alike) > len(alike)


def taken_along(folder: Path) -> str:
    """What to do to have the labels of these rounds in others; "" where there is none."""
    answered = [place for place in places(folder, ("to_label",)) if labels_in(place, Asked.load(place)).labels]
    if not answered:
        return ""
    return f" The labels of photos that are there too are taken along by --labels {answered[-1]}."


def of_first(first: Mapping[str, Any]) -> Path | None:
    """The folder to label that `loop` begins with, where it is to begin with one and nothing else."""
    others = [value for name, value in first.items() if name != "labels"]
    return folder_of_labels(first["labels"]) if first.get("labels") and not any(others) else None
