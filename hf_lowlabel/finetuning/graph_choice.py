"""Which graph labels spread over, and how far: what makes labels that are left out likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import MOST_REACHED, Graph
from .linear import first_of_each, group_of
from .pooling import of_each_class, pooled_rows

GRAPHS, ALPHAS = (10, 20, 50), (0.8, 0.9, 0.99)  # neighbours and shares that label spreading chooses from
MOST_TRIED, MOST_JUDGED = 2_000_000, 500  # labels times images of each try, and labels where there are more


def likeliest(
    x: np.ndarray, labels: np.ndarray, ways: Sequence[tuple[int, float]], num_classes: int, copies: np.ndarray | None
) -> tuple[int, float]:
    """The (neighbours, alpha) of `ways` under which labels that are left out in turn are likeliest, those of a group
    together.

    Where labels times images are more than `MOST_TRIED`, which is what a trial costs, a part of both is tried: of the
    labels `MOST_JUDGED` with two of each class, of the images as many as are left to that.
    """
    rows = np.flatnonzero(labels >= 0)
    few = len(rows) * len(x) <= MOST_TRIED
    rows = of_each_class(rows, labels[rows], min(MOST_REACHED, len(rows) if few else max(MOST_JUDGED, 2 * num_classes)))
    judged = np.full(len(labels), -1)
    judged[rows] = labels[rows]
    some = pooled_rows(judged, None if few else max(MOST_TRIED // len(rows), 2 * len(rows)))
    x, judged, copies = x[some], judged[some], None if copies is None else copies[some]
    rows = np.flatnonzero(judged >= 0)
    shows = rows if copies is None else copies[rows]  # what they share with each other
    best, graphs = (-np.inf, *ways[0]), {k: Graph(x, min(k, len(x) - 1)) for k in dict(ways)}
    for k, a in ways:
        reach = graphs[k].reach(rows, a)
        assert isinstance(reach, np.ndarray)
        likelihood = left_out_likelihood(reach[rows], judged[rows], num_classes, shows)
        if likelihood > best[0] + 1e-9:
            best = likelihood, k, a
    return best[1:]


def left_out_likelihood(reach: np.ndarray, y: np.ndarray, num_classes: int, shows: np.ndarray) -> float:
    """Mean log probability of labels when each group is left out in turn; 0 where no class has two.

    reach: of the labeled images to each other, [L, L]. y: their classes, int [L]. shows: what they share (`group_of`).
    """
    group, _ = group_of(shows)
    own, others = np.eye(num_classes)[y], (group[:, None] != group).astype(float)
    counts = others @ own  # [L, K]
    sums = (reach * others) @ own / np.maximum(counts, 1)  # a class counts by its other labels
    p = sums / np.maximum(sums.sum(1, keepdims=True), 1e-300)
    asked = np.flatnonzero((counts[np.arange(len(y)), y] > 0) & first_of_each(len(y), shows))
    return float(np.log(np.maximum(p[asked, y[asked]], 1e-9)).mean()) if len(asked) else 0.0
