"""The labels that a folder to label knows from elsewhere: of earlier rounds, and of the other folders of a loop.

A class is called alike in all of them. What a renaming does elsewhere is noted in renaming.json of the folder before
anything is written, so that one that was killed is finished by whoever opens the folder next.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..commands import DONE, command
from ..data.labels.labels import LabelRules
from ..errors import UserError
from ..files import read_json, write_json
from .answer_kinds import kind_of
from .history import FOLDERS, is_plan, one_list, tell_renamed
from .labels import Asked, Labels, read_labels, write_labels, write_text
from .server import only_one

NOTE = "loop.json"  # what data the rounds in a folder are about
INTENT = "renaming.json"  # what a renaming is about to do, in the folder it was asked for in
NONE = "none of these"  # why an image is passed over that shows none of the classes
GONE = "the photo is gone"  # why an image of a round is passed over that nobody has seen


def places(loop: Path, folders: tuple[str, ...] = FOLDERS) -> list[Path]:
    """The folders of a loop that labels are given in, those of later rounds last."""
    found = [(int(m[1]), p) for p in loop.glob("round-*") if (m := re.fullmatch(r"round-(\d+)", p.name))]
    inside = [(round / name) for _, round in sorted(found) for name in folders]
    return [place for place in inside if (place / "selection.json").is_file()]


def beside(folder: Path) -> list[Path]:
    """The other folders of the loop that `folder` is one of; of none there are none."""
    here = folder.resolve()
    loop = here.parent.parent
    within = here.name in FOLDERS and (loop / NOTE).is_file()
    return [place for place in places(loop) if place != here] if within else []


def goes_on(folder: Path) -> bool:
    """Whether a folder is of a loop whose last round has images to label."""
    asked = [place for place in beside(folder) if place.name == "to_label"]
    return bool(asked) and not (asked[-1].parent.parent / f"round-{number_of(asked[-1]) + 1}" / DONE).is_file()


def number_of(place: Path) -> int:
    """Of the round that a folder to label is of."""
    return int(place.parent.name.removeprefix("round-"))


def labels_in(place: Path, asked: Asked) -> Labels:
    """What labels.csv of a folder says, "" where there is none; of masks nothing."""
    kind = kind_of(asked.task)
    if kind.page == "mask" or not (place / "labels.csv").is_file():
        return Labels()
    classes = asked.classes(place)
    how = dict(classes=classes, new_classes=True, allow_missing=True)
    return read_labels(place / "labels.csv", asked, **how, rules=LabelRules(several=kind.several).knowing(classes))


def elsewhere(folder: Path, asked: Asked) -> dict[str, str | None]:
    """id -> label of all that is labeled, but in labels.csv of this folder.

    What a round has asked for has the label that its labels.csv says now; what was labeled before all rounds, that of
    selection.json.
    """
    known, own = dict(asked.labeled), {*asked.files.values()}
    others = [(place, Asked.load(place)) for place in beside(folder) if (place / "labels.csv").is_file()]
    others = [(place, there) for place, there in others if kind_of(there.task).page != "mask"]
    rounds = {id for place, there in others if place.name == "to_label" for id in there.files.values()} - own
    for place, there in others:
        found = labels_in(place, there)
        if place.name == "to_label":
            for id in {*there.files.values()} - own:
                known.pop(id, None)
        else:  # that a label is off there may have been undone
            before = {id: there.labeled[id] for id in there.files.values() if id in there.labeled}
            known = {**{id: label for id, label in before.items() if id not in rounds | own}, **known}
        known |= found.labels
        for id in taken_off(there, found):
            known.pop(id, None)
    return known


def taken_off(asked: Asked, found: Labels) -> set[str]:
    """Images that a second look found to show none of the classes: the label that they had is off."""
    return {id for id, why in found.why.items() if why == NONE} if asked.strategy == "review" else set()


def after_reviews(place: Path, asked: Asked, found: Labels) -> tuple[Asked, Labels]:
    """What a folder to label knows, and what was answered in it, with what a second look in its own or in a later round
    of its loop has said of its images since. Notes tell of what was changed after that.

    Images of other rounds that a column there holds out are among the answers, so that they are not for training. All
    that was passed over, in any round, and has no label is in `passed_over`, and all whose label was looked at again in
    `reviewed`.
    """
    labels, own = dict(found.labels), {*asked.files.values()}
    off, apart = taken_off(asked, found), dict[str, str]()
    passed, before = {*asked.passed_over}, elsewhere(place, asked)
    known_apart, looked_at = {*asked.validation, *asked.test}, [*asked.reviewed, *reviewed(asked, found)]
    for other in beside(place):
        there = Asked.load(other)
        said = labels_in(other, there)
        passed = passed_over(passed, there, said)
        looked_at += reviewed(there, said)
        apart |= {id: part for id, part in said.parts.items() if part != "train" and id not in known_apart}
        if other.name == "review" and number_of(other) >= number_of(place):
            labels |= {id: label for id, label in said.labels.items() if id in own}
            for id in taken_off(there, said):
                labels.pop(id, None)
    labels = {**{id: label for id in apart if (label := before.get(id))}, **labels}
    rest = {*before} - {*off, *apart, *known_apart}
    known = {id: label for id, label in before.items() if id in rest}
    more = dict(labels=labels, parts={**apart, **found.parts}, notes=[*found.notes, *changed_since(place)])
    passed = passed_over(passed, asked, found) - {*known, *labels}
    again = [id for id in dict.fromkeys(looked_at) if id in known or id in labels]
    return replace(asked, labeled=known, passed_over=sorted(passed), reviewed=again), replace(found, **more)


def reviewed(asked: Asked, found: Labels) -> list[str]:
    """Images that got an answer at a second look, also one of which somebody was unsure: the label stays as it is."""
    answered = {*found.labels, *(id for id in found.skipped if found.why.get(id) != GONE)}
    return [id for id in asked.files.values() if id in answered] if asked.strategy == "review" else []


def passed_over(before: set[str], asked: Asked, found: Labels) -> set[str]:
    """Images that were passed over, by what was answered in one more folder."""
    gone = {id for id, why in found.why.items() if why == GONE}  # it may come back
    looked_at = {id for id in asked.files.values() if asked.strategy != "review" or id in asked.labeled}
    return before - looked_at | found.skipped - gone


def changed_since(folder: Path) -> list[str]:
    """What labels.csv of rounds says of images whose second look was answered before it was changed."""
    every = [place for place in (*beside(folder), folder) if (place / "labels.csv").is_file()]
    notes = []
    for review in [place for place in every if place.name == "review"]:
        there = Asked.load(review)
        found = labels_in(review, there)
        answers = {**found.labels, **dict.fromkeys(taken_off(there, found), "no label")}
        for place in [place for place in every if place.name == "to_label"]:
            table = place / "labels.csv"
            if table.stat().st_mtime <= (review / "labels.csv").stat().st_mtime:
                continue
            asked = Asked.load(place)
            given = labels_in(place, asked).labels
            for id in [id for id in asked.files.values() if id in answers]:
                now, before = given.get(id, "no label"), there.labeled.get(id) or "no label"
                if now not in (before, answers[id]):
                    notes.append(
                        f"{id!r} is {answers[id]!r} in {review / 'labels.csv'}, which counts, and was changed to "
                        f"{now!r} in {table} later. Correct it in the former"
                    )
    return notes


def refresh(folder: Path) -> None:
    """Let selection.json of a folder say the labels that the other folders of its loop have now."""
    asked = Asked.load(folder)
    if (now := elsewhere(folder, asked)) != asked.labeled:
        replace(asked, labeled=now).save(folder)


# ---- another name for a class ---------------------------------------------------------------------------------------
def planned(folder: Path, old: str, new: str, renamed: Callable[[str], str]) -> dict[str, Any]:
    """What a renaming changes outside of labels.csv and classes.txt of this folder.

    Each folder is planned by what it says itself: a label that another folder overrules is one all the same.

    Args:
        folder: in which it is asked for.
        old, new: the class; "": its labels are taken off.
        renamed: a label that may name it -> the label then.

    Returns:
        {"folders": by the way to each of them, what becomes of which label of its labels.csv and selection.json, and of
        its list of classes, "renamed": both names, "key": by which histories know it}.
    """
    here, folders = folder.resolve(), dict[str, dict[str, Any]]()
    for place in [*beside(folder), here]:
        asked = Asked.load(place)
        given = {} if place == here else labels_in(place, asked).labels
        known = {"labels": given, "labeled": asked.labeled, "held_labels": asked.held_labels}
        changes: dict[str, Any] = {
            name: {id: [label, then] for id, label in of.items() if label and (then := renamed(label)) != label}
            for name, of in known.items()
        }
        names = asked.classes(place)
        keep = bool(new) and new not in names
        after = [new if name == old else name for name in names if keep or name != old]
        lists = {"before": names, "after": after} if place != here and after != names else None
        if lists or any(changes.values()):
            folders[os.path.relpath(place, here)] = {**changes, "classes": lists}
    return {"folders": folders, "renamed": [old, new], "key": secrets.token_hex(8)}


def carry_out(folder: Path, step: Mapping[str, Any], which: str) -> None:
    """Write what the plan of a step says, "after" or "before", as far as it is not so; what was said since stays."""
    plan, here, order = step["elsewhere"], folder.resolve(), slice(None, None, 1 if which == "after" else -1)

    def then(of: Mapping[str, Any], changes: Mapping[str, list[str]], other: Container[str] = ()) -> dict[str, Any]:
        out = dict(of)
        for id, both in changes.items():
            source, new = both[order]
            if out.get(id, "") == source and id not in other:
                out[id] = new
        return {id: label for id, label in out.items() if label != ""}

    for place in [*beside(folder), here]:
        asked, way = Asked.load(place), os.path.relpath(place, here)
        said = plan["folders"].get(way, {"labels": {}, "labeled": {}, "held_labels": {}, "classes": None})
        now = {name: then(getattr(asked, name), said[name]) for name in ("labeled", "held_labels")}
        if now != {name: getattr(asked, name) for name in now}:
            replace(asked, **now).save(place)
        if place == here:
            continue
        if (place / "labels.csv").is_file():
            tell_renamed(place / "history.jsonl", step, which, way)
            found = labels_in(place, asked)
            if (given := then(found.labels, said["labels"], found.skipped)) != found.labels:
                write_labels(place / "labels.csv", asked, replace(found, labels=given))
        names = asked.classes(place)
        if said["classes"] and (after := one_list(said["classes"], which, names)) != names:
            write_text(place / "classes.txt", "".join(f"{name}\n" for name in after))


@contextlib.contextmanager
def noted(folder: Path, step: Mapping[str, Any], which: str, line: Mapping[str, Any], length: int) -> Iterator[None]:
    """Around what writes a step whose plan is of other files too: they are written first, and the note goes at the end.

    Killed inside, the note says what is left to do; what fails leaves the other files as they were.

    Args:
        folder: to label. step, which: what is done of it. line: of the history. length: of the history now, in bytes.

    Raises:
        UserError: another process labels one of the other folders; nothing was written.
    """
    if not step.get("elsewhere"):
        yield
        return
    note = folder / INTENT
    with contextlib.ExitStack() as held:
        for place in beside(folder):
            held.enter_context(only_one(place))
        write_json(note, {"step": step, "which": which, "line": line, "length": length})
        try:
            carry_out(folder, step, which)
            yield
        except Exception:
            carry_out(folder, step, "before" if which == "after" else "after")
            note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)


def refuse_unfinished(folder: Path) -> None:
    """UserError where a renaming that was killed has left labels of a folder, or of its loop, with the old name."""
    for place in (folder, *beside(folder)):
        if (place / INTENT).is_file():
            raise UserError(
                f"A class was being renamed in {place}, and some labels have the old name yet. Run "
                f"`{command('label', place)}`, which does the rest, and then this again."
            )


def left_over(folder: Path) -> dict[str, Any] | None:
    """What a renaming that was killed has left to do.

    Raises:
        UserError: the note is not as it was written.
    """
    note = folder / INTENT
    if not note.is_file():
        return None
    said = read_json(note)
    try:
        whole = is_plan(said["step"]["elsewhere"]) and said["which"] in ("before", "after") and said["length"] >= 0
    except (TypeError, KeyError):
        whole = False
    if not whole:
        raise UserError(f"{note} does not say what was renamed. Remove it, and look through the classes of the rounds.")
    return said
