"""Caches of images of different sizes, each in the upper left corner of a frame as large as the largest of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataset import ImageDataset
from .decoding import PaddedDecoder, Progress, check_share, cores, find_bad, measure, spread
from .image_cache import MEMORY_BUDGET, ImageCache, StreamingCache, checked, resident, streaming_cache, streams
from .unmeasured import UnmeasuredDecoder


def build_padded_cache(
    source: ImageDataset,
    indices,
    *,
    masks: bool,
    long_side: int | None = None,
    device: Any = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    workers: int | None = None,
    max_bad: float = 0.01,
    streaming: bool | str = "auto",
    progress: Progress | None = None,
    measured: bool = True,
) -> ImageCache:
    """A cache of the images at `indices` of `source` at their own sizes, with their masks or without.

    long_side: px to which the longer side is scaled (image bilinear, mask nearest); None: images stay as they are.
    measured: False, of images without masks, leaves the headers of those that stream until they are decoded
    (unmeasured.py); one with a bad header is then met later too.

    progress: of the headers, and again of the images that are decoded.

    The rest is as in `build_cache`: before it streams, `LOOK` of the images are decoded. A mask that cannot be used is
    an error that names the image; masks of a resident cache are also looked at together (masks.check_values).
    """
    indices, threads = checked(source, indices, streaming), cores()
    workers = threads if workers is None else workers
    if not measured and not masks and streaming is not False:
        options = dict(device=device, workers=workers, max_bad=max_bad)
        found = unmeasured(source, indices, long_side, threads, None if streaming is True else memory_budget, **options)
        if found is not None:
            return found
    sizes, bad = measure(source, indices, long_side, threads, progress)
    skipped = [(source.ids[indices[row]], reason) for row, reason in bad.items()]
    check_share(skipped, len(indices), max_bad)
    good = np.setdiff1d(np.arange(len(indices)), list(bad)).astype(np.int64)
    frame = tuple(int(side) for side in sizes[good].max(0))
    decoder = PaddedDecoder(source, indices[good], sizes[good], frame, masks, lenient=not masks)
    if not streams(streaming, decoder, memory_budget):
        return resident(decoder, device, threads, max_bad, skipped, progress)
    looked = spread(len(decoder))
    bad = find_bad(decoder, looked, threads, progress)
    check_share(decoder.named(bad), len(looked), max_bad)
    seen = len(decoder) - len(bad)  # `skipped` has those of the whole cache whose headers are bad
    return streaming_cache(decoder, bad, skipped, device=device, workers=workers, max_bad=max_bad, seen=seen)


def unmeasured(
    source: ImageDataset, indices: np.ndarray, long_side: int | None, threads: int, memory_budget: int | None, **options
) -> StreamingCache | None:
    """A streaming cache by a look at `LOOK` of the images; None where they show that all may fit into the budget."""
    looked = spread(len(indices))
    sizes, reasons = measure(source, indices[looked], long_side, threads)
    good = np.setdiff1d(np.arange(len(looked)), list(reasons)).astype(np.int64)
    height, width = (int(side) for side in sizes[good].max(0, initial=1))
    frame = height, width
    if memory_budget is not None and len(indices) * 3 * int(np.prod(frame)) <= memory_budget:
        return None
    sample = PaddedDecoder(source, indices[looked[good]], sizes[good], frame, masks=False)
    reasons |= {int(good[at]): reason for at, reason in find_bad(sample, range(len(sample)), threads).items()}
    bad = {int(looked[row]): reason for row, reason in reasons.items()}
    known = np.zeros((len(indices), 2), np.int64)
    known[looked[good]] = sizes[good]
    decoder = UnmeasuredDecoder(source, indices, known, frame, long_side)
    check_share(decoder.named(bad), len(looked), options["max_bad"])
    return streaming_cache(decoder, bad, [], **options)
