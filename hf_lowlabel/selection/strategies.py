"""Which images to label: each strategy is a function (features [N, D] of unit length, budget, seed) -> int64 [budget].

features are float32, budget is the number of images to choose, seed decides clusters and draws; the result is indices.
`STRATEGIES` is the whole list. None of them sees a label, but for `class_balanced`, which is for benchmarks, and
`coreset` alone knows which images are labeled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..data.permutation import epoch_permutation
from ..distributed import best_device
from ..errors import UserError, unknown
from ..evaluation.neighbors import neighbours, squared_lengths
from ..ranges import Count, CountOrNone, Share, Weight
from .as3l import as3l, nearest_images
from .clustering import BLOCK, kmeans, means, nearest

DENSITY = (
    1 << 16
)  # images at most that the density around each of all is measured by: the cost then grows as their number
FEWEST = 5  # neighbours among them
MOST_COMPARED = 200  # images of a cell that are compared in pairs, where copies are looked for


def random(features: np.ndarray, budget: int, seed: int = 0) -> np.ndarray:
    """`budget` images at random, without replacement."""
    return epoch_permutation(seed, "select/random", 0, budget, len(features))


def class_balanced(features: np.ndarray, budget: int, seed: int = 0, *, labels: np.ndarray) -> np.ndarray:
    """The same number of images from every class, at random: needs the labels of all, so it is for benchmarks only.

    What does not divide goes to classes drawn at random.

    Args:
        features: not looked at.
        budget: images to choose.
        seed: decides the draws.
        labels: class of each image, int64 [N], -1 = unknown.

    Raises:
        UserError: for a budget below the number of classes, or above what a class has.
    """
    classes = np.unique(labels[labels >= 0])
    if budget < len(classes):
        raise UserError(
            f"A budget of {budget} images cannot cover {len(classes)} classes. Use --budget {len(classes)} or more, or "
            "another strategy."
        )
    quota = np.full(len(classes), budget // len(classes))
    quota[epoch_permutation(seed, "select/extra", 0, len(classes), len(classes))[: budget % len(classes)]] += 1
    chosen = []
    for c, q in zip(classes, quota, strict=True):
        mine = np.flatnonzero(labels == c)
        if len(mine) < q:
            raise UserError(
                f"There are {len(mine)} images of class {c}, but a class-balanced budget of {budget} needs {q}. Use a "
                "smaller budget."
            )
        chosen.append(mine[epoch_permutation(seed, f"select/class/{c}", 0, len(mine), len(mine))[:q]])
    return np.concatenate(chosen)


def k_medoids(features: np.ndarray, budget: int, seed: int = 0, *, iterations: Count = 50) -> np.ndarray:
    """min over medoids among the images of sum_i ||x_i - x_medoid(i)||^2 (Kaufman and Rousseeuw 1987), by alternation.

    The sum of squares from a member to the others of its cluster is smallest for the member nearest to their mean, so
    an update costs N D. Starts at the images nearest to the centres of k-means.
    """
    medoids = nearest_images(features, kmeans(features, budget, seed=seed).centres)
    x = torch.as_tensor(np.ascontiguousarray(features, dtype=np.float32), device=best_device())
    for _ in range(iterations):
        assigned, _ = nearest(features, features[medoids])
        centre = means(x, torch.as_tensor(assigned, device=x.device), x[torch.as_tensor(medoids, device=x.device)])
        new = nearest_images(features, centre.cpu().numpy())
        if np.array_equal(new, medoids):
            break
        medoids = new
    return medoids


def coreset(features: np.ndarray, budget: int, seed: int = 0, *, known: np.ndarray | None = None) -> np.ndarray:
    """Greedy k-center (Sener and Savarese 2018, algorithm 1): next is argmax_i min_{j chosen} ||x_i - x_j||.

    The images that are labeled already, of features `known` [L, D], are the first ones chosen; with none the first is
    drawn at random.
    """
    x = torch.as_tensor(np.ascontiguousarray(features, dtype=np.float32), device=best_device())
    norm = squared_lengths(x)
    distance, chosen = torch.full((len(x),), torch.inf, device=x.device), list[int]()

    def nearer(last: torch.Tensor) -> torch.Tensor:
        return torch.minimum(distance, norm - 2 * (x @ last) + last @ last)

    for one in () if known is None else known:
        distance = nearer(torch.as_tensor(np.array(one, dtype=np.float32), device=x.device))
    while len(chosen) < budget:
        drawn = int(epoch_permutation(seed, "select/coreset", 0, 1, len(x))[0])
        chosen.append(drawn if distance.isposinf().all() else int(distance.argmax()))
        distance = nearer(x[chosen[-1]])
        distance[chosen[-1]] = -torch.inf
    return np.array(chosen)


def usl(
    features: np.ndarray,
    budget: int,
    seed: int = 0,
    *,
    k: Count | None = None,
    iterations: CountOrNone = 9,
    weight: Weight = 0.5,
    alpha: Weight = 0.5,
    momentum: Share = 0.9,
) -> np.ndarray:
    """USL (Wang et al. 2022, arXiv 2110.03006, section 3): density peaks of k-means clusters, kept apart.

        U_i = 1 / mean ||x_i - x_j||^2 over the k nearest j, i among them
        Reg_i = sum_{other clusters j} 1 / ||x_i - s_j||^(2 alpha)
        R_i <- momentum R_i + (1 - momentum) Reg_i,   s_c <- argmax_{i in cluster c} U_i - weight R_i

    for `iterations` rounds from s_c = argmax U. The paper writes distances; the authors' code has their squares, and so
    have we: it is what their weight belongs to. Above `DENSITY` images the neighbours are looked for among so many,
    drawn at random, and are as large a share of these (`FEWEST` at least): N `DENSITY` D operations instead of N^2 D.

    Args:
        features: float32 [N, D] of unit length.
        budget: images to choose, and clusters.
        seed: decides the clusters.
        k: neighbours, with the image itself (None: as large a share as the authors' 400 of CIFAR's 50,000 images).
        iterations: rounds (the authors count the start as one of ten).
        weight: of the regularisation.
        alpha: exponent of the squared distance in it.
        momentum: share of it that stays in every round.
    """
    k = k or int(np.clip(round(0.008 * len(features)), 5, 400))
    among, k = sampled(len(features), k, seed)
    u = k / np.maximum(neighbours(features, k - 1, among=among)[1].sum(1), 1e-6)
    assigned = kmeans(features, budget, seed=seed).assigned
    chosen = best_of_each(u, assigned, budget)
    smooth = np.zeros(len(u))
    for _ in range(iterations):
        reg = np.empty(len(u))
        for start in range(0, len(u), BLOCK):
            part = torch.as_tensor(np.array(features[start : start + BLOCK], dtype=np.float32))
            apart = torch.cdist(part, torch.as_tensor(np.array(features[chosen], dtype=np.float32)))
            d = apart.clamp_min(1e-6).numpy() ** (-2 * alpha)
            d[np.arange(len(d)), assigned[start : start + BLOCK]] = 0
            reg[start : start + BLOCK] = d.sum(1)
        smooth = momentum * smooth + (1 - momentum) * reg
        chosen = best_of_each(u - weight * smooth, assigned, budget)
    return chosen


def sampled(n: int, k: int, seed: int) -> tuple[np.ndarray | None, int]:
    """Rows of n, ascending, that neighbours are looked for among (None: all), and how many stand for k of all."""
    if n <= DENSITY:
        return None, k
    rows = np.sort(epoch_permutation(seed, "select/density", 0, DENSITY, n))
    return rows, min(k, max(FEWEST, round(k * DENSITY / n)))


def best_of_each(score: np.ndarray, assigned: np.ndarray, clusters: int) -> np.ndarray:
    """The image of highest score in each cluster; an empty cluster takes the best image left."""
    ranked = np.argsort(-score, kind="stable")
    out = np.full(clusters, -1)
    found, first = np.unique(assigned[ranked], return_index=True)
    out[found] = ranked[first]
    left = np.setdiff1d(ranked, out, assume_unique=False)
    empty = np.flatnonzero(out < 0)
    out[empty] = left[np.argsort(-score[left], kind="stable")][: len(empty)]
    return out


def typiclust(
    features: np.ndarray, budget: int, seed: int = 0, *, k: Count = 20, most: Count = 500, smallest: Count = 6
) -> np.ndarray:
    """TypiClust (Hacohen et al. 2022, arXiv 2202.02794, section 3): the most typical image of each large cluster.

        typicality_i = 1 / mean ||x_i - x_j||^2 over the min(k, n / 2) nearest j of the n left in its cluster

    with min(budget, `most`) clusters. In turn, the cluster with the fewest chosen images, and of those the largest,
    gives its most typical one, which leaves it; clusters below `smallest` images come last. The paper writes distances;
    the authors' code has their squares, and half of a small cluster. In a cluster of more than `DENSITY` images the
    neighbours are those among so many of it, as in `usl`.

    Args:
        features: float32 [N, D] of unit length.
        budget: images to choose.
        seed: decides the clusters.
        k: neighbours.
        most: clusters at most.
        smallest: images of a cluster that does not come last.
    """
    clusters = min(budget, most)
    assigned = kmeans(features, clusters, seed=seed).assigned
    size = np.bincount(assigned, minlength=clusters)
    used, turns = np.zeros(clusters, np.int64), list[int]()
    while len(turns) < budget:
        able = np.flatnonzero(used < size)
        turns.append(int(able[np.lexsort((-size[able], used[able], size[able] < smallest))[0]]))
        used[turns[-1]] += 1
    gives = {}
    for c in np.flatnonzero(used):
        mine = np.flatnonzero(assigned == c)
        gives[c] = iter(mine[most_typical(features[mine], int(used[c]), k, seed)])
    return np.array([next(gives[c]) for c in turns])


def most_typical(x: np.ndarray, count: int, k: int, seed: int) -> list[int]:
    """`count` rows of a cluster, each the most typical (`typiclust`) of those left."""
    among, k = sampled(len(x), k, seed)
    index, distance = neighbours(x, min(k, len(x) // 2) + count - 1, among=among)  # as near as any once others left
    left, out = np.ones(len(x), bool), list[int]()
    for gone in range(count):
        near = min(k, (len(x) - gone) // 2)
        there = left[index]
        there &= there.cumsum(1) <= near
        spread = np.where(there, distance, 0).sum(1, dtype=np.float64)
        out.append(int(np.where(left, spread, np.inf).argmin()))
        left[out[-1]] = False
    return out


STRATEGIES = {
    "as3l": as3l,
    "random": random,
    "class-balanced": class_balanced,
    "k-medoids": k_medoids,
    "coreset": coreset,
    "usl": usl,
    "typiclust": typiclust,
}


def choose(
    strategy: str,
    features: np.ndarray,
    budget: int,
    seed: int = 0,
    labels: np.ndarray | None = None,
    arguments: Mapping[str, Any] | None = None,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """The images that a strategy chooses.

    Args:
        strategy: a name in STRATEGIES.
        features: float32 [N, D] of unit length.
        budget: images to choose.
        seed: decides clusters and draws.
        labels: int64 [N], -1 = unknown, for "class-balanced" alone.
        arguments: of the strategy, by name.
        known: float32 [L, D], of the images that are labeled already, for "coreset" alone.

    Returns:
        Indices, int64 [budget], each once.

    Raises:
        UserError: for an unknown strategy, a budget that cannot be met, or features that are no numbers.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    if not 1 <= budget <= len(features):
        raise UserError(
            f"A budget of {budget} does not fit {len(features)} images to choose from. Use --budget 1 to "
            f"{len(features)}."
        )
    bad = sum(int((~np.isfinite(features[i : i + BLOCK])).any(1).sum()) for i in range(0, len(features), BLOCK))
    if bad:
        raise UserError(
            f"The features of {bad} of {len(features)} images are NaN or infinite, so that nothing is near or far. "
            "Make them again, in float32 and with weights that did not diverge."
        )
    if strategy == "class-balanced":
        if labels is None or (labels < 0).all():
            raise UserError(
                "There are no labels for the strategy class-balanced, which needs those of all images. Use --strategy "
                "as3l, which needs none."
            )
        chosen = class_balanced(features, budget, seed, labels=labels)
    else:
        more = {"known": known} if strategy == "coreset" else {}
        chosen = STRATEGIES[strategy](features, budget, seed, **(arguments or {}), **more)
    return np.asarray(chosen, dtype=np.int64)


def identical(features: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
    """For each image the first one whose unit features are within `tolerance` of it (itself if none): int64 [N].

    Copies of an image fall into the same cell of a grid over 16 random directions, or of one shifted by half a cell,
    but for rounding at the border of both; whatever shares a cell is compared in full. Cells that hold many images, as
    those of a network that tells none apart, become finer.
    """
    n = len(features)
    directions = np.random.default_rng(0).standard_normal((features.shape[1], 16)).astype(np.float32)
    first = np.arange(n)
    place = np.concatenate([np.asarray(features[i : i + BLOCK], np.float32) @ directions for i in range(0, n, BLOCK)])
    for shift in (0.0, 0.5):
        for members in cells(place, np.arange(n), 50 * tolerance, shift, 2 * tolerance):
            seen: list[int] = []
            for i in members:
                close = np.linalg.norm(features[seen] - features[i], axis=1) < tolerance if seen else np.zeros(0, bool)
                if close.any():
                    first[i] = min(first[i], first[seen[int(close.argmax())]])
                else:
                    seen.append(int(i))
    return first


def cells(place: np.ndarray, rows: np.ndarray, width: float, shift: float, least: float) -> Iterator[np.ndarray]:
    """The rows of `place` [N, 16] that share a cell of a grid, ascending, two or more of them, MOST_COMPARED at most.

    A cell of more is divided by a grid of a fifth of the width; below the width `least` by equality alone.
    """
    exact = width < least
    _, group, size = np.unique(
        place[rows] if exact else np.floor(place[rows] / width + shift), axis=0, return_inverse=True, return_counts=True
    )
    group = group.ravel()
    several = np.flatnonzero(size[group] > 1)
    several = several[np.argsort(group[several], kind="stable")]
    for members in np.split(several, np.flatnonzero(np.diff(group[several])) + 1):
        if exact or len(members) <= MOST_COMPARED:
            yield rows[members]
        else:
            yield from cells(place, rows[members], width / 5, shift, least)
