"""Labels as text: which column holds them, what says that there is none, and in which order the classes come."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError, unknown

LABEL_COLUMNS = ("label", "labels", "class", "target", "category")


def label_text(value) -> str | None:
    """A label as text in Unicode's NFC form; None for what says that there is none: empty, null, NaN, -1."""
    if isinstance(value, (list, tuple, dict)):
        raise UserError(f"The label {value!r:.60} is a {type(value).__name__}; a class is text or a number.")
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    return None if text in ("", "-1") else unicodedata.normalize("NFC", text)


def class_order(names: Iterable[str]) -> list[str]:
    """Numbers by value, so that 10 comes after 9; anything else by its text."""
    names = set(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def class_indices(texts: Sequence[str | None], others: Iterable[str] = ()) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], -1 for None; class names in order, those of `others` among them)."""
    names = class_order({text for text in texts if text is not None} | set(others))
    index = {name: k for k, name in enumerate(names)}
    return np.array([index.get(text, -1) for text in texts], dtype=np.int64), names


def label_column(columns: Iterable[str], asked: str | None, where: str = "") -> str | None:
    """The column that is asked for, else the first of `LABEL_COLUMNS` there is, else None."""
    columns = list(columns)
    if asked is not None and asked not in columns:
        raise unknown(f"label column{where}", asked, columns)
    return asked if asked is not None else next((name for name in LABEL_COLUMNS if name in columns), None)
