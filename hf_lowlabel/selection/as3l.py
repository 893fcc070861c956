"""AS3L's single-shot selection (Wen et al. 2024, section 4.4): label what clusters agree on.

    f_fine = W f_self + b,    Loss = 1/(C N) sum_i sum_j ||f_fine,i - f_center,i,j||^2                         (Eq. 6)

over C runs of k-means on f_self with K = budget. Then C runs on f_fine: the images that all runs put together are the
core of a class, the core's mean is its centre, and the image nearest to it is labeled.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ..distributed import best_device
from .clustering import BLOCK, Clusters, kmeans, means

RUNS = 6  # C, section 5.1.2
EPOCHS = 40  # of the linear layer, section 5.1.2


def as3l(features: np.ndarray, budget: int, seed: int = 0) -> np.ndarray:
    """Indices of the images to label, int64 [budget]: feature finetuning, then multi-clustering."""
    return multi_cluster(finetune_features(features, budget, seed=seed), budget, seed=seed)


def cluster_runs(x: np.ndarray, k: int, runs: int, seed: int) -> list[Clusters]:
    """`runs` runs of k-means that differ in their first centres."""
    return [kmeans(x, k, seed=1009 * seed + run) for run in range(runs)]


def finetune_features(
    x: np.ndarray,
    clusters: int,
    *,
    runs: int = RUNS,
    epochs: int = EPOCHS,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """f_fine float32 [N, D] from f_self [N, D] of unit length: one linear layer trained on Eq. 6 from the identity.

    With t_i the mean of image i's centres, Eq. 6 is the mean of ||A phi_i - t_i||^2 plus a constant, phi = [f_self; 1],
    A = [W b]. So gradient descent needs only S = mean phi phi^T and T = mean t phi^T, and its steps have a closed form
    in S's eigenvectors: all epochs cost 4 N D^2 operations (0.7 CPU-seconds at N = 50,000, D = 512) instead of 4 N D^2
    each. Directions in which the features hardly vary stay as they were.

    Args:
        x: f_self, float32 [N, D] of unit length.
        clusters: K of k-means.
        runs: of k-means, C.
        epochs: of gradient descent, with ceil(N / batch_size) steps each.
        batch_size: see epochs.
        learning_rate: of every step.
        seed: decides the first centres.

    Raises:
        ValueError: for a learning rate that diverges.
    """
    found = cluster_runs(x, clusters, runs, seed)
    s, t = moments(x, found)
    a = descend(s, t, learning_rate, epochs * -(-len(x) // batch_size)).astype(np.float32)  # [D, D + 1]
    out = np.empty((len(x), x.shape[1]), np.float32)
    for start in range(0, len(x), BLOCK):
        out[start : start + BLOCK] = np.asarray(x[start : start + BLOCK], np.float32) @ a[:, :-1].T + a[:, -1]
    return out


def moments(x: np.ndarray, found: list[Clusters]) -> tuple[np.ndarray, np.ndarray]:
    """(S [D+1, D+1], T [D, D+1]) in float64: means of phi phi^T and of t phi^T."""
    n, d = x.shape
    s, t = np.zeros((d + 1, d + 1)), np.zeros((d, d + 1))
    for start in range(0, n, BLOCK):
        f = np.asarray(x[start : start + BLOCK], np.float32)
        phi = np.concatenate([f, np.ones((len(f), 1), np.float32)], 1)
        target = sum(run.centres[run.assigned[start : start + BLOCK]] for run in found) / len(found)
        s += phi.T @ phi
        t += target.T @ phi
    return s / n, t / n


def descend(s: np.ndarray, t: np.ndarray, learning_rate: float, steps: int) -> np.ndarray:
    """A after `steps` steps A <- A - 2 learning_rate (A S - T) from [I 0], in the eigenvectors of S = Q diag(e) Q^T:

    A Q = [I 0] Q r^steps + T Q (1 - r^steps) / e,    r = 1 - 2 learning_rate e
    """
    e, q = np.linalg.eigh(s)
    e = np.maximum(e, 1e-12)
    if 2 * learning_rate * e[-1] >= 1:
        raise ValueError(
            f"A learning rate of {learning_rate} diverges on features whose largest second moment is {e[-1]:.3g}."
        )
    grown = -np.expm1(steps * np.log1p(-2 * learning_rate * e))  # 1 - r^steps
    start = np.eye(*t.shape) @ q
    return (start * (1 - grown) + t @ q * (grown / e)) @ q.T


def multi_cluster(x: np.ndarray, budget: int, *, runs: int = RUNS, seed: int = 0) -> np.ndarray:
    """Images nearest to the centres of what `runs` runs of k-means put together: int64 [budget], each once.

    Clusters have no names, so each run's are matched to those of the tightest run by the overlap of their members
    (Hungarian algorithm). Where no image of a class is agreed on by all runs, the most agreed ones are its core.
    """
    found = cluster_runs(x, budget, runs, 500 + seed)
    first = min(range(runs), key=lambda j: found[j].inertia)
    label = found[first].assigned
    agree = np.ones(len(x), np.int64)
    for j, run in enumerate(found):
        if j != first:
            agree += matched(run.assigned, label, budget) == label
    most = np.zeros(budget, np.int64)
    np.maximum.at(most, label, agree)
    core = agree == most[label]
    rows = np.ascontiguousarray(x[core], dtype=np.float32)
    centres = (
        means(
            torch.as_tensor(rows).to(best_device()),
            torch.as_tensor(label[core]).to(best_device()),
            torch.as_tensor(found[first].centres).to(best_device()),
        )
        .cpu()
        .numpy()
    )
    return nearest_images(x, centres)


def matched(clusters: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """The clusters under the names of the reference's, matched one to one for the largest overlap."""
    overlap = np.bincount(clusters * k + reference, minlength=k * k).reshape(k, k)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    name = np.empty(k, np.int64)
    name[rows] = columns
    return name[clusters]


def nearest_images(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The real image nearest to each centre, int64 [K]; no image twice: the nearer centre has it, the other goes on."""
    out, taken = np.full(len(centres), -1), np.zeros(len(x), bool)
    todo = np.arange(len(centres))
    while len(todo):
        c = torch.as_tensor(np.ascontiguousarray(centres[todo], dtype=np.float32), device=best_device())
        best, at = (
            torch.full((len(todo),), torch.inf, device=c.device),
            torch.zeros(len(todo), dtype=torch.int64, device=c.device),
        )
        for start in range(0, len(x), BLOCK):
            rows = torch.as_tensor(np.array(x[start : start + BLOCK], dtype=np.float32), device=c.device)
            d = torch.addmm((rows * rows).sum(1), c, rows.T, alpha=-2)  # [todo, b], less |c|^2
            d[:, torch.as_tensor(taken[start : start + BLOCK], device=c.device)] = torch.inf
            value, index = d.min(1)
            at = torch.where(value < best, index + start, at)
            best = torch.minimum(best, value)
        distance = (best + (c * c).sum(1)).cpu().numpy()
        for row in np.argsort(distance, kind="stable"):
            image = int(at[row])
            if not taken[image]:
                taken[image], out[todo[row]] = True, image
        todo = todo[out[todo] < 0]
    return out
