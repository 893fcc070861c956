"""Which image of a folder is of which split, decided once for all splits and tasks: by the folders, by a column of the
table, or by tables, lists and annotations that are called as splits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...errors import MissingSplit, UserError
from ...text import series, warn
from ..files.folders import ALIASES, UNLABELED, WITH_MORE, path_inside
from ..files.split_words import called_as_split
from ..labels.columns import cells_of, columns_of
from .metadata import no_image, tell_lost
from .pool import Listed, Pool
from .split_columns import HELD, SplitTable, label_table_with_splits, splits_of_images, tables_named_train_or_splits
from .split_names import split_named
from .split_roots import around_splits, split_folders, split_root
from .split_tables import in_annotations, in_tables, left_to_folders, says_labels, tell_absent
from .table_splits import unlabeled_too
from .text_lists import in_json, in_lists, in_numbers, without_folds
from .yolo_places import in_yaml

T = TypeVar("T")


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
    parts = {name: one for name, one in split_folders(path)[0].items() if name in ALIASES}
    found = [*at_top(path, label, skip_missing, masks)]
    for name, part in parts.items():
        own = split_named(name)
        with contextlib.suppress(*[] if own == "train" else [UserError]):  # which is said where that is asked for
            table = label_table_with_splits(part, own, masks, label)
            inner = by_column(path, table, skip_missing, masks) if table is not None else Division({}, "")
            found += [inner] if {*HELD} & {*inner.of.values()} else []
    return joined(found) if found else None


def at_top(path: Path, label: str | None, skip_missing: bool, masks: bool) -> list[Division]:
    """What is said by files that do not lie in the folder of a split. A column counts before names of files, and lists
    and annotations where no table holds anything out."""
    table = label_table_with_splits(path, None, masks, label)
    column = by_column(path, table, skip_missing, masks) if table is not None else None
    by_labels = column is not None and bool({*HELD} & {*column.of.values()})
    found = [column] if column is not None and by_labels else []
    pool = Pool(path)
    for table in tables_named_train_or_splits(path, masks, label, pool.read):
        found.append(by_column(path, table, skip_missing, masks))
        ours = label is not None or not left_to_folders(table.file, pool.every.ids)
        cells = cells_of(table.rows, columns_of(table.rows))
        found[-1].labeled = not by_labels and ours and says_labels(cells, None, label)
    if by_labels:
        return found
    tables = without_folds(list(in_tables(path, pool, label, masks)))
    for said in found:
        for part in tables:
            refuse_unlisted(said, part)
    if any(part.split in HELD for part in tables):
        return [*found, division_of_lists(tables, skip_missing, pool)]
    others = by_lists(path, pool, skip_missing) if not found else None
    return found or [one for one in [others or column] if one is not None]


def refuse_unlisted(said: Division, part: Listed) -> None:
    """Raises UserError for an image of a split whose own table does not name it."""
    known = {id for _, id in part.found}
    odd = [id for id, split in said.of.items() if split == part.split and split in HELD and id not in known]
    if odd:
        raise UserError(
            f"{said.where} that {odd[0]!r} is of split {part.split!r} ({len(odd)} such images), and {part.file.name} "
            "does not name it. Keep one of them: the column, or the table of that split."
        )


def joined(said: Sequence[Division]) -> Division:
    """What several files say together. Raises UserError where they put an image into two splits."""
    out = said[0]
    for other in said[1:]:
        out.labeled |= other.labeled
        for id, split in other.of.items():
            if (first := out.of.setdefault(id, split)) != split:
                raise UserError(
                    f"{out.where} that {id!r} is of split {first!r}. {other.where} that it is of split {split!r}. Keep "
                    "one of them: an image that is tested on must not be learned from."
                )
    return out


def by_column(path: Path, table: SplitTable, skip_missing: bool, masks: bool) -> Division:
    """By the column of a table in the data set, or in the folder of one of its splits."""
    file, folder = table.file, table.file.parent
    pool = Pool(folder)
    said = splits_of_images(table, pool, path_inside(path, folder), skip_missing)
    if said.lost and (folder == path or masks):  # else labels are read from it
        if not skip_missing:
            raise no_image(file, said.lost, pool.every.ids, said.name or "")
        tell_lost(file, said.lost)
    return Division(said.of, f"The column {table.said.name!r} of {file.name} says")


def by_lists(path: Path, pool: Pool, skip_missing: bool) -> Division | None:
    """By lists that are called as splits, else by splits.json, by data.yaml, or by annotations."""
    for found in map(list, (read(path, pool) for read in (in_lists, in_numbers, in_json, in_yaml, in_annotations))):
        if any(part.split in HELD for part in found):
            out = division_of_lists(found, skip_missing, pool)
            if len(out.of) < len(pool.every.ids) or len({*out.of.values()}) > 1:  # else one file is of all images
                return out
    return None


def division_of_lists(found: Sequence[Listed], skip_missing: bool, pool: Pool) -> Division:
    """What several files list. Raises UserError where an image is in two splits, or one that is held out is not
    found."""
    of, first = dict[str, str](), dict[str, Listed]()
    for part in found:
        lost = [name for name, id in part.found if id is None]
        if lost and part.split in HELD and len(lost) == len(part.found) and pool.has_training:
            tell_absent(part.file, part.split, lost)
        elif lost and part.split in HELD:
            by_folder = pool.lie_in(part.split, [id for _, id in part.found if id is not None])  # so is all the rest
            if not (skip_missing or by_folder and part.file.stem.lower() in WITH_MORE):
                raise no_image(part.file, lost, pool.every.ids, "the names")
            tell_lost(part.file, lost)
        for id in (id for _, id in part.found if id is not None):
            if first.setdefault(id, part).split != part.split:
                raise UserError(
                    f"{id!r} is in {first[id].where} and in {part.where}. Keep one of them: an image that is tested on "
                    "must not be learned from."
                )
            of[id] = part.split
    fill_folders(of, pool)
    files = list(dict.fromkeys(part.file.name for part in found))
    labeled = any(part.labeled for part in found if part.split == "train")
    return Division(of, f"{series(files)} say{'s' * (len(files) == 1)}", labeled)


def fill_folders(of: dict[str, str], pool: Pool) -> None:
    """Put the images that no file lists into the split that the lowest folder above them is called as which says one,
    as those without annotations in val2017/ or test/cat/, where each folder beside it that is called so holds images of
    its own split alone."""
    above = {folder: said for folder in pool.every.folders if (said := lowest_called(folder)) is not None}
    listed: dict[str, set[str]] = {}
    for id, split in of.items():
        if (said := above.get(id.rpartition("/")[0])) is not None:
            listed.setdefault(said[0], set()).add(split)
    called = dict(above.values())
    beside: dict[str, list[str]] = {}
    for folder in called:
        beside.setdefault(folder.rpartition("/")[0], []).append(folder)
    agree = {
        parent
        for parent, folders in beside.items()
        if any(folder in listed for folder in folders)
        and all(listed.get(folder, {called[folder]}) == {called[folder]} for folder in folders)
    }
    for id in pool.every.ids:
        said = above.get(id.rpartition("/")[0])
        if said is not None and said[0].rpartition("/")[0] in agree:
            of.setdefault(id, said[1])


def lowest_called(folder: str) -> tuple[str, str] | None:
    """(the lowest of a folder and those above it that is called as a split, that split)."""
    while folder:
        if (said := called_as_split(folder.rpartition("/")[2])) is not None:
            return folder, said
        folder = folder.rpartition("/")[0]
    return None


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
    inside = path_inside(path, root)
    asked = split_named(split)
    opened = {folder.name: name for name, folder in split_folders(path)[0].items()}
    outside = [id for id, said in division.of.items() if said == asked and not id.startswith(inside)]
    if odd := [id for id in outside if asked in HELD or of_folder(id, opened) in HELD]:
        raise UserError(
            f"{division.where} that {odd[0]!r} is of split {asked!r} ({len(odd)} such images), and it does not lie in "
            f"{inside} with the others. Move it there, or correct what is said of it."
        )
    usual = [own or ""] * len(ids)
    if own is None:
        around = around_splits(path)
        opened = {folder.name: name for name, folder in split_folders(around)[0].items()}
        usual = [of_folder(f"{inside}{id}".removeprefix(path_inside(path, around)), opened) for id in ids]
        if not opened:  # unlabeled/ beside folders of classes
            usual = ["train" if one == UNLABELED else one for one in usual]
    named = [division.of.get(f"{inside}{id}") or split_named(one) for id, one in zip(ids, usual)]
    kept = np.array([one == asked for one in named], bool)
    if not kept.any():
        raise MissingSplit(f"{division.where} of no image in {path.name!r} that it is of split {split!r}.")
    if not kept.all():
        warn(
            f"{division.where} which images are of split {split!r}: {kept.sum()} of {len(ids)}."
            + unlabeled_too(named, split)
        )
    return kept


def of_folder(id: str, opened: Mapping[str, str]) -> str:
    """The split that the uppermost folder of an image is called as or opened as, "train" for any other."""
    first = id.partition("/")[0]
    return split_named(opened.get(first, first)) if "/" in id else "train"
