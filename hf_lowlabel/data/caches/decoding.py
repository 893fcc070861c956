"""From positions in a cache to decoded images, uint8 [n, C, H, W]: squares of one size, or whole images in a padded
frame.

An image that cannot be decoded is noted with the reason, or, where a decoder is lenient, gives its place to the next
image of the cache: the same one for any number of workers, ranks or restarts. A labeled one never does: its label would
be taught with the other image.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import TooManyBad, UserError
from ...machine import cores as usable_cores
from ...text import percent
from ..dataset import ImageDataset
from ..files.folders import FileReader
from ..pixels.images import BadImage, check_size
from ..pixels.masks import IGNORE

log = logging.getLogger("hf_lowlabel")
SLOW = 60.0, 0.05  # seconds of a whole pass, and of one image on one thread, from which its cost is said
CHUNK = 64
PADDED_CHUNK = 2**20  # bytes of whole images that a thread decodes before it reports: one of 12 megapixels is its own
AHEAD = 64  # images that are decoded, at least, before the first of them is taken over
WAITING = 2**28  # bytes of images of any size that are decoded, or to be written, before it is their turn
LOOK = 1000  # images spread over a cache that are decoded before training streams
Progress = Callable[[int, int], None]  # (images done, images in all)


class Decoded(NamedTuple):
    """Images uint8 [n, C, H, W] of positions [n], (id, reason) of the bad ones, {position: which one stands in for it},
    and where sizes were not known before, int64 [n, 2] = height, width in px.

    lost: why there are none, raised where they are taken: a loader would put the trace of its worker into the message.
    """

    images: Tensor
    positions: list[int]
    bad: list[tuple[str, str]]
    instead: dict[int, int]
    sizes: np.ndarray | None = None
    lost: UserError | None = None


class Decoder(Dataset):
    """What a worker holds: positions in the cache -> `Decoded`.

    source, indices: the cache holds these images of this data set. lenient: a bad image gives its place to the next
    one of the cache, unless it is among `vital`, positions in the data set; else it is an error. shape: (C, H, W).
    sizes: int64 [N, 2] = height, width in px where images are padded.
    """

    source: ImageDataset
    indices: np.ndarray
    lenient: bool
    vital: frozenset[int] = frozenset()
    sizes: np.ndarray | None
    masks: bool
    chunk: int  # images that a thread decodes before it reports

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        raise NotImplementedError

    def read(self, at: int, place: int) -> Tensor:
        """uint8 [C, H, W]: the image at position `at` as it is shown at `place`. Raises BadImage."""
        raise NotImplementedError

    def tell_cost(self, count: int, seconds: float, threads: int) -> None:
        """Say what reading large files costs every run, where a smaller copy of them would do.

        count: images that were read. seconds: of all `threads` together.
        """

    def keep(self, rows: np.ndarray) -> Decoder:
        """Of the images at these positions alone."""
        sizes = {} if self.sizes is None else {"sizes": self.sizes[rows]}
        return replace(self, indices=self.indices[rows], **sizes)

    def ids(self) -> list[str]:
        return [self.source.ids[i] for i in self.indices]

    def named(self, bad: dict[int, str]) -> list[tuple[str, str]]:
        """[(id, reason)] of {position: reason}."""
        return [(self.source.ids[self.indices[at]], reason) for at, reason in bad.items()]

    def __getitems__(self, positions: list[int]) -> Decoded:
        bad: dict[int, str] = {}
        instead: dict[int, int] = {}
        try:
            images, sizes = self.as_batch(positions, (self.first_good(at, bad, instead) for at in positions))
        except UserError as error:
            return Decoded(torch.empty(0, *self.shape, dtype=torch.uint8), [], [], {}, lost=error)
        return Decoded(images, positions, self.named(bad), instead, sizes)

    def as_batch(self, positions: list[int], images: Iterable[Tensor]) -> tuple[Tensor, np.ndarray | None]:
        """The batch that `images` are, and their sizes where nobody knew them."""
        out = torch.empty(len(positions), *self.shape, dtype=torch.uint8)
        for row, image in zip(out, images, strict=True):
            row[:] = image
        return out, None

    def first_good(self, place: int, bad: dict[int, str], instead: dict[int, int]) -> Tensor:
        """The image at `place` or, if lenient, the first of the `LOOK` after it that is not bad.

        Notes in `bad` why, and in `instead` which one it is.
        """
        if not self.lenient or int(self.indices[place]) in self.vital:
            return self.without_another(place)
        last = min(LOOK, len(self) - 1)
        for following in range(last + 1):
            at = (place + following) % len(self)
            try:
                image = self.read(at, place)
            except BadImage as error:
                if following == last:
                    raise
                bad[at] = error.reason
            else:
                if following:
                    instead[place] = at
                return image

    def without_another(self, place: int) -> Tensor:
        """The image at `place`, tried twice: a disk may have been busy."""
        try:
            return self.read(place, place)
        except BadImage:
            try:
                return self.read(place, place)
            except BadImage as error:
                if int(self.indices[place]) not in self.vital:
                    raise
                raise UserError(
                    f"A labeled image cannot be read any more ({error.id!r}: {error.reason}). Mend the file and start "
                    "the same command again, a run with --resume; or leave it out of the split."
                ) from error


@dataclass
class SquareDecoder(Decoder):
    """Squares of `size` px out of the middle of images whose short side is scaled to it; `squash`: whole images of
    which both sides are."""

    source: ImageDataset
    indices: np.ndarray
    size: int
    interpolation: str = "bilinear"
    squash: bool = False
    lenient: bool = False
    vital: frozenset[int] = frozenset()
    sizes, masks, chunk = None, False, CHUNK

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def read(self, at: int, place: int) -> Tensor:
        return self.source.decode(self.indices[at], self.size, self.interpolation, self.squash)

    def tell_cost(self, count: int, seconds: float, threads: int) -> None:
        if seconds / threads >= SLOW[0] and seconds / count >= SLOW[1] and isinstance(self.source.reader, FileReader):
            side = max(512, 2 * self.size)
            log.info(
                f"Reading {count:,} large images takes {seconds / threads:.0f} s of every run. A copy with sides of "
                f"{side} px, made once, is read many times faster: hf-lowlabel shrink photos/ --side {side} "
                f"--output-dir photos-{side}"
            )


@dataclass
class PaddedDecoder(Decoder):
    """Whole images in the upper left corner of a frame of (height, width) px, with their masks as last channel or
    without.

    Another image in the place of a bad one has the size the bad one has in `sizes`, which its views were drawn for.
    """

    source: ImageDataset
    indices: np.ndarray
    sizes: np.ndarray
    frame: tuple[int, int]
    masks: bool
    lenient: bool = False

    @property
    def chunk(self) -> int:
        return max(1, min(CHUNK, PADDED_CHUNK // math.prod(self.shape)))

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3 + self.masks, *self.frame

    def read(self, at: int, place: int) -> Tensor:
        i, (height, width) = int(self.indices[at]), self.sizes[place].tolist()
        image = self.source.rgb(i)
        out = torch.zeros(self.shape, dtype=torch.uint8)
        if self.masks:
            mask = Image.fromarray(self.source.mask(i, image.size))
            mask = mask.resize((width, height), Image.Resampling.NEAREST)
            out[3] = IGNORE
            out[3, :height, :width] = torch.from_numpy(np.array(mask))
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        out[:3, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
        return out


def resized(width: int, height: int, long_side: int | None) -> tuple[int, int]:
    """(width, height) after scaling the longer side to `long_side` px; the other is floored, as transformers does."""
    if long_side is None:
        return width, height
    scale = min(long_side / height, long_side / width)
    return max(int(width * scale), 1), max(int(height * scale), 1)


def measure(
    source: ImageDataset,
    indices: np.ndarray,
    long_side: int | None,
    threads: int,
    progress: Progress | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    """(int64 [N, 2] = height, width in the cache; {row: why it cannot be used}), from the headers alone."""
    sizes, bad = np.ones((len(indices), 2), dtype=np.int64), {}

    def work(start: int) -> dict[int, str]:
        reasons = {}
        for row in range(start, min(start + CHUNK, len(indices))):
            try:
                width, height = source.size(indices[row])
                check_size(width, height)
                sizes[row] = resized(width, height, long_side)[::-1]
            except BadImage as error:
                reasons[row] = error.reason
        return reasons

    starts = range(0, len(indices), CHUNK)
    for start, reasons in zip(starts, in_threads(work, starts, threads, 2 * max(threads, 1)), strict=True):
        bad |= reasons
        if progress is not None:
            progress(min(start + CHUNK, len(indices)), len(indices))
    return sizes, bad


def decode_all(
    decoder: Decoder, rows: Sequence[int], threads: int, progress: Progress | None = None
) -> Iterator[tuple[int, Tensor, dict[int, str]]]:
    """(first, uint8 [n, C, H, W], {place in `rows`: reason}) of the images at positions `rows`, in order, in threads
    (PIL lets go of the interpreter); the pixels of bad images are 0."""

    spent: list[float] = []

    def work(start: int):
        begin = time.perf_counter()
        part = torch.zeros(min(decoder.chunk, len(rows) - start), *decoder.shape, dtype=torch.uint8)
        errors = {}
        for k in range(len(part)):
            try:
                part[k] = decoder.read(int(rows[start + k]), int(rows[start + k]))
            except BadImage as error:
                errors[start + k] = error.reason
        spent.append(time.perf_counter() - begin)
        return start, part, errors

    starts, threads = range(0, len(rows), decoder.chunk), max(threads, 1)
    for start, part, errors in in_threads(work, starts, threads, max(2 * threads, AHEAD // decoder.chunk)):
        if progress is not None:
            progress(start + len(part), len(rows))
        yield start, part, errors
    decoder.tell_cost(len(rows), sum(spent), threads)


def decode_chunks(source: ImageDataset, indices: np.ndarray, threads: int, progress: Progress | None = None, **square):
    """`decode_all` of the squares (`images.square_of`) of the images at `indices`, `CHUNK` at a time."""
    return decode_all(SquareDecoder(source, indices, **square), range(len(indices)), threads, progress)


def find_bad(decoder: Decoder, rows: Sequence[int], threads: int, progress: Progress | None = None) -> dict[int, str]:
    """{position: why it cannot be decoded} of those of `rows` that are bad."""
    parts = decode_all(decoder, rows, threads, progress)
    return {int(rows[k]): reason for _, _, errors in parts for k, reason in errors.items()}


def spread(count: int) -> np.ndarray:
    """int64: up to `LOOK` of `count` positions, spread over all."""
    return np.linspace(0, count - 1, min(LOOK, count)).astype(np.int64)


def cores() -> int:
    """Threads that decode pictures, or write them."""
    return min(usable_cores(), 16)


def in_threads(
    function: Callable,
    items: Iterable,
    threads: int,
    ahead: int,
    weigh: Callable[[Any, Any], int] | None = None,
) -> Iterator:
    """`map` in order; with at most `ahead` results waiting, a slow consumer does not collect the whole set in
    memory. weigh: (item, result) -> bytes that they take; `WAITING` of them at most, by the largest so far."""
    todo, waiting, largest = iter(items), deque[tuple[Any, Future]](), 1
    most = ahead if weigh is None else 1
    with ThreadPoolExecutor(max(threads, 1)) as executor:
        while True:
            some = itertools.islice(todo, max(most - len(waiting), 0))
            waiting += ((item, executor.submit(function, item)) for item in some)
            if not waiting:
                return
            item, future = waiting.popleft()
            result = future.result()
            if weigh is not None:
                largest = max(largest, weigh(item, result))
                most = max(1, min(ahead, WAITING // largest))
            del item, future
            yield result


def check_share(skipped: list[tuple[str, str]], count: int, max_bad: float, part: str = "") -> None:
    """Raises TooManyBad when more than the share `max_bad` of `count` images, or all, are `skipped`. part: of these."""
    if len(skipped) > max_bad * count or len(skipped) == count:
        shown = "; ".join(f"{id!r}: {reason}" for id, reason in skipped[:5])
        needed = math.ceil(100 * len(skipped) / max(count, 1)) / 100
        larger = f", or --max-bad {needed:g} to leave them out" if max_bad and needed < 1 else ""
        most = f"at most {percent(max_bad)} of them may be bad" if len(skipped) < count else "none is left"
        said = f"{len(skipped)} of {count} {part} images".replace("  ", " ")
        why = f"{said} cannot be used ({shown}), and {most}. Repair or remove the files{larger}."
        raise TooManyBad(why, skipped, count)
