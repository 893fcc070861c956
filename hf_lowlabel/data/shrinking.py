"""A copy of a folder of large photos with small ones: every run then reads it many times faster."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ..errors import UserError
from ..files import filling, read_json, whole, write_json
from ..locks import open_alone
from .caches.decoding import Progress, check_share, cores, in_threads
from .files.folders import as_text, image_files, walked
from .files.table_files import TABLES, stem
from .masks.mask_folders import layout
from .pixels.images import EXTENSIONS, BadImage, decoding, is_deep, open_image, to_rgb
from .shrink_record import Record, Stamp, stamp

log = logging.getLogger("hf_lowlabel")
KEPT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "HEIF": ".jpg", "JXL": ".jpg", "AVIF": ".jpg"}
SAME = EXTENSIONS - {".avif"}  # which tables name and any Pillow opens, whatever is inside
WRITTEN = {".jpg": ("JPEG", {"quality": 95, "subsampling": 0}), ".webp": ("WEBP", {"quality": 95}), ".png": ("PNG", {})}
PROFILES = {"RGB": b"RGB ", "L": b"GRAY"}  # mode -> the colour space that an ICC profile names
BESIDE = (*TABLES, ".txt", ".json", ".yaml", ".yml", ".md")  # labels, classes, manifests
NOTE = ".shrunk.json"  # in the copy: what it was made with
SHRINKING = ".shrinking"  # in the copy, while it is made
SMALLEST = 32  # px
BLOCK = 1 << 20  # bytes that are copied at a time


@dataclass
class Shrunk:
    """What `shrink` did: numbers of images made smaller, copied as they are and found from an earlier call, bytes
    before and after, {id: new id} of those with another ending, and [(id, reason)] of the images and tables left out.
    removed: what an earlier call made of files that are gone. others: files that somebody else put or changed there,
    which stay."""

    folder: Path
    smaller: int = 0
    copied: int = 0
    there: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def shrink(
    dataset: str | Path,
    output_dir: str | Path,
    side: int = 512,
    *,
    max_bad: float = 0.01,
    progress: Progress | None = None,
) -> Shrunk:
    """Copy a folder of images whose large ones have a shorter side of `side` px; folders, names and tables stay.

    Images stand upright in the copy, without the data of the camera and without transparency, which no network sees.
    JPEG, HEIC, AVIF and JPEG XL become JPEG of quality 95 at full colour resolution, PNG and WebP stay what they are,
    also under an ending that says another; other formats, pictures of more than 8 bits or of several pages and those
    that are small enough are copied byte by byte. A call that was stopped goes on where
    it stood. One after photos were added, changed, moved or taken away makes and removes what that asks for; what
    somebody else put into the copy stays.

    Args:
        dataset: the folder.
        output_dir: the folder to make, outside of `dataset`.
        side: of the shorter side, in px; twice the side that networks see, or more.
        max_bad: share of unreadable images that is left out and listed.
        progress: called with (images done, images in all).

    Raises:
        UserError: for a folder with masks, one without images, an output that holds something else or that another
            call writes to, or too many unreadable images.
    """
    source, target = Path(dataset), Path(output_dir)
    _check(source, target, side)
    images = image_files(source)
    names = Counter(stem(file.path).lower() for file in images)
    done = Shrunk(target)

    def alone(name: str) -> bool:
        """No other image has this name with another ending."""
        return names[stem(name).lower()] == 1

    def one(file):
        try:
            return file, *_copy(record, file.path, side, alone(file.path))
        except BadImage as error:
            return file, "bad", error.reason

    threads = cores()
    with held(target):
        _check_copy(source, target, side)  # again: another call may have been here meanwhile
        write_json(target / NOTE, {"side": side, "of": _print(source)})
        record = Record(source, target)
        done.removed, done.others = record.clean(lambda name, new: name == new or alone(name))
        for number, (file, what, result) in enumerate(in_threads(one, images, threads, 4 * threads), 1):
            if progress is not None:
                progress(number, len(images))
            if what == "bad":
                done.skipped.append((file.id, result))
                if len(done.skipped) > max_bad * len(images):
                    check_share(done.skipped, len(images), max_bad)
                continue
            if what == "others":
                done.others.append(result[0])
                continue
            setattr(done, what, getattr(done, what) + 1)
            done.bytes_before, done.bytes_after = done.bytes_before + file.size, done.bytes_after + result[1]
            if result[0] != file.path:
                done.renamed[file.path] = result[0]
        for name in _beside(source):
            try:
                if record.known(name) is None and not _as_it_is(record, name):
                    done.others.append(name)
            except BadImage as error:
                done.skipped.append((name, error.reason))
        record.save()
    if done.others:
        log.warning(
            "%d files in %r were put or changed there by somebody else and stay as they are, such as %s. Move them "
            "elsewhere to have them made anew.",
            len(done.others),
            str(target),
            done.others[0],
        )
    if done.skipped:
        log.warning("left out %d files that cannot be read, such as %s: %s", len(done.skipped), *done.skipped[0])
    return done


def _check(source: Path, target: Path, side: int) -> None:
    if side < SMALLEST:
        raise UserError(f"--side is {side}. Give {SMALLEST} px or more; 512 is twice what most networks see.")
    if not source.is_dir():
        raise UserError(f"{str(source)!r} is not a folder of this machine. Give the folder of your photos.")
    here, there = source.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{str(target)!r} and {str(source)!r} lie in each other. Give another --output-dir.")
    if layout(source) is not None:
        raise UserError(
            f"{str(source)!r} has masks, which are learned at their own size: shrink is for photos of one class each, "
            "or without labels."
        )
    if target.exists() and not target.is_dir():
        raise UserError(f"{str(target)!r} is a file. Give another --output-dir.")
    _check_copy(source, target, side)


def _check_copy(source: Path, target: Path, side: int) -> None:
    if target.is_dir() and any(path.name != SHRINKING for path in target.iterdir()):
        note = read_json(target / NOTE) if (target / NOTE).is_file() else None
        was, of = (note.get("side"), note.get("of")) if isinstance(note, dict) else (None, None)
        if was != side or of != _print(source):
            holds = "other files" if was is None else f"images shrunk to {was} px" if was != side else "another folder"
            raise UserError(f"{str(target)!r} holds {holds}. Give another --output-dir.")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """No other call writes to a copy in here: each would forget what the other made. Raises UserError where one is."""
    with filling(folder):
        words = f"Another `shrink` is writing to {str(folder)!r}. Wait for it, or give another --output-dir."
        with open_alone(folder / SHRINKING, words):
            try:
                yield
            finally:
                (folder / SHRINKING).unlink(missing_ok=True)


def _print(source: Path) -> str:
    """Which folder it is, without its name: the copy may go elsewhere."""
    return hashlib.sha256(os.fsencode(source.resolve())).hexdigest()


def _copy(record: Record, name: str, side: int, alone: bool) -> tuple[str, tuple[str, int]]:
    """What became of an image (a field of `Shrunk`), and its (new name, bytes). alone: no other image has this name
    with another ending."""
    if (known := record.known(name)) is not None:
        return "there", (known, (record.target / known).stat().st_size)
    path = record.source / name
    with decoding():
        image, of = open_image(path), stamp(path)
    pages = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    ending = None if is_deep(image) or pages or min(image.size) <= side else KEPT.get(image.format or "")
    new = name
    if ending is not None and path.suffix.lower() not in SAME:
        new = Path(name).with_suffix(ending).as_posix() if alone else name
        ending = ending if alone else None  # its new name is another's: it stays as it is
    out = record.target / new
    if os.path.lexists(out) and not record.may_be_cut(name, new):
        return "others", (new, 0)
    with decoding():  # all of it in memory: what fails below is the disk of the copy, and no fault of the picture
        profile = image.info.get("icc_profile")  # turning the picture leaves it behind
        content = open(path, "rb") if ending is None else _encoded(_smaller(image, side), ending, profile)
    if not _put(record, name, new, of, content, flush=False):
        return "others", (new, 0)
    return "copied" if ending is None else "smaller", (new, out.stat().st_size)


def _as_it_is(record: Record, name: str) -> bool:
    """Copy a table or text; False where something of that name is there already."""
    if os.path.lexists(record.target / name) and not record.may_be_cut(name, name):
        return False
    path = record.source / name
    with decoding():
        of, content = stamp(path), open(path, "rb")
    return _put(record, name, name, of, content)


def _put(record: Record, name: str, new: str, of: Stamp | None, content: BinaryIO, flush: bool = True) -> bool:
    """Write what a file becomes in the copy; False where something else is there. Raises BadImage where it cannot be
    read."""
    out = record.target / new
    with content:
        if os.path.lexists(out) and not _begins(out, content):
            return False
        content.seek(0)
        with whole(out, flush) as part:
            with open(part, "wb") as file:
                while block := _read(content):
                    file.write(block)
            record.add(name, new, of or Stamp(0, 0), part)
    return True


def _begins(out: Path, content: BinaryIO) -> bool:
    """Whether a file is the beginning of this content: it was cut short, and nobody has changed it."""
    with open(out, "rb") as file:
        return all(block == _read(content, len(block)) for block in iter(lambda: file.read(BLOCK), b""))


def _read(content: BinaryIO, size: int = BLOCK) -> bytes:
    with decoding():
        return content.read(size)


def _encoded(image: Image.Image, ending: str, profile: bytes | None) -> BinaryIO:
    """profile: what colours mean in the original, kept where it is one for the mode of the small picture."""
    out, fits = io.BytesIO(), profile is not None and profile[16:20] == PROFILES[image.mode]
    image.save(out, WRITTEN[ending][0], **WRITTEN[ending][1], icc_profile=profile if fits else None)
    out.seek(0)
    return out


def _smaller(image: Image.Image, side: int) -> Image.Image:
    """Upright, in RGB or gray, with a shorter side of `side` px; bicubic, and transparency is dropped before that, as
    networks see images: resized with it, the colour of what is transparent would be lost."""
    gray, image = image.mode in ("1", "L", "LA", "La"), to_rgb(image)
    image = image.convert("L") if gray else image
    width, height = image.size
    size = (side, round(height * side / width)) if width <= height else (round(width * side / height), side)
    image = image.resize(size, Image.Resampling.BICUBIC)
    image.info = {}
    return image


def _beside(source: Path) -> Iterator[str]:
    """The names of tables and texts that lie with the images, and of links to some."""
    for folder, _, files in walked(source):
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in BESIDE and as_text(name) is not None:
                with contextlib.suppress(OSError):  # a link to nothing is named, and found not to be readable
                    if not stat.S_ISREG(os.stat(path).st_mode):
                        continue
                yield path.relative_to(source).as_posix()
