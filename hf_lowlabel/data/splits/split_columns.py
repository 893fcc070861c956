"""Tables with a column that says the split of each image, and by which column and folders they name the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...text import warn
from ..files.folders import ALIASES, WITH_MORE, is_text, metadata_file, metadata_files
from ..files.table_files import TABLES, NoTable, plain_name, read_table
from ..labels.columns import FILE_COLUMNS, Rows, cells_of, column_called, columns_of
from .pool import Pool
from .split_names import OF_ALL, SplitColumn, refuse_two_splits, split_column, split_named
from .split_tables import named_as_image, tables_of_splits

HELD = ("validation", "test")


class SplitTable(NamedTuple):
    """A table and what its column of splits says."""

    file: Path
    numbered: Rows
    said: SplitColumn

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self.numbered]

    @property
    def splits(self) -> list[str]:
        return [*map(split_named, self.said.said)]


def label_table_with_splits(folder: Path, own: str | None, masks: bool, label: str | None = None) -> SplitTable | None:
    """The table of labels in a folder, where it has a column of splits. own: the folder's split. label: the column that
    is asked for."""
    files = metadata_files(folder, own, more=True)
    files = files if masks else [file for file in [metadata_file(folder, own, more=True)] if file]
    loose = {file: masks or file.stem.lower() in WITH_MORE for file in files}
    tell = own is None or split_named(own) == "train"  # a folder of held-out images needs no column
    found = [table for file in files if (table := with_splits(file, loose[file], label, tell=tell)) is not None]
    if len(found) > 1:
        raise UserError(
            f"Both {' and '.join(table.file.name for table in found)} in {str(folder)!r} have a column of splits. Keep "
            "one."
        )
    return found[0] if found else None


def tables_named_train_or_splits(
    path: Path, masks: bool, label: str | None = None, read: Callable[[Path], Rows] = read_table, tell: bool = True
) -> list[SplitTable]:
    """The tables called train or splits whose column says another split than train. label: the label column that is
    asked for. tell: a warning of columns that are not read."""
    files = [file for split, file in tables_of_splits(path) if split == "train"]
    files += [
        file
        for file in sorted(path.iterdir())
        if is_text(file.name) and file.stem.lower() in OF_ALL and file.suffix.lower() in TABLES and file.is_file()
    ]
    loose = {file: masks or file.stem.lower() not in ALIASES for file in files}  # which may be of something else
    found = [table for file in files if (table := with_splits(file, loose[file], label, read, tell)) is not None]
    return [table for table in found if {*table.splits} != {"train"}]


def with_splits(
    file: Path, loose: bool, label: str | None, read: Callable[[Path], Rows] = read_table, tell: bool = True
) -> SplitTable | None:
    """A table with a column of splits; None for another. loose: one that cannot be read is none, with a warning. tell:
    a warning of a column that is not read."""
    try:
        numbered = read(file)
    except NoTable:  # which is said where labels are read
        return None
    except UserError as error:
        if not loose:
            raise
        warn(f"{file.name} is not read for splits of images: {error}")
        return None
    rows = [row for _, row in numbered]
    said = split_column(cells_of(rows, columns_of(rows)), label, tell)
    return SplitTable(file, numbered, said) if said is not None else None


class Named(NamedTuple):
    """The column that names the images of a table's rows, the name in each row, and its id below the table's folder;
    None where there is no single one."""

    column: str | None
    names: list[str]
    ids: list[str | None]


def images_named(table: SplitTable, pool: Pool) -> Named:
    """Which image each row is of. pool: of the folder that the table lies in."""
    splits = table.splits

    def match(names: list[str]) -> list[str | None]:
        out: list[str | None] = [None] * len(names)
        for split in {*splits}:
            at = [k for k, said in enumerate(splits) if said == split]
            for k, id in zip(at, pool.match([names[k] for k in at], split)):
                out[k] = id
        return out

    return column_of_files(table.rows, match)


def column_of_files(rows: Sequence[dict], match: Callable[[list[str]], list[str | None]]) -> Named:
    """The column that is called as one of file names; where it names no image, that of names of pictures which names
    most."""
    columns = columns_of(rows)
    called = column_called(columns, FILE_COLUMNS)
    names = [plain_name(row.get(called)) for row in rows] if called is not None else [""] * len(rows)
    ids = match(names)
    if any(ids):
        return Named(called, names, ids)
    found = []
    for column in columns:
        texts = [str(cell) for row in rows if (cell := row.get(column)) not in (None, "")]
        if column != called and texts and all(named_as_image(text.strip()) for text in texts):
            others = [plain_name(row.get(column)) for row in rows]
            found.append(Named(column, others, match(others)))
    best = max(found, key=lambda one: sum(id is not None for id in one.ids), default=None)
    return best if best is not None and any(best.ids) else Named(called, names, [None] * len(rows))


class Said(NamedTuple):
    """What a table says of images. of: id below the data set -> split. lost: names of held-out images that are not
    there. name: the column of names."""

    of: dict[str, str]
    lost: list[str]
    name: str | None


def splits_of_images(table: SplitTable, pool: Pool, inside: str, skip_missing: bool) -> Said:
    """What a column of splits says. inside: what ids begin with in the folder of the table.

    Raises UserError for an image of two splits, and where no column names the images that it is about."""
    name, names, ids = images_named(table, pool)
    splits, lines, file = table.splits, [line for line, _ in table.numbered], table.file
    ids = [None if id is None else f"{inside}{id}" for id in ids]
    refuse_two_splits(file, zip(lines, ids, splits))
    lost = [given for given, id, said in zip(names, ids, splits) if said in HELD and given and not id]
    if (
        name is None
        and {*splits} - {"train"}
        or lost
        and not (any(ids) or skip_missing or any(map(named_as_image, names)))
    ):
        odd = f" ({name!r} says {lost[0]!r}, which no image is called)" if lost else ""
        raise UserError(
            f"The column {table.said.name!r} of {file.name} says the split of images, and no column names their "
            f"files{odd}. Add a column file_name with the name of the file in each row, or take the table elsewhere."
        )
    return Said({id: said for id, cell, said in zip(ids, table.said.said, splits) if id and cell}, lost, name)
