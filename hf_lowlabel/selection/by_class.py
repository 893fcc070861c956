"""A budget shared out over the classes that images most probably are of, and spent within each: a cold start by words,
then by features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..finetuning.uninformative import informative


def shared_out(budget: int, sizes: np.ndarray) -> np.ndarray:
    """Images of each class, int64 [K]: as equal as the sizes [K] allow, what is left over to the larger classes."""
    out, order = np.zeros(len(sizes), np.int64), np.argsort(-sizes, kind="stable")
    while (left := budget - int(out.sum())) > 0:
        room = order[out[order] < sizes[order]]
        if not len(room):
            break
        if left < len(room):
            out[room[:left]] += 1
        else:
            out[room] += np.minimum(left // len(room), (sizes - out)[room])
    return out


def within_classes(
    priors: np.ndarray, rows: np.ndarray, budget: int, pick: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Which of some images to label, int64 [budget]: of each class those that `pick` takes among its own, and where the
    classes have too few, images of which the priors say nothing.

    Args:
        priors: [N, K] of all images.
        rows: those to choose from, int64 [n].
        budget: at most n.
        pick: rows of a class, and how many -> which of them.
    """
    count = priors.shape[1]
    likely = np.where(informative(priors[rows]), priors[rows].argmax(1), count)
    sizes = np.bincount(likely, minlength=count + 1)
    shares = shared_out(min(budget, int(sizes[:count].sum())), sizes[:count])
    shares = np.append(shares, budget - shares.sum())
    of = (np.flatnonzero(likely == k) for k in range(len(shares)))
    return np.concatenate([own[pick(rows[own], int(n))] for own, n in zip(of, shares, strict=True) if n])
