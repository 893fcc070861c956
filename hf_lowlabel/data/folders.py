"""Folders of images: which files there are, which folder a split is, and what a metadata file says of each image.

Nothing is decoded here. Ids are paths relative to the folder (of the split), with "/" and in Unicode's NFC form, so
that a data set copied from a Mac has the ids it had there.
"""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..errors import MissingSplit, UserError, unknown
from .images import open_image

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
    "unlabeled": ("unlabeled",),
}
METADATA = ("metadata.csv", "metadata.jsonl")
UNLABELED = "unlabeled"  # the name of a folder that is not a class
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .avif .tga .ico".split()
)


class ImageFile(NamedTuple):
    id: str
    path: str  # relative to the folder, as the file system spells it
    size: int  # bytes


class FileReader:
    def __init__(self, root: Path, paths: list[str]):
        self.root, self.paths = root, paths

    def __call__(self, i: int) -> Image.Image:
        return open_image(self.root / self.paths[i])


def is_table(path: Path) -> bool:
    """A parquet file, or a folder that holds parquet (itself or one level down, as in data/train-0.parquet)."""
    if path.is_file():
        return path.suffix == ".parquet"
    return any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))


def image_files(root: Path) -> list[ImageFile]:
    """The images in a folder and those below it, by id. Raises UserError where there are none."""
    found = listing(root)
    if not found:
        raise UserError(f"There are no images (.jpg, .png, .webp ...) in {str(root)!r} or in folders in it.")
    if len({file.id for file in found}) != len(found):
        raise UserError(f"Two files in {str(root)!r} have names that differ only in their Unicode form. Rename one.")
    return found


def listing(root: Path) -> list[ImageFile]:
    return sorted(ImageFile(unicodedata.normalize("NFC", name), name, size) for name, size in walk(root))


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """(relative path with "/", size in bytes) of each file with an image's extension; hidden ones are left out."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in EXTENSIONS:
                path = os.path.join(folder, file)
                yield os.path.relpath(path, root).replace(os.sep, "/"), file_size(path)


def file_size(path: str | Path) -> int:
    """In bytes; 0 for a link to nothing, an image that cannot be read, as others."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def subfolders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def spellings(split: str) -> tuple[str, ...]:
    """The names under which a split is looked for, the one that is asked for first."""
    return (split, *next((names for names in SPLITS.values() if split in names), ()))


ALIASES = frozenset(alias for names in SPLITS.values() for alias in names)


def split_root(path: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of the split, and those of the other splits with classes: classes are those of all splits together."""
    folders = {entry.name: entry for entry in subfolders(path)}
    train = next((folders[name] for name in SPLITS["train"] if name in folders), None)
    nested = train is not None and (
        any(entry.is_dir() for entry in train.iterdir()) or any((train / name).is_file() for name in METADATA)
    )
    # A class may be called "train" (a locomotive): it is a split when everything beside it is one too, or when it has
    # folders or metadata of its own.
    whole = bool(folders) and set(folders) <= ALIASES and set(folders) != {UNLABELED}
    if not (nested or whole):
        only_train(path, split)
        return path, []
    for name in spellings(split):
        if name in folders:
            return folders[name], [folder for key, folder in folders.items() if key not in (name, UNLABELED)]
    raise unknown(f"split of {path.name!r}", split, folders, MissingSplit)


def only_train(path: Path, split: str, inside: str = "") -> None:
    """Raises MissingSplit for another split than the one that a folder without splits is."""
    if split not in SPLITS["train"]:
        raise MissingSplit(
            f"There is no folder for split {split!r} in {str(path)!r}; it would be {split}/{inside} beside "
            f"train/{inside}. Use split 'train', or cut a test set out of it with test_fraction."
        )


def has_unlabeled_split(path: Path) -> bool:
    """Is there unlabeled/ beside train/, which is read only where it is asked for?"""
    try:
        return path.is_dir() and not is_table(path) and split_root(path, UNLABELED)[0].name == UNLABELED
    except MissingSplit:
        return False


def metadata_file(root: Path) -> Path | None:
    """metadata.csv or metadata.jsonl of a folder. Raises UserError where there are both."""
    found = [root / name for name in METADATA if (root / name).is_file()]
    if len(found) > 1:
        raise UserError(f"There are both {' and '.join(METADATA)} in {str(root)!r}. Keep one.")
    return found[0] if found else None


def metadata_rows(file: Path, ids: Collection[str]) -> tuple[list[tuple[str, dict]], list[str]]:
    """([(id of the image, its row)], columns) of a metadata file. Raises UserError for rows that name no image."""
    rows = read_rows(file)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "file_name" not in columns:
        raise unknown(f"column (it must name the files) in {file.name}", "file_name", columns)
    known, out, missing = set(ids), [], []
    for row in rows:
        id = unicodedata.normalize("NFC", str(row.get("file_name") or "")).removeprefix("./")
        out.append((id, row)) if id in known else missing.append(id)
    if missing:
        raise UserError(
            f"{len(missing)} file names in {file.name} have no image, such as {missing[0]!r}. They are paths relative "
            f"to {str(file.parent)!r}: correct file_name, or add the images."
        )
    return out, columns


def read_rows(file: Path) -> list[dict]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            if file.suffix == ".csv":
                return list(csv.DictReader(lines))
            rows = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file.name} cannot be read as UTF-8 text: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{file.name} cannot be read: a line holds no object such as {{"file_name": "1.png"}}.')
    return rows
