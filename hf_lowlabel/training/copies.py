"""Finds duplicate pictures before training: with two labels, or in both training and test set."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.caches.image_cache import StreamingCache
from ..errors import UserError
from ..tasks.data_classes import Examples

log = logging.getLogger("hf_lowlabel")
CHUNK, FEW = 64, 8  # images that are read at once; so many times that without processes of their own
MOST = 20_000  # images that are decoded for this alone, where they stream


def pictures(images: Examples) -> list[str]:
    """A hash of the decoded pixels of each, "" of a blank one, which is nobody's copy; masks, and what images are
    filled up with to one size, take no part. Of images that stream those after the first `MOST` count as blank."""
    cache, members = images.cache, images.members
    if isinstance(cache, StreamingCache) and len(members) > MOST:
        log.info("copies are looked for among the first %s of %s images, since they stream", MOST, len(members))
        members = members[:MOST]
    sizes, out, parts = cache.sizes, list[str](), members.split(CHUNK)
    read = cache.stream(parts) if len(parts) > FEW else map(cache.take, parts)
    for part, found in zip(parts, read, strict=True):
        pixels = found[:, :3].cpu().numpy()
        whole = [pixels.shape[2:]] * len(part) if sizes is None else sizes[part].tolist()
        for image, (h, w) in zip(pixels, whole, strict=True):
            shown = image[:, :h, :w]
            blank = (shown == shown[:, :1, :1]).all()
            out.append("" if blank else hashlib.sha256(f"{h} {w}".encode() + shown.tobytes()).hexdigest())
    return out + [""] * (len(images.members) - len(members))


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two targets, of a class or of several, say different things; a negative entry says nothing."""
    return bool(((a != b) & (a >= 0) & (b >= 0)).any())


def words_of(target: Tensor, names: Sequence[str]) -> str:
    """A target, of a class or of several, by name."""
    known = [int(target)] if target.dim() == 0 else (target > 0).nonzero()[:, 0].tolist()
    return " and ".join(repr(names[k]) for k in known) or "none of the classes"


def agreeing(labeled: Examples, seen: list[str], names: Sequence[str], skip: bool) -> np.ndarray:
    """Rows of the labeled images, int64 [n], without those whose copies have another label.

    Args:
        seen: their pictures.
        names: of the classes.
        skip: leave them out, instead of an error. Masks drawn twice differ at their edges, and are never compared.

    Raises:
        UserError: the same picture has two labels.
    """
    if labeled.targets is None:
        return np.arange(len(seen))
    same: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(seen):
        if picture:
            same[picture].append(row)
    twice: set[int] = set()
    for rows in same.values():
        different = {tuple(labeled.targets[row].flatten().tolist()): row for row in reversed(rows)}
        for pair in itertools.combinations(sorted(different.values()), 2):
            a, b = (labeled.targets[row] for row in pair)
            if differ(a, b):
                first, second = (labeled.cache.ids[int(labeled.members[row])] for row in pair)
                words = words_of(a, names), words_of(b, names)
                if not skip:
                    raise UserError(
                        f"{first!r} and {second!r} are the same picture, labeled {words[0]} and {words[1]}. Correct "
                        "one of the labels, leave one of the images out, or give --skip-conflicts."
                    )
                twice |= set(rows)
    if twice:
        log.warning(
            "%d labeled images are copies of each other with other labels, such as %s: they count as unlabeled",
            len(twice),
            labeled.cache.ids[int(labeled.members[min(twice)])],
        )
    return np.array([row for row in range(len(seen)) if row not in twice], dtype=np.int64)


def apart(seen: list[str], held: Mapping[str, Examples], shown: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
    """Part -> positions in the data set, int64 [n], of its images that are no copies of labeled ones; only of parts
    that have such, none where all are.

    Args:
        seen: pictures of the labeled images.
        held: "validation", "test" -> images that are not trained on. shown: their pictures.
    """
    known, out = set(seen) - {""}, {}
    for part, images in held.items():
        copied = np.array([picture in known for picture in shown[part]])
        if not copied.any():
            continue
        if copied.all():
            log.warning(
                "every %s image is a copy of a labeled one: scores on them say nothing of new images. Hold out others",
                part,
            )
            out[part] = np.zeros(0, np.int64)
            continue
        members = images.members.numpy()
        log.warning(
            "%d %s images are copies of labeled images, such as %s: they are left out of the %s",
            copied.sum(),
            part,
            images.cache.ids[int(members[copied.argmax()])],
            part,
        )
        out[part] = images.cache.indices[members[~copied]]
    return out


def out_of_pool(pool: Any, free: np.ndarray, held: Sequence[Examples], shown: set[str]) -> np.ndarray:
    """Positions in a cache, int64 [n], of the images of a pool that are no copies of held-out ones, in order.

    Images that stream are decoded for this where they are called as a held-out one, in whatever folder.

    Args:
        pool: the cache. free: positions without a label, int64, among which copies are looked for.
        held: images that are not trained on. shown: their pictures.
    """
    every, among = np.arange(len(pool)), free
    if not shown:
        return every
    if isinstance(pool, StreamingCache):
        names = {images.cache.ids[int(i)].rpartition("/")[2] for images in held for i in images.members}
        among = np.array([i for i in free if pool.ids[i].rpartition("/")[2] in names], np.int64)[:MOST]
        if len(among) < len(free):
            log.info(
                "copies of held-out images are looked for among the %s of %s unlabeled images that are called as one: "
                "all others stream, and are not compared",
                *(len(among), len(free)),
            )
    elif not any(isinstance(images.cache, StreamingCache) for images in held):  # a sum costs less than a hash
        sums = {total for images in held for total in sums_of(images)}
        own = sums_of(Examples(pool, torch.from_numpy(among), None))
        among = among[np.array([total in sums for total in own], bool)]
    found = pictures(Examples(pool, torch.from_numpy(among), None)) if len(among) else []
    copied = among[np.array([picture in shown for picture in found], bool)]
    if len(copied):
        log.warning(
            "%d unlabeled images are copies of images that are held out, such as %s: nothing is learned of them",
            *(len(copied), pool.ids[copied[0]]),
        )
    return np.setdiff1d(every, copied)


def sums_of(images: Examples) -> list[tuple[int, ...]]:
    """(sum of the bytes, eight at a time, height, width) of each image of a resident cache, which copies have alike."""
    sizes, out = images.cache.sizes, list[tuple[int, ...]]()
    for part in images.members.split(CHUNK):
        found = images.cache.take(part)[:, :3]
        whole = [found.shape[2:]] * len(part) if sizes is None else sizes[part].tolist()
        for image, (h, w) in zip(found, whole, strict=True):
            pixels = image[:, :h, :w].flatten()
            out.append((int(pixels[: len(pixels) // 8 * 8].clone().view(torch.int64).sum()), h, w))
    return out
