"""Tables with one column per class: words for yes and no, and columns that are not classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import UserError
from ...text import listed, series, warn
from .labels import NO_LABEL, NOTHING, LabelRules

TICKS = dict.fromkeys("1 1.0 true yes y t x".split(), 1) | dict.fromkeys("0 0.0 false no n f".split(), 0)
MOST_NAMED = 10  # rows
EMPTY = ("", "-1", "-1.0", *NO_LABEL)
Columns = dict[str, list[int | None]]  # 1, 0, and None for an empty cell


def emptied(cells: Mapping[str, Sequence], words: Iterable[str]) -> dict[str, list]:
    """The cells without those that say, by a word that the user gave, that nobody has looked."""
    said = {word.casefold() for word in words}
    return {
        c: [None if isinstance(v, str) and v.strip().casefold() in said else v for v in values]
        for c, values in cells.items()
    }


def whole_answers(labels: np.ndarray, where: str, row: Callable[[int], str], rules: LabelRules) -> np.ndarray:
    """Labels int8 [N, K] without the rows that say yes or no of some classes alone, which become -1 where the rules
    pass over what is missing.

    Raises:
        UserError: there are such rows.
    """
    said = labels >= 0
    partly = np.flatnonzero(said.any(1) & ~said.all(1))
    if not len(partly):
        return labels
    found = (
        f"{len(partly)} of {int(said.any(1).sum())} labels in {where!r} say yes or no of some classes alone, such as "
        f"{'those' if len(partly) > 1 else 'that'} of {series([row(k) for k in partly[:MOST_NAMED].tolist()])}"
    )
    if not rules.skip_missing:
        raise UserError(f"{found}. Fill in all, or none, or give --skip-missing to leave these images without a label.")
    warn(f"{found}: these images count as without a label.")
    out = labels.copy()
    out[partly] = -1
    return out


def marks(cells: Mapping[str, Sequence]) -> dict[str, list[int | str | None]]:
    """Each cell as 1, 0 or None where it is empty; its text where it is no tick."""
    texts = {c: [str(v).strip() if v is not None else "" for v in values] for c, values in cells.items()}
    found = {c: [None if (w := t.lower()) in EMPTY else TICKS.get(w, t) for t in ts] for c, ts in texts.items()}
    if any(text.lower() == "t" for c in found for text in texts[c]):
        return found
    # without a "t" in the table "f" is another word, as of a sex
    return {c: [t if t.lower() == "f" else v for t, v in zip(texts[c], found[c])] for c in found}


def switches(cells: Mapping[str, Sequence]) -> Columns:
    """Of the columns that hold nothing but yes and no of a class: their values."""
    found = {c: [v for v in values if not isinstance(v, str)] for c, values in marks(cells).items()}
    return {c: v for c, v in found.items() if len(v) == len(cells[c]) and not {*v} <= {None}}


def refuse_strays(cells: Mapping[str, Sequence], where: str, row: Callable[[int], str], one_each: bool = False) -> None:
    """Raises UserError where a column is all but a few cells of yes and no: it would vanish from the classes.

    Args:
        cells: the columns, without those of file names and labels.
        where: the name of the table.
        row: what a row is called, by its number from 0.
        one_each: columns are classes only where each row has a single yes.
    """
    found = marks(cells)
    strays = {c: [k for k, v in enumerate(values) if isinstance(v, str)] for c, values in found.items()}
    columns = [c for c in found if almost(len(strays[c]), sum(v is not None for v in found[c]))]
    odd = [c for c in columns if strays[c]]
    if one_each and odd:
        clean = [row for row in zip(*(found[c] for c in columns)) if not any(isinstance(v, str) for v in row)]
        if len(columns) < 2 or not all(single(row) for row in clean):
            return
    if odd:
        column, at = odd[0], strays[odd[0]][0]
        more = sum(len(strays[c]) for c in odd) - 1
        raise UserError(
            f"{row(at)} of {where} has {found[column][at]!r} in the column {column!r}, which holds yes and no "
            f"everywhere else{f' ({more} more such cells)' if more else ''}. Write 1 or 0 there (or yes, no, x), or "
            "take the column out of the table."
        )


def almost(strays: int, filled: int) -> bool:
    """Whether so few of the filled cells of a column are no ticks that the others are."""
    return 0 < filled and (strays * 10 <= filled or strays == 1 and filled >= 4)


def single(row: Iterable[Any]) -> bool:
    """Whether a row says yes to one class, or nothing at all."""
    row = list(row)
    return set(row) == {None} or row.count(1) == 1


def one_of_columns(cells: Mapping[str, Sequence]) -> list[str | None] | None:
    """The class of each row where every class has a column, and each row a single yes; None where it is not so."""
    found = switches(cells)
    rows = list(zip(*found.values()))
    if len(found) < 2 or not all(map(single, rows)):
        return None
    return [next((name for name, value in zip(found, row) if value), None) for row in rows]


def with_blanks(found: Columns, where: str) -> Columns:
    """The columns with a no for what is empty beside a tick, where no cell of the table says no by itself."""
    rows = list(zip(*found.values()))
    if any(0 in row for row in rows) or not any(1 in row and None in row for row in rows):
        return found
    warn(
        f"{where}: no cell says no (0), so that an empty one beside a tick means no. Images without any tick "
        "count as unlabeled; write 0 in their columns where no class applies."
    )
    full = [[int(v or 0) if 1 in row else None for v in row] for row in rows]
    return {c: list(values) for c, values in zip(found, zip(*full))}


def without_nothing(found: Columns, where: str, row: Callable[[int], str]) -> Columns:
    """The columns without one that says that no class applies.

    Raises:
        UserError: a row says so, and yes to a class.
    """
    rest = {c: values for c, values in found.items() if c.casefold() != NOTHING}
    for column in (c for c in found if c not in rest and len(rest) > 0):
        for k, value in enumerate(found[column]):
            if value and (some := [c for c in rest if rest[c][k]]):
                raise UserError(
                    f"{row(k)} of {where} has a tick for {column!r} and for {series(some)}. Keep one of both."
                )
    return rest or found


def warn_columns_unread(columns: Iterable[str], found: Iterable[str], where: str) -> None:
    """A warning of the columns that are no classes beside those that are."""
    found = set(found)
    if others := [str(column) for column in columns if column not in found]:
        why = "they do not hold yes and no of a class" + ("" if found else ": all images count as unlabeled")
        warn(f"{where}: columns not read: {listed(others, 10)} ({why}).")
