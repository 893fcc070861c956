"""Labels as text: their column, words for a missing label, and the order of the classes."""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any

import numpy as np

from ...errors import UserError, unknown
from ...text import brief, warn
from .columns import column_called

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "choice", "class_name", "cls")
NO_LABEL = ("nan", "none", "null", "na", "n/a", "<na>")  # what programs write for an empty cell
NO_LABEL += ("#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!")  # a spreadsheet's own errors
NO_LABEL += tuple("? ?? ??? - -- --- \u2013 \u2014 . .. ... \u2026 _ /".split())  # what people write for it
UNSURE = "unknown unlabeled unlabelled todo tbd tba untagged unclear unsure undefined".split()  # classes that are none
NOTHING = "none"  # a label of several classes that says: none of them


@dataclass(frozen=True)
class LabelRules:
    """How the labels of a table are taken.

    no_label: texts that say there is no label, in any spelling of their letters, beside an empty cell and -1.
    skip_missing: leave out rows that name no image, and labels that say yes or no of some classes alone;
    skip_conflicts: leave an image unlabeled that has two labels. Else all are errors.
    several: a label is all classes of an image, as a;b, and "none" says that none applies.
    plain_folders: the names of folders are no labels.
    """

    no_label: tuple[str, ...] = NO_LABEL
    skip_missing: bool = False
    skip_conflicts: bool = False
    several: bool = False
    plain_folders: bool = False

    def knowing(self, classes: Iterable[str]) -> LabelRules:
        """The same where a word that is the name of a class says that class."""
        names = {name.casefold() for name in classes}
        return replace(self, no_label=tuple(word for word in self.no_label if word.casefold() not in names))

    def is_none(self, text: str | None) -> bool:
        if self.several and text is not None and text.casefold() == NOTHING:
            return False
        return text is None or text.casefold() in {word.casefold() for word in self.no_label}

    def without_none(self, texts: Sequence[str | None], where: str) -> list[str | None]:
        """The texts with None for those that say there is no label; a warning counts them."""
        signs = "-" if "+" in texts else None  # of a test that is positive or negative
        gone = Counter(text for text in texts if text is not None and text != signs and self.is_none(text))
        tell_unsure((text for text in texts if text is not None and text not in gone), where)
        if gone:
            said = ", ".join(f"{count} x {word!r}" for word, count in gone.most_common(5))
            warn(f"{where}: {said} count as no label. If that is a class, give --no-label with other words, or ''.")
        return [None if text in gone else text for text in texts]


RULES = LabelRules()


def tell_unsure(texts: Iterable[str], where: str) -> None:
    """A warning of classes whose names say that nobody knows the class."""
    found = Counter(text for text in texts if text.casefold() in UNSURE)
    if found:
        said = ", ".join(f"{count} x {word!r}" for word, count in found.most_common(5))
        warn(
            f"{where}: {said} count as a class. If that says that nobody has looked, give --no-label with it and with "
            "every other word that says so."
        )


def parts_of(label: str) -> list[str]:
    """The classes that a label of several names, each once; none for NOTHING."""
    return [part for part in raw_parts(label) if part.casefold() != NOTHING]


def raw_parts(label: str) -> list[str]:
    """What stands in a label of several, NOTHING too."""
    parts = (label_text(part) for part in label.replace("|", ";").split(";"))
    return list(dict.fromkeys(part for part in parts if part))


def joined(parts: Iterable[str]) -> str:
    """Several classes as the text of one label."""
    return ";".join(parts) or NOTHING


def label_text(value, where: str = "") -> str | None:
    """A label as text in Unicode's NFC form; None for what says that there is none: empty, null, NaN, -1."""
    if getattr(value, "shape", None) == ():  # of NumPy or PyTorch
        value = value.item()
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            value = value.decode()
    several = isinstance(value, (list, tuple, dict, bytes)) or isinstance(value, str) and is_list(value)
    if several or hasattr(value, "shape"):
        kind = "list" if isinstance(value, str) else type(value).__name__
        what = f"The label {value!r:.60}{where} is a {kind}" if several else f"A label{where} is {brief(value)}"
        raise UserError(
            f"{what}; a class is text or a number. Give --task multilabel for several classes an image, or "
            "--label-column with another column."
        )
    if isinstance(value, float) and math.isinf(value):
        raise UserError(f"The label {value}{where} is no class. Labels are text or whole numbers; correct it.")
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    text = "" if value is None else str(value).strip()
    return None if text in ("", "-1", "-1.0") else unicodedata.normalize("NFC", text)


def is_list(text: str) -> bool:
    """Whether a cell of text holds a list or an object, as programs print them."""
    text = text.strip()
    return len(text) > 1 and text[0] + text[-1] in ("[]", "{}") and any(mark in text for mark in "'\",") or text == "[]"


def class_order(names: Iterable[str]) -> list[str]:
    """Numbers by value, so that 10 comes after 9; anything else by its text."""
    names = set(names)
    return sorted(sorted(names), key=int) if all(name.isdecimal() for name in names) else sorted(names)


def class_indices(texts: Sequence[str | None], others: Iterable[str] = ()) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], -1 for None; class names in order, those of `others` among them)."""
    names = class_order({text for text in texts if text is not None} | set(others))
    tell_alike(names)
    index = {name: k for k, name in enumerate(names)}
    return np.array([index.get(text, -1) for text in texts], dtype=np.int64), names


def tell_alike(names: Iterable[str]) -> None:
    """A warning of classes that differ in what people do not see: capitals, blanks, invisible signs, zeros."""
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(plain(name), []).append(name)
    pairs = [" and ".join(map(ascii_if_odd, alike)) for alike in known.values() if len(alike) > 1]
    if pairs:
        warn(
            f"{'; '.join(pairs[:5])} count as different classes, and differ in capitals, blanks or zeros alone. "
            "Write them alike if they are one class."
        )


def plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
    text = " ".join("".join(sign for sign in text if unicodedata.category(sign) != "Cf").split())
    return str(float(text)) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]+)?", text) else text


def ascii_if_odd(name: str) -> str:
    """Quoted; signs that nobody sees as their codes."""
    odd = any(unicodedata.category(sign) in ("Cf", "Zs") and sign != " " for sign in name)
    return ascii(name) if odd else repr(name)


def tell_dates(cells: Iterable[Any], where: str) -> None:
    """A warning of labels that a spreadsheet made dates of, as of MAR1 or 1-2."""
    dates = [cell for cell in cells if isinstance(cell, (date, time))]
    if dates:
        warn(
            f"{where}: {len(dates)} labels are dates, such as {label_text(dates[0])}. A spreadsheet makes them of text "
            "such as MAR1: format the column as text and type them again, if that is so."
        )


def label_column(columns: Iterable[str], asked: str | None, where: str = "") -> str | None:
    """The column that is asked for, else the first of `LABEL_COLUMNS` there is in any spelling, else None."""
    columns = list(columns)
    if asked is not None and asked not in columns:
        raise unknown(f"label column{where}", asked, columns)
    return asked if asked is not None else column_called(columns, LABEL_COLUMNS)
