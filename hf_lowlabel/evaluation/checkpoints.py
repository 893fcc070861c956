"""Which checkpoint to keep when there is no validation set, from predictions on unlabeled images alone."""

from __future__ import annotations

import numpy as np

TAU = 0.95  # confidence from which a prediction counts as a pseudo-label
SEL_MEANS = (
    f"sel, from 0 to 1: the share of the unlabeled images that get a class with more than {100 * TAU:.0f} % "
    "confidence, times how evenly these fall on the classes; it needs no labels, and cannot see a wrong but even "
    "labeling"
)
LAST = 20  # evaluations in the median that semi-supervised papers report


def sel(probabilities: np.ndarray, tau: float = TAU) -> float:
    """How far, and how evenly, labels have propagated to the unlabeled images: in [0, 1], higher is better.

        Sel = n / N * H(q) / log K,    q_k = share of class k among the n images with max p > tau

    with H the entropy. Kim and Lee (CVPR 2022) choose checkpoints by their propagation regularizer, which asks both of
    a model: many confident pseudo-labels, spread evenly over the classes. This is the product of the two; it assumes
    classes of similar size, and it cannot see a wrong but even labeling.
    """
    n, k = probabilities.shape
    confident = probabilities.max(1) > tau
    if not confident.any() or k < 2:
        return float(confident.mean()) if k < 2 else 0.0
    q = np.bincount(probabilities[confident].argmax(1), minlength=k) / confident.sum()
    entropy = -(q[q > 0] * np.log(q[q > 0])).sum()
    return float(confident.mean() * entropy / np.log(k))


def median_of_last(history: list[dict], name: str = "test_accuracy", last: int = LAST) -> float | None:
    """Median of the last evaluations of a run, as papers without a validation set report; None if there are fewer."""
    values = [row[name] for row in history if name in row and row.get("step") != 0][-last:]
    return float(np.median(values)) if len(values) == last else None
