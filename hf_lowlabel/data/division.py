"""Which image of a folder is of which split, decided once for all splits and tasks: by the folders, by a column of the
table, or by tables, lists and annotations that are called as splits."""

from __future__ import annotations

import contextlib
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import MissingSplit, UserError
from ..text import series
from .columns import FILE_COLUMNS, Rows, column_called
from .folders import ALIASES, UNLABELED, metadata_file, metadata_files
from .metadata import no_image, refuse_two_splits, split_column, split_named, split_text
from .split_roots import split_folders, split_root
from .split_tables import Listed, Pool, in_annotations, in_lists, in_tables, is_picture
from .table_files import NoTable, plain_name, read_table

T = TypeVar("T")
HELD = ("validation", "test")


@dataclass
class Division:
    """of: id below the data set -> its split, of the images that something names. where: what says so. labeled: the
    tables say the labels of the training images."""

    of: dict[str, str]
    where: str
    labeled: bool = False


def read_division(
    path: Path, label: str | None = None, skip_missing: bool = False, masks: bool = False
) -> Division | None:
    """What is said of the splits of the images in a data set, beside its folders.

    Args:
        path: the data set.
        label: the label column that is asked for.
        skip_missing: names without an image are passed over.
        masks: labels are masks, so that a table that cannot be read is none, with a warning.

    Returns:
        None where nothing says that an image is held out.

    Raises:
        UserError: an image is said to be of two splits, or what is held out is named so that it cannot be found.
    """
    parts = [one for name, one in split_folders(path)[0].items() if name in ALIASES]
    column = by_column(path, path, skip_missing, masks)
    if column is not None and {*HELD} & {*column.of.values()}:
        found: list[Division | None] = [column]
    else:
        found = [by_files(path, label, skip_missing, masks) or column]
    for part in parts:
        of_training = split_named(part.name) == "train"
        with contextlib.suppress(*[] if of_training else [UserError]):  # which is said where that split is asked for
            found.append(by_column(path, part, skip_missing, masks))
    said = [one for one in found if one is not None]
    if not said:
        return None
    out = said[0]
    for other in said[1:]:
        for id, split in other.of.items():
            if (first := out.of.setdefault(id, split)) != split:
                raise UserError(
                    f"{out.where} that {id!r} is of split {first!r}. {other.where} that it is of split {split!r}. Keep "
                    "one of them: an image that is tested on must not be learned from."
                )
    return out


def two_splits(id: str, one: str, other: str) -> UserError:
    """The error for an image that two files put into different splits."""
    return UserError(
        f"{id!r} is in {one} and in {other}. Keep one of them: an image that is tested on must not be learned from."
    )


def column_of_splits(folder: Path, own: str | None, masks: bool) -> tuple[Path, Rows, str] | None:
    """(the table in a folder, its rows, its column of splits); None where there is none. own: the folder's split."""
    files = metadata_files(folder, own) if masks else [file for file in [metadata_file(folder, own)] if file]
    found = []
    for file in files:
        try:
            numbered = read_table(file)
        except NoTable:  # which is said where labels are read
            continue
        except UserError as error:
            if not masks:
                raise
            warnings.warn(f"{file.name} is not read for splits of images: {error}", stacklevel=5)
            continue
        columns = list(dict.fromkeys(key for _, row in numbered for key in row))
        column = split_column({name: [row.get(name) for _, row in numbered] for name in columns})
        if column is not None:
            found.append((file, numbered, column))
    if len(found) > 1:
        raise UserError(
            f"Both {' and '.join(file.name for file, _, _ in found)} in {str(folder)!r} have a column of splits. Keep "
            "one."
        )
    return found[0] if found else None


def by_column(path: Path, folder: Path, skip_missing: bool, masks: bool) -> Division | None:
    """By the column of the table in the data set, or in the folder of one of its splits."""
    own = split_named(folder.name) if folder != path else None
    table = column_of_splits(folder, own, masks)
    if table is None:
        return None
    file, numbered, column = table
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    splits = [split_named(row.get(column)) for row in rows]
    pool = Pool(path, prefix(path, folder))

    def match(names: list[str]) -> list[str | None]:
        out: list[str | None] = [None] * len(names)
        for split in {*splits}:
            at = [k for k, said in enumerate(splits) if said == split]
            for k, id in zip(at, pool.match([names[k] for k in at], split)):
                out[k] = id
        return out

    name, names, ids = column_of_files(rows, match)
    refuse_two_splits(file, zip(lines, ids, splits))
    of = {id: said for row, id, said in zip(rows, ids, splits) if id and split_text(row.get(column))}
    lost = [given for given, id, said in zip(names, ids, splits) if said in HELD and given and not id]
    if name is None and {*splits} - {"train"} or lost and not (any(ids) or skip_missing or any(map(is_picture, names))):
        odd = f" ({name!r} says {lost[0]!r}, which no image is called)" if lost else ""
        raise UserError(
            f"The column {column!r} of {file.name} says the split of images, and no column names their files{odd}. Add "
            "a column file_name with the name of the file in each row, or take the table elsewhere."
        )
    if lost and (own is None or masks):  # else labels are read from it
        if not skip_missing:
            raise no_image(file, lost, pool.every.ids, name or "")
        tell_lost(file, lost)
    where = f"The column {column!r} of {file.name} says"
    return Division(of, where) if {*of.values()} & {*HELD} or own is None else None


def column_of_files(
    rows: Sequence[dict], match: Callable[[list[str]], list[str | None]]
) -> tuple[str | None, list[str], list[str | None]]:
    """(the column of file names, the name in each row, its id as `match` gives it): the column that is called so; where
    it names no image, that of names of pictures which names most."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    called = column_called(columns, FILE_COLUMNS)
    cells = {column: [plain_name(row.get(column)) for row in rows] for column in columns}
    ids = match(cells[called]) if called is not None else []
    if called is not None and any(ids):
        return called, cells[called], ids
    others = [column for column in columns if column != called and all(map(is_picture, filter(None, cells[column])))]
    found = [(column, cells[column], match(cells[column])) for column in others if any(cells[column])]
    best = max(found, key=lambda one: sum(id is not None for id in one[2]), default=None)
    if best is not None and any(best[2]):
        return best
    return called, cells[called] if called is not None else [""] * len(rows), [None] * len(rows)


def by_files(path: Path, label: str | None, skip_missing: bool, masks: bool) -> Division | None:
    """By tables that are called as splits, else by lists, else by annotations."""
    pool = Pool(path)
    tables = list(in_tables(path, pool, label, masks))
    if any(part.split in HELD for part in tables):
        return together(tables, skip_missing, pool)
    for found in map(list, (in_lists(path, pool), in_annotations(path, pool))):
        if any(part.split in HELD for part in found):
            out = together(found, skip_missing, pool)
            if len(out.of) < len(pool.every.ids) or len({*out.of.values()}) > 1:  # else one file is of all images
                return out
    return None


def together(found: Sequence[Listed], skip_missing: bool, pool: Pool) -> Division:
    """What several files list. Raises UserError where an image is in two splits, or one that is held out is not
    found."""
    of, first = dict[str, str](), dict[str, Listed]()
    for part in found:
        lost = [name for name, id in part.found if id is None]
        if lost and part.split in HELD:
            if not skip_missing:
                raise no_image(part.file, lost, pool.every.ids, "the names")
            tell_lost(part.file, lost)
        for id in (id for _, id in part.found if id is not None):
            if first.setdefault(id, part).split != part.split:
                raise two_splits(id, first[id].file.name, part.file.name)
            of[id] = part.split
    files = list(dict.fromkeys(part.file.name for part in found))
    labeled = any(part.labeled for part in found if part.split == "train")
    return Division(of, f"{series(files)} say{'s' * (len(files) == 1)}", labeled)


def tell_lost(file: Path, lost: Sequence[str]) -> None:
    warnings.warn(
        f"{len(lost)} file names in {file.name} have no image and are passed over, such as {lost[0]!r}.", stacklevel=6
    )


def split_of(path: Path, split: str, division: Division | None) -> tuple[Path, list[Path], str | None]:
    """(the folder that the images of a split are in, those of other splits with classes, the split of those of these
    images of which nothing else is said; None: that of the folder they are in). Raises MissingSplit."""
    folders, strays = split_folders(path)
    if division is not None and (not folders or any(id.partition("/")[0] in strays for id in division.of)):
        return path, [], None
    (root, others), own = opened_as(split, division, lambda name: split_root(path, name))
    return root, others, own


def opened_as(split: str, division: Division | None, find: Callable[[str], T]) -> tuple[T, str]:
    """What `find` gives for a split, and the split that this is a folder of: that of training, where there is none of
    its own and images of it are said to be in it."""
    try:
        return find(split), split
    except MissingSplit:
        if division is None or split_named(split) not in division.of.values():
            raise
        return find("train"), "train"


def of_split(
    division: Division | None, path: Path, root: Path, ids: Sequence[str], split: str, own: str | None
) -> np.ndarray:
    """bool [N]: which of the images in the folder `root` are of a split.

    Args:
        division: what is said of the images of the data set at `path`.
        root, own: as `split_of` gives them.
        ids: below `root`.

    Raises:
        MissingSplit: no image is of this split.
        UserError: images are said to be of another split than that of their folder.
    """
    if division is None:
        return np.ones(len(ids), bool)
    inside = prefix(path, root)
    asked = split_named(split)
    outside = [id for id, said in division.of.items() if said == asked and not id.startswith(inside)]
    if odd := [id for id in outside if asked in HELD or of_folder(id) in HELD]:
        raise UserError(
            f"{division.where} that {odd[0]!r} is of split {asked!r} ({len(odd)} such images), and it does not lie in "
            f"{inside} with the others. Move it there, or correct what is said of it."
        )
    usual = [own or of_folder(f"{inside}{id}") for id in ids]
    if own is None and not split_folders(path)[0]:  # unlabeled/ beside folders of classes
        usual = ["train" if one == UNLABELED else one for one in usual]
    named = [division.of.get(f"{inside}{id}") or split_named(one) for id, one in zip(ids, usual)]
    kept = np.array([one == asked for one in named], bool)
    if not kept.any():
        raise MissingSplit(f"{division.where} of no image in {path.name!r} that it is of split {split!r}.")
    if not kept.all():
        warnings.warn(
            f"{division.where} which images are of split {split!r}: {kept.sum()} of {len(ids)}.", stacklevel=4
        )
    return kept


def prefix(path: Path, folder: Path) -> str:
    """What the ids of a data set begin with that lie in a folder of it."""
    return "" if folder == path else f"{unicodedata.normalize('NFC', folder.relative_to(path).as_posix())}/"


def of_folder(id: str) -> str:
    """The split that the uppermost folder of an image is called as, "train" for any other."""
    return split_named(id.partition("/")[0]) if "/" in id else "train"
