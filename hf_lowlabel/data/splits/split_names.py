"""Cells that say which split an image is of, in a table of a folder, of memory or of the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...text import series, warn
from ..files.folders import ALIASES, SPLITS
from ..labels.columns import column_called
from ..labels.labels import LABEL_COLUMNS, NO_LABEL
from ..labels.numbers import NUMBER
from ..labels.ticks import one_of_columns, switches

SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset_split", "phase", "fold", "data_set", "usage")
WEAK = ("set", "phase", "fold", "data_set", "usage")  # those that often say something else
FLAGS = {  # columns of yes and no -> (the split of a yes, of a no), what is held out first
    "is_valid is_val is_validation": ("validation", "train"),
    "is_test": ("test", "train"),
    "is_train is_training is_training_image": ("train", "test"),
}
TRAINING = [*FLAGS][-1].split()
MAY_SAY = (*SPLIT_COLUMNS, *" ".join(FLAGS).split())
OF_ALL = ("split", "splits")  # names of tables that say splits and nothing else
FEW = 10  # distinct cells that may be splits in words that are not known


class SplitColumn(NamedTuple):
    """The columns that say the split of each row, most often one, and the split as text, "" where none is said."""

    columns: tuple[str, ...]
    said: list[str]

    @property
    def name(self) -> str:
        return self.columns[0]


def split_column(cells: Mapping[str, Sequence], asked: str | None = None, tell: bool = True) -> SplitColumn | None:
    """What names the split of each image, of the columns of a table but for the label column that is asked for. tell:
    a warning of one that seems to, and is not read."""
    flags, unread = of_flags(cells, asked)
    cells = {column: values for column, values in cells.items() if column != asked}
    named = {column: word for word in SPLIT_COLUMNS if (column := column_called(list(cells), (word,))) is not None}
    for column, word in named.items():
        said = list(map(split_text, cells[column]))
        found = {*said} - {""}
        both = bool(found & {"val", "validation"} and found & {"test", "testing"})
        trains = (
            word not in WEAK or both or "train" in map(split_named, said)
        )  # else it may be of code, as dev and eval
        if found and found <= ALIASES and trains:
            if tell:
                tell_flags(column, said, flags)
            return SplitColumn((column,), said)
        odd = sorted(found - ALIASES)
        unknown = word not in WEAK and 2 <= len(found) <= FEW and not any(NUMBER.fullmatch(text) for text in odd)
        if tell and (found & ALIASES or unknown):
            says = f"{series(odd[:5] or sorted(found))}{' too' * bool(odd and found & ALIASES)}"
            warn(
                f"The column {column!r} is not read as the split of an image, since it says {says}"
                f"{'' if odd else ', and train of none'}. Write train, validation or test in each of its cells, or "
                "nothing; or call it otherwise, if it says no splits."
            )
    others = (column for column in cells if tell and flags is None and column not in named)
    unread |= {
        column: f"it says {series(sorted({*map(split_text, cells[column])} - {''}))}, and all are learned from"
        for column in others
        if says_splits(cells[column])
    }
    for column, why in unread.items() if tell else ():
        warn(
            f"The column {column!r} is not read as the split of an image, since {why}. If it is that, call it split "
            "and write train, validation or test in each of its cells."
        )
    return flags


def tell_flags(column: str, said: Sequence[str], flags: SplitColumn | None) -> None:
    """A warning of a column such as is_valid beside one of splits, which says of less images that they are held out."""
    if flags is not None and any(split_named(one) == "train" != other for one, other in zip(said, flags.said) if other):
        warn(
            f"The column {column!r} says the split of an image, and {flags.name!r} is not read, which holds out images "
            "that are of training by it. Take away the one that is not meant."
        )


def says_splits(cells: Iterable[Any]) -> bool:
    """Whether cells say training and a split that is held out, and nothing else."""
    found = set[str]()
    for text in map(split_text, cells):
        if text and text not in ALIASES:
            return False
        found.add(split_named(text) if text else "")
    return "train" in found and not found.isdisjoint(("validation", "test"))


def of_flags(cells: Mapping[str, Sequence], asked: str | None) -> tuple[SplitColumn | None, dict[str, str]]:
    """(by columns of yes and no such as is_valid, of which one says both; those that may say something else, and why).

    is_train may be a class beside is_car, where no column says labels or each row is of one of both, unless each row is
    of one split. One that holds out more than half may say that an image is sound, unless no row is of two splits.
    asked: the label column that is asked for."""
    names = [column for column in cells if column != asked]
    called = {column_called(names, words.split()): of for words, of in FLAGS.items()}
    known = {column: of for column, of in called.items() if column is not None}
    others = {column: cells[column] for column in cells if column not in known and begins_with_is(column)}
    train, unread = column_called([*known], TRAINING), dict[str, str]()
    unlabeled, beside = asked is None and column_called([*cells], LABEL_COLUMNS) is None, switches(others)
    if (
        train is not None
        and beside
        and (unlabeled or one_of_columns({train: cells[train], **others}) is not None)
        and one_of_columns({column: cells[column] for column in known}) is None
    ):
        del known[train]
        if {0, 1} <= {*switches({train: cells[train]}).get(train, ())}:
            unread[train] = f"it may be a class as {[*beside][0]!r} beside it"
    ticks = switches({c: cells[c] for c in known})
    full = {c: v if known[c][0] == "train" else [int(one or 0) for one in v] for c, v in ticks.items()}  # "": no
    ticks = {c: v for c, v in full.items() if {0, 1} <= {*v}}
    if len(ticks) < 2 or any(row.count(1) > 1 for row in zip(*ticks.values())):
        over = [c for c, v in ticks.items() if known[c][0] != "train" and v.count(1) * 2 > len(v)]
        unread |= dict.fromkeys(over, "it says yes of more than half of them")
        ticks = {c: v for c, v in ticks.items() if c not in over}
    if not ticks:
        return None, unread
    rows = ([known[c][not v] for c, v in zip(ticks, row) if v is not None] for row in zip(*ticks.values()))
    said = [next((one for one in row if one != "train"), "train") if row else "" for row in rows]
    return SplitColumn(tuple(ticks), said), unread


def begins_with_is(column: str) -> bool:
    return column.strip().lower().startswith(("is_", "is "))


def split_named(cell: Any) -> str:
    """The split that a cell says, as this package calls it; "train" where it says none."""
    return next((name for name, known in SPLITS.items() if split_text(cell) in known), "train")


def refuse_two_splits(file: Path, rows: Iterable[tuple[int, str | None, str]]) -> None:
    """Raises UserError where a table puts an image into two splits. rows: (line, id, split)."""
    seen: dict[str, tuple[int, str]] = {}
    for line, id, split in rows:
        if id and (before := seen.setdefault(id, (line, split)))[1] != split:
            raise UserError(
                f"{file.name}, row {line}: {id!r} is of split {split!r} here, and of {before[1]!r} in row {before[0]}. "
                "Keep one of them: an image that is tested on must not be learned from."
            )


def split_text(cell: Any) -> str:
    """A split as text; "" where a cell says none."""
    text = "" if cell is None else str(cell).strip().lower()
    return "" if text in NO_LABEL else text
