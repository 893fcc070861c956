"""Tables called as splits beside one folder of images: train.csv, test.csv ..., each a list of the images of a split,
with labels or without, as Kaggle has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MissingSplit, UserError
from ..text import series
from .columns import FILE_COLUMNS, column_called
from .folders import EXTENSIONS, SPLITS, is_text, parquet, spellings
from .labels import LABEL_COLUMNS, NO_LABEL
from .table_files import TABLES, ImageNames, NoTable, plain_name, read_table
from .ticks import emptied, switches

LISTED = ("train", "validation", "test")


@dataclass
class SplitTables:
    """of: id -> split, of the images that a table names. files: split -> names of its tables. labeled: that of the
    training images has labels. absent: split -> how many of the names have no image."""

    of: dict[str, str]
    files: dict[str, list[str]]
    labeled: bool
    absent: dict[str, int]

    def of_split(self, ids: Sequence[str], split: str) -> np.ndarray:
        """bool [N]: which images are of a split; those in no table are for training.

        Raises:
            MissingSplit: no image is of this split.
        """
        asked = next(name for name in LISTED if split in SPLITS[name])
        kept = np.array([self.of.get(id, "train") == asked for id in ids])
        tables = series([file for names in self.files.values() for file in names])
        if not kept.any():
            raise MissingSplit(f"By {tables} no image is of split {split!r}. Name some in {asked}.csv.")
        if not kept.all():
            absent = self.absent.get(asked, 0)
            warnings.warn(
                f"{tables} say which images are of split {split!r}: {kept.sum()} of {len(ids)}."
                + (f" {absent} names have no image." if absent else ""),
                stacklevel=4,
            )
        return kept


def tables_of_splits(path: Path) -> list[tuple[str, Path]]:
    """(split, table) of those in a folder that are called as a split."""
    files = [file for file in path.iterdir() if is_text(file.name) and file.suffix.lower() in TABLES and file.is_file()]
    named = sorted(file for file in files if not parquet(file))
    return [(split, file) for split in LISTED for file in named if file.stem.lower() in SPLITS[split]]


def names_split(path: Path, split: str) -> bool:
    """Whether a table beside the images is called as a split."""
    return any(name in spellings(split) for name, _ in tables_of_splits(path))


def read_split_tables(path: Path, split: str, ids: Sequence[str], label: str | None = None) -> SplitTables | None:
    """Which images are of which split by tables that are called so.

    Args:
        path: the data set, whose images are in one folder.
        split: that is asked for.
        ids: of all images.
        label: the label column that is asked for.

    Returns:
        None where no table but that of the training images names any.

    Raises:
        UserError: an image is in the tables of two splits, or a table cannot be read.
    """
    tables = tables_of_splits(path)
    if {name for name, _ in tables} <= {"train"} or not any(split in SPLITS[name] for name in LISTED):
        return None
    every, out, where = ImageNames(ids, EXTENSIONS), SplitTables({}, {}, False, {}), dict[str, str]()
    for name, file in tables:
        try:
            rows = [row for _, row in read_table(file)]
        except NoTable:  # such as COCO's
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        column = column_called(columns, FILE_COLUMNS)
        names = [plain_name(row.get(column)) for row in rows] if column else []
        found, _ = every.match(names)
        there = [id for id in found if id is not None]
        if not there:
            continue
        for id in there:
            if out.of.setdefault(id, name) != name:
                raise UserError(
                    f"{id!r} is in {where[id]} and in {file.name}. Keep one of them: an image that is tested on must "
                    "not be learned from."
                )
            where.setdefault(id, file.name)
        if name == "train":
            cells = {key: [row.get(key) for row in rows] for key in columns if key != column}
            called = label in columns or column_called(columns, LABEL_COLUMNS) is not None
            out.labeled |= called or bool(switches(emptied(cells, NO_LABEL)))
        out.files.setdefault(name, []).append(file.name)
        out.absent[name] = out.absent.get(name, 0) + sum(map(bool, names)) - len(there)
    return out if {*out.files} - {"train"} else None
