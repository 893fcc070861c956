"""Multi-hot labels: a list with 0 or 1 for each class, instead of class names."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import UserError
from ...text import brief
from .labels import RULES, LabelRules
from .several import parts_in
from .ticks import whole_answers

log = logging.getLogger("hf_lowlabel")
WORDS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1, "-1": None, "-1.0": None, "": None}


def multi_hot(
    cells: Sequence[Any], where: str, row: Callable[[int], str], rules: LabelRules = RULES
) -> np.ndarray | None:
    """The labels of lists that hold 0 or 1 for each class: one of them holds 0 or 1 twice, and no list a class twice.

    Args:
        cells: the labels, None without one.
        where: the column.
        row: what a row is called, by its number.
        rules: whether rows that lack some classes are passed over.

    Returns:
        int8 [N, K], -1 without a label; None where lists name classes.

    Raises:
        UserError: a list has not as many numbers as the others or lacks some, holds a share, or may be either.
    """
    lists = [parts_in(cell, row(k)) for k, cell in enumerate(cells)]
    there = {k: [mark(part) for part in parts] for k, parts in enumerate(lists) if parts is not None}
    if not all(isinstance(v, float) or v is None for some in there.values() for v in some):
        return None
    for k, some in there.items():
        if any(v not in (None, 0, 1) for v in some):
            raise UserError(
                f"The label {brief(cells[k])} of {row(k)} holds shares between 0 and 1. Write 0 or 1 for each class, "
                "or the names of the classes that apply."
            )
    lengths = Counter(map(len, there.values()))
    count = max(lengths, key=lambda length: (lengths[length], length), default=0)
    strays = [k for k, some in there.items() if len(some) != count]
    if not any(some.count(v) > 1 for some in there.values() if len(some) == count for v in (0, 1)):
        refuse_pairs(cells, lists, there, where, row)
        return None
    if any(there[k] for k in strays) and len(strays) * 10 > len(there):  # numbers of classes, one for each object
        return None
    out = np.full((len(cells), count), -1, np.int8)
    for k, some in there.items():
        if len(some) != count:
            raise UserError(
                f"The label {brief(cells[k])} of {row(k)} has {len(some)} numbers, and others of {where} have {count}, "
                "0 or 1 for each class. Give as many, or None without a label."
            )
        out[k] = [-1 if v is None else int(v) for v in some]
    out = whole_answers(out, where, row, rules)
    log.info("%s: lists of 0 and 1 for each of %s classes, called 0 to %s by their places", where, count, count - 1)
    return out


def is_hot(cell: Any, where: str) -> bool:
    """Whether a cell by itself is a list of 0 and 1 for each class."""
    marks = [mark(part) for part in parts_in(cell, where) or ()]
    return len(marks) > len({*marks}) and {*marks} <= {0, 1}


def refuse_pairs(cells, lists, there, where: str, row: Callable[[int], str]) -> None:
    """Raises UserError where all lists are [0, 1] or [1, 0]: every image of both classes, or each of one."""
    alike = [k for k, some in there.items() if sorted(some, key=str) == [0, 1]]
    if alike and len(alike) == len(there) and not any(isinstance(part, str) for k in alike for part in lists[k]):
        raise UserError(
            f"The label {brief(cells[alike[0]])} of {row(alike[0])} may name the classes 0 and 1, or say 0 and 1 of "
            f"two classes, as all lists of {where} may. Write the names of the classes that apply, such as "
            "['first', 'second'] or ['second']."
        )


def mark(part: Any) -> float | str | None:
    """A number from 0 to 1, None for what says that there is none; "" for all else, such as the name of a class."""
    if isinstance(part, str):
        value = WORDS.get(part.strip().casefold(), "")
        return float(value) if isinstance(value, int) else value
    if getattr(part, "shape", None) == ():
        part = part.item()
    if part is None or isinstance(part, (int, float)) and (part == -1 or math.isnan(part)):
        return None
    return float(part) if isinstance(part, (int, float)) and 0 <= part <= 1 else ""
