"""Caches of decoded images: uint8 [3, S, S] each, or padded to one frame, taken by their position in the cache.

A resident cache is decoded once and lies on the training device; a streaming cache decodes in the workers of a
DataLoader, in the order asked for. Both give the same pixels. An image that cannot be decoded is left out and listed in
`skipped`; positions count the images that are left, and `indices` maps them to the data set. To find such images among
millions would take hours before the first step, so training streams after a look at some (`vital` of `build_cache`),
and one met later gives its place to the next image of the cache (decoding.py; `shown` says to which), or, if it is
vital, ends the run.

A padded cache holds images of different sizes, each in the upper left corner of a frame as large as the largest of
them, with masks as a fourth channel where asked; `sizes` says how much of the frame an image fills.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import UserError
from ..dataset import ImageDataset
from ..pixels.images import resampling
from ..pixels.masks import IGNORE, check_values
from . import decoding
from .decoding import (
    Decoded,
    Decoder,
    Progress,
    SquareDecoder,
    check_share,
    cores,
    decode_all,
    find_bad,
    spread,
)
from .unmeasured import Sizes, UnmeasuredDecoder

log = logging.getLogger("hf_lowlabel")
MEMORY_BUDGET = 4 << 30  # bytes
MOVED = 256  # images that are moved at a time


class ResidentCache:
    """images: uint8 [N, C, H, W] on the training device; ids and indices (positions in the data set) of the N images.

    sizes: int64 [N, 2] = height, width in px on the CPU where images are padded, else None. file_of: as in
    ImageDataset.
    """

    def __init__(
        self,
        images: Tensor,
        ids: list[str],
        indices=None,
        skipped: Iterable[tuple[str, str]] = (),
        sizes: np.ndarray | None = None,
        file_of: Mapping[str, str] | None = None,
    ):
        self.images, self.ids, self.skipped, self.file_of = images, ids, list(skipped), file_of or {}
        self.indices = np.arange(len(ids)) if indices is None else np.asarray(indices, dtype=np.int64)
        self.sizes = None if sizes is None else torch.from_numpy(sizes)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return self.images.nbytes

    def keep(self, rows: np.ndarray) -> None:
        """Hold the images at these positions alone, int64 in order."""
        for start in range(0, len(rows), MOVED):  # in place: a second copy may not fit
            some = rows[start : start + MOVED]
            self.images[start : start + len(some)] = self.take(torch.from_numpy(some))
        self.images, self.indices = self.images[: len(rows)], self.indices[rows]
        self.ids = [self.ids[i] for i in rows]
        self.sizes = None if self.sizes is None else self.sizes[torch.from_numpy(rows)]

    def take(self, indices: Tensor) -> Tensor:
        """uint8 [n, C, H, W] on the device."""
        return self.images.index_select(0, indices.to(self.images.device, non_blocking=True))

    def stream(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """`take` of each batch of indices."""
        return map(self.take, index_batches)

    def shown(self, indices: Tensor) -> Tensor:
        """As of a StreamingCache: every image is itself."""
        return indices


class Batch:
    """What a worker hands over, through a pipe: a container may have next to no shared memory (/dev/shm).

    images: uint8 [n, C, H, W]. rest: of `Decoded`.
    """

    def __init__(self, decoded: Decoded):
        self.images, self.rest = decoded.images.numpy(), decoded[1:]

    def pin_memory(self) -> Batch:
        self.images = torch.from_numpy(self.images).pin_memory()
        return self


def own_group(worker: int) -> None:
    """A signal to the trainer's process group does not reach its workers: it saves first, and then ends them."""
    os.setpgrp()


@contextlib.contextmanager
def workers_are_there() -> Iterator[None]:
    """torch raises in the middle of whatever is done when a worker is gone; outside it is a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A process that decodes images was ended from outside, mostly for want of memory. Give fewer --workers "
            "(0: none) or a smaller batch, and start the same command again, a run with --resume."
        ) from error


class StreamingCache:
    """The interface of ResidentCache for images that do not fit: nothing is kept, `stream` decodes ahead in `workers`
    processes.

    A batch of indices is one task of one worker, so the result does not depend on their number. With a lenient decoder
    it is an error once more than `max_bad` of the images `seen` (of `LOOK` at least) were bad.
    """

    nbytes = 0
    beside = 0  # images of other caches that `max_bad` is a share of too

    def __init__(
        self,
        decoder: Decoder,
        *,
        device="cpu",
        workers: int = 0,
        skipped: Iterable[tuple[str, str]] = (),
        max_bad: float = 0.01,
        seen: int = 0,
    ):
        self.read_by(decoder)
        self.skipped, self.max_bad, self.seen = list(skipped), max_bad, seen
        self.instead: dict[int, int] = {}
        self.device, self.workers = torch.device(device), workers

    def __len__(self) -> int:
        return len(self.ids)

    def read_by(self, decoder: Decoder) -> None:
        self.decoder, self.indices, self.ids = decoder, decoder.indices, decoder.ids()
        self.file_of = decoder.source.file_of
        self.sizes: Tensor | Sizes | None
        if isinstance(decoder, UnmeasuredDecoder):
            self.sizes = Sizes(decoder)
        else:
            self.sizes = None if decoder.sizes is None else torch.from_numpy(decoder.sizes)

    def keep(self, rows: np.ndarray) -> None:
        """Hold the images at these positions alone, int64 in order."""
        self.read_by(self.decoder.keep(rows))
        self.instead = {}

    def take(self, indices: Tensor) -> Tensor:
        """uint8 [n, C, H, W] on the device, decoded here and now."""
        return self.note(self.decoder.__getitems__(indices.tolist())).to(self.device)

    def stream(self, index_batches: Iterable[Tensor], prefetch: int = 4) -> Iterator[Tensor]:
        """uint8 [n, C, H, W] on the device for each batch of indices, up to `prefetch` batches a worker ahead.

        `index_batches` is read ahead of what is yielded, so it must not depend on the training.
        """
        pin = self.device.type == "cuda"
        loader = DataLoader(
            self.decoder,
            batch_sampler=(batch.tolist() for batch in index_batches),
            collate_fn=Batch,
            num_workers=self.workers,
            pin_memory=pin,
            prefetch_factor=prefetch if self.workers else None,
            worker_init_fn=own_group,
        )
        for batch in loader:
            decoded = Decoded(torch.as_tensor(batch.images), *batch.rest)
            yield self.note(decoded).to(self.device, non_blocking=pin)

    def shown(self, indices: Tensor) -> Tensor:
        """Positions of the images that were given for `indices` when they were taken last: what is known of an image
        belongs to the one that is seen."""
        if not self.instead:
            return indices
        return torch.tensor([self.instead.get(at, at) for at in indices.tolist()], dtype=indices.dtype)

    def note(self, decoded: Decoded) -> Tensor:
        """List what turned out bad, and stop when it is too much; keep sizes that were not known.

        Raises UserError for an image that nothing may stand in for.
        """
        if decoded.lost is not None:
            raise decoded.lost
        images = decoded.images
        if self.instead:
            self.instead = {at: other for at, other in self.instead.items() if at not in decoded.positions}
        self.instead |= decoded.instead
        self.seen = min(self.seen + len(images), len(self))
        if decoded.sizes is not None:
            self.decoder.sizes[decoded.positions] = decoded.sizes
        for id, reason in decoded.bad:
            if (id, reason) not in self.skipped:
                self.skipped.append((id, reason))
                log.warning("image %r cannot be used (%s): the next one takes its place", id, reason)
                check_share(self.skipped, max(self.seen, decoding.LOOK) + self.beside, self.max_bad)
        return images


ImageCache = ResidentCache | StreamingCache


def build_cache(
    source: ImageDataset,
    indices,
    *,
    size: int,
    interpolation: str = "bilinear",
    squash: bool = False,
    device: str | torch.device = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    workers: int | None = None,
    max_bad: float = 0.01,
    streaming: bool | str = "auto",
    vital: np.ndarray | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """A cache of squares of the images at `indices` of `source`.

    Args:
        size: px of a side.
        interpolation: one of `images.INTERPOLATIONS`.
        squash: whole images of any shape become squares, instead of their middle.
        device: where the images are wanted.
        memory_budget: bytes; the cache is resident when it fits, else streaming.
        workers: processes of a streaming cache; None: one per core, 16 at most, as the threads that decode here.
        max_bad: share of images that may be unreadable; above it is an error that names some.
        streaming: "auto" (by the budget), True or False.
        vital: those of `indices` that must be whole (labeled images). A streaming cache then decodes only these and
            `LOOK` others at the start, not everything; a bad one that it meets later is an error if it is vital, else
            it gives its place to the next image of the cache.
        progress: called with the number of images done and of all.

    Returns:
        A ResidentCache or a StreamingCache.

    Raises:
        UserError: there is no image, or too many are bad.
    """
    indices, threads = checked(source, indices, streaming), cores()
    resampling(interpolation)
    decoder = SquareDecoder(source, indices, size, interpolation, squash)
    workers = threads if workers is None else workers
    if not streams(streaming, decoder, memory_budget):
        return resident(decoder, device, threads, max_bad, [], progress)
    looked = np.arange(len(indices))
    if vital is not None:
        looked = np.union1d(spread(len(indices)), np.flatnonzero(np.isin(indices, vital)))
        decoder = replace(decoder, lenient=True, vital=frozenset(np.asarray(vital).tolist()))
    bad = find_bad(decoder, looked, threads, progress)
    check_share(decoder.named(bad), len(looked), max_bad)
    return streaming_cache(decoder, bad, [], device=device, workers=workers, max_bad=max_bad)


def checked(source: ImageDataset, indices, streaming: bool | str) -> np.ndarray:
    indices = np.asarray(indices, dtype=np.int64)
    if not len(indices):
        raise UserError(f"There is no image of {source.name!r} to put into a cache. Check the split.")
    if streaming not in ("auto", True, False):
        raise UserError(f"streaming is 'auto', True or False, not {streaming!r}.")
    return indices


def streams(streaming: bool | str, decoder: Decoder, memory_budget: int) -> bool:
    return streaming is True or (streaming == "auto" and len(decoder) * int(np.prod(decoder.shape)) > memory_budget)


def streaming_cache(decoder: Decoder, bad: dict[int, str], skipped: list, **options) -> StreamingCache:
    """Of the images that are not `bad`."""
    good = np.setdiff1d(np.arange(len(decoder)), list(bad)).astype(np.int64)
    return StreamingCache(decoder.keep(good), skipped=skipped + decoder.named(dict(sorted(bad.items()))), **options)


def resident(decoder: Decoder, device, threads: int, max_bad: float, skipped: list, progress) -> ResidentCache:
    """Decode into the cache's memory; holes are closed afterwards."""
    count, source = len(decoder), decoder.source
    images = torch.empty(count, *decoder.shape, dtype=torch.uint8, device=device)
    present, bad = np.zeros(256, dtype=bool), {}
    for start, part, errors in decode_all(decoder, range(count), threads, progress):
        images[start : start + len(part)] = part.to(device)
        bad |= errors
        if decoder.masks:
            for row in (start + k for k in range(len(part)) if start + k not in errors):
                note_values(part[row - start], decoder.sizes[row], present, source.ids[decoder.indices[row]])
    named = skipped + decoder.named(bad)
    check_share(named, count + len(skipped), max_bad)
    if decoder.masks:
        check_values(present, source.masks.format, count - len(bad), source.name)
    cache = ResidentCache(images, decoder.ids(), decoder.indices, named, decoder.sizes, source.file_of)
    if bad:
        cache.keep(np.setdiff1d(np.arange(count), list(bad)).astype(np.int64))
    return cache


def note_values(packed: Tensor, size: np.ndarray, present: np.ndarray, id: str) -> None:
    """Adds the mask's values inside the image to `present`; warns of a mask of which no pixel takes part."""
    values = np.unique(packed[3, : size[0], : size[1]].numpy())
    present[values] = True
    if (values == IGNORE).all():
        log.warning("the mask of image %r has no pixel of any class; it adds nothing to the labeled loss", id)
