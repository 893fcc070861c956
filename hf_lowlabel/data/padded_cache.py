"""Pools of images of different sizes, with masks where asked: uint8 [C, H, W], each image in the upper left corner.

C is 3, or 4 with the mask as last channel. H and W are the largest of the pool; `sizes` says how much of them an image
fills. Resident and streaming like the pools of square images (pools.py), whose interface these share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from ..errors import UserError
from .dataset import ImageDataset
from .image_cache import LOOK, MEMORY_BUDGET, Progress, ResidentCache, StreamingCache, check_share, first_good
from .images import BadImage, check_size
from .masks import IGNORE, check_values
from .segmentation import SegmentationSource

log = logging.getLogger(__name__)
AHEAD = 64  # images decoded before the first of them is taken over


def resized(width: int, height: int, long_side: int | None) -> tuple[int, int]:
    """(width, height) after scaling the longer side to `long_side` px; the other is floored, as transformers does."""
    if long_side is None:
        return width, height
    scale = min(long_side / height, long_side / width)
    return max(int(width * scale), 1), max(int(height * scale), 1)


class PaddedDecoder:
    """What a worker holds: positions in the pool -> (uint8 [n, C, H, W], [(id, reason)] of the bad among them).

    A bad image without a mask gives its place to the next one of the pool, at the size the bad one has in `sizes`,
    which the views were drawn for; with masks it is an error.
    """

    def __init__(
        self,
        source: SegmentationSource | ImageDataset,
        indices: np.ndarray,
        sizes: np.ndarray,
        canvas: tuple[int, int],
        masks: bool,
    ):
        self.source, self.indices, self.sizes, self.canvas, self.masks = source, indices, sizes, canvas, masks

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int, shown: int | None = None) -> Tensor:
        """uint8 [C, H, W] of one position, or the image of position `shown` in its place; raises BadImage."""
        i, (height, width) = int(self.indices[position if shown is None else shown]), self.sizes[position].tolist()
        image = rgb(self.source, i)
        out = torch.zeros(3 + self.masks, *self.canvas, dtype=torch.uint8)
        if self.masks:
            mask = Image.fromarray(self.source.mask(i, image.size))
            mask = mask.resize((width, height), Image.Resampling.NEAREST)
            out[3] = IGNORE
            out[3, :height, :width] = torch.from_numpy(np.array(mask))
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        out[:3, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
        return out

    def __getitems__(self, positions: list[int]) -> tuple[Tensor, list[tuple[str, str]]]:
        bad: dict[int, str] = {}
        out = [first_good(partial(self.__getitem__, at), at, len(self), not self.masks, bad) for at in positions]
        return torch.stack(out), [(self.source.ids[self.indices[at]], reason) for at, reason in bad.items()]


class ResidentPaddedCache(ResidentCache):
    """images: uint8 [N, C, H, W] on the training device; sizes: int64 [N, 2] = height, width in px, on the CPU."""

    def __init__(self, images: Tensor, ids: list[str], indices, sizes: np.ndarray, skipped=()):
        super().__init__(images, ids, indices, skipped)
        self.sizes = torch.from_numpy(sizes)


class StreamingPaddedCache(StreamingCache):
    """The same for images that do not fit; decoded in `workers` processes in the order asked for. An error once more
    than `max_bad` of them turned out bad."""

    def __init__(self, decoder: PaddedDecoder, *, device="cpu", workers: int = 0, skipped=(), max_bad: float = 0.01):
        self.decoder, self.indices, self.sizes = decoder, decoder.indices, torch.from_numpy(decoder.sizes)
        self.ids, self.skipped = [decoder.source.ids[i] for i in decoder.indices], list(skipped)
        self.device, self.workers, self.max_bad = torch.device(device), workers, max_bad
        self.seen = len(self)  # `skipped` has those of the whole pool whose headers are bad


def build_padded_cache(
    source: SegmentationSource | ImageDataset,
    indices,
    *,
    masks: bool,
    long_side: int | None = None,
    device: str | torch.device = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    workers: int | None = None,
    max_bad: float = 0.01,
    streaming: bool | str = "auto",
    progress: Progress | None = None,
) -> ResidentPaddedCache | StreamingPaddedCache:
    """A pool of the images at `indices` of `source`, with their masks or without.

    long_side: px to which the longer side is scaled (image bilinear, mask nearest); None: images stay as they are.
    The rest is as in `build_cache`: before it streams, `LOOK` of the images are decoded. A mask that cannot be used is an
    error that names the image; masks of a resident pool are also looked at together (masks.check_values).
    """
    indices = np.asarray(indices, dtype=np.int64)
    if not len(indices):
        raise UserError(f"found no image of {source.name!r} to put into a pool; expected at least one; check the split")
    threads = min(os.cpu_count() or 1, 16)
    workers = threads if workers is None else workers
    sizes, bad = measure(source, indices, long_side, threads)
    good = np.array([row for row in range(len(indices)) if row not in bad], dtype=np.int64)
    skipped = [(source.ids[indices[row]], reason) for row, reason in sorted(bad.items())]
    check_share(skipped, len(indices), max_bad)
    indices, sizes = indices[good], sizes[good]
    canvas = tuple(int(side) for side in sizes.max(0))
    decoder = PaddedDecoder(source, indices, sizes, canvas, masks)
    need = len(indices) * (3 + masks) * canvas[0] * canvas[1]
    if streaming is True or (streaming == "auto" and need > memory_budget):
        bad = look(decoder, threads, max_bad)
        good = np.array([row for row in range(len(indices)) if row not in bad], dtype=np.int64)
        skipped += [(source.ids[indices[row]], reason) for row, reason in bad.items()]
        decoder = PaddedDecoder(source, indices[good], sizes[good], canvas, masks)
        return StreamingPaddedCache(decoder, device=device, workers=workers, skipped=skipped, max_bad=max_bad)
    return decode_resident(decoder, device, threads, max_bad, skipped, progress)


def decode_resident(decoder: PaddedDecoder, device, workers: int, max_bad: float, skipped: list, progress):
    source, n = decoder.source, len(decoder)
    images = torch.empty(n, 3 + decoder.masks, *decoder.canvas, dtype=torch.uint8, device=device)
    present, bad = np.zeros(256, dtype=bool), {}
    for row, found in enumerate(in_threads(lambda row: attempt(decoder, row), range(n), workers)):
        if isinstance(found, BadImage):
            bad[row] = found.reason
        else:
            images[row] = found
            if decoder.masks:
                note_values(found, decoder.sizes[row], present, source.ids[decoder.indices[row]])
        if progress is not None:
            progress(row + 1, n)
    skipped = skipped + [(source.ids[decoder.indices[row]], reason) for row, reason in bad.items()]
    check_share(skipped, n + len(skipped) - len(bad), max_bad)
    if decoder.masks:
        check_values(present, source.coding, n - len(bad), source.name)
    keep = np.array([row for row in range(n) if row not in bad])
    if bad:
        images = images[torch.from_numpy(keep).to(images.device)]
    return ResidentPaddedCache(
        images, [source.ids[i] for i in decoder.indices[keep]], decoder.indices[keep], decoder.sizes[keep], skipped
    )


def look(decoder: PaddedDecoder, workers: int, max_bad: float) -> dict[int, str]:
    """{row: why it cannot be used} of up to `LOOK` rows spread over the pool."""
    rows = np.linspace(0, len(decoder) - 1, min(LOOK, len(decoder))).astype(np.int64).tolist()
    found = zip(rows, in_threads(lambda row: attempt(decoder, row), rows, workers))
    bad = {row: one.reason for row, one in found if isinstance(one, BadImage)}
    check_share([(decoder.source.ids[decoder.indices[row]], reason) for row, reason in bad.items()], len(rows), max_bad)
    return bad


def attempt(decoder: PaddedDecoder, row: int) -> Tensor | BadImage:
    try:
        return decoder[row]
    except BadImage as error:
        return error


def note_values(packed: Tensor, size: np.ndarray, present: np.ndarray, id: str) -> None:
    """Adds the mask's values inside the image to `present`; warns of a mask of which no pixel takes part."""
    values = np.unique(packed[3, : size[0], : size[1]].numpy())
    present[values] = True
    if (values == IGNORE).all():
        log.warning("the mask of image %r has no pixel of any class; it adds nothing to the labeled loss", id)


def measure(source, indices: np.ndarray, long_side: int | None, workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """(int64 [N, 2] = height, width in the pool; {row: why it cannot be used}), from the headers alone."""
    sizes, bad = np.ones((len(indices), 2), dtype=np.int64), {}

    def work(row: int):
        try:
            with source.image(indices[row]) as image:
                width, height = image.size
                if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # lies on its side
                    width, height = height, width
            check_size(width, height)
            return resized(width, height, long_side)
        except BadImage as error:
            return error

    for row, found in enumerate(in_threads(work, range(len(indices)), workers)):
        if isinstance(found, BadImage):
            bad[row] = found.reason
        else:
            sizes[row] = found[::-1]
    return sizes, bad


def rgb(source, i: int) -> Image.Image:
    return source.rgb(i) if isinstance(source, SegmentationSource) else SegmentationSource.rgb(source, i)


def in_threads(function, items: Iterable, workers: int) -> Iterator:
    """`map` in order with a bounded number of results waiting."""
    items = iter(items)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
