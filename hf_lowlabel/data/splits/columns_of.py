"""What each column of a table is, by its name and its cells: decided once for labels, for splits and for imports."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ...errors import UserError
from ...text import series
from ..files.folders import ALIASES
from ..labels.columns import (
    BOX_COLUMNS,
    FILE_COLUMNS,
    FOLDER_COLUMNS,
    Rows,
    column_called,
    is_picture,
    without_header,
)
from ..labels.labels import LABEL_COLUMNS, NO_LABEL, joined
from ..labels.numbers import NUMBER
from ..labels.ticks import (
    Columns,
    emptied,
    one_of_columns,
    refuse_strays,
    switches,
    tell_unread,
    with_blanks,
    without_nothing,
)
from .split_names import split_named, split_text

SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset_split", "phase", "fold", "data_set", "usage")
WEAK = ("set", "phase", "fold", "data_set", "usage")  # those that often say something else
FLAGS = {  # columns of yes and no -> (the split of a yes, of a no), what is held out first
    "is_valid is_val is_validation": ("validation", "train"),
    "is_test": ("test", "train"),
    "is_train is_training is_training_image": ("train", "test"),
}
MAY_SAY = (*SPLIT_COLUMNS, *" ".join(FLAGS).split())
FEW = 10  # distinct cells that may be splits in words that are not known


class SplitColumn(NamedTuple):
    """The columns that say the split of each row, most often one, and the split as text, "" where none is said."""

    columns: tuple[str, ...]
    said: list[str]

    @property
    def name(self) -> str:
        return self.columns[0]

    @property
    def splits(self) -> list[str]:
        return [*map(split_named, self.said)]


class ColumnsOf:
    """The columns of a table.

    files: the one that names images, by what it is called; folders: one of folders or patients; boxes: one of boxes.
    label: the one of labels, as it is asked for or by its name. Each is None where there is none. Others, from the
    cells: `split`, `ticks`, `classes`, `pictures`.
    """

    def __init__(self, cells: Mapping[str, Sequence], asked: str | None = None, no_label: Iterable[str] = NO_LABEL):
        self.cells, self.asked, self.no_label = cells, asked, no_label
        self.names = [*cells]
        self.files, self.folders, self.boxes = (
            column_called(self.names, known) for known in (FILE_COLUMNS, FOLDER_COLUMNS, BOX_COLUMNS)
        )
        self.label = asked if asked in cells else column_called(self.names, LABEL_COLUMNS)

    @classmethod
    def of_rows(cls, numbered: Rows, asked: str | None = None, no_label: Iterable[str] = NO_LABEL) -> ColumnsOf:
        """See `ColumnsOf`, of a table as `read_table` gives it."""
        names = dict.fromkeys(key for _, row in numbered for key in row)
        return cls({name: [row.get(name) for _, row in numbered] for name in names}, asked, no_label)

    @property
    def split(self) -> SplitColumn | None:
        """What names the split of each image; never the label column that is asked for."""
        return self.found_split[0]

    @cached_property
    def found_split(self) -> tuple[SplitColumn | None, list[str]]:
        return find_split({name: values for name, values in self.cells.items() if name != self.asked})

    def tell(self) -> None:
        """A warning of each column that seems to say the split of an image, and is not read."""
        for text in self.found_split[1]:
            warnings.warn(text, stacklevel=1)  # of one place, so that a table that two read is told of once

    @property
    def apart(self) -> set[str]:
        """The columns that say the split, which are no labels."""
        return {*(self.split.columns if self.split is not None else ())}

    def ticks(self, besides: Iterable[str | None] = ()) -> dict[str, list]:
        """The cells of the columns that may be a class each: all but those of files, of splits and `besides`."""
        known = {self.files, *self.apart, *besides}
        return emptied({name: self.cells[name] for name in self.names if name not in known}, self.no_label)

    def has_labels(self, besides: Iterable[str | None] = (), several: bool = False) -> bool:
        """Whether a column says labels, or there is one for each class. several: however many are yes in a row."""
        if self.label is not None:
            return True
        ticks = self.ticks(besides)
        return len(switches(ticks)) > 1 if several else one_of_columns(ticks) is not None

    def classes(
        self, where: str, row: Callable[[int], str], several: bool = False, besides: Iterable[str | None] = ()
    ) -> Columns:
        """The columns of a class each; those that are none beside them are told.

        Args:
            where: the name of the table.
            row: what a row is called, by its number from 0.
            several: however many classes of a row are yes; else there are some only where each row has one.
            besides: columns that are no classes.

        Raises:
            UserError: a cell is neither yes nor no, or some of a row are empty.
        """
        cells = self.ticks(besides)
        refuse_strays(cells, where, row, one_each=not several)
        if not several and one_of_columns(cells) is None:
            return {}
        found = switches(cells)
        tell_unread(cells, found, where)
        if not several:
            return found
        found = without_nothing(with_blanks(found, where), where, row)
        partly = (k for k, values in enumerate(zip(*found.values())) if None in values and {*values} != {None})
        if (k := next(partly, None)) is not None:
            raise UserError(f"{row(k)} of {where} has 0 or 1 for some classes. Fill in all, or none.")
        return found

    @cached_property
    def pictures(self) -> list[str]:
        """The columns of names of picture files alone, whatever they are called."""
        cells = {name: [*filter(None, map(text_of, values))] for name, values in self.cells.items()}
        return [name for name, texts in cells.items() if texts and all(map(is_picture, texts))]

    def refuse_headless(self, file: str, write: str = "file_name,label", why: str = "") -> None:
        """Raises UserError where the first image stands in the place of the names of columns."""
        if self.files is None and without_header(self.names):
            raise UserError(
                f"{file} begins with {', '.join(map(str, self.names[:3]))}, which are no names of columns. Put a line "
                f"such as {write} above it{why}."
            )


def ticked(found: Columns) -> list[str | None]:
    """The classes with a yes of each row, as a;b; None where all are empty."""
    rows = zip(*found.values())
    return [None if {*row} == {None} else joined(name for name, yes in zip(found, row) if yes) for row in rows]


def text_of(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def find_split(cells: Mapping[str, Sequence]) -> tuple[SplitColumn | None, list[str]]:
    """(what names the split of each image, of the columns of a table; what is to be told of those that seem to)."""
    flags, unread = of_flags(cells)
    named = {column: word for word in SPLIT_COLUMNS if (column := column_called([*cells], (word,))) is not None}
    told = list[str]()
    for column, word in named.items():
        said = list(map(split_text, cells[column]))
        found = {*said} - {""}
        both = bool(found & {"val", "validation"} and found & {"test", "testing"})
        trains = word not in WEAK or both or "train" in map(split_named, said)  # else of code, as dev and eval
        if found and found <= ALIASES and trains:
            return SplitColumn((column,), said), [*told, *unread_flags(column, said, flags)]
        odd = sorted(found - ALIASES)
        unknown = word not in WEAK and 2 <= len(found) <= FEW and not any(NUMBER.fullmatch(text) for text in odd)
        if found & ALIASES or unknown:
            says = f"{series(odd[:5] or sorted(found))}{' too' * bool(odd and found & ALIASES)}"
            told.append(
                f"The column {column!r} is not read as the split of an image, since it says {says}"
                f"{'' if odd else ', and train of none'}. Write train, validation or test in each of its cells, or "
                "nothing; or call it otherwise, if it says no splits."
            )
    others = [column for column in cells if flags is None and column not in named and says_splits(cells[column])]
    unread |= {
        column: f"it says {series(sorted({*map(split_text, cells[column])} - {''}))}, and all are learned from"
        for column in others
    }
    told += [
        f"The column {column!r} is not read as the split of an image, since {why}. If it is that, call it split and "
        "write train, validation or test in each of its cells."
        for column, why in unread.items()
    ]
    return flags, told


def unread_flags(column: str, said: Sequence[str], flags: SplitColumn | None) -> list[str]:
    """What to tell of a column such as is_valid beside one of splits, which says of less images that they are held
    out."""
    if flags is None or not any(split_named(a) == "train" != b for a, b in zip(said, flags.said) if b):
        return []
    return [
        f"The column {column!r} says the split of an image, and {flags.name!r} is not read, which holds out images "
        "that are of training by it. Take away the one that is not meant."
    ]


def says_splits(cells: Iterable[Any]) -> bool:
    """Whether cells say training and a split that is held out, and nothing else."""
    found = set[str]()
    for text in map(split_text, cells):
        if text and text not in ALIASES:
            return False
        found.add(split_named(text) if text else "")
    return "train" in found and not found.isdisjoint(("validation", "test"))


def of_flags(cells: Mapping[str, Sequence]) -> tuple[SplitColumn | None, dict[str, str]]:
    """(by columns of yes and no such as is_valid, of which one says both; those that are not read, and why: one that
    holds out more than half may say that an image is sound, unless there are two and no row is of both)."""
    called = {column_called([*cells], words.split()): of for words, of in FLAGS.items()}
    known = {column: of for column, of in called.items() if column is not None}
    ticks = switches({column: cells[column] for column in known})
    full = {c: v if known[c][0] == "train" else [int(one or 0) for one in v] for c, v in ticks.items()}  # "": no
    ticks, over = {c: v for c, v in full.items() if {0, 1} <= {*v}}, list[str]()
    if len(ticks) < 2 or any(row.count(1) > 1 for row in zip(*ticks.values())):
        over = [c for c, v in ticks.items() if known[c][0] != "train" and v.count(1) * 2 > len(v)]
        ticks = {c: v for c, v in ticks.items() if c not in over}
    unread = dict.fromkeys(over, "it says yes of more than half of them")
    if not ticks:
        return None, unread
    rows = ([known[c][not v] for c, v in zip(ticks, row) if v is not None] for row in zip(*ticks.values()))
    said = [next((one for one in row if one != "train"), "train") if row else "" for row in rows]
    return SplitColumn(tuple(ticks), said), unread
