"""Pools of decoded images: uint8 [3, S, S] each, taken by their position in the pool.

A resident pool is decoded once and lies on the training device; a streaming pool decodes in the workers of a
DataLoader, in the order asked for. Both give the same pixels. An image that cannot be decoded is left out and listed in
`skipped`; positions count the images that are left, and `indices` maps them to the source. To find such images among
millions would take hours before the first step, so training streams after a look at some (`vital` of `build_cache`), and
one met later gives its place to the next image of the pool: the same one for any number of workers, ranks or restarts.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .dataset import ImageDataset
from .images import BadImage, resampling

log = logging.getLogger("hf_lowlabel")
MEMORY_BUDGET = 4 << 30  # bytes
CHUNK = 64  # images a thread decodes before it reports
LOOK = 1000  # images spread over a pool that are decoded before training streams
Progress = Callable[[int, int], None]  # (images done, images in all)


def resident_bytes(count: int, size: int) -> int:
    """What a resident pool of `count` images takes; known before anything is decoded."""
    return count * 3 * size * size


class ResidentCache:
    """images: uint8 [N, 3, S, S] on the training device; ids and indices (positions in the source) of the N images."""

    def __init__(self, images: Tensor, ids: list[str], indices=None, skipped: Iterable[tuple[str, str]] = ()):
        self.images, self.ids, self.skipped = images, ids, list(skipped)
        self.indices = np.arange(len(ids)) if indices is None else np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return self.images.nbytes

    def take(self, indices: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] on the device."""
        return self.images.index_select(0, indices.to(self.images.device, non_blocking=True))

    def stream(self, index_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """`take` of each batch of indices."""
        return map(self.take, index_batches)


class Decoder(Dataset):
    """What a worker holds: positions in the pool -> (uint8 [n, 3, S, S], [(id, reason)] of the bad among them).

    lenient: a bad image gives its place to the next one of the pool; else it is an error.
    """

    def __init__(self, source: ImageDataset, indices: np.ndarray, size: int, interpolation: str, lenient: bool = False):
        self.source, self.indices, self.size, self.interpolation = source, indices, size, interpolation
        self.lenient = lenient

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, positions: list[int]) -> tuple[Tensor, list[tuple[str, str]]]:
        bad: dict[int, str] = {}
        out = torch.empty(len(positions), 3, self.size, self.size, dtype=torch.uint8)
        for row, position in enumerate(positions):
            out[row] = first_good(self.read, position, len(self), self.lenient, bad)
        return out, [(self.source.ids[self.indices[at]], reason) for at, reason in bad.items()]

    def read(self, position: int) -> Tensor:
        """uint8 [3, S, S]; raises BadImage."""
        return self.source.decode(self.indices[position], self.size, self.interpolation)


def first_good(read: Callable[[int], Tensor], position: int, count: int, lenient: bool, bad: dict[int, str]) -> Tensor:
    """`read` of the position or, if lenient, of the first of the `LOOK` after it that is not bad; notes why in `bad`."""
    last = min(LOOK, count - 1) if lenient else 0
    for following in range(last + 1):
        at = (position + following) % count
        try:
            return read(at)
        except BadImage as error:
            if following == last:
                raise
            bad[at] = error.reason


def as_is(batch):
    return batch


def own_group(worker: int) -> None:
    """A signal to the trainer's process group does not reach its workers: it saves first, and then ends them."""
    os.setpgrp()


class StreamingCache:
    """The interface of ResidentCache for images that do not fit: nothing is kept, `stream` decodes ahead in `workers`
    processes.

    A batch of indices is one task of one worker, so the result does not depend on their number. lenient: see Decoder;
    an error once more than `max_bad` of the images seen (of `LOOK` at least) were bad.
    """

    def __init__(
        self,
        source: ImageDataset,
        indices,
        *,
        size: int,
        interpolation: str = "bilinear",
        device="cpu",
        workers: int = 0,
        skipped: Iterable[tuple[str, str]] = (),
        lenient: bool = False,
        max_bad: float = 0.01,
    ):
        self.indices = np.asarray(indices, dtype=np.int64)
        self.ids, self.skipped = [source.ids[i] for i in self.indices], list(skipped)
        self.decoder = Decoder(source, self.indices, size, interpolation, lenient)
        self.device, self.workers, self.max_bad, self.seen = torch.device(device), workers, max_bad, 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return 0

    def take(self, indices: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] on the device, decoded here and now."""
        return self.note(*self.decoder.__getitems__(indices.tolist())).to(self.device)

    def stream(self, index_batches: Iterable[Tensor], prefetch: int = 4) -> Iterator[Tensor]:
        """uint8 [n, 3, S, S] on the device for each batch of indices, up to `prefetch` batches a worker ahead.

        `index_batches` is read ahead of what is yielded, so it must not depend on the training.
        """
        pin = self.device.type == "cuda"
        loader = DataLoader(
            self.decoder,
            batch_sampler=(batch.tolist() for batch in index_batches),
            collate_fn=as_is,
            num_workers=self.workers,
            pin_memory=pin,
            prefetch_factor=prefetch if self.workers else None,
            worker_init_fn=own_group,
        )
        for images, bad in loader:
            yield self.note(images, bad).to(self.device, non_blocking=pin)

    def note(self, images: Tensor, bad: list[tuple[str, str]]) -> Tensor:
        """List what turned out bad, and stop when it is too much."""
        self.seen = min(self.seen + len(images), len(self))
        for id, reason in bad:
            if (id, reason) not in self.skipped:
                self.skipped.append((id, reason))
                log.warning("image %r cannot be used (%s): the next one takes its place", id, reason)
                check_share(self.skipped, max(self.seen, LOOK), self.max_bad)
        return images


Pool = ResidentCache | StreamingCache


def build_cache(
    source: ImageDataset,
    indices,
    *,
    size: int,
    interpolation: str = "bilinear",
    device: str | torch.device = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    workers: int | None = None,
    max_bad: float = 0.01,
    streaming: bool | str = "auto",
    known_bad: Collection[tuple[str, str]] | None = None,
    vital: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Pool:
    """A pool of the images at `indices` of `source`: resident when it fits `memory_budget` bytes, else streaming.

    workers: processes of a streaming pool (None: one per core, 16 at most, as the threads that decode here). max_bad: the share of images
    that may be unreadable; above it is an error that names some. known_bad: (id, reason) of an earlier pool's
    `skipped`. A streaming pool else decodes everything once to find them; one that it meets later is an error. vital:
    those of `indices` that must be whole (labeled images). A streaming pool then decodes only these and `LOOK` others at
    the start; a bad one that it meets later gives its place to the next image of the pool.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if not len(indices):
        raise UserError(f"found no image of {source.name!r} to put into a pool; expected at least one; check the split")
    if streaming not in ("auto", True, False):
        raise UserError(f"found streaming={streaming!r}; expected 'auto', True or False")
    resampling(interpolation)
    threads = min(os.cpu_count() or 1, 16)
    workers = threads if workers is None else workers
    device = torch.device(device)
    if streaming is True or (streaming == "auto" and resident_bytes(len(indices), size) > memory_budget):
        lenient, looked = known_bad is None and vital is not None, indices
        if lenient:
            spread = indices[np.linspace(0, len(indices) - 1, min(LOOK, len(indices))).astype(np.int64)]
            looked = np.union1d(spread, vital).astype(np.int64)
        if known_bad is None:
            known_bad = find_bad(source, looked, size, interpolation, threads, progress)
        bad = dict(known_bad)
        keep = np.array([source.ids[i] not in bad for i in indices]) if bad else np.ones(len(indices), bool)
        skipped = [(source.ids[i], bad[source.ids[i]]) for i in indices[~keep]]
        check_share(skipped, len(looked), max_bad)
        return StreamingCache(
            source,
            indices[keep],
            size=size,
            interpolation=interpolation,
            device=device,
            workers=workers,
            skipped=skipped,
            lenient=lenient,
            max_bad=max_bad,
        )
    return decode_all(source, indices, size, interpolation, device, threads, max_bad, progress)


def decode_all(source, indices, size, interpolation, device, workers, max_bad, progress) -> ResidentCache:
    """Decode in threads (PIL lets go of the interpreter) into the pool's memory; holes are closed afterwards."""
    images = torch.empty(len(indices), 3, size, size, dtype=torch.uint8, device=device)
    bad: dict[int, str] = {}
    for start, part, errors in decode_chunks(source, indices, size, interpolation, workers, progress):
        images[start : start + len(part)] = part.to(device)
        bad |= errors
    skipped = [(source.ids[indices[row]], reason) for row, reason in sorted(bad.items())]
    check_share(skipped, len(indices), max_bad)
    keep = [row for row in range(len(indices)) if row not in bad]
    if bad:
        for to, row in enumerate(keep):  # in place: a second copy may not fit
            if to != row:
                images[to] = images[row]
        images = images[: len(keep)]
    indices = indices[keep]
    return ResidentCache(images, [source.ids[i] for i in indices], indices, skipped)


def find_bad(source, indices, size, interpolation, workers, progress) -> list[tuple[str, str]]:
    chunks = decode_chunks(source, indices, size, interpolation, workers, progress)
    return [(source.ids[indices[row]], reason) for _, _, errors in chunks for row, reason in errors.items()]


def decode_chunks(source, indices, size, interpolation, workers, progress):
    """(first row, uint8 [n, 3, S, S], {row: reason}) in order; the rows of bad images hold zeros."""

    def work(start: int):
        part = torch.zeros(min(CHUNK, len(indices) - start), 3, size, size, dtype=torch.uint8)
        errors = {}
        for row in range(len(part)):
            try:
                part[row] = source.decode(indices[start + row], size, interpolation)
            except BadImage as error:
                errors[start + row] = error.reason
        return start, part, errors

    threads = max(workers, 1)
    starts = range(0, len(indices), CHUNK)
    with ThreadPoolExecutor(threads) as pool:
        waiting = []  # a bounded window: a slow consumer must not collect the whole set in memory
        todo = iter(starts)
        for start in todo:
            waiting.append(pool.submit(work, start))
            if len(waiting) >= 2 * threads:
                break
        while waiting:
            start, part, errors = waiting.pop(0).result()
            if (following := next(todo, None)) is not None:
                waiting.append(pool.submit(work, following))
            if progress is not None:
                progress(start + len(part), len(indices))
            yield start, part, errors


def check_share(skipped: list[tuple[str, str]], count: int, max_bad: float) -> None:
    if len(skipped) > max_bad * count or len(skipped) == count:
        shown = "; ".join(f"{id!r}: {reason}" for id, reason in skipped[:5])
        needed = math.ceil(100 * len(skipped) / max(count, 1)) / 100
        larger = f", or --max-bad {needed:g} to leave them out" if max_bad and needed < 1 else ""
        raise UserError(
            f"found {len(skipped)} of {count} images that cannot be used ({shown}); expected at most "
            f"{max_bad:.1%} of them; fix: repair or remove the files{larger}"
        )
