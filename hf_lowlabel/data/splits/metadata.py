"""The table of labels of a folder of images: which file it is, and what its rows say of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError, nearest, unknown
from ...text import warn
from ..files.folders import METADATA, SPLITS, UNLABELED, WITH_MORE, listing, metadata_file, path_inside
from ..files.split_words import called_as_split
from ..files.table_files import NoTable, folders_of, match_names, plain_name, read_table
from ..labels.columns import BOX_COLUMNS, FILE_COLUMNS, Rows, cells_of, column_called, columns_of, without_header
from ..labels.labels import LabelRules, label_column
from ..labels.ticks import emptied, one_of_columns, refuse_strays, switches
from .pool import Pool
from .split_columns import SplitTable, images_named, tables_named_train_or_splits
from .split_names import split_column, split_named
from .split_tables import left_to_folders


@dataclass
class Metadata:
    """rows: (id, the cells of its row) of images in the folder. columns: all but that of the file names. left_out:
    (file name, why) of rows that are not used."""

    file: Path
    rows: list[tuple[str, dict[str, Any]]]
    columns: list[str]
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def cells(self) -> dict[str, list]:
        """The cells by column."""
        return cells_of([row for _, row in self.rows], self.columns)


def read_metadata(
    path: Path,
    root: Path,
    split: str,
    ids: Sequence[str],
    rules: LabelRules,
    label: str | None = None,
    several: bool = False,
) -> Metadata | None:
    """What a table says of the images in the folder `root` of a split, in the data set at `path`.

    The table lies in `root`, or beside it; there it is of all splits, unless it is called as this one.

    Args:
        path: the data set.
        root: the folder of the split; `path` where there are no splits.
        split: the name of the split.
        ids: of the images in `root`.
        rules: what becomes of rows that name no image.
        label: the label column that is asked for.
        several: whether columns of yes and no are labels, however many of a row are yes.

    Returns:
        The rows, None where there is no table.

    Raises:
        UserError: the table cannot be read, or rows name no image.
    """
    if (file := table_of(path, root, split, label)) is None:
        return None
    by_name = file.stem.lower() != METADATA[0]  # no file is called metadata by chance
    loose = label is None and file.stem.lower() in WITH_MORE
    if (numbered := rows_in(file, loose, by_name)) is None:
        return None
    columns = columns_of(row for _, row in numbered)
    numbered = [(line, row) for line, row in numbered if any(cell not in (None, "") for cell in row.values())]
    rows, pool = [row for _, row in numbered], Pool(file.parent)
    name, named = column_called(columns, FILE_COLUMNS), None
    splits = split_column(cells_of(rows, columns), label, tell=False)  # the division tells
    if splits is not None:
        named = images_named(SplitTable(file, numbered, splits), pool)
        name = named.column
    names = [plain_name(row.get(name)) for row in rows] if name is not None else []
    if loose and (why := unfit(columns, names, ids, rules.skip_missing)):
        warn(f"{file.name} is not read as a table of labels, since {why}.")
        return None
    if name is None and without_header(columns):
        raise UserError(
            f"{file.name} begins with {', '.join(map(str, columns[:3]))}, which are no names of columns. Put a line "
            "such as file_name,label above it."
        )
    apart = {name, *(splits.columns if splits is not None else ())}  # what is no label
    cells = cells_of(rows, [column for column in columns if column not in apart])
    ticks = emptied(cells, rules.no_label)
    in_columns = len(switches(ticks)) > 1 if several else one_of_columns(ticks) is not None
    by_label = label is not None or label_column(columns, None) is not None
    if name is not None and not by_label:
        refuse_strays(ticks, file.name, lambda k: f"Row {numbered[k][0]}", one_each=not several)
    labeled = by_label or in_columns
    if labeled and label is None and not several and left_to_folders(file, pool.every.ids):
        what = "not read for labels of images" if loose else "read for the splits of images alone"
        warn(
            f"{file.name} is {what}: their labels are those of their folders. Give the label column (--label-column), "
            "or call the table metadata, if the labels in it are meant."
        )
        return None
    if by_name and splits is not None and not labeled and {*columns} <= apart:  # it is of splits alone
        return None
    if by_name and (name is None or not labeled):
        warn(
            f"{file.name} is not read as a table of labels, since it has no column "
            f"{'file_name' if name is None else 'label'} but {', '.join(columns[:10])}."
            + (" Classes that each have a column of 0 and 1 are for --task multilabel." if switches(ticks) else "")
        )
        return None
    if name is None:
        raise unknown(f"column (it must name the files) in {file.name}", "file_name", columns)
    found = placed(file, root, ids, names, named.ids if named is not None else None)
    missing = [given for given, id in zip(names, found) if id is None]
    if missing and not (rules.skip_missing or loose):
        raise no_image(file, missing, ids, name)
    if missing and loose:
        tell_lost(file, missing)
    kept = [(id, {k: v for k, v in row.items() if k != name}) for id, row in zip(found, rows) if id]
    gone = [(given, "there is no such image") for given in missing]
    columns = [c for c in columns if c not in apart]
    if splits is not None and not columns and label is None:  # it says nothing of labels, which folders may
        return None
    return Metadata(file, kept, columns, gone)


def table_of(path: Path, root: Path, split: str, label: str | None) -> Path | None:
    """The table that is of the images in the folder `root` of a split, in it or beside it."""
    places = [(folder, more) for more in (False, True) for folder in dict.fromkeys((root, path))]
    file = next((file for folder, more in places if (file := metadata_file(folder, split, more)) is not None), None)
    if file is None:  # that of training may have all
        named = split_named(split)
        file = next(
            (
                table.file
                for table in tables_named_train_or_splits(path, False, label, tell=False)
                if named in table.splits
            ),
            None,
        )
    return file


def rows_in(file: Path, loose: bool, by_name: bool) -> Rows | None:
    """The rows of a table; None, with a warning, for one that may be something else and cannot be read: whatever it is
    called as where it is `loose`, no table where it is so by its name alone."""
    try:
        numbered = read_table(file)
    except UserError as error:
        if not (loose or by_name and isinstance(error, NoTable)):
            raise
        warn(f"{file.name} is not read as a table of labels: {error}")
        return None
    if file.stem.lower() == METADATA[2]:
        return [(line, without_unlabeled(row)) for line, row in numbered]
    return numbered


def unfit(columns: Sequence[str], names: Sequence[str], ids: Sequence[str], skip_missing: bool) -> str:
    """Why a table that may be of something else has no labels of these images; "" where it may have them."""
    if (box := column_called(columns, BOX_COLUMNS)) is not None:
        return f"it is one of boxes (column {box!r}): give --label-column, if it says the label of each image"
    found = sum(id is not None for id in match_names(names, ids)[0])
    return "" if found and (skip_missing or found * 2 >= len(names)) else f"it names {found or 'none'} of the images"


def without_unlabeled(row: dict[str, Any]) -> dict[str, Any]:
    """A row of Roboflow's, whose column Unlabeled is no class: where it says yes, nobody has looked."""
    marked = next((column for column in row if column.casefold() == UNLABELED), None)
    if marked is None:
        return row
    rest = {column: cell for column, cell in row.items() if column != marked}
    if str(row[marked]).strip() not in ("1", "1.0"):
        return rest
    return {column: cell if column_called([column], FILE_COLUMNS) else None for column, cell in rest.items()}


def tell_lost(file: Path, lost: Sequence[str]) -> None:
    warn(f"{len(lost)} file names in {file.name} have no image and are passed over, such as {lost[0]!r}.")


def no_image(file: Path, missing: Sequence[str], ids: Sequence[str], column: str) -> UserError:
    """The error for names in a table or a list that are not there, or of several images."""
    near = nearest(missing[0], ids)
    return UserError(
        f"{len(missing)} file names in {file.name} have no image, such as {missing[0]!r}"
        f"{f' (there is {near[0]!r})' if near else ''}. They are paths relative to {str(file.parent)!r}: correct "
        f"{column}, add the images, or give --skip-missing."
    )


def of_other_split(name: str, id: str, root: Path) -> bool:
    """Whether a name says another split than the folder `root`, in which an image has its end: test/1.png in train/."""
    folders = list(folders_of(PurePosixPath(name)))
    above = folders[len(folders) - id.count("/") - 1 :][:1] if len(folders) > id.count("/") else []
    said = [UNLABELED if part.lower() in SPLITS[UNLABELED] else called_as_split(part) for part in (*above, root.name)]
    return len(said) == 2 and None not in said and said[0] != said[1]


def placed(
    file: Path, root: Path, ids: Sequence[str], names: Sequence[str], of_column: list[str | None] | None
) -> list[str | None]:
    """The id that each name means; "" for an image of another split, None for none. of_column: the ids below the
    table's folder, where a column of splits tells apart what is called alike."""
    of_all = file.parent != root and (of_column is not None or file.stem.lower() in METADATA)
    inside = path_inside(file.parent, root) if of_all else ""
    if of_column is not None:
        found, loose = of_column, sum(id not in (None, name) for name, id in zip(names, of_column))
    else:
        every = [image.id for image in listing(file.parent)] if of_all else ids
        found, loose = match_names(names, every)
    if not of_all:
        found = [
            id if id in (None, name) or not of_other_split(name, id, root) else None for name, id in zip(names, found)
        ]
        loose = sum(id is not None and id != name for name, id in zip(names, found))
    if loose:
        given, id = next((a, b) for a, b in zip(names, found) if b is not None and a != b)
        warn(
            f"{loose} of {len(names)} file names in {file.name} are matched by the end they share with an image, such "
            f"as {given!r} with {id!r}."
        )
    if of_all and not any(id is not None and id.startswith(inside) for id in found):
        raise UserError(
            f"No row of {file.name} in {file.parent.name!r} names an image of {root.name}/. Write file_name as "
            f"{inside}NAME, or put a {file.name} into {root.name}/."
        )
    return [id if id is None else id.removeprefix(inside) if id.startswith(inside) else "" for id in found]
