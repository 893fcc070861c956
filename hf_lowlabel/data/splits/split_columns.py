"""Tables that are read for what a column of them says of images: their splits, and by which column and folders they
name the images."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ..files.folders import ALIASES, WITH_MORE, is_text, metadata_file, metadata_files
from ..files.table_files import TABLES, NoTable, plain_name, read_table
from ..labels.columns import Rows
from .columns_of import ColumnsOf, SplitColumn
from .pool import Pool
from .split_names import OF_ALL
from .split_tables import tables_of_splits, tell_torn


class SplitTable(NamedTuple):
    """A table of images, what its columns are, and what its column of splits says."""

    file: Path
    numbered: Rows
    columns: ColumnsOf
    said: SplitColumn


def of_labels(folder: Path, own: str | None, masks: bool, label: str | None = None) -> SplitTable | None:
    """The table of labels in a folder, where it has a column of splits. own: the folder's split. masks: one of several
    of a name. label: the column that is asked for."""
    files = metadata_files(folder, own, more=True) if masks else [metadata_file(folder, own, more=True)]
    tell = own in (None, "train")  # a folder of held-out images needs no column
    found = [opened(file, masks or file.stem.lower() in WITH_MORE, label, tell) for file in files if file]
    tables = [table for table in found if table is not None]
    if len(tables) > 1:
        raise UserError(
            f"Both {' and '.join(table.file.name for table in tables)} in {str(folder)!r} have a column of splits. "
            "Keep one."
        )
    return tables[0] if tables else None


def called_so(
    path: Path, masks: bool, label: str | None, tell: bool, read: Callable[[Path], Rows] = read_table
) -> list[SplitTable]:
    """The tables called train or splits whose column says another split than train. label: the label column that is
    asked for. tell: a warning of columns that are not read."""
    files = [file for split, file in tables_of_splits(path) if split == "train"]
    files += [
        file
        for file in sorted(path.iterdir())
        if is_text(file.name) and file.stem.lower() in OF_ALL and file.suffix.lower() in TABLES and file.is_file()
    ]
    tables = [opened(file, masks or file.stem.lower() not in ALIASES, label, tell, read) for file in files]
    return [table for table in tables if table is not None and {*table.said.splits} != {"train"}]


def opened(
    file: Path, loose: bool, label: str | None, tell: bool, read: Callable[[Path], Rows] = read_table
) -> SplitTable | None:
    """A table with a column of splits; None for another. loose: one that cannot be read is none, with a warning."""
    try:
        numbered = read(file)
    except NoTable:  # which is said where labels are read
        return None
    except UserError as error:
        if not loose:
            raise
        tell_torn(file, error)
        return None
    columns = ColumnsOf.of_rows(numbered, label)
    if tell:
        columns.tell()
    return SplitTable(file, numbered, columns, columns.split) if columns.split is not None else None


class Named(NamedTuple):
    """The column that names the images of a table's rows, the name in each row, and its id below the table's folder;
    None where there is no single one."""

    column: str | None
    names: list[str]
    ids: list[str | None]


def images_named(columns: ColumnsOf, said: SplitColumn, pool: Pool) -> Named:
    """Which image each row is of: by the column that is called as one of file names; where it names no image, by that
    of names of pictures which names most. pool: of the folder that the table lies in."""
    splits = said.splits

    def named(column: str) -> Named:
        names = [*map(plain_name, columns.cells[column])]
        ids: list[str | None] = [None] * len(names)
        for split in {*splits}:
            at = [k for k, one in enumerate(splits) if one == split]
            for k, id in zip(at, pool.match([names[k] for k in at], split)):
                ids[k] = id
        return Named(column, names, ids)

    none = Named(None, [""] * len(splits), [None] * len(splits))
    called = named(columns.files) if columns.files is not None else none
    if any(called.ids):
        return called
    found = [named(column) for column in columns.pictures if column != columns.files]
    best = max(found, key=lambda one: sum(id is not None for id in one.ids), default=called)
    return best if any(best.ids) else called


def prefix(path: Path, folder: Path) -> str:
    """What the ids of a data set begin with that lie in a folder of it."""
    return "" if folder == path else f"{unicodedata.normalize('NFC', folder.relative_to(path).as_posix())}/"
