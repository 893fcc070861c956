"""Tables and annotations that are called as splits beside the folders of images, each of the images of one: train.csv
and test.csv with labels or without, as Kaggle has them; annotations/instances_test.json."""

from __future__ import annotations

import json
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...files import read_text
from ..annotations.annotated import Annotations, Objects
from ..annotations.annotation_files import read_annotations
from ..annotations.placing import Pictures, place_images
from ..files.folder_names import MASK_FOLDERS, in_mask_folders
from ..files.folders import ALIASES, EXTENSIONS, SPLITS, UNLABELED, is_text, listing, parquet, subfolders
from ..files.mask_names import masks_among
from ..files.split_words import called_as_split, split_said
from ..files.table_files import TABLES, ImageNames, NoTable, plain_name, read_table, stem
from ..files.uploads import Uploads
from ..labels.columns import FILE_COLUMNS, PICTURES, Rows, column_called, without_header
from ..labels.labels import LABEL_COLUMNS, NO_LABEL
from ..labels.ticks import emptied, one_of_columns
from .split_names import SplitColumn, split_column, split_named
from .split_roots import split_folders

LISTED = ("train", "validation", "test")
OF_TOOLS = (*MASK_FOLDERS, "coco", "json", "xml")  # folders of annotations


class Pool:
    """The images of a data set, of all splits, that names are looked for among."""

    def __init__(self, path: Path):
        self.path, self.tables = path, dict[Path, Rows]()
        self.of_split: dict[str, ImageNames] = {}

    def read(self, file: Path) -> Rows:
        """`read_table`, once for all that ask."""
        if file not in self.tables:
            self.tables[file] = read_table(file)
        return self.tables[file]

    @cached_property
    def every(self) -> Pictures:
        ids = [file.id for file in listing(self.path)]
        masks = {*masks_among(ids), *in_mask_folders(ids)}
        return Pictures([id for id in ids if id not in masks], EXTENSIONS)

    @cached_property
    def uploads(self) -> Uploads:
        return Uploads(self.every.ids)

    @cached_property
    def in_splits(self) -> tuple[str, ...]:
        """What ids begin with in folders that are opened as splits, whatever the task."""
        folders = split_folders(self.path)[0]
        named = [folder for name, folder in folders.items() if name in ALIASES and name not in SPLITS[UNLABELED]]
        return tuple(f"{unicodedata.normalize('NFC', folder.name)}/" for folder in named)

    @cached_property
    def all_in_splits(self) -> bool:
        return all(id.startswith(self.in_splits) for id in self.every.ids)

    @cached_property
    def has_training(self) -> bool:
        """Whether images for training lie in a folder that is called so."""
        return any(called_as_split(name) == "train" for folder in self.every.folders for name in folder.split("/"))

    def lie_in(self, split: str, ids: Sequence[str | None]) -> bool:
        """Whether all of some images lie in the folder that is opened as this split."""
        folders = tuple(folder for folder in self.in_splits if split_said([folder]) == split)
        return bool(ids) and all(id is not None and id.startswith(folders) for id in ids)

    @cached_property
    def stems(self) -> set[str]:
        return {stem(id.rpartition("/")[2]) for id in self.every.ids}

    def match(self, names: Sequence[str], split: str) -> list[str | None]:
        """The id of each name: among the images in folders of this split, where there are some, else among those in no
        folder of another split that is held out, else among all."""
        if split not in self.of_split:
            said = {folder: split_said(folder.split("/")) for folder in self.every.folders}
            of_ids = [(id, said[id.rpartition("/")[0]]) for id in self.every.ids]
            own = [id for id, of in of_ids if of == split] or [id for id, of in of_ids if of in (None, "train")]
            self.of_split[split] = ImageNames(own, EXTENSIONS) if len(own) < len(of_ids) else self.every
        found, _ = self.of_split[split].match(names)
        elsewhere = self.of_split[split] is not self.every
        lost = [name for name, id in zip(names, found) if id is None and elsewhere]
        rest = dict(zip(lost, self.every.match(lost)[0])) if lost else {}
        return [rest.get(name) if id is None else id for name, id in zip(names, found)]


class Listed(NamedTuple):
    """A file that lists images. found: (name, id, None where there is no single image) of each. labeled: it says their
    labels. key: the part of the file that says so."""

    split: str
    file: Path
    found: list[tuple[str, str | None]]
    labeled: bool = False
    key: str = ""

    @property
    def where(self) -> str:
        return f"{self.key}: of {self.file.name}" if self.key else self.file.name


def tables_of_splits(path: Path) -> list[tuple[str, Path]]:
    """(split, table) of those in a folder that are called as a split."""
    files = [file for file in path.iterdir() if is_text(file.name) and file.suffix.lower() in TABLES and file.is_file()]
    named = sorted(file for file in files if not parquet(file))
    return [(split, file) for split in LISTED for file in named if file.stem.lower() in SPLITS[split]]


def in_tables(path: Path, pool: Pool, label: str | None, masks: bool = False) -> Iterator[Listed]:
    """What tables that are called as splits list.

    Args:
        path, pool: the data set and its images.
        label: the label column that is asked for.
        masks: labels are masks, so that a table of training images that cannot be read is none, with a warning.

    Raises:
        UserError: a table cannot be read, or that of a split which is held out does not say which column names images.
    """
    for split, file in tables_of_splits(path):
        try:
            if file.suffix.lower() == ".json" and read_annotations(file) is not None:
                continue
            rows = [row for _, row in pool.read(file)]
        except NoTable:
            continue
        except UserError as error:
            folders = pool.lie_in(split, [id for id in pool.every.ids if of_top(id) == split])
            if not (folders if split != "train" else masks):  # what is held out must be known
                raise
            warnings.warn(f"{file.name} is not read for splits of images: {error}", stacklevel=6)
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = {key: [row.get(key) for row in rows] for key in columns}
        said = split_column(cells)
        if said is not None and split == "train" and {*map(split_named, said.said)} != {"train"}:
            continue  # its column counts
        column = column_called(columns, FILE_COLUMNS)
        if said is not None and split != "train" and column is not None:
            refuse_other_split(file, split, said, rows, column, pool)
        if column is None:
            if split != "train":
                refuse_nameless_column(file, split, columns, rows, pool)
            continue
        names = [name for row in rows if (name := plain_name(row.get(column)))]
        found = list(zip(names, pool.match(names, split)))
        if any(id is not None for _, id in found) or any(map(is_picture, names)):
            yield Listed(split, file, found, says_labels(cells, column, label))
        elif split != "train":  # a column called image_id may hold ids of something else
            refuse_nameless_column(file, split, [key for key in columns if key != column], rows, pool)


def says_labels(cells: dict[str, list], name: str | None, asked: str | None) -> bool:
    """Whether a table has labels. name: its column of file names. asked: the label column that is asked for."""
    if asked in cells or column_called([*cells], LABEL_COLUMNS) is not None:
        return True
    return one_of_columns(emptied({key: cells[key] for key in cells if key != name}, NO_LABEL)) is not None


def refuse_other_split(file: Path, split: str, said: SplitColumn, rows: Sequence[dict], name: str, pool: Pool) -> None:
    """Raises UserError where a column says another split of images than the name of their table, which is held out."""
    odd = [(row, text) for row, text in zip(rows, said.said) if text and split_named(text) != split]
    names = [plain_name(row.get(name)) for row, _ in odd]
    if there := [k for k, id in enumerate(pool.match(names, split) if odd else ()) if id is not None]:
        raise UserError(
            f"{file.name} is called as split {split!r}, and its column {said.name!r} says {odd[there[0]][1]!r} of "
            f"{names[there[0]]!r} ({len(there)} such rows). Take the column away, or put all rows with it into "
            "metadata.csv."
        )


def refuse_nameless_column(file: Path, split: str, columns: Sequence[str], rows: Sequence[dict], pool: Pool) -> None:
    """Raises UserError where a table lists images, and no column is called as one of file names."""
    if without_header(columns):
        begins = next(column for column in columns if is_picture(column))
        names = [plain_name(name) for name in (begins, *(row.get(begins) for row in rows)) if name]
        if passed_over(file, split, names, pool):
            return
        raise UserError(
            f"{file.name} begins with {', '.join(map(str, columns[:3]))}, which are no names of columns. Put a line "
            f"such as file_name above it: its images are of split {split!r}, and must not be learned from."
        )
    for column in columns:
        names = [name for row in rows if (name := plain_name(row.get(column)))]
        if names and (
            all(map(is_picture, names))
            or not any(name.replace(".", "").isdigit() for name in names)
            and len({*names}) == len(names)
            and None not in pool.match(names, split)
        ):
            if passed_over(file, split, names, pool):
                continue
            raise UserError(
                f"The column {column!r} of {file.name} names images of split {split!r}, which must not be learned "
                "from. Call it file_name, or take the table elsewhere."
            )


def passed_over(file: Path, split: str, names: Sequence[str], pool: Pool) -> bool:
    """Whether a table of held-out images says nothing new: all lie in the folder of that split, or none is there."""
    ids = pool.match(names, split)
    if not any(ids) and pool.has_training:
        tell_absent(file, split, names)
        return True
    return pool.lie_in(split, ids)


def tell_absent(file: Path, split: str, lost: Sequence[str]) -> None:
    warnings.warn(
        f"None of the {len(lost)} images of split {split!r} that {file.name} names is there, such as {lost[0]!r}: it "
        "is passed over, since the images for training lie in a folder of theirs.",
        stacklevel=7,
    )


def of_top(id: str) -> str | None:
    """The split that the uppermost folder of an image is called as."""
    return called_as_split(id.partition("/")[0]) if "/" in id else None


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def in_annotations(path: Path, pool: Pool) -> Iterator[Listed]:
    """The images that files of annotations name which are called as splits, or lie in folders that are; but for those
    in a folder that is opened as a split: train2017/ says one, and is not."""
    folders = [one for one in subfolders(path) if one.name.lower() in OF_TOOLS]
    for folder in (path, *folders, *(below for one in folders for below in subfolders(one))):
        for file in files_ending(folder, (".json", ".xml")):
            split = split_said([*file.parent.relative_to(path).parts, file.stem])
            if split is None or pool.all_in_splits or file.stem in pool.stems:
                continue
            if not file.is_file():
                continue
            part = pictures_in(file)
            if part is None or part.otherwise:
                continue
            placed = [(p.name, p.id) for p in place_images([part], path, pool.every, pool.uploads)]
            there = [(name, id) for name, id in placed if id is None or not id.startswith(pool.in_splits)]
            bases = [(plain_name(name).rpartition("/")[2], id) for name, id in there]
            found = [pair for base, pair in zip(bases, there) if base[1] is not None or pool.every.by_base.get(base[0])]
            if any(id is not None for _, id in found):
                yield Listed(split, file, found)


def files_ending(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Those with one of the endings, of which there may be one beside each image: by their names alone."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(endings) and name[0] != ".")
    return [folder / name for name in names if is_text(name)]


def pictures_in(file: Path) -> Annotations | None:
    """The pictures that a file of annotations names, also where it draws nothing, as COCO's of test images."""
    try:
        names = names_in_coco(file, file.stat().st_size, file.stat().st_mtime_ns) if is_json(file) else None
    except ValueError:
        return None
    return Annotations(file, {name: Objects() for name in names}) if names is not None else read_annotations(file)


def is_json(file: Path) -> bool:
    return file.suffix.lower() == ".json"


@lru_cache(maxsize=16)
def names_in_coco(file: Path, size: int, changed: int) -> tuple[str, ...] | None:
    """The names of a COCO file's images; None of another. One may hold half a gigabyte, and is asked for each split."""
    content: Any = json.loads(read_text(file))
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        return None
    return tuple(str(image["file_name"]) for image in images if isinstance(image, dict) and "file_name" in image)
