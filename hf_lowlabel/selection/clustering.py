"""K-means and nearest neighbours over features [N, D]: faiss where it is installed, torch on a GPU, scikit-learn
otherwise.

    min over centres m and assignments a of   sum_i ||x_i - m_a(i)||^2      (Lloyd 1982)

One seed gives one result on one backend. k-means++ costs more than all of Lloyd's steps once there are many clusters
(74 of 75 CPU-seconds at N = 10,000, K = 600, for the same inertia), so above `PLUS_PLUS` clusters the first centres are
random images.

Cost for N images, D features, K clusters, I steps: 2 N K D I operations and N D numbers held. With `sample` the steps
see that many images only and the rest are assigned once, in pieces: 2 (sample I + N) K D operations. At N = 100
million, D = 512, K = 600, I = 25, sample = 256 K that is 65 TFLOP instead of 1,540: some 11 minutes of one CPU core at
100 GFLOP/s, beside reading 205 GB of features. `sample=None` takes every image up to `WHOLE` numbers, 256 images a
cluster above.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..distributed import best_device
from ..errors import UserError

PLUS_PLUS = 64  # clusters up to which the first centres come from k-means++
WHOLE = 2 * 10**9  # numbers in the features (8 GB) up to which every image takes part in every step
PER_CLUSTER = 256  # images a cluster in a sample: the accuracy of a mean grows no more
BLOCK = 1 << 14  # rows compared at a time


@dataclass
class Clusters:
    centres: np.ndarray  # float32 [K, D]
    assigned: np.ndarray  # int64 [N]
    inertia: float  # sum of squared distances to the assigned centres


def backend() -> str:
    """What k-means runs on here: "torch" on a GPU, "faiss" or "scikit-learn" on a CPU."""
    if torch.cuda.is_available():
        return "torch"
    return "faiss" if importlib.util.find_spec("faiss") else "scikit-learn"


def kmeans(
    x: np.ndarray, k: int, *, seed: int = 0, iterations: int = 25, sample: int | None = None, on: str | None = None
) -> Clusters:
    """K-means.

    Args:
        x: features, float32 [N, D], which may be mapped from a file.
        k: clusters.
        seed: decides the first centres and the sample.
        iterations: steps at most.
        sample: rows that the steps see (None: see above); the rest are assigned at the end.
        on: "faiss", "scikit-learn" or "torch" (None: the best there is).

    Raises:
        UserError: for more clusters than rows.
    """
    check(x, k)
    random = np.random.default_rng((seed, k))
    chosen = drawn(len(x), x.shape[1], k, sample, random)
    fit = np.ascontiguousarray(x if chosen is None else x[chosen], dtype=np.float32)
    centres = first_centres(fit, k, random)
    on = on or backend()
    if on == "faiss":
        centres = _faiss(fit, centres, iterations)
    elif on == "scikit-learn":
        centres = _sklearn(fit, centres, iterations)
    else:
        centres = lloyd(fit, centres, iterations)
    assigned, distance = nearest(x, centres)
    return Clusters(centres, assigned, float(distance.sum(dtype=np.float64)))


def check(x: np.ndarray, k: int) -> None:
    if x.ndim != 2 or not 1 <= k <= len(x):
        raise UserError(
            f"Features of shape {x.shape} cannot make {k} clusters, which need [N, D] with N >= {max(k, 1)}. "
            "Ask for fewer clusters, or add images."
        )


def drawn(n: int, width: int, k: int, sample: int | None, random: np.random.Generator) -> np.ndarray | None:
    """Which rows the steps see; None = all."""
    if sample is None and n * width <= WHOLE:
        return None
    sample = max(k, PER_CLUSTER * k if sample is None else sample)
    return None if sample >= n else np.sort(random.choice(n, sample, replace=False))


def first_centres(x: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """float32 [K, D]: k-means++ (Arthur and Vassilvitskii 2007) for few clusters, random rows for many."""
    if k > PLUS_PLUS:
        return x[np.sort(random.choice(len(x), k, replace=False))]
    from sklearn.cluster import kmeans_plusplus

    some = x if len(x) <= PER_CLUSTER * k else x[np.sort(random.choice(len(x), PER_CLUSTER * k, replace=False))]
    return kmeans_plusplus(some, k, random_state=int(random.integers(2**31)))[0]


def _faiss(x: np.ndarray, centres: np.ndarray, iterations: int) -> np.ndarray:
    import faiss

    model = faiss.Kmeans(
        x.shape[1],
        len(centres),
        niter=iterations,
        seed=1,
        max_points_per_centroid=len(x),
        min_points_per_centroid=1,
        gpu=False,
    )
    model.train(x, init_centroids=np.ascontiguousarray(centres))
    return model.centroids


def _sklearn(x: np.ndarray, centres: np.ndarray, iterations: int) -> np.ndarray:
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # identical images: fewer distinct points than clusters
        return KMeans(len(centres), init=centres, n_init=1, max_iter=iterations, tol=0).fit(x).cluster_centers_


# ---- our own steps: constraints, and a GPU ---------------------------------------------------------------------------
def lloyd(
    x: np.ndarray, centres: np.ndarray, iterations: int, fixed: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Lloyd's steps from `centres` until nothing changes.

    Args:
        x: features, float32 [N, D].
        centres: to start from, float32 [K, D].
        iterations: steps at most.
        fixed: some rows, int64 [F], and the clusters that each may be in, bool [F, K].

    Returns:
        The centres, float32 [K, D].
    """
    data = torch.as_tensor(np.require(x, np.float32, ["C", "W"]), device=best_device())
    centre = torch.as_tensor(np.array(centres, dtype=np.float32), device=best_device())
    before = None
    for _ in range(iterations):
        assigned, _ = _nearest(data, centre)
        if fixed is not None:
            assigned[torch.as_tensor(fixed[0], device=data.device)] = allowed(data, centre, fixed)
        if before is not None and torch.equal(assigned, before):
            break
        centre, before = means(data, assigned, centre), assigned
    return centre.cpu().numpy()


def allowed(data: Tensor, centre: Tensor, fixed: tuple[np.ndarray, np.ndarray]) -> Tensor:
    """The nearest of the clusters that each fixed row may be in: int64 [rows]."""
    rows, may = (torch.as_tensor(v, device=data.device) for v in fixed)
    distance = torch.cdist(data[rows].double(), centre.double())
    return distance.masked_fill(~may, torch.inf).argmin(1)


def _nearest(data: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each row and the squared distance less |x|^2: [N], [N]."""
    half = -0.5 * (centre * centre).sum(1)  # argmin |m|^2 / 2 - x.m
    index = torch.empty(len(data), dtype=torch.int64, device=data.device)
    best = torch.empty(len(data), device=data.device)
    for start in range(0, len(data), BLOCK):
        score, index[start : start + BLOCK] = torch.addmm(half, data[start : start + BLOCK], centre.T).max(1)
        best[start : start + BLOCK] = -2 * score
    return index, best


def means(data: Tensor, assigned: Tensor, centre: Tensor) -> Tensor:
    """The mean of each cluster; an empty one keeps its centre. The same sums in the same order in every run."""
    k = len(centre)
    counts = torch.bincount(assigned, minlength=k).to(data)
    if data.is_cuda:  # a product with the one-hot matrix: index_add_ adds in any order there
        total = torch.zeros_like(centre)
        for start in range(0, len(data), BLOCK):
            hot = torch.nn.functional.one_hot(assigned[start : start + BLOCK], k).to(data)
            total += hot.T @ data[start : start + BLOCK]
    else:
        from scipy.sparse import csr_matrix

        ones = np.ones(len(data), np.float32)
        matrix = csr_matrix((ones, assigned.numpy(), np.arange(len(data) + 1)), shape=(len(data), k)).T
        total = torch.as_tensor(np.asarray(matrix @ data.numpy()))
    return torch.where(counts[:, None] > 0, total / counts.clamp_min(1)[:, None], centre)


def nearest(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index of the nearest centre int64 [N], squared distance float32 [N]), in pieces of a possibly mapped x."""
    centre = torch.as_tensor(np.ascontiguousarray(centres, dtype=np.float32), device=best_device())
    index, distance = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
    for start in range(0, len(x), BLOCK):
        rows = torch.as_tensor(np.array(x[start : start + BLOCK], dtype=np.float32), device=best_device())
        i, d = _nearest(rows, centre)
        index[start : start + BLOCK] = i.cpu().numpy()
        distance[start : start + BLOCK] = (d + (rows * rows).sum(1)).clamp_min(0).cpu().numpy()
    return index, distance


# ---- with labels -----------------------------------------------------------------------------------------------------
def constrained_kmeans(
    x: np.ndarray,
    k: int,
    labeled: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    iterations: int = 25,
    sample: int | None = None,
) -> tuple[Clusters, np.ndarray]:
    """Constrained seed k-means (Basu et al. 2002, section 3.2): labeled images start the clusters and stay in those of
    their class throughout.

    Every class with labels gets one cluster, then a second, and so on while there are clusters and labeled images left:
    its labeled images, split by k-means, are their first centres. Clusters that are left over start at random images
    and hold no labeled one.

    Args:
        x: features, float32 [N, D], which may be mapped from a file.
        k: clusters.
        labeled: rows that have a label, int64 [L].
        labels: their classes, int64 [L].
        seed: decides the random centres and the sample.
        iterations: steps at most.
        sample: as for `kmeans`.

    Returns:
        The clusters and the class of each, int64 [K], -1 = none.

    Raises:
        UserError: for fewer clusters than classes, or more than images.
    """
    check(x, k)
    random = np.random.default_rng((seed, k))
    classes = np.unique(labels)
    if len(classes) > k:
        raise UserError(
            f"There are labels of {len(classes)} classes for {k} clusters, but each class needs one. "
            "Ask for more clusters."
        )
    owned = clusters_per_class(np.array([(labels == c).sum() for c in classes]), k)
    owner = np.concatenate([np.repeat(classes, owned), np.full(k - owned.sum(), -1)])
    chosen = drawn(len(x), x.shape[1], k, sample, random)
    rows = np.arange(len(x)) if chosen is None else np.union1d(chosen, labeled)
    fit = np.ascontiguousarray(x[rows] if chosen is not None else x, dtype=np.float32)
    seeds = []
    for c, q in zip(classes, owned, strict=True):
        mine = np.asarray(x[labeled[labels == c]], dtype=np.float32)
        seeds.append(kmeans(mine, int(q), seed=seed, on="torch").centres if q > 1 else mine.mean(0, keepdims=True))
    free = np.setdiff1d(np.arange(len(fit)), np.searchsorted(rows, labeled))
    others = k - owned.sum()
    if others > len(free):
        raise UserError(
            f"{len(free)} unlabeled images are too few for {others} clusters without labels. Ask for fewer clusters."
        )
    centres = np.concatenate([*seeds, fit[np.sort(random.choice(free, others, replace=False))]])
    may = owner[None] == labels[:, None]  # [labeled, K]
    centres = lloyd(fit, centres, iterations, (np.searchsorted(rows, labeled), may))
    assigned, distance = nearest(x, centres)
    own = torch.as_tensor(np.array(x[labeled], dtype=np.float32), device=best_device())
    at = (torch.arange(len(labeled)).numpy(), may)
    assigned[labeled] = allowed(own, torch.as_tensor(centres, device=best_device()), at).cpu().numpy()
    return Clusters(centres, assigned, float(distance.sum(dtype=np.float64))), owner


def clusters_per_class(counts: np.ndarray, k: int) -> np.ndarray:
    """How many of k clusters each class owns: one each in turn, never more than it has labeled images."""
    owned = np.zeros(len(counts), np.int64)
    while owned.sum() < k and (owned < counts).any():
        able = np.flatnonzero(owned < counts)
        turn = able[owned[able] == owned[able].min()][: k - owned.sum()]
        owned[turn] += 1
    return owned
