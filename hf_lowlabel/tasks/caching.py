"""Image caches of a run: built with a progress bar, within the memory there is, and with a line for what was left
out."""

from __future__ import annotations

import hashlib
import logging
import os

import numpy as np
import torch

from ..arguments import DataArguments
from ..data.caches.image_cache import ResidentCache, build_cache
from ..data.caches.padded_cache import build_padded_cache
from ..data.dataset import ImageDataset
from ..data.pixels.images import square_of
from ..distributed import all_gather, all_rows, world
from ..errors import UserError
from ..machine import free_memory
from ..progress import Progress

log = logging.getLogger("hf_lowlabel")


def square_cache(
    data: DataArguments, dataset: ImageDataset, indices, *, preprocessing: dict, device, what: str, vital=None
):
    """Squares of the images at `indices` as a network sees them, resident or streaming.

    Args:
        data: memory_budget, streaming, workers and max_bad are read.
        preprocessing: of the network.
        what: which images they are, for the progress bar and the log.
        vital: those that must be whole, where that is not all (see `build_cache`).

    Raises:
        UserError: more images than `max_bad` allows cannot be read.
    """
    with Progress(f"reading {what}", len(indices)) as bar:
        cache = build_cache(
            dataset,
            indices,
            vital=vital,
            max_bad=data.max_bad,
            **square_of(preprocessing),
            **_common(data, device, bar),
        )
    tell_skipped(cache, len(indices), what)
    check_same(dataset, cache, what)
    return cache


def padded_cache(
    data: DataArguments,
    dataset: ImageDataset,
    indices,
    *,
    long_side: int | None,
    masks: bool,
    device,
    what: str,
    max_bad: float | None = None,
    measured: bool = True,
):
    """Images at their own size, or scaled to `long_side` px on the longer side, with their masks or without; see
    `build_padded_cache`."""
    with Progress(f"reading {what}", len(indices)) as bar:
        cache = build_padded_cache(
            dataset,
            indices,
            masks=masks,
            long_side=long_side,
            measured=measured,
            max_bad=data.max_bad if max_bad is None else max_bad,
            **_common(data, device, bar),
        )
    tell_skipped(cache, len(indices), what)
    check_same(dataset, cache, what)
    return cache


def _common(data: DataArguments, device, bar: Progress) -> dict:
    return dict(
        device=device,
        memory_budget=memory_budget(data, device),
        workers=data.workers,
        streaming="auto" if data.streaming is None else data.streaming,
        progress=lambda done, total: bar.add(done - bar.done),
    )


def memory_budget(data: DataArguments, device) -> int:
    """Bytes that decoded images may take, the same on all ranks: a cache is resident on all of them or on none."""
    if data.memory_budget is not None:
        return int(data.memory_budget * 2**30)
    if torch.device(device).type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] // 2
    else:
        free = free_memory() // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # all of a machine take from it
    return int(all_gather(torch.tensor([free], device=device)).min())


def check_same(dataset: ImageDataset, cache, what: str) -> None:
    """UserError where the processes of a launch see different images, and would take the rows of others for theirs."""
    if world() == 1:
        return
    digest = hashlib.sha256(dataset.fingerprint.encode() + np.asarray(cache.indices, np.int64).tobytes()).digest()
    each = all_rows(np.frombuffer(digest, np.uint8).astype(np.int64)[None])
    if (each != each[0]).any():
        raise UserError(
            f"The processes of this launch see different {what} images: one was added, removed or could not be read by "
            "all of them. Start it again when nothing is copied there, on several machines with the same copy on each."
        )


def tell_skipped(cache, count: int, what: str) -> None:
    if cache.skipped:
        shown = "; ".join(f"{i}: {reason}" for i, reason in cache.skipped[:5])
        more = "; ..." if len(cache.skipped) > 5 else ""
        log.warning(
            "skipped %d of %d %s images that cannot be used (%s%s)", len(cache.skipped), count, what, shown, more
        )


def labeled_positions(cache, labeled: np.ndarray) -> torch.Tensor:
    """Positions in the cache, int64 [n], of labeled images given as positions in the data set; of those that were
    readable."""
    order = np.argsort(cache.indices, kind="stable")  # a dict of all images would take 100 bytes each
    where = order[np.minimum(np.searchsorted(cache.indices, labeled, sorter=order), len(order) - 1)]
    return torch.as_tensor(where[cache.indices[where] == labeled])


def square_statistics(cache) -> tuple[list[float], list[float]]:
    """Channel mean and standard deviation (0..1) of squares spread over the cache: up to 2,048 of a resident one, and
    512 of one that decodes them for it."""
    chosen = _spread(cache, 2048 if isinstance(cache, ResidentCache) else 512)
    x = torch.cat(list(cache.stream(chosen.split(32)))).double().div(255)
    return _rounded(x.mean((0, 2, 3)), x.std((0, 2, 3)))


def padded_statistics(cache) -> tuple[list[float], list[float]]:
    """The same of up to 256 images at their own sizes."""
    total, square, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    chosen = _spread(cache, 256)
    parts = chosen.split(8)
    for some, images in zip(parts, cache.stream(parts), strict=True):
        for image, (h, w) in zip(images, cache.sizes[some].tolist(), strict=True):  # which may be known by now alone
            x = image[:3, :h, :w].cpu().double() / 255
            total, square, count = total + x.sum((1, 2)), square + x.square().sum((1, 2)), count + h * w
    mean = total / count
    return _rounded(mean, (square / count - mean.square()).clamp_min(0).sqrt())


def _spread(cache, most: int) -> torch.Tensor:
    return torch.linspace(0, len(cache) - 1, min(most, len(cache))).long()


def _rounded(mean: torch.Tensor, std: torch.Tensor) -> tuple[list[float], list[float]]:
    return [round(v, 6) for v in mean.tolist()], [round(v, 6) for v in std.clamp_min(1e-3).tolist()]
