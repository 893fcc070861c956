"""Pictures that are all but the same: saved anew, made smaller, or the next frame of a film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .neighbors import neighbours

SIDE = 16  # px of the small copies that are compared
NEAREST = 3  # other pictures that each is compared with
# difference of two small copies up to which they are all but the same. On photos, films, cells and steel a JPEG of
# quality 60 or a picture of half the side was below 0.15 (most below 0.05), and the nearest other photo above 0.13
SAME = 0.1
CHUNK, FEW = 256, 8  # images at a time, and of those at sizes of their own


def small_copies(cache: Any, members: torch.Tensor) -> np.ndarray:
    """Images of a cache averaged to `SIDE` x `SIDE` px, float32 [n, 3 * SIDE * SIDE] in 0..255; a mask beside the
    colours, and what images are filled up with to one size, are left out."""
    sizes, out = getattr(cache, "sizes", None), []
    for part in members.split(CHUNK if sizes is None else FEW):
        images = cache.take(part)[:, :3].float()  # [n, 3, H, W]
        if sizes is None:
            small = F.adaptive_avg_pool2d(images, SIDE)
        else:
            whole = zip(images, sizes[part.to(sizes.device)].tolist(), strict=True)
            small = torch.stack([F.adaptive_avg_pool2d(image[:, :h, :w], SIDE) for image, (h, w) in whole])
        out.append(small.flatten(1).cpu().numpy())
    return np.concatenate(out) if out else np.zeros((0, 3 * SIDE * SIDE), np.float32)


def near_copies(small: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures that are all but the same, in order.

    The difference of two is the root of the mean squared difference of their small copies, as a share of the lower of
    their contrasts (standard deviations over the pixels of a colour, mean of the colours).

    Args:
        small: `small_copies`, [N, 3 * SIDE * SIDE].
    """
    if len(small) < 2:
        return []
    contrast = small.reshape(len(small), 3, -1).std(2).mean(1)
    index, distance = neighbours(small - small.mean(0), NEAREST)
    different = np.sqrt(distance / small.shape[1])
    near = different <= SAME * np.minimum(contrast[:, None], contrast[index])
    return sorted({(min(i, j), max(i, j)) for i, j in zip(*(np.nonzero(near)[0].tolist(), index[near].tolist()))})


def copies_of_each(images: Any) -> np.ndarray | None:
    """Number of the picture that each image shows, int [n], the same for those that are all but the same; None where no
    two are.

    Args:
        images: with `cache` and `members`.
    """
    return pictures_by(near_copies(small_copies(images.cache, images.members)), len(images.members))


def copies_by_image(labeled: Any, count: int) -> np.ndarray | None:
    """`copies_of_each` for `count` images, of which `labeled` have a label; the others show a picture of their own."""
    found = copies_of_each(labeled)
    if found is None:
        return None
    out = len(found) + np.arange(count)
    out[labeled.members.cpu().numpy()] = found
    return out


def pictures_by(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray | None:
    """`copies_of_each` of `count` images, of which these pairs are all but the same."""
    if not pairs:
        return None
    i, j = np.array(pairs).T
    return connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(count, count)))[1]


def copies_tested(labeled: Any, test: Any) -> list[tuple[str, str]]:
    """Ids (labeled image, test image) of those that are all but the same: a test on them flatters.

    Args:
        labeled, test: images with `cache` and `members`; None: there are none.
    """
    if test is None:
        return []
    count, small = len(labeled.members), [small_copies(images.cache, images.members) for images in (labeled, test)]
    ids = [images.cache.ids[int(i)] for images in (labeled, test) for i in images.members]
    return [(ids[a], ids[b]) for a, b in near_copies(np.concatenate(small)) if a < count <= b]
