"""Folders of images: which files there are, which folder a split is, and what a metadata file says of each image.

Nothing is decoded here. Ids are paths relative to the folder (of the split), with "/" and in Unicode's NFC form, so
that a data set copied from a Mac has the ids it had there.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..errors import MissingSplit, UserError, unknown
from ..files import read_text
from .images import open_image

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
METADATA = ("metadata.csv", "metadata.jsonl")
UNLABELED = "unlabeled"  # the name of a folder that is not a class
# folders that file systems and tools leave behind
SYSTEM = frozenset("@eadir __macosx $recycle.bin lost+found __pycache__".split())
OURS = ("run.json", "selection.json")  # a run's folder, and one to label in
CONVERT = {  # endings of pictures that are not read -> what to do
    **dict.fromkeys((".heic", ".heif"), "save them as JPEG, as a phone does when it shares them"),
    ".jxl": "save them as PNG or JPEG",
    **dict.fromkeys((".dcm", ".dicom"), "save the slices as PNG, for example with pydicom"),
    **dict.fromkeys((".nii", ".mha", ".mhd", ".nrrd"), "volumes are not images: save slices as PNG"),
    **dict.fromkeys(tuple(".dng .cr2 .cr3 .nef .arw .raf .orf .rw2".split()), "develop the raw photos to JPEG"),
    **dict.fromkeys((".psd", ".svg", ".eps", ".pdf", ".ai"), "export them as PNG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "videos: save their frames as images"),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".svs", ".ndpi"), "export the images of the microscope as PNG or TIFF"),
}
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
    seen, unread, odd, ours = set(), Counter[str](), list[str](), list[str]()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            subfolders.clear()
            continue
        seen.add(real)
        ours += [name for name in subfolders if is_ours(Path(folder, name))]
        subfolders[:] = sorted(name for name in subfolders if is_of_images(Path(folder, name)))
        for file in sorted(files):
            ending = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                continue
            if ending not in EXTENSIONS:
                unread[ending] += ending in CONVERT
                continue
            path = os.path.join(folder, file)
            name = os.path.relpath(path, root).replace(os.sep, "/")
            if not is_text(name):
                odd.append(name)
                continue
            yield name, file_size(path)
    tell_left_out(root, unread, odd, ours)


def is_text(name: str) -> bool:
    """Whether a file name can be written down; one from an old archive may hold bytes that are no text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_ours(folder: Path) -> bool:
    """Whether a folder is one that this library wrote: a run, or images to label."""
    return any((folder / name).is_file() for name in OURS)


def is_of_images(folder: Path) -> bool:
    """Whether a folder may hold images of a data set: not hidden, none of the system's, none of our own."""
    return not folder.name.startswith(".") and folder.name.lower() not in SYSTEM and not is_ours(folder)


def tell_left_out(root: Path, unread: Counter[str], odd: list[str], ours: list[str]) -> None:
    """A warning for each kind of file and folder that was left out."""
    for ending, number in unread.items():
        if number:
            files = "file is" if number == 1 else "files are"
            warnings.warn(
                f"{number} {ending[1:].upper()} {files} not read in {root.name!r}: {CONVERT[ending]}.", stacklevel=4
            )
    if odd:
        shown = odd[0].encode("utf-8", "backslashreplace").decode()
        warnings.warn(
            f"{len(odd)} files in {root.name!r} are left out, since their names are no text, such as {shown}. Rename "
            "them.",
            stacklevel=4,
        )
    if ours:
        warnings.warn(
            f"{', '.join(sorted(ours)[:5])} in {root.name!r} left out: made by this library, not images to learn from.",
            stacklevel=4,
        )


def file_size(path: str | Path) -> int:
    """In bytes; 0 for a link to nothing, an image that cannot be read, as others."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def subfolders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and is_of_images(entry) and is_text(entry.name)]


def spellings(split: str) -> tuple[str, ...]:
    """The names under which a split is looked for, the one that is asked for first."""
    return (split, *next((names for names in SPLITS.values() if split in names), ()))


ALIASES = frozenset(alias for names in SPLITS.values() for alias in names)


def split_root(path: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of the split, and those of the other splits with classes: classes are those of all splits together."""
    folders = {entry.name.lower(): entry for entry in subfolders(path)[::-1]}  # of Test/ and test/ the first
    train = next((folders[name] for name in SPLITS["train"] if name in folders), None)
    nested = train is not None and (
        any(entry.is_dir() for entry in train.iterdir()) or any((train / name).is_file() for name in METADATA)
    )
    # A class may be called "train" (a locomotive): it is a split when everything beside it is one too, or when it has
    # folders or metadata of its own.
    whole = bool(folders) and set(folders) <= ALIASES and not set(folders) <= set(SPLITS[UNLABELED])
    if not (nested or whole):
        only_train(path, split)
        return path, []
    for name in spellings(split):
        if name in folders:
            others = [key for key in folders if key in ALIASES and key != name and key not in SPLITS[UNLABELED]]
            return folders[name], [folders[key] for key in sorted(others)]
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
        return path.is_dir() and not is_table(path) and split_root(path, UNLABELED)[0].name.lower() in SPLITS[UNLABELED]
    except MissingSplit:
        return False


def metadata_file(root: Path) -> Path | None:
    """metadata.csv or metadata.jsonl of a folder. Raises UserError where there are both."""
    found = [root / name for name in METADATA if (root / name).is_file()]
    if len(found) > 1:
        raise UserError(f"There are both {' and '.join(METADATA)} in {str(root)!r}. Keep one.")
    return found[0] if found else None


def metadata_beside(path: Path, root: Path) -> Path | None:
    """The metadata file of a split's folder, or the one beside the splits that is of all of them."""
    own = metadata_file(root)
    return own if own is not None or root == path else metadata_file(path)


def metadata_rows(file: Path, ids: Collection[str], root: Path) -> tuple[list[tuple[str, dict]], list[str]]:
    """([(id of the image, its row)], columns) of a metadata file for the images in the folder `root`.

    Raises:
        UserError: rows that name no image.
    """
    rows = read_rows(file)
    if file.parent != root:  # of all splits: rows of this one, by their path from here
        inside = f"{root.relative_to(file.parent).as_posix()}/"
        named = [(str(row.get("file_name") or "").removeprefix("./"), row) for row in rows]
        rows = [{**row, "file_name": name.removeprefix(inside)} for name, row in named if name.startswith(inside)]
        if not rows:
            raise UserError(
                f"No row of {file.name} in {file.parent.name!r} names an image of {root.name}/. Write file_name as "
                f"{inside}NAME, or put a {file.name} into {root.name}/."
            )
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
    lines = io.StringIO(read_text(file, "Save it as UTF-8 text."), newline="")
    try:
        if file.suffix == ".csv":
            return list(csv.DictReader(lines))
        rows = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{file.name} cannot be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{file.name} cannot be read: a line holds no object such as {{"file_name": "1.png"}}.')
    return rows
