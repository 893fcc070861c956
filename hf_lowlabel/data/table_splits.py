"""A column of a DataFrame, of parquet or of a Hub table that says which split a row is of, as in a folder's table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..errors import MissingSplit
from ..text import series
from .columns import TEXT, column_called
from .folders import ALIASES, spellings
from .split_names import SPLIT_COLUMNS, split_column, split_text


def rows_of_split(opened: Callable[[str], Any], split: str, where: str, several: bool = False) -> tuple[Any, str]:
    """The rows of a split, by the column where the data has no splits of its own; and what the split is called.

    Args:
        opened: the `datasets.Dataset` of a split.
        split: that is asked for.
        where: the data, in messages.
        several: the data has splits of its own, which it may say itself too.

    Raises:
        MissingSplit: no row is of this split.
    """
    try:
        rows = opened(split)
    except MissingSplit:
        try:
            rows = opened("train")
        except MissingSplit:
            rows = None
        if rows is None or several or has_splits(rows) or not set(spellings(split)) & {*of_rows(rows)[1]}:
            raise
        return part(rows, split, where), split
    called = split if rows.split is None else str(rows.split)
    if several or has_splits(rows):
        tell_unread(rows, split, where)
        return rows, called
    return part(rows, split, where), called


def has_splits(rows) -> bool:
    """Whether the data that rows are of has several splits, or these are of another one than "train"."""
    return len(rows.info.splits or ()) > 1 or not asked_in(str(rows.split or "train")) & {"train"}


def of_rows(rows) -> tuple[str | None, list[str]]:
    """The column that says the split of each row, and that split; (None, []) where there is none."""
    column = column_called(rows.column_names, SPLIT_COLUMNS)
    names = getattr(rows.features[column], "names", None) if column is not None else None
    if column is None or names is None and getattr(rows.features[column], "dtype", "") not in TEXT:
        return None, []
    cells = rows.select_columns([column]).with_format(None)[:][column]
    cells = cells if names is None else [None if k is None or k < 0 else names[k] for k in cells]
    found = split_column({column: cells})
    return (found, [split_text(cell) or "train" for cell in cells]) if found is not None else (None, [])


def asked_in(split: str) -> set[str]:
    """The names of splits in one such as train[:100]+validation, in any spelling."""
    return {name for one in split.split("+") for name in spellings(one.partition("[")[0])}


def part(rows, split: str, where: str):
    """Those of a split by the column, all where there is none."""
    column, named = of_rows(rows)
    asked = asked_in(split)
    if column is None or not asked & ALIASES:
        return rows
    kept = [i for i, name in enumerate(named) if name in asked]
    if not kept:
        raise MissingSplit(f"The column {column!r} of {where} names no image of split {split!r}.")
    if len(kept) < len(named):
        warnings.warn(
            f"The column {column!r} of {where} says which images are of split {split!r}: {len(kept)} of {len(named)}.",
            stacklevel=6,
        )
        return rows.select(kept)
    return rows


def tell_unread(rows, split: str, where: str) -> None:
    """A warning where a column says other splits than those that the data has of its own."""
    column, named = of_rows(rows)
    if others := sorted({*named} - asked_in(split)):
        warnings.warn(
            f"The column {column!r} of {where} is not read: the data has splits of its own, and rows of split "
            f"{split!r} say {series(others)}. Take the column away, or give one table with all rows.",
            stacklevel=6,
        )
