"""history.jsonl of a labeling page: its steps, one a line, so that undo works after a crash too."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.labels.labels import joined, parts_of
from ..files import add_line
from .labels import Labels

FOLDERS = ("to_label", "review")  # of a round, in which labels are given
LABELS = ("labels", "labeled", "held_labels")  # of a folder: in labels.csv, and those two in selection.json
KEPT = ("classes", "elsewhere", "renamed")  # of a step, beside what it changes here
Told = tuple[str, list[tuple[dict, dict]]]  # the key of a renaming elsewhere, and steps with what they said before it


def is_step(step: dict, ids: set[str]) -> bool:
    """Whether a line of the history is one that can be undone."""
    states = [change[when] for change in step["changes"] for when in ("before", "after")]
    known = all(change["id"] in ids for change in step["changes"])
    lists = [step["classes"][when] for when in ("before", "after")] if step["classes"] else []
    named = all(isinstance(name, str) for names in lists for name in names)
    names = step["renamed"] or ["", ""]
    planned = (not step["elsewhere"] or is_plan(step["elsewhere"])) and [type(name) for name in names] == [str, str]
    return known and named and planned and all({"label", "skipped"} <= state.keys() for state in states)


def is_plan(value: Any) -> bool:
    """Whether this is what `planned` returns, of the folders of a loop alone."""
    try:
        folders = value["folders"]
        pairs = [pair for said in folders.values() for name in LABELS for pair in said[name].values()]
        lists = [both[when] for said in folders.values() if (both := said["classes"]) for when in ("before", "after")]
        words = [value["key"], *value["renamed"], *(word for some in (*pairs, *lists) for word in some)]
        ways = [re.fullmatch(rf"\.|\.\./(\.\./round-\d+/)?({'|'.join(FOLDERS)})", way) for way in folders]
        paired = all(len(pair) == 2 for pair in pairs) and len(value["renamed"]) == 2
    except (TypeError, KeyError, AttributeError):
        return False
    return paired and all(ways) and all(isinstance(word, str) for word in words)


def read_steps(history: Path, ids: set[str], several: bool = False) -> list[dict]:
    """Steps that can be undone, with the names that classes have by now; a last line cut short by a crash is left out.

    ids: of the images. several: an image may have several classes.
    """
    steps, told = list[dict](), list[Told]()
    for line in history.read_bytes().split(b"\n") if history.is_file() else ():  # ids may hold other ends of lines
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
            step = json.loads(line.decode("utf-8", "replace"))
            if step.get("undo"):
                steps[-1:] = []
            elif is_renaming(said := step.get("elsewhere_renamed")):
                follow(steps, told, said, several)
            elif is_step(step := {"changes": step.get("changes", [step]), **{k: step.get(k) for k in KEPT}}, ids):
                steps.append(step)
    return steps


def is_renaming(said: Any) -> bool:
    """Whether a line of the history is what `tell_renamed` wrote."""
    return isinstance(said, dict) and all(isinstance(said[key], str) for key in ("key", "old", "new", "which"))


def tell_renamed(history: Path, step: Mapping[str, Any], which: str, way: str) -> None:
    """Let the history of another folder know that a class was renamed, once, or that this was undone.

    Args:
        history: its file. step, which: as in `carry_out`. way: to the folder, by which the plan knows it.
    """
    plan = step["elsewhere"]
    known = "before"
    for line in history.read_bytes().split(b"\n") if history.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):  # cut short, or another step
            said = json.loads(line)["elsewhere_renamed"]
            known = said["which"] if said["key"] == plan["key"] else known
    if known == which:  # by one that was killed after it
        return
    old, new = plan["renamed"]
    own = plan["folders"].get(way, {"classes": None})
    apart = bool(new) and own["classes"] is not None and new not in own["classes"]["before"]
    every = [of[name] for of in (*plan["folders"].values(), own) for name in LABELS if name in of]  # its own words last
    images = {id: [after, before] for some in every for id, (before, after) in some.items()}
    images = {one["id"]: [one["after"]["label"], one["before"]["label"]] for one in step["changes"]} | images
    said = {"key": plan["key"], "old": old, "new": new, "which": which, "apart": apart, "images": images}
    with one_more(history, {"elsewhere_renamed": said}):
        pass


def follow(steps: list[dict], told: list[Told], said: Mapping[str, Any], several: bool) -> None:
    """Let steps say what a renaming in another folder made of the classes in them; where it was undone, what they said
    before it, and those since what it undid."""
    old, new, images = said["old"], said["new"], said["images"]
    if said["which"] == "after":
        told.append((said["key"], [(step, copy.deepcopy(step)) for step in steps]))
        for step in steps:
            rename_in(step, old, new, lambda _, label: with_name(label, old, new, several))
        return
    at = next((k for k, (key, _) in enumerate(told) if key == said["key"]), len(told))
    pairs, later = [pair for _, some in told[at : at + 1] for pair in some], told[at + 1 :]
    before = {} if later else {id(step): was for step, was in pairs}
    del told[at : at + 1]

    def back(image: str, label: str) -> str:
        after, then = images.get(image, ("", ""))
        return then if label == after else with_name(label, new, old, several) if said["apart"] else label

    for step in [*steps, *(was for _, some in later for _, was in some)]:
        if id(step) in before:
            step.update(before[id(step)])
            continue
        if step["renamed"]:  # of what it made of that renaming nothing is left
            took_back(step, images)
        rename_in(step, *((new, old) if said["apart"] else ("", "")), back)


def took_back(step: dict, images: Mapping[str, list[str]]) -> None:
    """Let a renaming say nothing of labels that are what they were before an earlier one. images: id -> the label that
    both had made of it, and that from before them."""
    for change in step["changes"]:
        after, then = images.get(change["id"], (None, ""))
        if change["after"]["label"] == after and not change["after"]["skipped"]:
            change |= {when: {"label": then, "skipped": False} for when in ("before", "after")}
    for some in [said[name] for said in (step["elsewhere"] or {"folders": {}})["folders"].values() for name in LABELS]:
        some |= {id: [images[id][1]] * 2 for id, pair in some.items() if id in images and pair[1] == images[id][0]}


def rename_in(step: dict, old: str, new: str, label_of: Callable[[str, str], str]) -> None:
    """Other names for the classes in a step. label_of: image, label -> the label then."""
    for change in step["changes"]:
        for when in ("before", "after"):
            if label := change[when]["label"]:
                change[when] = {**change[when], "label": label_of(change["id"], label)}
    plan = step["elsewhere"] or {"folders": {}}
    for some in [said[name] for said in plan["folders"].values() for name in LABELS]:
        for id, pair in some.items():
            pair[:] = [label and label_of(id, label) for label in pair]
    every = [step["classes"], *(said["classes"] for said in plan["folders"].values())]
    for lists in [lists for lists in every if lists]:
        for when in ("before", "after"):
            lists[when] = [c for c in dict.fromkeys(new if c == old else c for c in lists[when]) if c]
    for said in [one for one in (step, plan) if one.get("renamed")]:
        said["renamed"] = [said["renamed"][0], new if said["renamed"][1] == old else said["renamed"][1]]


def one_list(both: Mapping[str, list[str]], which: str, now: list[str]) -> list[str]:
    """What a step makes of a list of classes, with those that were added since."""
    known = {*both["before"], *both["after"]}
    return [*both[which], *(name for name in now if name not in known)]


def with_name(label: str, old: str, new: str, several: bool) -> str:
    """A label with another name for one of its classes, or without it; "" where none is left."""
    parts = parts_of(label) if several else [label]
    if old not in parts:
        return label
    left = [part for part in dict.fromkeys(new if part == old else part for part in parts) if part]
    return (joined(left) if several else left[0]) if left else ""


@contextlib.contextmanager
def one_more(history: Path, line: Mapping[str, Any]) -> Iterator[None]:
    """A line more in the history, on the disk before the block, and there no more where the block fails."""
    text = json.dumps({**line, "time": round(time.time(), 1)}, ensure_ascii=False)
    # without a buffer: what a full disk did not take would be written again when the file is closed
    with open(history, "a+b", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        try:
            add_line(file, text)
            os.fsync(file.fileno())
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(length)
            raise


def replayed(steps: list[dict]) -> Labels:
    """The labels after these steps."""
    out = Labels()
    for step in steps:
        for change in step["changes"]:
            put(out, change["id"], change["after"])
    return out


def put(labels: Labels, id: str, value: Mapping[str, Any]) -> None:
    """Let an image have this answer, and no other."""
    labels.labels.pop(id, None)
    labels.skipped.discard(id)
    labels.why.pop(id, None)
    if value["label"]:
        labels.labels[id] = value["label"]
    elif value["skipped"]:
        labels.skipped.add(id)
        if value.get("why"):
            labels.why[id] = value["why"]


def value_of(labels: Labels, id: str) -> dict[str, Any]:
    """The answer of an image, as `put` takes it."""
    why = {"why": labels.why[id]} if id in labels.why else {}
    return {"label": labels.labels.get(id, ""), "skipped": id in labels.skipped, **why}


def in_words(value: Mapping[str, Any]) -> str:
    """What an answer says."""
    return value["label"] or ("skipped" if value["skipped"] else "open")
