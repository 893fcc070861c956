"""What only a look into the files tells: pages of a TIFF and frames of a GIF, and images of 10 to 14 bits in 16."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import UserError
from ..text import warn
from .dataset import ImageDataset, Reader
from .pixels.images import BadImage, Range, decoding, has_deep_colours, open_image
from .pixels.tiff_pages import page_at, page_starts

PAGED = ("TIFF", "GIF", "WEBP", "PNG")  # formats in which more than one picture means more than one image
ANIMATED = ("GIF", "WEBP", "PNG")  # those in which a picture builds on the one before
LOOKS = 12  # images of a data set that are looked into
DEEP = 16384  # 14 bits: values of a 16-bit image that stay below are those of a camera with fewer


class PageReader:
    """Page `pages[i]` of image `rows[i]` of another reader.

    Each frame of an animation builds on those before it: a thread keeps its last animation, so that frames in order
    are each decoded once. starts: where each page of a TIFF begins, int64 [N]; 0 where that is not known.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, pages: np.ndarray, starts: np.ndarray):
        self.reader, self.rows, self.pages, self.starts = reader, rows, pages, starts
        self.several = np.bincount(rows) > 1
        self.kept = Kept()

    def __getstate__(self):
        return {**self.__dict__, "kept": None}

    def __setstate__(self, state):
        self.__dict__ |= {**state, "kept": Kept()}

    def ends(self, i: int) -> bytes:
        return self.reader.ends(int(self.rows[i]))

    def __call__(self, i: int) -> Image.Image:
        row, page, kept = int(self.rows[i]), int(self.pages[i]), self.kept
        if not self.several[row]:
            return self.reader(row)
        with decoding():
            if kept.row != row or page < kept.image.tell():
                image = self.reader(row)
                if image.format == "TIFF" and self.starts[i]:
                    return page_at(image, int(self.starts[i]))
                if image.format not in ANIMATED or has_deep_colours(image):  # of which a copy does not tell
                    image.seek(page)
                    return image
                with image:
                    image.fp.seek(0)
                    kept.image = open_image(io.BytesIO(image.fp.read()))  # no file stays open
            kept.row = -1  # where it stands is not known after an error
            kept.image.seek(page)
            frame = kept.image.copy()
            kept.row = row
            return frame


class Kept(threading.local):
    """The animation that a thread read last."""

    row = -1
    image: Image.Image


def pages_of(reader: Reader, i: int) -> list[int]:
    """Of each page where it begins, 0 where that is not known; one page for an image that cannot be read, which is
    found out later."""
    try:
        with decoding(), reader(i) as image:
            count = getattr(image, "n_frames", 1) if image.format in PAGED else 1
            starts = page_starts(image.fp) if image.format == "TIFF" and count > 1 else []
            return starts if len(starts) == count else [0] * count
    except BadImage:
        return [0]


def opened_pages(image: Image.Image, every: bool) -> Iterator[tuple[str, Image.Image]]:
    """("", the picture), or of a file of several pages, where `every` one is asked for, ("#1", the first) ..."""
    count = getattr(image, "n_frames", 1) if image.format in PAGED else 1
    if not every or count == 1:
        yield "", image
        return
    before = image.tell()
    try:
        for k in range(count):
            image.seek(k)
            yield f"#{k + 1}", image
    finally:
        image.seek(before)  # it may be a caller's


def in_pages(dataset: ImageDataset) -> ImageDataset:
    """Each page as an image of its own with the target of its file; the mask of a page is that page of the mask.

    The pages of a.tif are a.tif#1, a.tif#2 ...; a file of one page keeps its id.
    """
    starts = [pages_of(dataset.reader, i) for i in range(len(dataset))]
    counts = np.array([len(pages) for pages in starts])
    if (counts == 1).all():
        return dataset
    masks, of_masks = dataset.masks, [[0] * count for count in counts]
    for i in np.flatnonzero((counts > 1) & dataset.has_target) if masks is not None else ():
        of_masks[i] = pages_of(masks.reader, int(i))
        if len(of_masks[i]) != counts[i]:
            pair = f"{counts[i]} pages, and its mask {len(of_masks[i])}"
            raise UserError(f"The image {dataset.ids[i]!r} has {pair}. With --pages a mask has a page for each.")
    rows = np.repeat(np.arange(len(dataset)), counts)
    pages = np.concatenate([np.arange(count) for count in counts])
    ids = [f"{dataset.ids[i]}#{k + 1}" if counts[i] > 1 else dataset.ids[i] for i, k in zip(rows, pages)]
    prints = [
        hashlib.sha256(f"{of}{counts.tolist()}".encode()).hexdigest()
        for of in (dataset.fingerprint, dataset.images_print)
    ]
    return replace(
        dataset,
        ids=ids,
        file_of={id: dataset.ids[i] for id, i in zip(ids, rows) if counts[i] > 1},
        labels=dataset.labels[rows],
        fingerprint=prints[0],
        images_print=prints[1],
        reader=PageReader(dataset.reader, rows, pages, flat(starts)),
        masks=None if masks is None else replace(masks, reader=PageReader(masks.reader, rows, pages, flat(of_masks))),
    )


def flat(starts: list[list[int]]) -> np.ndarray:
    return np.array([start for pages in starts for start in pages], dtype=np.int64)


def look(dataset: ImageDataset) -> None:
    """Warn of what a few of the images show: pages that are not read, values that come out dark, files that are no
    images, masks whose colours contradict each other."""
    paged, values, bad = "", list[Depth](), list[BadImage]()
    at = np.unique(np.linspace(0, len(dataset) - 1, LOOKS).astype(int))
    for i in at:
        try:
            with decoding(), dataset.reader(int(i)) as image:
                if (
                    image.format in PAGED
                    and getattr(image, "n_frames", 1) > 1
                    and not isinstance(dataset.reader, PageReader)
                ):
                    paged = f"{dataset.ids[i]!r} has {image.n_frames}"
                values.append(depth_of(image))
        except BadImage as error:
            bad.append(BadImage(error.reason, dataset.ids[i]))
    if bad:
        warn(f"{len(bad)} of {len(at)} images of {dataset.name!r} that were looked at: {bad[0]}.")
    if paged:
        warn(
            f"Files of {dataset.name!r} hold several pages or frames ({paged}), and the first alone is read. Give "
            "--pages to make each an image."
        )
    if said := darkness(repr(dataset.name), values, dataset.value_range):
        warn(said)
    if dataset.masks is not None and dataset.masks.format.kind == "index":
        look_at_palettes(dataset, dataset.masks.reader)


class Depth(NamedTuple):
    """The largest value of 16-bit gray (None: it is none), and whether it has 16-bit colours that stay dark."""

    gray: int | None
    dark_colours: bool = False


def depth_of(image: Image.Image) -> Depth:
    """Of a picture that is not loaded yet. Raises what `decoding` takes."""
    if has_deep_colours(image):
        return Depth(None, int(np.asarray(image).max()) < DEEP >> 8)
    is_gray = image.mode == "I" or image.mode.startswith("I;16")
    return Depth(int(np.asarray(image).max()) if is_gray else None)


def darkness(what: str, values: Iterable[Depth], value_range: Range, advice: str = "give") -> str:
    """What to say of 16-bit images that do not use their range; "" of others.

    Args:
        what: the images, in words.
        values: what a few of them hold.
        value_range: as they are read.
        advice: what is done with --value-range.
    """
    values = list(values)
    top, said = max((value.gray for value in values if value.gray is not None), default=0), list[str]()
    if value_range is None and 255 < top < DEEP:
        bits = top.bit_length()
        said.append(
            f"The 16-bit images of {what} hold values up to {top} and come out dark. If they are of {bits} bits, "
            f"{advice} --value-range 0 {2**bits - 1}."
        )
    if any(value.dark_colours for value in values):
        said.append(
            f"The 16-bit colours of {what} stay below a quarter of their range and come out dark, and their lower 8 "
            "bits are not read. Stretch them and save them with 8 bits."
        )
    return " ".join(said)


def look_at_palettes(dataset: ImageDataset, reader: Reader) -> None:
    """Warn of masks in which one number has several colours: a program numbered them anew for each picture."""
    color_of: dict[int, tuple[tuple[int, ...], str]] = {}
    rows = np.flatnonzero(dataset.has_target)
    for i in rows[np.unique(np.linspace(0, len(rows) - 1, LOOKS).astype(int))] if len(rows) else ():
        with contextlib.suppress(BadImage), decoding(), reader(int(i)) as mask:
            if mask.mode != "P":
                continue
            numbers, colors = np.asarray(mask), np.asarray(mask.convert("RGB"))
            for number in np.unique(numbers).tolist():
                color = tuple(colors[numbers == number][0].tolist())
                other, id = color_of.setdefault(number, (color, dataset.ids[i]))
                if other != color:
                    warn(
                        f"The number {number} has the colour {other} in the mask of {id!r} and {color} in that of "
                        f"{dataset.ids[i]!r}. If the colours are the classes, give --mask-format colors."
                    )
                    return


def as_asked(dataset: ImageDataset, value_range: Iterable[float], pages: bool) -> ImageDataset:
    """The data set with its range of values, and in pages where that is asked for.

    Raises:
        UserError: the range is none.
    """
    if values := range_of(value_range):
        dataset = replace(dataset, value_range=values)
    return in_pages(dataset) if pages else dataset


def range_of(value_range: Iterable[float]) -> Range:
    """Two values, the black one first; of none None.

    Raises:
        UserError: they are no range.
    """
    values = tuple(float(value) for value in value_range)
    if values and (len(values) != 2 or not values[0] < values[1]):
        raise UserError(f"value_range is {list(values)}. It is two values, the black one first, such as 0 4095.")
    return (values[0], values[1]) if values else None
