"""Tables and annotations that are called as splits beside the folders of images, each of the images of one: train.csv
and test.csv with labels or without, as Kaggle has them; annotations/instances_test.json."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_text
from ...text import warn
from ..annotations.annotated import Annotations, Objects
from ..annotations.annotation_files import read_annotations
from ..annotations.placing import place_images
from ..files.folder_names import MASK_FOLDERS
from ..files.folders import ALIASES, WITH_MORE, is_text, metadata_files, parquet, subfolders
from ..files.split_words import OF_IMAGES, called_as_split, is_called, split_said
from ..files.table_files import TABLES, NoTable, plain_name, stem
from ..labels.columns import BOX_COLUMNS, FILE_COLUMNS, PICTURES, cells_of, column_called, columns_of, without_header
from ..labels.labels import LABEL_COLUMNS, NO_LABEL
from ..labels.numbers import NUMBER
from ..labels.ticks import emptied, one_of_columns
from .pool import Listed, Pool, files_ending, warn_list_unread
from .split_names import OF_ALL, SplitColumn, split_column, split_named
from .split_roots import split_folders

FOLDER_COLUMNS = tuple("folder folder_name patient patient_id subject subject_id case case_id series study".split())
SERIES = 10  # tables of a split that are told apart by numbers, at most: as many folds
OF_TOOLS = (*MASK_FOLDERS, "coco", "json", "xml")  # folders of annotations


def tables_of_splits(path: Path, pool: Pool | None = None) -> list[tuple[str, Path]]:
    """(split, table) of those in a folder that are called as a split, but for one of each image. pool: all images,
    where they are known; then those of no image that are not read are told."""
    every = [file for file in path.iterdir() if is_text(file.name)]
    named = sorted(file for file in every if file.suffix.lower() in TABLES and not parquet(file))
    said = {file: split_said([file.stem]) for file in named}
    called = [
        (split, file) for split in OF_IMAGES for file in named if said[file] == split and is_called(file.stem, split)
    ]
    numbered = [(split, file) for split, file in called if re.search(r"\d", file.stem)]
    count = Counter(split for split, _ in numbered)
    series = [one for one in numbered if count[one[0]] > SERIES]
    held = [file.name for of, file in series if pool is not None and of != "train" and file.stem not in pool.stems]
    if held:
        warn(
            f"{held[0]} and {len(held) - 1} more tables in {path.name!r} that are called so with a number are not read "
            "for splits of images. Put their rows into one table, if they list what is held out."
        )
    apart = {*series}
    return [one for one in called if one not in apart and one[1].is_file()]


def left_to_folders(file: Path, ids: Sequence[str]) -> bool:
    """Whether a table says splits alone, or one called train_labels says nothing, since images lie in two folders or
    more that no split is called as, which say their classes. ids: of all images beside it."""
    if file.stem.lower() not in {*OF_ALL, *WITH_MORE}:
        return False
    folders = [folder.split("/") for folder in {id.rpartition("/")[0] for id in ids}]
    opened = {folder.name for name, folder in split_folders(file.parent)[0].items() if name in ALIASES}
    first = {next(iter(parts[parts[0].lower() in ALIASES or parts[0] in opened :]), "") for parts in folders}
    return sum(bool(one) and not called_as_split(one) for one in first) > 1


def in_tables(path: Path, pool: Pool, label: str | None, masks: bool = False) -> Iterator[Listed]:
    """What tables that are called as splits list.

    Args:
        path, pool: the data set and its images.
        label: the label column that is asked for.
        masks: labels are masks, so that a table of training images that cannot be read is none, with a warning.

    Raises:
        UserError: a table cannot be read, or that of a split which is held out does not say which column names images.
    """
    for split, file in tables_of_splits(path, pool):
        try:
            if file.suffix.lower() == ".json" and read_annotations(file) is not None:
                continue
            rows = [row for _, row in pool.read(file)]
        except NoTable as error:
            of_all = file.stem.lower() in ALIASES or file.stem not in pool.stems  # else it may be of one image
            seems = of_all and split != "train" and not pool.all_in_splits
            if seems and (not is_json(file) or pictures_in(file) is None):
                warn_list_unread(file, split, str(error))
            continue
        except UserError as error:
            top = [id for id in pool.every.ids if "/" in id and called_as_split(id.partition("/")[0]) == split]
            folders = pool.lie_in(split, top)
            sure = file.stem.lower() in ALIASES  # what is held out must be known
            if sure and not (folders if split != "train" else masks):
                raise
            if split != "train":  # which is said where its column is looked for
                warn(f"{file.name} is not read for splits of images: {error}")
            continue
        if of_one_image(file, split, rows, pool):
            continue
        columns = columns_of(rows)
        cells = cells_of(rows, columns)
        said = split_column(cells, label, tell=False)  # a table that is called so needs no column
        if said is not None and split == "train" and {*map(split_named, said.said)} != {"train"}:
            continue  # its column counts
        column = column_called(columns, FILE_COLUMNS)
        if said is not None and split != "train" and column is not None:
            refuse_other_split(file, split, said, rows, column, pool)
        names = [name for row in rows if (name := plain_name(row.get(column)))] if column is not None else []
        found = list(zip(names, pool.match(names, split)))
        if any(id is None and named_as_image(name) for name, id in found):
            found = below_folders(columns, rows, split, pool) or found
        there = sum(id is not None for _, id in found)
        if file.stem.lower() not in ALIASES and 0 < there * 2 < len(names) and not any(map(named_as_image, names)):
            if split != "train":
                warn_list_unread(file, split, f"{there} of {len(names)} names in its column {column!r} are of an image")
        elif there or any(map(named_as_image, names)):
            labeled = says_labels(cells, column, label) and file in metadata_files(path, split, more=True)
            aside = file.stem.lower() in WITH_MORE and column_called(columns, BOX_COLUMNS) is not None
            ours = label is not None or not aside and not left_to_folders(file, pool.every.ids)
            yield Listed(split, file, found, labeled and ours)
        elif split == "train":
            continue
        elif found := in_folders(columns, rows, pool) or below_folders(columns, rows, split, pool):
            yield Listed(split, file, found)
        else:  # a column called image_id may hold ids of something else
            refuse_nameless_column(file, split, [key for key in columns if key != column], rows, pool)


def in_folders(columns: Sequence[str], rows: Sequence[dict], pool: Pool) -> list[tuple[str, str | None]]:
    """(name, id) of all images in the folders that a column of patients names, which no other column does by itself:
    not where these are all folders, as of a table of all images."""
    column = column_called(columns, FOLDER_COLUMNS)
    names = sorted({plain_name(row.get(column)) for row in rows} - {""}) if column is not None else []
    if not names or column_called(columns, FILE_COLUMNS[:-2]) is not None:
        return []
    found = [(name, id) for name in names for id in pool.below(name) or [None]]
    ids = {id for _, id in found if id is not None}
    return found if ids and not ids >= {id for id in pool.every.ids if "/" in id} else []


def below_folders(columns: Sequence[str], rows: Sequence[dict], split: str, pool: Pool) -> list[tuple[str, str | None]]:
    """(name, id) of each row, where a column of folders and one of names say the image together."""
    above, name = (column_called(columns, names) for names in (FOLDER_COLUMNS, FILE_COLUMNS))
    names = [f"{plain_name(row.get(above))}/{plain_name(row.get(name))}" for row in rows] if above and name else []
    ids = pool.match(names, split)
    return [] if None in ids else list(zip(names, ids))


def of_one_image(file: Path, split: str, rows: Sequence[dict], pool: Pool) -> bool:
    """Whether a table that an image is called as says nothing of another image: it may lie beside each."""
    if file.stem.lower() in ALIASES or file.stem not in pool.stems:
        return False
    cells = {(column_called([key], FILE_COLUMNS), plain_name(cell)) for row in rows for key, cell in row.items()}
    names = {name for called, name in cells if name and (called or not NUMBER.fullmatch(name))}  # others are ages
    found = pool.match(sorted(names), split)
    return all(id is None or stem(id.rpartition("/")[2]) == file.stem for id in found)


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
        begins = next(column for column in columns if named_as_image(column))
        names = [plain_name(name) for name in (begins, *(row.get(begins) for row in rows)) if name]
        if passed_over(file, split, names, pool):
            return
        raise UserError(
            f"{file.name} begins with {', '.join(map(str, columns[:3]))}, which are no names of columns. Put a line "
            f"such as file_name above it: its images are of split {split!r}, and must not be learned from."
        )
    passed = False
    for column in columns:
        names = [name for row in rows if (name := plain_name(row.get(column)))]
        if names and (
            all(map(named_as_image, names))
            or not any(name.replace(".", "").isdigit() for name in names)
            and len({*names}) == len(names)
            and None not in pool.match(names, split)
        ):
            if passed_over(file, split, names, pool):
                passed = True
                continue
            raise UserError(
                f"The column {column!r} of {file.name} names images of split {split!r}, which must not be learned "
                "from. Call it file_name, or take the table elsewhere."
            )
    usual = (*FOLDER_COLUMNS, *(() if is_json(file) else FILE_COLUMNS[:-1]))  # others may be questions, or scores
    if rows and column_called(list(rows[0]), usual) is not None and not passed and not pool.all_in_splits:
        warn_list_unread(file, split, "no column of it names images or folders of them")


def passed_over(file: Path, split: str, names: Sequence[str], pool: Pool) -> bool:
    """Whether a table of held-out images says nothing new: all lie in the folder of that split, or none is there."""
    ids = pool.match(names, split)
    if not any(ids) and pool.has_training:
        tell_absent(file, split, names)
        return True
    return pool.lie_in(split, ids)


def tell_absent(file: Path, split: str, lost: Sequence[str]) -> None:
    warn(
        f"None of the {len(lost)} images of split {split!r} that {file.name} names is there, such as {lost[0]!r}: it "
        "is passed over, since the images for training lie in a folder of theirs."
    )


def named_as_image(name: str) -> bool:
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
