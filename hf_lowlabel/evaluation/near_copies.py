"""Near-duplicate pictures: re-encoded, resized, or neighbouring frames of a film."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..distributed import best_device
from ..text import files_of
from .neighbors import neighbours

log = logging.getLogger("hf_lowlabel")
SIDE = 16  # px of the small copies that are compared
NEAREST = 3  # other pictures that each is shown beside, at most, where more are all but the same
# difference of two small copies up to which they are all but the same. On photos, films, cells and steel a JPEG of
# quality 60 or a picture of half the side was below 0.15 (most below 0.05), and the nearest other photo above 0.13
SAME = 0.1
BLOCK = 1 << 25  # distances at a time
CHUNK, FEW = 256, 8  # images at a time, and of those at sizes of their own
FIRST = 128  # pictures at a time whose like are looked for


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
    """Pairs (i, j), i < j, of pictures that are all but the same, in order: of many that are alike not every pair, but
    as many as tie all of them together.

    The difference of two is the root of the mean squared difference of their small copies, as a share of the lower of
    their contrasts (standard deviations over the pixels of a colour, mean of the colours).

    Args:
        small: `small_copies`, [N, 3 * SIDE * SIDE].
    """
    first = first_alike(small)
    pairs = {(int(i), k) for k, i in enumerate(first) if i != k}
    once = np.flatnonzero(first == np.arange(len(small)))
    if len(once) > 1:
        x, contrast = small[once] - small.mean(0), contrast_of(small[once])
        index, distance = neighbours(x, NEAREST)
        difference = np.sqrt(distance / x.shape[1])
        near = difference <= SAME * np.minimum(contrast[:, None], contrast[index])
        found = set(zip(np.nonzero(near)[0].tolist(), index[near].tolist()))
        # an image whose nearest are not all within its limit has seen all that may be the same
        open_ = np.flatnonzero(difference[:, -1] <= SAME * contrast)
        found |= bridges(x, contrast, open_, found)
        pairs |= {(int(once[min(i, j)]), int(once[max(i, j)])) for i, j in found}
    return sorted(pairs)


def near_copies_of(small: np.ndarray, rows: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of `near_copies` that are equal or have one of some pictures, of which each is compared with all: as
    many as `NEAREST` of each.

    Args:
        small: `small_copies`, [N, 3 * SIDE * SIDE]. rows: the pictures, int64.
    """
    first = first_alike(small)
    pairs = {(int(i), k) for k, i in enumerate(first) if i != k}
    once, asked = np.flatnonzero(first == np.arange(len(small))), np.unique(first[rows])
    x, contrast, at = small[once] - small.mean(0), contrast_of(small[once]), np.searchsorted(once, asked)
    near, index = nearest_same(x[at], contrast[at], x, contrast, NEAREST + 1)  # one of them is itself
    for b, k in zip(*np.nonzero(np.isfinite(near))):
        i, j = sorted((int(asked[b]), int(once[index[b, k]])))
        pairs |= {(i, j)} if i < j else set()
    return sorted(pairs)


def bridges(
    x: np.ndarray, contrast: np.ndarray, rows: np.ndarray, found: Collection[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Further pairs of pictures that are all but the same, until no two of `rows` in different groups are.

    Each asks for the nearest outside of its group, groups grow together, and so on (Boruvka's trees): the memory is
    that of a block of distances, however many are alike.

    Args:
        x: rows that are compared, float32 [N, D]. contrast: of each, [N].
        rows: those that may have more pictures near than were found, int64.
        found: pairs that are known.
    """
    out = set[tuple[int, int]]()
    groups = groups_of(found, len(x))
    while len(rows) > 1:
        distance, index = nearest_same(x[rows], contrast[rows], x[rows], contrast[rows], 1, groups[rows])
        more = np.flatnonzero(np.isfinite(distance[:, 0]))
        out |= set(zip(rows[more].tolist(), rows[index[more, 0]].tolist()))
        rows = rows[more]  # the others are the same as none outside of their groups, which only grow
        groups = groups_of({*found, *out}, len(x))
    return out


def groups_of(pairs: Collection[tuple[int, int]], count: int) -> np.ndarray:
    found = pictures_by([*pairs], count)
    return np.arange(count) if found is None else found


def first_alike(small: np.ndarray) -> np.ndarray:
    """For each row the first that is equal, int64 [N]."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(hashlib.blake2b(row).digest(), k) for k, row in enumerate(small)], int)


def contrast_of(small: np.ndarray) -> np.ndarray:
    return small.reshape(len(small), 3, SIDE * SIDE).std(2).mean(1)


@torch.no_grad()
def nearest_same(
    asked: np.ndarray,
    contrast: np.ndarray,
    x: np.ndarray,
    contrasts: np.ndarray,
    k: int,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(difference, index), [Q, k] each, of the k nearest rows of x that are all but the same as each that is asked;
    infinite where there are no more.

    groups: of the rows, which are those asked: none is looked for in its own.
    """
    k, device = min(k, len(x)), best_device()
    bank, limit, mine, of = (torch.as_tensor(a, device=device) for a in (x, contrasts, asked, contrast))
    within = None if groups is None else torch.as_tensor(groups, device=device)
    norm, step = (bank * bank).sum(1), max(1, BLOCK // len(x))
    found = [(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))]
    for start in range(0, len(mine), step):
        part = mine[start : start + step]
        d = torch.addmm(norm, part, bank.T, alpha=-2).add_((part * part).sum(1)[:, None])
        d = d.clamp_min_(0).div_(x.shape[1]).sqrt_()
        far = d > SAME * torch.minimum(of[start : start + step, None], limit)
        if within is not None:
            far |= within[start : start + step, None] == within
        near, at = d.masked_fill_(far, torch.inf).topk(k, dim=1, largest=False)
        found.append((near.cpu().numpy(), at.cpu().numpy()))
    distance, index = zip(*found)
    return np.concatenate(distance), np.concatenate(index)


def copies_of_each(images: Any) -> np.ndarray | None:
    """What images share with each other, int [n, 2]: the number of a group, which is left out together, and of the
    picture, of which one is judged; None where no two share anything.

    A group are pictures that are all but the same, the frames of a film, whose ends may differ, and the pages of one
    file. A picture are those of them that are all but the same as its first and have its label. Where all images are
    of one file or film, each picture is a group: new images can only be other pages or frames of it.

    Args:
        images: with `cache` and `members`, and `targets` where each has a class or several.
    """
    small, targets = small_copies(images.cache, images.members), getattr(images, "targets", None)
    pairs = near_copies(small)
    files = files_of([images.cache.ids[int(i)] for i in images.members], images.cache.file_of)
    alike = groups_of(pairs, len(small))
    picture = told_apart(small, alike, None if targets is None else targets.numpy())
    if files is not None:
        drawn = contrast_of(small) > 0  # an empty page is in every file
        pairs = [(i, j) for i, j in pairs if drawn[i] and drawn[j]]
        first: dict[int, int] = {}
        pairs += [(first.setdefault(file, k), k) for k, file in enumerate(files)]
    group = pictures_by(pairs, len(small))
    if group is None:
        return None
    if group.max() == 0 and (apart := told_apart(small, alike)).max() > 0:
        log.warning(
            "all %d labeled images are pages of one file or frames of one film: what is said of new images holds for "
            "others of it",
            len(small),
        )
        group = apart
    return np.stack([group, picture], 1)


def told_apart(small: np.ndarray, groups: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
    """Number of the picture of each row, int64 [N]: within a group those that are all but the same as its first that is
    in no other, and have its target."""
    contrast, out, count = contrast_of(small), np.full(len(small), -1), 0
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        while len(rows):
            first = rows[: max(1, min(FIRST, BLOCK // len(rows)))]
            alike = perhaps_same(small, contrast, first, rows) if len(rows) > 1 else np.ones((1, 1), bool)
            for i, near in zip(first, alike):
                if out[i] >= 0:
                    continue
                asked = rows[near & (out[rows] < 0)]
                difference = np.sqrt(np.square(small[asked] - small[i]).mean(1))
                same = difference <= SAME * np.minimum(contrast[asked], contrast[i])
                if targets is not None:
                    same &= (targets[asked] == targets[i]).reshape(len(asked), -1).all(1)
                out[asked[same]], count = count, count + 1
            rows = rows[out[rows] < 0]
    return out


def perhaps_same(small: np.ndarray, contrast: np.ndarray, first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of `rows` may be all but the same as each of `first`, bool [F, R]: all that are, and few others; by one
    product of matrices, whose rounding is allowed for."""
    middle = small[rows].mean(0)
    a, x = small[first] - middle, small[rows] - middle
    own, norm = np.square(a).sum(1)[:, None], np.square(x).sum(1)
    limit = small.shape[1] * np.square(SAME * np.minimum(contrast[first][:, None], contrast[rows]))
    return own + norm - 2 * (a @ x.T) <= limit + 1e-4 * (own + norm)


def copies_by_image(labeled: Any, count: int) -> np.ndarray | None:
    """`copies_of_each` for `count` images, of which `labeled` have a label; the others share nothing."""
    found = copies_of_each(labeled)
    if found is None:
        return None
    out = np.stack([len(found) + np.arange(count)] * 2, 1)
    out[labeled.members.cpu().numpy()] = found
    return out


def pictures_by(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray | None:
    """Number of the group of each of `count` images, int [count], of which these pairs go together; None: no pair."""
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
    known, asked = (small_copies(images.cache, images.members) for images in (labeled, test))
    if not len(known) or not len(asked):
        return []
    mean = known.mean(0)
    near, at = nearest_same(asked - mean, contrast_of(asked), known - mean, contrast_of(known), NEAREST)
    ids = [[images.cache.ids[int(i)] for i in images.members] for images in (labeled, test)]
    pairs = {(int(at[b, k]), int(b)) for b, k in zip(*np.nonzero(np.isfinite(near)))}
    equal = first_alike(np.concatenate([known, asked]))[len(known) :]  # blank ones too, whose limit is 0
    pairs |= {(int(a), b) for b, a in enumerate(equal) if a < len(known)}
    return [(ids[0][a], ids[1][b]) for a, b in sorted(pairs)]
