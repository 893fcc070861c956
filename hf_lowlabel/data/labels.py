"""Labels as text: which column holds them, what says that there is none, and in which order the classes come."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError, unknown
from .table_files import column_called

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "choice", "class_name")
NO_LABEL = ("nan", "none", "null", "na", "n/a", "<na>")  # what programs write for an empty cell


@dataclass(frozen=True)
class LabelRules:
    """How the labels of a table are taken.

    no_label: texts that say there is no label, in any spelling of their letters, beside an empty cell and -1.
    skip_missing: leave out rows that name no image; skip_conflicts: leave an image unlabeled that has two labels. Else
    both are errors.
    """

    no_label: tuple[str, ...] = NO_LABEL
    skip_missing: bool = False
    skip_conflicts: bool = False

    def is_none(self, text: str | None) -> bool:
        return text is None or text.casefold() in {word.casefold() for word in self.no_label}

    def without_none(self, texts: Sequence[str | None], where: str) -> list[str | None]:
        """The texts with None for those that say there is no label; a warning counts them."""
        gone = Counter(text for text in texts if text is not None and self.is_none(text))
        if gone:
            said = ", ".join(f"{count} x {word!r}" for word, count in gone.most_common(5))
            warnings.warn(
                f"{where}: {said} count as no label. If that is a class, give --no-label with other words, or ''.",
                stacklevel=3,
            )
        return [None if text in gone else text for text in texts]


RULES = LabelRules()


def label_text(value, where: str = "") -> str | None:
    """A label as text in Unicode's NFC form; None for what says that there is none: empty, null, NaN, -1."""
    if isinstance(value, (list, tuple, dict)) or isinstance(value, str) and is_list(value):
        kind = "list" if isinstance(value, str) else type(value).__name__
        raise UserError(
            f"The label {value!r:.60}{where} is a {kind}; a class is text or a number. Give --task multilabel for "
            "several classes an image, or --label-column with another column."
        )
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    return None if text in ("", "-1") else unicodedata.normalize("NFC", text)


def is_list(text: str) -> bool:
    """Whether a cell of text holds a list or an object, as programs print them."""
    text = text.strip()
    return len(text) > 1 and text[0] + text[-1] in ("[]", "{}") and any(mark in text for mark in "'\",") or text == "[]"


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
    """The column that is asked for, else the first of `LABEL_COLUMNS` there is in any spelling, else None."""
    columns = list(columns)
    if asked is not None and asked not in columns:
        raise unknown(f"label column{where}", asked, columns)
    return asked if asked is not None else column_called(columns, LABEL_COLUMNS)
