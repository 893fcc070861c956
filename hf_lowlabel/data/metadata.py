"""The table of labels of a folder of images: which file it is, and what its rows say of each image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown
from .folders import EXTENSIONS, METADATA, listing, metadata_file
from .labels import LabelRules, label_column
from .table_files import FILE_COLUMNS, NoTable, column_called, match_names, plain_name, read_table


@dataclass
class Metadata:
    """rows: (id, the cells of its row) of images in the folder. columns: all but that of the file names. left_out:
    (file name, why) of rows that are not used."""

    file: Path
    rows: list[tuple[str, dict[str, Any]]]
    columns: list[str]
    left_out: list[tuple[str, str]] = field(default_factory=list)


def read_metadata(
    path: Path, root: Path, split: str, ids: Sequence[str], rules: LabelRules, label: str | None = None
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

    Returns:
        The rows, None where there is no table.

    Raises:
        UserError: the table cannot be read, or rows name no image.
    """
    file = metadata_file(root, split)
    if file is None and root != path:
        file = metadata_file(path, split)
    if file is None:
        return None
    by_name = file.stem.lower() != METADATA[0]  # no file is called metadata by chance
    try:
        rows = [row for _, row in read_table(file)]
    except NoTable as error:
        if not by_name:
            raise
        warnings.warn(f"{file.name} is not read as a table of labels: {error}", stacklevel=4)
        return None
    columns = list(dict.fromkeys(key for row in rows for key in row))
    name = column_called(columns, FILE_COLUMNS)
    if by_name and (name is None or label is None and label_column(columns, None) is None):
        warnings.warn(
            f"{file.name} is not read as a table of labels, since it has no column "
            f"{'file_name' if name is None else 'label'} but {', '.join(columns[:10])}.",
            stacklevel=4,
        )
        return None
    if name is None:
        raise unknown(f"column (it must name the files) in {file.name}", "file_name", columns)
    rows = [row for row in rows if any(cell not in (None, "") for cell in row.values())]
    names = [plain_name(row.get(name)) for row in rows]
    found = placed(file, root, ids, names)
    missing = [given for given, id in zip(names, found) if id is None]
    if missing and not rules.skip_missing:
        raise UserError(
            f"{len(missing)} file names in {file.name} have no image, such as {missing[0]!r}. They are paths relative "
            f"to {str(file.parent)!r}: correct {name}, add the images, or give --skip-missing."
        )
    kept = [(id, {k: v for k, v in row.items() if k != name}) for id, row in zip(found, rows) if id]
    return Metadata(
        file, kept, [c for c in columns if c != name], [(given, "there is no such image") for given in missing]
    )


def placed(file: Path, root: Path, ids: Sequence[str], names: Sequence[str]) -> list[str | None]:
    """The id that each name means; "" for an image of another split, None for none."""
    of_all = file.parent != root and file.stem.lower() in METADATA
    inside = f"{root.relative_to(file.parent).as_posix()}/" if of_all else ""
    every = [image.id for image in listing(file.parent)] if of_all else ids
    found, loose = match_names(names, every, EXTENSIONS)
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
