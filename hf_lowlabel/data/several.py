"""Several classes of an image in one cell: lists, a;b, and what such a cell cannot mean."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from ..text import brief, series
from .labels import NOTHING, is_list, label_text, raw_parts


def label_list(value: Any, where: str, names: Sequence[str] | None = None) -> list[str] | None:
    """The classes that a cell names, `names` of its numbers; None where it is empty, which is not "none".

    Raises:
        UserError: it is neither a list nor text, or says that no class applies and names one.
    """
    given = value
    if isinstance(value, str) and is_list(value):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)  # as programs print lists
    if isinstance(value, dict) and [*value] == ["choices"]:  # as Label Studio's CSV has them
        value = value["choices"]
    if isinstance(value, str):
        value = [part for part in value.replace("|", ";").split(";") if label_text(part)] or None
    if value is None or isinstance(value, float) and np.isnan(value):
        return None
    if not isinstance(value, (list, tuple, set, np.ndarray)):
        raise UserError(f"The label {brief(value)} of {where} is neither a list nor text. Write it as a;b.")
    texts = [text for part in value if (text := label_text(part if names is None else names[part])) is not None]
    some = [text for text in texts if text.casefold() != NOTHING]
    if 0 < len(some) < len(texts):
        raise UserError(f"The label {given!r} of {where} {contradiction(some)}.")
    return some


def together(one: str, other: str) -> str | None:
    """The classes of two labels of an image; None where only one of both says that no class applies."""
    label = ";".join(dict.fromkeys([*raw_parts(one), *raw_parts(other)]))
    return None if contradicts(label) else label


def contradicts(label: str) -> list[str]:
    """The classes in a label of several that also says that none applies."""
    parts = raw_parts(label)
    some = [part for part in parts if part.casefold() != NOTHING]
    return some if len(some) < len(parts) else []


def contradiction(some: Sequence[str]) -> str:
    """What is wrong with such a label."""
    return f"says that no class applies ({NOTHING}) and names {series(some)}; keep one of both"


def comma_parts(name: str, names: Collection[str]) -> list[str]:
    """The classes that a name lists with commas between them, where all are classes by themselves; else none."""
    parts = [part.strip() for part in name.split(",")] if "," in name else []
    return parts if parts and all(part in names for part in parts) else []


def comma_lists(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that are such lists, and their classes."""
    every = set(names)
    return {name: parts for name in sorted(every) if (parts := comma_parts(name, every))}


def comma_fault(name: str, parts: Sequence[str]) -> str:
    """What is wrong with such a name, and what to write."""
    return f"{name!r} would be one class, and {' and '.join(map(repr, parts))} are classes; write {';'.join(parts)}"
