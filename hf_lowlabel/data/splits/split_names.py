"""Words in cells of tables that say which split an image is of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..files.folders import SPLITS
from ..labels.labels import NO_LABEL

OF_ALL = ("split", "splits")  # names of tables that say splits and nothing else
HELD = ("validation", "test")


def split_named(cell: Any) -> str:
    """The split that a cell says, as this package calls it; "train" where it says none."""
    return next((name for name, known in SPLITS.items() if split_text(cell) in known), "train")


def split_text(cell: Any) -> str:
    """A split as text; "" where a cell says none."""
    text = "" if cell is None else str(cell).strip().lower()
    return "" if text in NO_LABEL else text


def refuse_two_splits(file: Path, rows: Iterable[tuple[int, str | None, str]]) -> None:
    """Raises UserError where a table puts an image into two splits. rows: (line, id, split)."""
    seen: dict[str, tuple[int, str]] = {}
    for line, id, split in rows:
        if id and (before := seen.setdefault(id, (line, split)))[1] != split:
            raise UserError(
                f"{file.name}, row {line}: {id!r} is of split {split!r} here, and of {before[1]!r} in row {before[0]}. "
                "Keep one of them: an image that is tested on must not be learned from."
            )
