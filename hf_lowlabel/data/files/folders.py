"""Folders of images: which files there are, how splits are called, and which file is the table of them.

Nothing is decoded here. Ids are paths relative to the folder (of the split), with "/" and in Unicode's NFC form, so
that a data set copied from a Mac has the ids it had there.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...errors import UserError
from ...missing_inputs import or_a_model
from ...text import warn
from ..pixels.fingerprints import ends_of, size_and_print
from ..pixels.images import open_image, read_endings
from .table_files import TABLES

SPLITS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "publictest"),
    "test": ("test", "testing", "eval", "tst", "holdout", "privatetest"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
SNIFFED = 100  # files without an ending that are looked into
OTHER_TABLES = (".xls", ".xlsb", ".ods", ".numbers", ".feather", ".arrow", ".pkl")
METADATA = ("metadata", "labels", "_classes")  # tables of labels, the last Roboflow's, beside one called as the split
UNLABELED = "unlabeled"  # the name of a folder that is not a class
# folders that file systems and tools leave behind
SYSTEM = frozenset("@eadir __macosx $recycle.bin lost+found __pycache__".split())
OURS = ("run.json", "selection.json")  # a run's folder, and one to label in
PREDICTED, HEAD = "masks.csv", b"file,mask,overlay"  # the table of predicted masks, and what it begins with
MASKS, OVERLAYS = "masks", "overlays"  # beside it
CONVERT = {  # endings of pictures that are not read -> what to do
    **dict.fromkeys((".heic", ".heif"), "pip install pillow-heif, or save them as JPEG as a phone does to share them"),
    ".jxl": "pip install pillow-jxl-plugin, or save them as PNG or JPEG",
    ".avif": "pip install pillow-avif-plugin, or save them as PNG or JPEG",
    **dict.fromkeys(
        (".dcm", ".dicom", ".ima"), "DICOM is out of scope: save the slices as 16-bit PNG, as with pydicom"
    ),
    **dict.fromkeys(
        (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mgz"),
        "volumes are out of scope: save their slices as 16-bit PNG, as with nibabel or SimpleITK",
    ),
    **dict.fromkeys(tuple(".dng .cr2 .cr3 .nef .arw .raf .orf .rw2".split()), "develop the raw photos to JPEG"),
    **dict.fromkeys((".psd", ".svg", ".eps", ".pdf", ".ai"), "export them as PNG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "videos: save their frames as images"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z"), "unpack archives first"),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".svs", ".ndpi"), "export the images of the microscope as PNG or TIFF"),
}


class ImageFile(NamedTuple):
    id: str
    path: str  # relative to the folder, as the file system spells it
    size: int  # bytes
    print: int | str  # what the fingerprint is to know of it (`size_and_print`)


class FileReader:
    def __init__(self, root: Path, paths: list[str]):
        self.root, self.paths = root, paths

    def __call__(self, i: int) -> Image.Image:
        return open_image(self.root / self.paths[i])

    def ends(self, i: int) -> bytes:
        return ends_of(self.root / self.paths[i])


def is_table(path: Path) -> bool:
    """A parquet file, or a folder that holds parquet (itself or one level down, as in data/train-0.parquet)."""
    if path.is_file():
        return path.suffix.lower() == ".parquet"
    tables = (
        name for name in parquet_files(path) if Path(name).stem.lower() not in METADATA
    )  # not of images beside it
    return next(tables, None) is not None


def parquet_files(folder: str | Path, below: bool = True) -> Iterator[str]:
    """Names of those in a folder and, with `below`, in the folders in it, which may hold a million images."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet"):
                    yield entry.name
                elif below and entry.is_dir():
                    yield from parquet_files(entry.path, below=False)
    except OSError:  # a folder that nobody may read
        return


def path_inside(path: Path, folder: Path) -> str:
    """What the ids of a data set at `path` begin with that lie in a folder of it: "" in itself, else "folder/"."""
    return "" if folder == path else f"{unicodedata.normalize('NFC', folder.relative_to(path).as_posix())}/"


def image_files(root: Path) -> list[ImageFile]:
    """The images in a folder and those below it, by id. Raises UserError where there are none."""
    found = listing(root)
    if not found:
        raise UserError(
            f"There are no images (.jpg, .png, .webp ...) in {str(root)!r} or in folders in it.{or_a_model(root)}"
        )
    if len({file.id for file in found}) != len(found):
        raise UserError(f"Two files in {str(root)!r} have names that differ only in their Unicode form. Rename one.")
    return found


def listing(root: Path) -> list[ImageFile]:
    return sorted(walk(root))


def walk(root: Path) -> Iterator[ImageFile]:
    """Each file with an image's extension, its path with "/"; hidden ones are left out."""
    unread, odd, ours, bare = Counter[str](), list[str](), list[str](), list[str]()
    endings = read_endings()
    for folder, _, files in walked(root, ours):
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for file in sorted(files):
            if file.startswith("."):
                continue
            ending = ending_of(file)
            if ending not in endings:
                ending = ".nii.gz" if file.lower().endswith(".nii.gz") else ending
                unread[ending] += ending in CONVERT
                bare += [os.path.join(folder, file)] if not ending else []
                continue
            name = file if below == "." else f"{below}/{file}"
            id = name
            if not name.isascii():  # plain names, of which there may be millions, are in NFC form
                if (text := as_text(name)) is None:
                    odd.append(name)
                    continue
                id = unicodedata.normalize("NFC", text)
            yield ImageFile(id, name, *size_and_print(f"{folder}{os.sep}{file}", ending))
    tell_left_out(root, unread, odd, ours)
    if found := [path for path in bare[:SNIFFED] if begins_as_image(path)]:
        shown = as_text(os.path.relpath(found[0], root)) or "one whose name is no text"
        warn(
            f"{len(found)} files without an ending in {root.name!r} are images and are not read, such as {shown}. Give "
            "them the ending .jpg or .png."
        )


def walked(root: Path, ours: list[str] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` of the folders that may hold images, through links and never in a circle; `ours` gets the names of
    those that this library wrote."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            subfolders.clear()
            continue
        seen.add(real)
        if ours is not None:
            ours += [name for name in subfolders if is_ours(Path(folder, name)) or holds_overlays(Path(folder, name))]
        subfolders[:] = sorted(name for name in subfolders if is_of_images(Path(folder, name)))
        yield folder, subfolders, files


def ending_of(file: str) -> str:
    return file[dot:].lower() if (dot := file.rfind(".")) > 0 else ""


def holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below it, outside of what this library wrote."""
    endings = read_endings()
    return any(ending_of(file) in endings and file[0] != "." for _, _, files in walked(folder) for file in files)


def begins_as_image(path: str) -> bool:
    """Whether a file begins as JPEG, PNG, GIF, TIFF or WebP do."""
    try:
        if not os.path.isfile(path):  # a FIFO would never answer
            return False
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")) or head[8:] == b"WEBP"


def as_text(name: str) -> str | None:
    """A file name as it can be written down, whatever the locale; None for one from an old archive, which is no
    text."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return None


def is_text(name: str) -> bool:
    return as_text(name) is not None


def is_ours(folder: Path) -> bool:
    """Whether a folder is one that this library wrote: a run, images to label, or predicted masks and nothing else."""
    return any((folder / name).is_file() for name in OURS) or (is_predicted(folder) and not holds_more(folder))


def holds_more(folder: Path) -> bool:
    """Whether there are images beside predicted masks, as where `predict` wrote into a folder of photos."""
    endings = read_endings()
    with os.scandir(folder) as entries:
        names = [(entry.name, entry.is_dir()) for entry in entries if entry.name[0] != "."]
    known = {MASKS, OVERLAYS, *SYSTEM}
    return any(name.lower() not in known if below else ending_of(name) in endings for name, below in names)


def holds_overlays(folder: Path) -> bool:
    """Whether it is the folder of overlays that `predict` wrote; its masks may be the labels of images beside them."""
    return folder.name == OVERLAYS and is_predicted(folder.parent)


def is_predicted(folder: Path) -> bool:
    """Whether `predict` wrote masks and overlays into it."""
    table = folder / PREDICTED
    if not (table.is_file() and (folder / MASKS).is_dir()):  # a FIFO would never answer
        return False
    try:
        with open(table, "rb") as file:
            return file.read(len(HEAD)) == HEAD
    except OSError:
        return False


def is_of_images(folder: Path) -> bool:
    """Whether a folder may hold images of a data set: not hidden, none of the system's, none of our own."""
    known = folder.name.startswith(".") or folder.name.lower() in SYSTEM
    return not (known or is_ours(folder) or holds_overlays(folder))


def tell_left_out(root: Path, unread: Counter[str], odd: list[str], ours: list[str]) -> None:
    """A warning for each kind of file and folder that was left out."""
    for ending, number in unread.items():
        if number:
            files = "file is" if number == 1 else "files are"
            warn(f"{number} {ending[1:].upper()} {files} not read in {root.name!r}: {CONVERT[ending]}.")
    if odd:
        shown = odd[0].encode("utf-8", "backslashreplace").decode()
        warn(
            f"{len(odd)} files in {root.name!r} are left out, since their names are no text, such as {shown}. Rename "
            "them."
        )
    if ours:
        warn(
            f"{', '.join(sorted(ours)[:5])} in {root.name!r} left out: made by this library, not images to learn from."
        )


def subfolders(path: Path) -> list[Path]:
    with os.scandir(path) as entries:  # a folder of a million images has few folders in it
        folders = [entry.path for entry in entries if entry.is_dir()]
    return [folder for folder in sorted(map(Path, folders)) if is_of_images(folder) and is_text(folder.name)]


def in_any_case(path: Path, name: str) -> Path:
    """The folder of this name in another, else the one that differs from it in capitals alone, where there is one."""
    if (path / name).is_dir() or not path.is_dir():
        return path / name
    return next((folder for folder in subfolders(path) if folder.name.lower() == name.lower()), path / name)


def spellings(split: str) -> tuple[str, ...]:
    """The names under which a split is looked for, the one that is asked for first."""
    return (split, *next((names for names in SPLITS.values() if split in names), ()))


ALIASES = frozenset(alias for names in SPLITS.values() for alias in names)
WITH_MORE = frozenset(  # what else a table of a split's labels is called: train_labels, metadata_test
    f"{a}_{b}" for word in ALIASES for more in METADATA[:2] for a, b in ((word, more), (more, word))
)


def metadata_file(root: Path, split: str | None = None, more: bool = False) -> Path | None:
    """The one of `metadata_files`. Raises UserError where there are two of the same name."""
    found = metadata_files(root, split, more)
    if len(found) > 1 and found[0].stem.lower() in WITH_MORE:
        warn(
            f"{' and '.join(f.name for f in found)} in {root.name!r} are not read as tables of labels. Keep one, if it "
            "is meant."
        )
        return None
    if len(found) > 1:
        raise UserError(f"There are both {' and '.join(f.name for f in found)} in {str(root)!r}. Keep one.")
    return found[0] if found else None


def metadata_files(root: Path, split: str | None = None, more: bool = False) -> list[Path]:
    """The table of the images in a folder: one of `METADATA`, or one called as the split, with an ending of `TABLES`;
    several of the same name. more: also one of `WITH_MORE` that is of the split, which may be of something else."""
    words = () if split is None else spellings(split)
    with_more = [one for one in sorted(WITH_MORE) if more and not {*words}.isdisjoint(one.split("_"))]
    named = (*METADATA, *words, *with_more)
    files = [file for file in root.iterdir() if is_text(file.name) and file.suffix.lower() in TABLES and file.is_file()]
    for name in named:
        found = sorted(file for file in files if file.stem.lower() == name and (name in METADATA or not parquet(file)))
        if found:
            return found
    for file in root.iterdir():
        if is_text(file.name) and file.stem.lower() in named and file.suffix.lower() in OTHER_TABLES:
            warn(f"{file.name} is not read as a table of labels: save it as .xlsx or 'CSV UTF-8'.")
    return []


def parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"
