"""A folder of images, with labels for all, some or none of them.

    photos/cat/1.jpg  photos/dog/2.jpg  photos/unlabeled/3.jpg  photos/4.jpg    folder = class; the last two have none
    photos/metadata.csv (or .jsonl): file_name, label                           empty or not listed = unlabeled
    photos/1.jpg  photos/2.jpg                                                  no labels at all
    photos/train/...  photos/test/...  photos/validation/...                    each of the above per split

Nothing is decoded here. Ids are paths relative to the folder (of the split), with "/" and in Unicode's NFC form, so
that a data set copied from a Mac has the ids it had there.
"""

from __future__ import annotations

import csv
import json
import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import MissingSplit, UserError, unknown
from .dataset import ImageDataset, fingerprint
from .images import open_image

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
    "unlabeled": ("unlabeled",),
}
METADATA = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category")
UNLABELED = "unlabeled"  # the name of a folder that is not a class
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .avif .tga .ico".split()
)


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


def load_folder(path: Path, split: str = "train", label_column: str | None = None) -> ImageDataset:
    root, siblings = split_root(path, split)
    found = sorted((unicodedata.normalize("NFC", name), name, size) for name, size in walk(root))
    if not found:
        raise UserError(
            f"found no images in {str(root)!r}; expected files such as .jpg, .png or .webp, in it or in "
            "one folder per class"
        )
    ids, paths, sizes = (list(column) for column in zip(*found))
    if len(set(ids)) != len(ids):
        raise UserError(f"found two files in {str(root)!r} whose names differ only in their Unicode form; rename one")
    metadata = [root / name for name in METADATA if (root / name).is_file()]
    if metadata:
        texts = metadata_labels(metadata, ids, label_column)
        names = class_order(text for text in texts if text)
    elif label_column is not None:
        raise UserError(f"found label column {label_column!r} but no metadata.csv or metadata.jsonl in {str(root)!r}")
    else:
        texts = [folder_label(id) for id in ids]
        others = {text for other in siblings for text in class_folders(other)}
        names = class_order({text for text in texts if text} | (others if any(texts) else set()))
    index = {name: k for k, name in enumerate(names)}
    labels = np.array([index.get(text, -1) for text in texts], dtype=np.int64)
    return ImageDataset(
        name=path.resolve().name,
        config=None,
        split=split,
        revision=None,
        ids=ids,
        labels=labels,
        class_names=names,
        fingerprint=fingerprint(ids, labels, names, sizes),
        license=None,
        flip=True,
        reader=FileReader(root, paths),
    )


def split_root(path: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of the split, and those of the other splits with classes: classes are those of all splits together."""
    folders = {entry.name: entry for entry in subfolders(path)}
    aliases = {alias for names in SPLITS.values() for alias in names}
    train = next((folders[name] for name in SPLITS["train"] if name in folders), None)
    nested = train is not None and (
        any(entry.is_dir() for entry in train.iterdir()) or any((train / name).is_file() for name in METADATA)
    )
    # A class may be called "train" (a locomotive): it is a split when everything beside it is one too, or when it has
    # folders or metadata of its own.
    whole = bool(folders) and set(folders) <= aliases and set(folders) != {UNLABELED}
    if not (nested or whole):
        if split not in SPLITS["train"]:
            raise MissingSplit(
                f"found no folder for split {split!r} in {str(path)!r}; expected {split}/ beside "
                "train/; fix: use split 'train', or cut a test set out of it with "
                "test_fraction"
            )
        return path, []
    for name in (split, *SPLITS.get(split, ())):
        if name in folders:
            return folders[name], [folder for key, folder in folders.items() if key not in (name, UNLABELED)]
    raise unknown(f"split of {path.name!r}", split, folders, MissingSplit)


def has_unlabeled_split(path: Path) -> bool:
    """Is there unlabeled/ beside train/, which is read only where it is asked for?"""
    try:
        return path.is_dir() and not is_table(path) and split_root(path, UNLABELED)[0].name == UNLABELED
    except MissingSplit:
        return False


def subfolders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def walk(root: Path):
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
                try:
                    size = os.path.getsize(path)
                except OSError:  # a link to nothing: an image that cannot be read, as others
                    size = 0
                yield os.path.relpath(path, root).replace(os.sep, "/"), size


def folder_label(id: str) -> str | None:
    first, _, rest = id.partition("/")
    return first if rest and first != UNLABELED else None


def class_folders(root: Path) -> set[str]:
    if any((root / name).is_file() for name in METADATA):
        return set()
    return {unicodedata.normalize("NFC", entry.name) for entry in subfolders(root) if entry.name != UNLABELED}


def class_order(names) -> list[str]:
    """Numbers by value, so that 10 comes after 9; anything else by its text."""
    names = set(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def metadata_labels(files: list[Path], ids: list[str], label_column: str | None) -> list[str | None]:
    """The label of each image by the metadata file; None where it is empty or the image is not listed."""
    if len(files) > 1:
        raise UserError(f"found both {' and '.join(file.name for file in files)} in {str(files[0].parent)!r}; keep one")
    file = files[0]
    rows = read_rows(file)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "file_name" not in columns:
        raise unknown(f"column (it must name the files) in {file.name}", "file_name", columns)
    column = find_label(columns, label_column, file)
    position, labels = {id: i for i, id in enumerate(ids)}, [None] * len(ids)
    missing = []
    for number, row in enumerate(rows, start=1):
        name = unicodedata.normalize("NFC", str(row.get("file_name") or "")).removeprefix("./")
        if name not in position:
            missing.append(name)
            continue
        text = label_text(row.get(column)) if column else None
        if text is not None and labels[position[name]] not in (None, text):
            raise UserError(
                f"found {name!r} twice in {file.name}, as {labels[position[name]]!r} and as {text!r} (row "
                f"{number}); expected one label; fix the file"
            )
        labels[position[name]] = text if text is not None else labels[position[name]]
    if missing:
        raise UserError(
            f"found {len(missing)} file names in {file.name} without an image, such as {missing[0]!r}; "
            f"expected paths relative to {str(file.parent)!r}; fix file_name or add the "
            "images"
        )
    return labels


def read_rows(file: Path) -> list[dict]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            if file.suffix == ".csv":
                return list(csv.DictReader(lines))
            return [json.loads(line) for line in lines if line.strip()]
    except (ValueError, csv.Error) as error:
        raise UserError(f"found {file.name} that cannot be read: {error}; expected UTF-8 text") from error


def find_label(columns: list[str], asked: str | None, file: Path) -> str | None:
    if asked is not None:
        if asked not in columns:
            raise unknown(f"label column in {file.name}", asked, columns)
        return asked
    for name in LABEL_COLUMNS:
        if name in columns:
            return name
    others = [name for name in columns if name != "file_name"]
    if others:
        warnings.warn(
            f"{file.name} has no column called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}: all "
            f"images count as unlabeled; name the label column if one of {others} is "
            "it",
            stacklevel=2,
        )
    return None


def label_text(value) -> str | None:
    """A label as text; None for what says that there is none: empty, null, -1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    return None if text in ("", "-1") else unicodedata.normalize("NFC", text)
