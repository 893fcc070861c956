"""The labeling page for classes: a folder that `select` wrote, in a browser on this machine, with the keyboard.

Every label is in labels.csv, on disk, before the page shows the next image; history.jsonl remembers the steps, so that
undo works after a crash too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..commands import command
from ..data.labels.labels import is_list, joined, label_text, parts_of
from ..errors import UserError
from ..files import whole
from .answer_kinds import kind_of
from .class_names import alike, check_text, typed
from .history import in_words, one_list, one_more, put, read_steps, replayed, value_of, with_name
from .labels import Asked, Labels, clean, read_classes, write_labels, write_text
from .next_steps import after_labels
from .other_rounds import INTENT, NONE, beside, elsewhere, labels_in, left_over, noted, planned
from .server import Answer, only_one, picture
from .suggestions import read_suggestions

CHANGED = "Not saved: {!r} was changed in another tab or by hand, and is {} now."
REASONS = ("", NONE, "unsure")  # why an image was passed over


class Session:
    """The labels of one folder while they are given; safe to call from several threads."""

    page, files, largest = "page.html", MappingProxyType[str, str]({}), 0
    then: str | None = None  # what comes next, where that is not to take the labels over

    def __init__(self, folder: str | Path):
        self.folder, self.task, self.lock = Path(folder), Asked.load(folder), threading.Lock()
        self.several = kind_of(self.task.task).several
        self.csv, self.history = self.folder / "labels.csv", self.folder / "history.jsonl"
        self.suggestions = read_suggestions(self.folder)
        self.read_all()
        if left_over(self.folder) is not None:
            self.finish()
        others = [place for place in beside(self.folder) if (place / INTENT).is_file()]
        for place in others:  # killed there, and now this one is labeled
            Session(place)
        if others:  # which wrote into this folder
            self.task = Asked.load(self.folder)
            self.read_all()
        self.others = self.count_others()

    def read_all(self) -> None:
        self.classes = self.task.classes(self.folder)
        self.steps = self.read_history()
        if not self.csv.exists():
            write_labels(self.csv, self.task, replayed(self.steps))
        self.labels = self.read()
        self.seen = self.csv.read_bytes()

    def finish(self) -> None:
        """Do the rest of a renaming that was killed, but for images that were answered since.

        Raises:
            UserError: another process is at it, or labels a folder of the loop: an answer given now would be lost.
        """
        try:
            with only_one(self.folder):
                self.read_all()  # another process may have done it meanwhile
                if (left := left_over(self.folder)) is None:
                    return
                if self.history.is_file():
                    os.truncate(self.history, min(left["length"], self.history.stat().st_size))
                self.steps, source = self.read_history(), "before" if left["which"] == "after" else "after"
                still = [change for change in left["step"]["changes"] if self.value(change["id"]) == change[source]]
                self.save({**left["step"], "changes": still}, left["which"], left["line"])
                self.steps = self.read_history()
        except UserError as error:
            raise UserError(f"A class is being renamed in {self.folder}, and the rest is not done: {error}") from error

    def count_others(self) -> dict[str, int]:
        """Class -> how many images have it elsewhere: in earlier rounds, and in the other folders of a loop."""
        own = {*self.task.files.values()}
        known = elsewhere(self.folder, Asked.load(self.folder))
        return Counter(part for id, label in known.items() if label and id not in own for part in self.parts(label))

    def read(self) -> Labels:
        found = labels_in(self.folder, self.task)
        named = dict.fromkeys(part for label in found.labels.values() for part in self.parts(label))
        self.classes += [name for name in named if name not in self.classes]
        return found

    def take_over_classes(self) -> None:
        """Classes that were written into classes.txt since it was read here, in the order that they have there."""
        there = read_classes(file) if (file := self.folder / "classes.txt").is_file() else []
        self.classes = [*there, *(name for name in self.classes if name not in there)]

    def parts(self, label: str) -> list[str]:
        """The classes that a label names."""
        return parts_of(label) if self.several else [label]

    def read_history(self) -> list[dict]:
        return read_steps(self.history, {*self.task.files.values()}, self.several)

    def value(self, id: str) -> dict:
        return value_of(self.labels, id)

    def save(self, step: dict, which: str, line: dict) -> None:
        """The history first, then classes.txt and labels.csv; edits made to the file by hand meanwhile are kept.

        Killed between them, the history has a step more, whose undo changes nothing. What fails leaves all, and what is
        in memory, as they were.
        """
        self.look_again()
        known = self.labels
        changed = replace(known, labels=dict(known.labels), skipped=set(known.skipped), why=dict(known.why))
        for change in step["changes"]:
            put(changed, change["id"], change[which])
        classes = one_list(step["classes"], which, self.classes) if step["classes"] else self.classes
        size = self.history.stat().st_size if self.history.is_file() else 0
        with (
            noted(self.folder, step, which, line, size),
            one_more(self.history, line),
            contextlib.ExitStack() as ready,
        ):
            if classes != self.classes:  # is on the disk before labels.csv changes, and in its place after it
                part = ready.enter_context(whole(self.folder / "classes.txt"))
                write_text(part, "".join(f"{name}\n" for name in classes))
            write_labels(self.csv, self.task, changed)
        self.labels, self.seen, self.classes = changed, self.csv.read_bytes(), list(classes)
        if step.get("elsewhere"):
            self.others = self.count_others()

    def take(self, changes: list[dict], classes: list[str] | None = None, **more: Any) -> dict:
        """Do a step, so that it can be undone: all of it or nothing."""
        edited = self.edited()
        listed = {"before": list(self.classes), "after": classes} if classes is not None else None
        step = {"changes": changes, "classes": listed, **more}
        self.save(step, "after", step)
        self.steps.append(step)
        return self.change([c["id"] for c in changes], edited or classes is not None)

    # ---- what the page asks for --------------------------------------------------------------------------------------
    def state(self) -> dict:
        said = self.suggested()
        images = [
            {"file": file, "id": id, **self.value(id), **({"suggestion": said[id]} if id in said else {})}
            for file, id in self.task.files.items()
        ]
        return {
            "images": images,
            "classes": self.classes,
            "others": self.others,
            "folder": self.folder.resolve().name,
            "can_undo": bool(self.steps),
            "several": self.several,
            "next": self.next_command(),
        }

    def next_command(self) -> str:
        return after_labels(self.folder, self.task) if self.then is None else self.then

    def suggested(self) -> dict[str, dict]:
        """What a model takes images for, without a class that is not in the list, and why each of them is shown."""
        names, known, now = [step["renamed"] for step in self.steps if step.get("renamed")], {*self.classes}, {"": ""}
        for name in {said.get(key, "") for said in self.suggestions.values() for key in ("class", "own")} - {""}:
            after = functools.reduce(lambda label, both: label and self.renamed(label, *both), names, name)
            now[name] = after if known.issuperset(self.parts(after)) else ""
        named = {"class", "own"}
        return {id: {k: now[v] if k in named else v for k, v in s.items()} for id, s in self.suggestions.items()}

    def edited(self) -> bool:
        """Whether somebody else has written labels.csv."""
        return self.csv.exists() and self.csv.read_bytes() != self.seen

    def look_again(self) -> None:
        """Take over what was written into labels.csv by hand. Raises UserError where answers are gone from it."""
        if gone := self.taken_back():
            raise UserError(
                f"{gone} Nothing else was done: undo puts them back, and any other key goes on without them."
            )

    def taken_back(self) -> str:
        """Take over what was written into labels.csv by hand. Answers that it has no more, as a spreadsheet saves it
        that was opened before they were given, are a step that can be undone; returns what they are, in words."""
        if not self.edited():
            return ""
        found, gone = self.read(), list[dict]()
        for id in self.task.files.values():
            before, now = self.value(id), value_of(found, id)
            if any(before.values()) and not any(now.values()):
                gone.append({"id": id, "before": before, "after": now})
        if gone:
            step = {"changes": gone, "classes": None}
            with one_more(self.history, step):
                self.steps.append(step)
        self.labels = found
        if not gone:
            return ""
        many = f"{len(gone)} answer{'s' * (len(gone) > 1)} given here"
        such = f"such as {in_words(gone[0]['before'])!r} of {gone[0]['id']!r}"
        return f"labels.csv was saved by another program without {many}, {such}."

    def change(self, ids: list[str], everything: bool) -> dict:
        """What a step changed, or all there is."""
        if everything:
            return {**self.state(), **({"id": ids[0]} if ids else {})}
        some = [{"id": id, **self.value(id)} for id in ids]
        more = {"changes": some[1:]} if some[1:] else {}
        return {**some[0], **more, "can_undo": bool(self.steps)}

    def label(self, id: str, label: str = "", skipped: bool = False, why: str = "", was: dict | None = None) -> dict:
        """One answer. was: what the page showed, which another tab may have changed since."""
        return self.label_many([id], label, skipped, why, was=was)

    def label_many(
        self,
        ids: list[str],
        label: str = "",
        skipped: bool = False,
        why: str = "",
        only_open: bool = False,
        was: dict | None = None,
    ) -> dict:
        """One answer for several images, undone together. only_open: not for those that have one, as of another tab."""
        with self.lock:
            known = set(self.task.files.values())
            if not ids or not isinstance(ids, list):
                raise UserError("No image is meant.")
            if strange := [id for id in ids if id not in known]:
                raise UserError(f"There is no image {strange[0]!r} in this folder.")
            label = clean(label)
            for part in self.parts(label) if label else ():
                if part not in self.classes:
                    named = ", ".join(self.classes)
                    raise UserError(f"There is no class {part!r}. Use one of {named}, or add it first.")
            if label and self.several:
                label = joined(name for name in self.classes if name in parts_of(label))
            if why not in REASONS:
                raise UserError(f"An image is passed over as one of {', '.join(filter(None, REASONS))}, not {why!r}.")
            skip = bool(skipped) and not label
            after = {"label": label, "skipped": skip, **({"why": why} if skip and why else {})}
            self.look_again()
            now = {"why": "", **self.value(ids[0])}
            if was not in (None, now):
                raise UserError(CHANGED.format(ids[0], in_words(now)))
            given = {id for id in ids if any(self.value(id).values())} if only_open else set()
            if not (ids := [id for id in ids if id not in given]):
                return self.state()
            done = self.take([{"id": id, "before": self.value(id), "after": after} for id in dict.fromkeys(ids)])
            return {**done, **self.state()} if given else done

    def undo(self) -> dict:
        with self.lock:
            if not self.steps:
                raise UserError("There is nothing to undo.")
            self.take_over_classes()
            step, edited = self.steps[-1], self.edited()
            self.look_again()
            for change in step["changes"]:  # the step before it, where it was killed before labels.csv was written
                known = [{"why": "", **change[when]} for when in ("after", "before")]
                if {"why": "", **(now := self.value(change["id"]))} not in known:
                    raise UserError(f"{CHANGED.format(change['id'], in_words(now))} Undo goes back no further.")
            self.save(step, "before", {"undo": True, "id": step["changes"][0]["id"] if step["changes"] else ""})
            self.steps.pop()
            return self.change([c["id"] for c in step["changes"]], edited or bool(step["classes"]))

    def rename(self, old: str, new: str = "") -> dict:
        """Another name for a class and its labels; one that exists already takes them in; none leaves them open."""
        with self.lock:
            self.take_over_classes()
            if old not in self.classes:
                raise UserError(f"There is no class {old!r}.")
            self.look_again()
            new = typed(new)
            same = next((c for c in self.classes if c != old and alike(c) == alike(new)), None)
            new = same or new
            self.check_name(new)
            if new == old:
                return self.state()
            keep = same is None and bool(new)
            classes = [new if c == old else c for c in self.classes if keep or c != old]
            given = self.labels.labels.items()
            after = {id: self.renamed(label, old, new) for id, label in given if old in self.parts(label)}
            changes = [
                {"id": id, "before": self.value(id), "after": {"label": label, "skipped": False}}
                for id, label in after.items()
            ]
            plan = planned(self.folder, old, new, lambda label: self.renamed(label, old, new))
            more = {"elsewhere": plan} if plan["folders"] else {}
            return self.take(changes, classes, **more, renamed=[old, new])

    def renamed(self, label: str, old: str, new: str) -> str:
        return with_name(label, old, new, self.several)

    def check_name(self, name: str) -> None:
        check_text(name)
        if name and (is_list(name) or label_text(name) != name):
            raise UserError(f"{name!r} means no class, or a list of them, where labels are read. Give another name.")
        if self.several and name and parts_of(name) != [name]:
            raise UserError(
                f"{name!r} cannot be one of several classes of an image: give another name, without ; or |."
            )

    def new_class(self, name: str) -> dict:
        with self.lock:
            self.take_over_classes()
            name = typed(name)
            if not name:
                raise UserError("Give the new class a name.")
            self.check_name(name)
            same = next((c for c in self.classes if alike(c) == alike(name)), None)
            if same is not None:
                raise UserError(f"The class {same!r} exists.")
            write_text(self.folder / "classes.txt", "\n".join([*self.classes, name]) + "\n")
            self.classes.append(name)
            return self.state()

    # ---- what the server asks for ------------------------------------------------------------------------------------
    def actions(self) -> Mapping[str, Callable[..., dict]]:
        named = {"/class": self.new_class, "/rename": self.rename}
        return {"/label": self.label, "/labels": self.label_many, "/undo": self.undo, **named}

    def uploads(self) -> Mapping[str, Callable[[dict[str, str], bytes], dict]]:
        return {}

    def get(self, path: str, query: dict[str, str]) -> Answer | None:
        name = path.removeprefix("/images/")
        return picture(self.folder / "images" / name) if name in self.task.files else None

    def parting(self) -> str:
        with self.lock:
            gone, done = self.taken_back(), self.labels
        back = f"{gone} `{command('label', self.folder)}` and undo there put them back.\n" if gone else ""
        then = self.next_command() if done.labels or self.then is not None else command("label", self.folder)
        if self.task.strategy == "review" and not done.labels and not done.skipped:
            return f"{back}No label was looked at, so that nothing has to be run again."
        return f"{back}{len(done.labels)} labeled, {len(done.skipped)} skipped of {len(self.task.files)}; next: {then}"
