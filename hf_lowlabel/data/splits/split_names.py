"""Cells that say which split an image is of, in a table of a folder, of memory or of the Hub."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...text import series
from ..files.folders import ALIASES, SPLITS
from ..labels.columns import column_called
from ..labels.labels import NO_LABEL

SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset_split", "phase")
OF_ALL = ("split", "splits")  # names of tables that say splits and nothing else


def split_column(cells: dict[str, list]) -> str | None:
    """The column that names the split of each image."""
    column = column_called(list(cells), SPLIT_COLUMNS)
    found = set(map(split_text, cells[column])) - {""} if column else set()
    if (odd := sorted(found - ALIASES)) and found & ALIASES:
        warnings.warn(
            f"The column {column!r} is not read as the split of an image, since it says {series(odd[:5])} too. Write "
            "train, validation or test in each of its cells, or nothing.",
            stacklevel=4,
        )
    return column if found <= ALIASES and found else None


def split_named(cell: Any) -> str:
    """The split that a cell says, as this package calls it; "train" where it says none."""
    return next((name for name, known in SPLITS.items() if split_text(cell) in known), "train")


def refuse_two_splits(file: Path, rows: Iterable[tuple[int, str | None, str]]) -> None:
    """Raises UserError where a table puts an image into two splits. rows: (line, id, split)."""
    seen: dict[str, tuple[int, str]] = {}
    for line, id, split in rows:
        if id and (before := seen.setdefault(id, (line, split)))[1] != split:
            raise UserError(
                f"{file.name}, row {line}: {id!r} is of split {split!r} here, and of {before[1]!r} in row {before[0]}. "
                "Keep one of them: an image that is tested on must not be learned from."
            )


def split_text(cell: Any) -> str:
    """A split as text; "" where a cell says none."""
    text = "" if cell is None else str(cell).strip().lower()
    return "" if text in NO_LABEL else text
