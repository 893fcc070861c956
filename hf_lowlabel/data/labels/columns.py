"""Columns of tables: what they are called, and by which names they are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import UserError

FILE_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_path", "file_path", "img", "image_id", "id")
BOX_COLUMNS = ("xmin", "x_min", "bbox", "bounding_box", "box", "x1")  # one of them is in a table of boxes
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
TEXT = ("string", "large_string", "string_view")  # types of Arrow
Rows = list[tuple[int, dict[str, Any]]]  # (number of the row in its file, {column: cell})


def headers(names: Sequence[Any], where: str) -> list[str]:
    """Names of columns without blanks around them; those without a name get their number."""
    out = [str(name).strip() if name is not None else "" for name in names]
    out = [name or f"column {number}" for number, name in enumerate(out, start=1)]
    if twice := [name for name, count in Counter(out).items() if count > 1]:
        raise UserError(f"{where} has two columns called {twice[0]!r}. Rename one.")
    return out


def columns_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def cells_of(rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> dict[str, list]:
    """The cells by column; None where a row has none."""
    rows = list(rows)
    return {column: [row.get(column) for row in rows] for column in columns}


def column_called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is among the columns, in any spelling of its letters."""
    spelled = {column.strip().lower().replace(" ", "_"): column for column in reversed(list(columns))}
    return next((spelled[name] for name in names if name in spelled), None)


def without_header(columns: Sequence[str]) -> bool:
    """Whether what stands where the names of the columns should is the first image."""
    return any(str(name).lower().endswith(PICTURES) for name in columns)
