"""history.jsonl of a labeling page: its steps, one a line, so that undo works after a crash too."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..files import add_line
from .labels import Labels
from .other_rounds import is_plan

KEPT = ("classes", "elsewhere", "renamed")  # of a step, beside what it changes here


def is_step(step: dict, ids: set[str]) -> bool:
    """Whether a line of the history is one that can be undone."""
    states = [change[when] for change in step["changes"] for when in ("before", "after")]
    known = all(change["id"] in ids for change in step["changes"])
    lists = [step["classes"][when] for when in ("before", "after")] if step["classes"] else []
    named = all(isinstance(name, str) for names in lists for name in names)
    names = step["renamed"] or ["", ""]
    planned = (not step["elsewhere"] or is_plan(step["elsewhere"])) and [type(name) for name in names] == [str, str]
    return known and named and planned and all({"label", "skipped"} <= state.keys() for state in states)


def read_steps(history: Path, ids: set[str]) -> list[dict]:
    """Steps that can be undone; a last line cut short by a crash is left out. ids: of the images."""
    steps: list[dict] = []
    for line in history.read_bytes().split(b"\n") if history.is_file() else ():  # ids may hold other ends of lines
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
            step = json.loads(line.decode("utf-8", "replace"))
            if step.get("undo"):
                steps[-1:] = []
            elif is_step(step := {"changes": step.get("changes", [step]), **{k: step.get(k) for k in KEPT}}, ids):
                steps.append(step)
    return steps


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
