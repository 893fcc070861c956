"""The labeling page for classes: a folder that `select` wrote, in a browser on this machine, with the keyboard.

Every label is in labels.csv, on disk, before the page shows the next image; history.jsonl remembers the steps, so that
undo works after a crash too.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..errors import UserError
from .labels import Labels, Task, clean, read_labels, read_suggestions, write_labels, write_text
from .server import Answer, picture


class Session:
    """The labels of one folder while they are given; safe to call from several threads."""

    page, files, largest = "page.html", MappingProxyType[str, str]({}), 0

    def __init__(self, folder: str | Path):
        self.folder, self.task, self.lock = Path(folder), Task.load(folder), threading.Lock()
        self.csv, self.history = self.folder / "labels.csv", self.folder / "history.jsonl"
        self.classes = self.task.classes(self.folder)
        self.suggestions = read_suggestions(self.folder)
        self.steps = self.read_history()
        if not self.csv.exists():
            write_labels(self.csv, self.task, self.replayed())
        self.labels = self.read()
        self.seen = self.csv.read_bytes()

    def read(self) -> Labels:
        found = read_labels(self.csv, self.task, new_classes=True, allow_missing=True)
        self.classes += [name for name in dict.fromkeys(found.labels.values()) if name not in self.classes]
        return found

    def read_history(self) -> list[dict]:
        """Steps that can be undone; a last line cut short by a crash is left out."""
        steps: list[dict] = []
        ids = set(self.task.files.values())
        for line in self.history.read_bytes().decode("utf-8", "replace").splitlines() if self.history.is_file() else ():
            with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
                step = json.loads(line)
                if step.get("undo"):
                    steps[-1:] = []
                elif step["id"] in ids and all({"label", "skipped"} <= step[k].keys() for k in ("before", "after")):
                    steps.append(step)
        return steps

    def replayed(self) -> Labels:
        out = Labels()
        for step in self.steps:
            self.put(out, step["id"], step["after"])
        return out

    @staticmethod
    def put(labels: Labels, id: str, value: dict) -> None:
        labels.labels.pop(id, None)
        labels.skipped.discard(id)
        if value["label"]:
            labels.labels[id] = value["label"]
        elif value["skipped"]:
            labels.skipped.add(id)

    def value(self, id: str) -> dict:
        return {"label": self.labels.labels.get(id, ""), "skipped": id in self.labels.skipped}

    def save(self, id: str, value: dict, step: dict) -> None:
        """The history first, then labels.csv; edits made to the file by hand meanwhile are kept.

        Killed between the two, the history has a step more, whose undo changes nothing. What fails leaves both, and
        what is in memory, as they were.
        """
        if self.csv.exists() and self.csv.read_bytes() != self.seen:
            self.labels = self.read()
        changed = Labels(dict(self.labels.labels), set(self.labels.skipped), self.labels.notes)
        self.put(changed, id, value)
        with open(self.history, "ab") as file:
            length = file.tell()
            try:
                line = json.dumps({**step, "time": round(time.time(), 1)}, ensure_ascii=False)
                file.write(f"{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
                write_labels(self.csv, self.task, changed)
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(length)
                raise
        self.labels, self.seen = changed, self.csv.read_bytes()

    # ---- what the page asks for --------------------------------------------------------------------------------------
    def state(self) -> dict:
        images = [
            {"file": file, "id": id, **self.value(id), **({"suggestion": said} if (said := self.suggested(id)) else {})}
            for file, id in self.task.files.items()
        ]
        return {
            "images": images,
            "classes": self.classes,
            "folder": self.folder.resolve().name,
            "can_undo": bool(self.steps),
        }

    def suggested(self, id: str) -> dict | None:
        """What a model takes an image for, without a class that is not in the list, and why it is shown."""
        said = self.suggestions.get(id)
        return said and {**said, "class": said["class"] if said["class"] in self.classes else ""}

    def edited(self) -> bool:
        """Whether somebody else has written labels.csv."""
        return self.csv.exists() and self.csv.read_bytes() != self.seen

    def change(self, id: str, everything: bool) -> dict:
        """What a step on one image changed, or all there is."""
        one = {"id": id, **self.value(id), "can_undo": bool(self.steps)}
        return {**self.state(), "id": id} if everything else one

    def label(self, id: str, label: str = "", skipped: bool = False) -> dict:
        with self.lock:
            if id not in set(self.task.files.values()):
                raise UserError(f"There is no image {id!r} in this folder.")
            label = clean(label)
            if label and label not in self.classes:
                raise UserError(f"There is no class {label!r}. Use one of {', '.join(self.classes)}, or add it first.")
            step = {
                "id": id,
                "before": self.value(id),
                "after": {"label": label, "skipped": bool(skipped) and not label},
            }
            edited = self.edited()
            self.save(id, step["after"], step)
            self.steps.append(step)
            return self.change(id, edited)

    def undo(self) -> dict:
        with self.lock:
            if not self.steps:
                raise UserError("There is nothing to undo.")
            step, edited = self.steps[-1], self.edited()
            self.save(step["id"], step["before"], {"undo": True, "id": step["id"]})
            self.steps.pop()
            return self.change(step["id"], edited)

    def new_class(self, name: str) -> dict:
        with self.lock:
            name = clean(name)
            if not name:
                raise UserError("Give the new class a name.")
            if not name.isprintable():
                raise UserError("The name of a class is text on one line. Give one without control characters.")
            same = next((c for c in self.classes if c.casefold() == name.casefold()), None)
            if same is not None:
                raise UserError(f"The class {same!r} exists.")
            write_text(self.folder / "classes.txt", "\n".join([*self.classes, name]) + "\n")
            self.classes.append(name)
            return self.state()

    # ---- what the server asks for ------------------------------------------------------------------------------------
    def actions(self) -> Mapping[str, Callable[..., dict]]:
        return {"/label": self.label, "/undo": self.undo, "/class": self.new_class}

    def uploads(self) -> Mapping[str, Callable[[dict[str, str], bytes], dict]]:
        return {}

    def get(self, path: str, query: dict[str, str]) -> Answer | None:
        name = path.removeprefix("/images/")
        return picture(self.folder / "images" / name) if name in self.task.files else None

    def parting(self) -> str:
        done = self.labels
        return (
            f"{len(done.labels)} labeled, {len(done.skipped)} skipped of {len(self.task.files)}; next: "
            f"hf-lowlabel split --from {self.folder}"
        )
