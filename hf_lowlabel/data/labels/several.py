"""Several classes of an image in one cell: lists, a;b, and what such a cell cannot mean."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import UserError
from ...text import brief, series, warn
from .labels import NOTHING, is_list, label_text, raw_parts

PRINTED = re.compile(r"\[\s*(\d\.?|True|False)(\s+(\d\.?|True|False))+\s*\]")  # an array of NumPy in a CSV
COMMA = (",",)
BETWEEN = (";", r"\|", *COMMA, "/", r"\+", "&", " and ")  # what people write between classes, and in names


def label_list(value: Any, where: str, names: Sequence[str] | None = None) -> list[str] | None:
    """The classes that a cell names, `names` of its numbers; None where it is empty or holds nothing but -1 and None,
    which is not "none" and no empty list.

    Raises:
        UserError: it is neither a list nor text, holds a number without a name, or says that no class applies and names
            one.
    """
    parts = parts_in(value, where)
    if parts is None:
        return None
    called = parts if names is None else [class_called(part, names, where) for part in parts]
    texts = [text for text in map(label_text, called) if text is not None]
    some = [text for text in texts if text.casefold() != NOTHING]
    if 0 < len(some) < len(texts):
        raise UserError(f"The label {value!r} of {where} {contradiction(some)}.")
    return some if texts or not parts else None


def parts_in(value: Any, where: str) -> list | None:
    """What a cell holds, a list or text of several parts, as it stands there; None where it is empty.

    Raises:
        UserError: it is neither a list nor text.
    """
    if isinstance(value, str) and is_list(value):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)  # as programs print lists
    elif isinstance(value, str) and PRINTED.fullmatch(value.strip()):
        value = ast.literal_eval(f"[{','.join(value.strip()[1:-1].split())}]")
    if isinstance(value, dict) and [*value] == ["choices"]:  # as Label Studio's CSV has them
        value = value["choices"]
    if isinstance(value, str):
        return [part for part in value.replace("|", ";").split(";") if label_text(part)] or None
    if value is None or isinstance(value, float) and np.isnan(value):
        return None
    if len(getattr(value, "shape", ())) == 1:  # of NumPy or PyTorch
        value = value.tolist()
    if not isinstance(value, (list, tuple, set)):
        raise UserError(f"The label {brief(value)} of {where} is neither a list nor text. Write it as a;b.")
    return [*value]


def class_called(number: int | None, names: Sequence[str], where: str) -> str | None:
    """The declared class of a number; None for -1 and None.

    Raises:
        UserError: no class has it.
    """
    if number is None or number == -1:
        return None
    if not 0 <= number < len(names):
        raise UserError(
            f"Label {number} of {where} is out of range. Labels are 0..{len(names) - 1} for {len(names)} declared "
            "classes, or -1 without a label. Correct the label column."
        )
    return names[number]


def of_declared(
    cells: Mapping[str, list], features: Mapping[str, Any], column: str | None, ids: Sequence[str]
) -> tuple[dict[str, list], dict[str, Sequence[str] | None]]:
    """Columns of declared classes as they are meant, whatever the numbers of the classes.

    Args:
        cells: the columns of a table.
        features: what they declare, as `datasets` has it.
        column: the one of labels; one class in it is all classes of the image.
        ids: of the images, for the message of a UserError.

    Returns:
        The cells, with the names of what is one class in other columns, such as yes and no; and the names of the
        numbers in lists.
    """
    out, names_of = dict(cells), {c: getattr(getattr(f, "feature", None), "names", None) for c, f in features.items()}
    for c, names in ((c, names) for c, f in features.items() if (names := getattr(f, "names", None)) is not None):
        if c == column:
            names_of[c], out[c] = names, [None if number is None else [number] for number in cells[c]]
        else:
            out[c] = [class_called(v, names, f"image {id!r} in column {c!r}") for v, id in zip(cells[c], ids)]
    return out, names_of


def without_none_class(names: Sequence[str], column: str, where: str) -> list[str]:
    """Declared classes but for one that says that no class applies, whose images have none."""
    kept = [name for name in names if name.casefold() != NOTHING]
    if len(kept) < len(names):
        gone = next(name for name in names if name.casefold() == NOTHING)
        warn(
            f"The class {gone!r} that column {column!r} of {where} declares is not one of the {len(kept)} to learn: "
            "it says that none of them applies. Call it otherwise if it is one of its own."
        )
    return kept


def lists_of(cells: Sequence[Any]) -> pa.Array:
    """The labels of a list of images as a column of lists, each of numbers or of text."""
    lists = [parts_in(cell, f"image number {i}") for i, cell in enumerate(cells)]
    try:
        return pa.array(lists)
    except (pa.ArrowException, OverflowError):
        return pa.array([parts and [label_text(part) for part in parts] for parts in lists], pa.list_(pa.string()))


def merged_labels(one: str, other: str) -> str | None:
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


def parts_between(name: str, names: Collection[str], signs: Sequence[str] = BETWEEN) -> list[str]:
    """The classes that a name lists with one of the signs between them, or several, where all are of `names`; else
    none."""
    for sign in (*signs, "|".join(signs)):
        parts = [part.strip() for part in re.split(sign, name)]
        if len(parts) > 1 and all(part in names for part in parts):
            return parts
    return []


def lists_among(
    names: Iterable[str], known: Iterable[str] = (), signs: Sequence[str] = BETWEEN
) -> dict[str, list[str]]:
    """The names that may be such lists, and their classes. known: more that can be in them."""
    names = {*names}
    every = names.union(known)
    return {name: parts for name in sorted(names) if (parts := parts_between(name, every, signs))}


def list_fault(name: str, parts: Sequence[str]) -> str:
    """What is wrong with such a name, and what to write."""
    return (
        f"{name!r} would be one class, and {' and '.join(map(repr, parts))} are classes; write {';'.join(parts)}, or "
        "call it otherwise if it is one of its own"
    )
