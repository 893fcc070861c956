"""The table of labels of a folder of images: which file it is, and what its rows say of each image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError, nearest, unknown
from ..files.folders import EXTENSIONS, METADATA, SPLITS, UNLABELED, WITH_MORE, listing, metadata_file
from ..files.split_words import called_as_split
from ..files.table_files import NoTable, folders_of, match_names, plain_name, read_table
from ..labels.columns import FILE_COLUMNS, Rows, column_called
from ..labels.labels import LabelRules
from ..labels.ticks import refuse_strays, switches
from .columns_of import ColumnsOf
from .pool import Pool
from .split_columns import called_so, images_named, prefix
from .split_names import split_named
from .split_tables import tell_torn


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
        return {column: [row.get(column) for _, row in self.rows] for column in self.columns}


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
    file = file_of_labels(path, root, split, label)
    loose = file is not None and label is None and file.stem.lower() in WITH_MORE  # it may be of something else
    numbered = rows_of(file, loose) if file is not None else None
    if file is None or numbered is None:
        return None
    columns = dict.fromkeys(key for _, row in numbered for key in row)
    numbered = [(line, row) for line, row in numbered if any(cell not in (None, "") for cell in row.values())]
    of = ColumnsOf({column: [row.get(column) for _, row in numbered] for column in columns}, label, rules.no_label)
    named = images_named(of, of.split, Pool(file.parent)) if of.split is not None else None
    name = named.column if named is not None else of.files
    names = [*map(plain_name, of.cells[name])] if name is not None else []
    why = unfit(of, names, ids, rules.skip_missing) if loose else None
    if why is None:
        of.refuse_headless(file.name)
        if name is not None and label is None and of.label is None:
            refuse_strays(of.ticks([name]), file.name, lambda k: f"Row {numbered[k][0]}", one_each=not several)
        why = no_labels(file, of, name, several)
    if why is not None:
        if why:
            warnings.warn(f"{file.name} is {why}", stacklevel=4)
        return None
    if name is None:
        raise unknown(f"column (it must name the files) in {file.name}", "file_name", of.names)
    found = placed(file, root, ids, names, named.ids if named is not None else None)
    missing = [given for given, id in zip(names, found) if id is None]
    if missing and not (rules.skip_missing or loose):
        raise no_image(file, missing, ids, name)
    if missing and loose:
        tell_lost(file, missing)
    kept = [(id, {k: v for k, v in row.items() if k != name}) for id, (_, row) in zip(found, numbered) if id]
    gone = [(given, "there is no such image") for given in missing]
    return Metadata(file, kept, [column for column in of.names if column not in {name, *of.apart}], gone)


def file_of_labels(path: Path, root: Path, split: str, label: str | None) -> Path | None:
    """The table in the folder of a split, or beside it, else that of training whose column says this split too."""
    for more in (False, True):
        for folder in dict.fromkeys((root, path)):
            if (file := metadata_file(folder, split, more)) is not None:
                return file
    tables = called_so(path, False, label, tell=False)  # which was done for the division
    return next((table.file for table in tables if split_named(split) in table.said.splits), None)


def rows_of(file: Path, loose: bool) -> Rows | None:
    """The rows of a table of labels; None where it is none, with a warning."""
    try:
        numbered = read_table(file)
    except UserError as error:  # no file is called metadata by chance
        if not (loose or file.stem.lower() != METADATA[0] and isinstance(error, NoTable)):
            raise
        tell_torn(file, error)
        return None
    if file.stem.lower() == METADATA[2]:
        return [(line, without_unlabeled(row)) for line, row in numbered]
    return numbered


def no_labels(file: Path, of: ColumnsOf, name: str | None, several: bool) -> str | None:
    """What to say of a table that has no labels of images, "" for nothing; None where they are read. name: its column
    of file names."""
    labeled = of.asked is not None or of.has_labels([name], several)
    if of.asked is None and of.split is not None and {*of.names} <= {name, *of.apart}:  # it is of splits alone
        return ""
    if file.stem.lower() != METADATA[0] and (name is None or not labeled):
        several_too = " Classes that each have a column of 0 and 1 are for --task multilabel."
        return (
            f"not read as a table of labels, since it has no column {'file_name' if name is None else 'label'} but "
            f"{', '.join(of.names[:10])}.{several_too if switches(of.ticks([name])) else ''}"
        )
    return None


def unfit(of: ColumnsOf, names: Sequence[str], ids: Sequence[str], skip_missing: bool) -> str | None:
    """What to say of a table of something else, that has no labels of these images; None where it may have them."""
    if of.boxes is not None:
        why = f"it is one of boxes (column {of.boxes!r}): give --label-column, if it says the label of each image"
        return f"not read as a table of labels, since {why}."
    found = sum(id is not None for id in match_names(names, ids, EXTENSIONS)[0])
    if found and (skip_missing or found * 2 >= len(names)):
        return None
    return f"not read as a table of labels, since it names {found or 'none'} of the images."


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
    warnings.warn(
        f"{len(lost)} file names in {file.name} have no image and are passed over, such as {lost[0]!r}.", stacklevel=6
    )


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
    inside = prefix(file.parent, root) if of_all else ""
    if of_column is not None:
        found, loose = of_column, sum(id not in (None, name) for name, id in zip(names, of_column))
    else:
        every = [image.id for image in listing(file.parent)] if of_all else ids
        found, loose = match_names(names, every, EXTENSIONS)
    if not of_all:
        found = [
            id if id in (None, name) or not of_other_split(name, id, root) else None for name, id in zip(names, found)
        ]
        loose = sum(id is not None and id != name for name, id in zip(names, found))
    if loose:
        given, id = next((a, b) for a, b in zip(names, found) if b is not None and a != b)
        warnings.warn(
            f"{loose} of {len(names)} file names in {file.name} are matched by the end they share with an image, such "
            f"as {given!r} with {id!r}.",
            stacklevel=5,
        )
    if of_all and not any(id is not None and id.startswith(inside) for id in found):
        raise UserError(
            f"No row of {file.name} in {file.parent.name!r} names an image of {root.name}/. Write file_name as "
            f"{inside}NAME, or put a {file.name} into {root.name}/."
        )
    return [id if id is None else id.removeprefix(inside) if id.startswith(inside) else "" for id in found]
