"""Unused items of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..table_writer import write_table
from ..text import warn
from .annotations.annotated import EMPTY
from .dataset import ImageDataset


def write_left_out(dataset: ImageDataset, path: Path) -> None:
    """What of the data was not used, and why: a table, where there is something to list."""
    list_left_out(dataset.left_out, dataset.name, path)


def list_left_out(left_out: Sequence[tuple[str, str]], of: str, path: Path) -> None:
    """The same of (name, why) alone. of: the data or the file they are from."""
    if not left_out:
        return
    write_table(path, [{"name": name, "why": why} for name, why in left_out])
    empty = sum(why == EMPTY for _, why in left_out)
    lost = len(left_out) - empty
    said = [f"{lost} rows or objects of {of!r} are left out"] if lost else []
    said += [f"{empty} images that {of!r} lists have no object and count as unlabeled"] if empty else []
    warn(f"{'; '.join(said)}; {path} lists them.")
