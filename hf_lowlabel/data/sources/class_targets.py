"""One class for an image: the name of its folder, a column of a metadata file or a column of a table.

photos/cat/1.jpg  photos/dog/2.jpg  photos/unlabeled/3.jpg  photos/4.jpg    folder = class; the last two have none
photos/metadata.csv, labels.xlsx, train.jsonl ...: file_name, label         empty or not listed = unlabeled
photos/train.csv, photos/test.csv beside the images of both                 a list of each split, with labels or without
photos/images/cat/1.jpg  photos/images/dog/2.jpg                            a folder around all classes is none
photos/1.jpg  photos/2.jpg                                                  no labels at all
photos/train/...  photos/test/...  photos/validation/...                    each of the above per split
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...errors import UserError
from ...text import listed, warn
from ..dataset import ImageDataset, Origin, check_labels, make_dataset
from ..files.folder_names import IMAGE_FOLDERS, in_mask_folders, is_of_masks
from ..files.folders import (
    METADATA,
    SPLITS,
    UNLABELED,
    FileReader,
    ImageFile,
    as_text,
    image_files,
    metadata_file,
    path_inside,
    subfolders,
)
from ..files.mask_names import masks_among
from ..labels.columns import TEXT, column_called
from ..labels.labels import LABEL_COLUMNS, RULES, LabelRules, class_indices, label_column, label_text, tell_dates
from ..labels.numbers import of_numbers
from ..labels.ticks import emptied, one_of_columns, switches, warn_columns_unread
from ..splits.division import of_split, read_division, split_of
from ..splits.metadata import Metadata, read_metadata
from ..splits.split_roots import around_splits, refuse_held_among, split_folders
from . import digits
from .tables import ID_COLUMNS, PATH_COLUMNS, Table, is_image
from .targets import Targets

AROUND = (*IMAGE_FOLDERS, "data", "dataset")  # what a folder around all classes is called, or as the data set is
WEB_COLUMNS = ("__key__", "__url__")  # of WebDataset
# 2024, 2024-05, 20240512 picnic, 12.05.2024, 100CANON; numbers such as 0 to 9 may well be classes
SORTED = re.compile(
    r"^(19|20)\d\d([-_. ]?(0[1-9]|1[0-2]))?(?!\d)|(?<!\d)(19|20)\d\d[-_. ]?(0[1-9]|1[0-2])[-_. ]?[0-3]\d(?!\d)|"
    r"(?<!\d)\d\d?[-_.]\d\d?[-_.](19|20)\d\d(?!\d)|^1\d\d(CANON|APPLE|MSDCF|NIKON|_PANA|MEDIA|OLYMP|_\d{4}$)"
)


class ClassTargets(Targets):
    """label_column: of tables and metadata files; where it is not given, it is found. rules: how labels are taken."""

    def __init__(self, label_column: str | None = None, rules: LabelRules = RULES):
        self.label_column, self.rules = label_column, rules
        self.embedded = {"digits": digits.digits}

    def folder(self, path: Path, split: str) -> ImageDataset:
        division = read_division(path, self.label_column, self.rules.skip_missing)
        root, siblings, own = split_of(path, split, division)
        files = images_of(root)
        ids = [file.id for file in files]
        refuse_masks(root, ids)
        left_out = []
        metadata = read_metadata(path, root, split, ids, self.rules, self.label_column)
        if metadata is not None:
            of_table = metadata_labels(metadata, self.label_column, self.rules)
            labels, names = class_indices(list(map(of_table.get, ids)))
            left_out = metadata.left_out
            if not self.rules.plain_folders:
                tell_folders(metadata, ids)
        elif division is not None and division.labeled:  # in a table, so that folders are no classes
            labels, names = np.full(len(ids), -1), []
        elif self.label_column is not None:
            raise UserError(
                f"The label column {self.label_column!r} needs a table such as metadata.csv or labels.xlsx, and there "
                f"is no such file in {str(root)!r}."
            )
        elif self.rules.plain_folders:
            labels, names = np.full(len(ids), -1), []
        else:
            above = around_splits(path)
            in_splits = own is None and bool(split_folders(above)[0])  # whose names are no classes
            below = [id.removeprefix(path_inside(path, above)).partition("/")[2] for id in ids] if in_splits else ids
            outer = {below[0].partition("/")[0]}
            depth = 0 if any(class_folders(other) - outer for other in siblings) else folders_around(below, path)
            texts = [folder_label(id.split("/", depth)[-1]) for id in below]
            around = "" if in_splits else "/".join(files[0].path.split("/")[:depth])
            if around:
                tell_around(root, around, root == path and division is None)
            others = {name for other in siblings for name in class_folders(other, around)} if any(texts) else ()
            labels, names = class_indices(texts, others)
            if not in_splits:
                tell_empty(root / around, names)
            if len(names) == 1 and not around:
                tell_one_class(names[0], below)
            tell_sorted(names)
        kept = of_split(division, path, root, ids, split, own)
        files, labels = [file for file, here in zip(files, kept) if here], labels[kept]
        return replace(of_files(Origin(path.resolve().name, split), root, files, labels, names), left_out=left_out)

    def table(self, table: Table) -> ImageDataset:
        reader, ids = table.images()
        column = find_label(table.features, self.label_column)
        labels, names = np.full(len(ids), -1), []
        if column is not None:
            labels, names = labels_of_column(table.column(column), table.features[column], column, ids, self.rules)
        elif others := other_columns(table.features, reader.dataset.column_names):
            tell_unlabeled(f"the table {table.origin.name!r}", others, any(map(is_switch, table.features.values())))
        return make_dataset(table.origin, ids, labels, names, table.content(reader), reader)

    def pairs(self, values: Sequence) -> tuple[str, pa.Array]:
        return "label", pa.array([label_text(value) for value in values], pa.string())

    def label_in(self, columns: Collection[str]) -> str | None:
        return label_column(columns, self.label_column)


def of_files(
    origin: Origin, root: Path, files: Sequence[ImageFile], labels: np.ndarray, names: list[str]
) -> ImageDataset:
    """Image files below `root` with their labels."""
    ids, prints = [file.id for file in files], [file.print for file in files]
    return make_dataset(origin, ids, labels, names, prints, FileReader(root, [file.path for file in files]))


def tell_empty(root: Path, names: Sequence[str]) -> None:
    """A folder without any image is no class, which somebody may have meant."""
    if names and (empty := sorted(class_folders(root) - set(names))):
        warn(
            f"{len(empty)} folders in {root.name!r} hold no image of their own and are no classes: "
            f"{', '.join(empty[:10])}."
        )


def images_of(root: Path) -> list[ImageFile]:
    """The images in a folder, without the masks that lie beside them."""
    files = image_files(root)
    masks = set(masks_among([file.id for file in files]))
    if masks:
        warn(
            f"{len(masks)} files in {root.name!r} are left out, since they are called as masks of images beside them, "
            f"such as {min(masks)!r}. Give --task segmentation to learn from them, or rename them if they are images."
        )
    deep = in_mask_folders((file.id for file in files), below=True) - masks
    if deep:
        warn(
            f"{len(deep)} files in {root.name!r} are left out, since they lie in folders of masks beside folders of "
            f"images, such as {min(deep)!r}. Give --task segmentation to learn from them, or rename the folders if "
            "they are images."
        )
    return [file for file in files if file.id not in masks | deep]


def refuse_masks(root: Path, ids: list[str]) -> None:
    """Folders of images and of their masks are no classes."""
    names = folder_labels(ids)
    if is_of_masks(names) and metadata_file(root) is None:
        raise UserError(
            f"{' and '.join(f'{name}/' for name in names)} in {str(root)!r} look like images and their masks, not like "
            "classes. Give --task segmentation (in Python load_segmentation), or the folder of the images alone."
        )


def tell_folders(table: Metadata, ids: list[str]) -> None:
    """Folders that might be classes say nothing beside a table, which may not be meant."""
    names = folder_labels(ids)
    if len(names) > 1 and table.file.stem.lower() != METADATA[0]:
        warn(
            f"The labels are those of {table.file.name}, not the folders {', '.join(names[:5])}. Take the table "
            "elsewhere if the folders are the classes."
        )


def folder_label(id: str) -> str | None:
    first, _, rest = id.partition("/")
    return first if rest and first.lower() not in SPLITS[UNLABELED] else None


def folder_labels(ids: Sequence[str]) -> list[str]:
    return sorted({name for name in map(folder_label, ids) if name is not None})


def folders_around(ids: Sequence[str], path: Path) -> int:
    """How many folders all images lie in that are called as images or as the data set, in which there are others that
    tell them apart: those are the classes. 0 where images lie in them directly, and for any other name: cat/2019/ and
    cat/2020/ are of one class."""
    folders = [id.split("/") for id in {id.rpartition("/")[0] for id in ids}]
    shared = os.path.commonprefix(folders)
    known = {*AROUND, path.resolve().name.lower()} - {*SPLITS[UNLABELED]}
    return len(shared) if shared not in folders and known.issuperset(name.lower() for name in shared) else 0


def tell_around(root: Path, around: str, undivided: bool) -> None:
    """A folder around the classes is said to be none. Raises UserError where nothing says the splits, and one of the
    classes may be one."""
    if undivided:
        refuse_held_among(root / around)
    warn(f"All images of {root.name!r} lie in {around}/, and the folders in it are read as the classes.")


def tell_one_class(name: str, ids: Sequence[str]) -> None:
    """A class that is alone, in a folder with folders of images in it, may be a folder around the classes."""
    inside = {id.split("/")[1] for id in ids if id.count("/") > 1}
    if len(inside) > 1 and all(id.count("/") > 1 for id in ids):
        warn(
            f"All labeled images are of one class, {name!r}, which is a folder with {listed(sorted(inside), 5)} in it. "
            f"Give the folder {name}/ itself if these are the classes."
        )


def tell_sorted(names: Sequence[str]) -> None:
    """Folders by day or by shoot, as cameras and phones make them, are read as classes, which may not be meant."""
    if names and all(map(SORTED.search, names)):
        warn(
            f"The folders {listed(names, 3)} are read as classes, and look like dates or numbers of a camera. If they "
            "only sort the images, give --plain-folders."
        )


def class_folders(root: Path, around: str = "") -> set[str]:
    """The names of the classes that a folder has folders of; around: the folder in it that these lie in, if it is
    there."""
    if metadata_file(root) is not None:
        return set()
    root = root / around if (root / around).is_dir() else root
    return {
        unicodedata.normalize("NFC", as_text(entry.name) or "")
        for entry in subfolders(root)
        if entry.name.lower() not in SPLITS[UNLABELED]
    }


def metadata_labels(table: Metadata, asked: str | None, rules: LabelRules) -> dict[str, str | None]:
    """The labels of images by a table."""
    where, columns = table.file.name, table.columns
    column = label_column(columns, asked, f" in {where}")
    ticks = emptied(table.cells(), rules.no_label) if column is None else {}
    if column is None and (found := one_of_columns(ticks)) is not None:
        warn_columns_unread(columns, switches(ticks), where)
        return label_by_id(table, found, rules)
    if column is None and columns:
        tell_unlabeled(where, columns, bool(switches(ticks)))
    cells = [row.get(column) if column else None for _, row in table.rows]
    tell_dates(cells, f"{where}, column {column!r}")
    others = [name for name in columns if name != column and column_called([name], LABEL_COLUMNS)]
    if column and others and asked is None:
        warn(
            f"The labels are those of column {column!r} of {where}, and not of {', '.join(others)}. Choose with "
            "--label-column."
        )
    texts = [label_text(cell, f" in column {column!r} of {where}") for cell in cells]
    texts = rules.without_none(texts, f"{where}, column {column!r}")
    return label_by_id(table, numbered(texts, f"The column {column!r} of {where}"), rules)


def tell_unlabeled(where: str, columns: Sequence[str], several: bool) -> None:
    """A warning that no column of a table is of labels. several: some may be classes of yes and no."""
    warn(
        f"{where} has no column called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}: all images count as "
        f"unlabeled. Name the label column with --label-column if one of {listed(columns, 10)} is it"
        + (", or give --task multilabel for classes that each have a column." if several else ".")
    )


def numbered(texts: Sequence[str | None], where: str) -> list[str | None]:
    """Labels with whole numbers as such, where all are numbers."""
    read = of_numbers([[text] for text in texts if text is not None], where)
    return [text if text is None else read.get(text, text) for text in texts]


def label_by_id(table: Metadata, texts: Sequence[str | None], rules: LabelRules) -> dict[str, str | None]:
    """id -> label of the rows of a table."""
    where = table.file.name
    labels: dict[str, str | None] = {}
    twice: dict[str, str] = {}
    for (id, _), text in zip(table.rows, texts):
        if text is not None and labels.setdefault(id, text) != text:
            if not rules.skip_conflicts:
                raise UserError(
                    f"{where} names {id!r} twice, as {labels[id]!r} and as {text!r}. Keep one label, or give "
                    f"--skip-conflicts; several classes are written {labels[id]};{text} in one row, with --task "
                    "multilabel."
                )
            twice.setdefault(id, f"it has the labels {labels[id]!r} and {text!r}")
    table.left_out += twice.items()
    return {id: None if id in twice else label for id, label in labels.items()}


def other_columns(features, images: Sequence[str]) -> list[str]:
    """The columns that may be of labels: not `images`, nor others of images, ids or files."""
    known = (*images, *ID_COLUMNS, *PATH_COLUMNS, *WEB_COLUMNS)
    return [name for name, feature in features.items() if name not in known and not is_image(feature)]


def is_switch(feature) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("bool", "int", "uint"))


def find_label(features, asked: str | None) -> str | None:
    """The label column: as asked, or by its name, or the only one that declares classes; None when there is none."""
    import datasets

    found = label_column(features, asked)
    declared = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if found is None and len(declared) > 1:
        raise UserError(
            f"{len(declared)} columns declare classes: {', '.join(declared)}. Name one with --label-column "
            f"{declared[0]}."
        )
    return found or (declared[0] if declared else None)


def labels_of_column(
    column: pa.ChunkedArray, feature, name: str, ids: list[str], rules: LabelRules
) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], class names). Declared classes keep their numbers; other values are classes by their text."""
    values, declared = column.to_pylist(), getattr(feature, "names", None)
    if declared is not None:
        labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        check_labels(labels, declared, ids)
        return labels, list(declared)
    kind, is_kind = column.type, pa.types
    tests = is_kind.is_integer, is_kind.is_boolean, is_kind.is_floating, is_kind.is_null
    if str(kind) not in TEXT and not any(test(kind) for test in tests):
        raise UserError(
            f"The label column {name!r} is of type {kind}. Labels are whole numbers, text or declared classes; for "
            "several classes an image give --task multilabel."
        )
    if is_kind.is_floating(kind):  # whole numbers with holes become floats on their way through pandas
        values = [None if value is None or np.isnan(value) else value for value in values]
    for id, value in zip(ids, values, strict=True):
        if isinstance(value, (int, float)) and (value < -1 or not float(value).is_integer()):  # of inf there is no int
            raise UserError(
                f"Label {value} of image {id!r} in column {name!r} is out of range. Labels are whole numbers from 0, "
                "or -1 for an image without a label."
            )
    texts = [label_text(value, f" in column {name!r}") for value in values]
    return class_indices(numbered(rules.without_none(texts, f"column {name!r}"), f"The column {name!r}"))
