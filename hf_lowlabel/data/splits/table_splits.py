"""A column of a DataFrame, of parquet or of a Hub table that says which split a row is of, as in a folder's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import MissingSplit
from ...text import series, warn
from ..files.folders import ALIASES, UNLABELED, spellings
from ..labels.columns import TEXT, column_called
from ..labels.labels import LABEL_COLUMNS
from .split_names import MAY_SAY, begins_with_is, split_column, split_named, split_text

FIRST = 100  # cells of a column of another name that are looked at


class Part(NamedTuple):
    """Rows of a split. called: the name of the split. kept: which of `whole`, the rows of all splits, they are; None:
    all."""

    rows: Any
    called: str
    whole: Any = None
    kept: list[int] | None = None


def rows_of_split(
    opened: Callable[[str], Any],
    split: str,
    where: str,
    several: bool = False,
    every: bool = False,
    label: str | None = None,
) -> Part:
    """The rows of a split, by the column where the data has no splits of its own.

    Args:
        opened: the `datasets.Dataset` of a split.
        split: that is asked for.
        where: the data, in messages.
        several: the data has splits of its own, which it may say itself too.
        every: the column means nothing.
        label: the label column that is asked for, which says no splits.

    Raises:
        MissingSplit: no row is of this split.
    """
    try:
        rows = opened(split)
    except MissingSplit:
        if every:
            raise
        try:
            rows = opened("train")
        except MissingSplit:
            rows = None
        column, named = (
            split_of_each_row(rows, label) if rows is not None and not (several or has_splits(rows)) else (None, [])
        )
        asked = set(spellings(split))
        if not asked & {*named}:
            raise
        if divides_nothing(named) and "train" not in asked:  # they are those of training, which asks for them first
            raise MissingSplit(
                f"The column {column!r} of {where} says {named[0]!r} in all rows, so that it divides nothing: all are "
                f"split 'train', and none is of split {split!r} beside it. Ask for split 'train'."
            ) from None
        return part(rows, split, where, split, label)
    called = split if rows.split is None else str(rows.split)
    if every:
        return Part(rows, called)
    if several or has_splits(rows):
        warn_split_column_unread(rows, split, where, label)
        return Part(rows, called)
    return part(rows, split, where, called, label)


def has_splits(rows) -> bool:
    """Whether the data that rows are of has several splits, or these are of another one than "train"."""
    return len(rows.info.splits or ()) > 1 or not asked_in(str(rows.split or "train")) & {"train"}


def split_of_each_row(rows, label: str | None, tell: bool = True) -> tuple[str | None, list[str]]:
    """The column that says the split of each row, and that split; (None, []) where there is none. tell: as in
    `split_column`."""
    named = [column for name in MAY_SAY if (column := column_called(rows.column_names, (name,))) is not None]
    named += filter(begins_with_is, rows.column_names)  # which may be classes beside is_train
    cells = {column: cells_in(rows, column) for column in rows.column_names if may_say(rows, column, column in named)}
    asked = column_called(rows.column_names, LABEL_COLUMNS) if label is None else label
    found = split_column(cells, asked, tell)
    return (found.name, [text or "train" for text in found.said]) if found is not None else (None, [])


def may_say(rows, column: str, named: bool) -> bool:
    """Whether a column may say splits: one of text, and of yes and no that is called so, whatever it says where it is
    called so, else by its first cells."""
    feature = rows.features[column]
    if getattr(feature, "names", None) is not None:
        return named or {*map(str.lower, feature.names)} <= ALIASES
    kind = str(getattr(feature, "dtype", ""))
    if named:
        return kind in TEXT or kind.startswith(("bool", "int", "uint"))
    return kind in TEXT and {*map(split_text, cells_in(rows, column, FIRST))} <= {"", *ALIASES}


def cells_in(rows, column: str, first: int | None = None) -> list:
    """The cells of a column, by their names where it declares classes."""
    names = getattr(rows.features[column], "names", None)
    cells = rows.select_columns([column]).with_format(None)[:first][column]
    return cells if names is None else [None if k is None or k < 0 else names[k] for k in cells]


def divides_nothing(named: list[str]) -> bool:
    """Whether all rows are of one split."""
    return len({*map(split_named, named)}) == 1


def asked_in(split: str) -> set[str]:
    """The names of splits in one such as train[:100]+validation, in any spelling."""
    return {name for one in split.split("+") for name in spellings(one.partition("[")[0])}


def part(rows, split: str, where: str, called: str, label: str | None) -> Part:
    """Those of a split by the column, all where there is none, or where it says one other split of all that are given
    for training, as what was cut out of a table does."""
    column, named = split_of_each_row(rows, label)
    asked = asked_in(split)
    if column is None or not asked & ALIASES:
        return Part(rows, called)
    if divides_nothing(named) and "train" in asked and not asked & {*named}:
        warn(
            f"The column {column!r} of {where} says {named[0]!r} in all rows, so that it divides nothing: all are "
            f"taken as split {split!r}."
        )
        return Part(rows, called)
    kept = [i for i, name in enumerate(named) if name in asked]
    if not kept:
        raise MissingSplit(f"The column {column!r} of {where} names no image of split {split!r}.")
    if len(kept) < len(named):
        warn(
            f"The column {column!r} of {where} says which images are of split {split!r}: {len(kept)} of {len(named)}."
            + unlabeled_too(named, split)
        )
        return Part(rows.select(kept), called, rows, kept)
    return Part(rows, called)


def unlabeled_too(named: Sequence[str], split: str) -> str:
    """What to say of images for training that are of a split of their own, which is read where it is asked for."""
    count = sum(split_named(name) == UNLABELED for name in named)
    if not count or split_named(split) != "train":
        return ""
    return (
        f" {count} more are of split {UNLABELED!r}, which are read only where --unlabeled-dataset names the same data "
        f"and --unlabeled-dataset-split is {UNLABELED} (`finetune`, `pretrain`). For other verbs say 'train' of them, "
        "and give them no label."
    )


def warn_split_column_unread(rows, split: str, where: str, label: str | None) -> None:
    """A warning where a column says other splits than those that the data has of its own."""
    column, named = split_of_each_row(rows, label, tell=False)
    if others := sorted({*named} - asked_in(split)):
        warn(
            f"The column {column!r} of {where} is not read: the data has splits of its own, and rows of split "
            f"{split!r} say {series(others)}. Take the column away, or give one table with all rows."
        )
