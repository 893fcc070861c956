"""Tests whether labeled images represent the unlabeled ones, as cross-validation assumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ..finetuning.graph import rooted

FEWEST = 5  # images with a label, below which nothing is said
MOST, LABELED = 200, 500  # images without one, and with one, that are looked at
UNLIKE = 3.0  # standard errors of the rank sum; distances from few images are not independent, so that it is above 2


@dataclass(frozen=True)
class Likeness:
    """z: of the rank sum, above 0 where images without a label are farther from the labeled ones than these from each
    other. times: how many times as far, by the medians."""

    z: float
    times: float

    @property
    def sentence(self) -> str | None:
        if self.z < UNLIKE:
            return None
        return (
            "The labeled images are not representative: unlabeled ones are typically "
            f"{self.times:.1f} times as far from the nearest labeled image as labeled ones from each other. The "
            "score on them may be lower than this estimate. Label more of them."
        )


def some_without(count: int, labeled: np.ndarray) -> np.ndarray:
    """Evenly spread positions of images without a label, at most `MOST` of them."""
    return spread(np.setdiff1d(np.arange(count), labeled), MOST)


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)] if len(rows) else rows


def likeness(labeled: np.ndarray, others: np.ndarray, seed: int = 0) -> Likeness | None:
    """A rank-sum test (Mann and Whitney 1947) of distances to the nearest labeled image.

    A labeled image is compared with all labeled ones but itself, another one with all but one, drawn at random, so that
    where labels were drawn at random both are alike.

    Args:
        labeled: features [n, D] of images with a label; of more than `LABELED` some.
        others: features [m, D] of images without.
        seed: of the draw.

    Returns:
        None for fewer than `FEWEST` labeled images, or no other.
    """
    labeled = labeled[spread(np.arange(len(labeled)), LABELED)]
    n, m = len(labeled), len(others)
    if n < FEWEST or not m:
        return None
    x = rooted(np.concatenate([labeled, others])).astype(np.float64)
    far = np.maximum(2 - 2 * x @ x[:n].T, 0) ** 0.5  # [n + m, n], of rows of length 1
    far[np.arange(n + m), np.concatenate([np.arange(n), np.random.default_rng(seed).integers(n, size=m)])] = np.inf
    nearest = far.min(1)
    u = rankdata(nearest)[n:].sum() - m * (m + 1) / 2
    z = (u / (n * m) - 0.5) / ((n + m + 1) / (12 * n * m)) ** 0.5
    return Likeness(float(z), float(np.median(nearest[n:]) / max(np.median(nearest[:n]), 1e-6)))
