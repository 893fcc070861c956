"""How sure a head is: the temperature that its logits are divided by."""

from __future__ import annotations

import numpy as np

from .linear import softmax

LEAST_SQUARES_T = 0.8  # times 1 / (1 + log K): of least squares on K classes, on several sets of photos
KNOWN_T = 0.35  # width of what is known beforehand of log T, for a head whose usual T is known


def temperature(
    logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, *, usual: float = 1.0, width: float = 1.0
) -> float:
    """T for which softmax(logits / T) makes the labels y likeliest (Guo et al. 2017).

    Args:
        logits: float [n, K] of images whose labels had no part in them.
        y: int [n].
        weights: how much each label counts, float [n], 1 on average; None: all the same.
        usual: T of such a head on other images. width: standard deviation of log T around it.

    Returns:
        T > 0. A few labels do not move it far: log T has a normal prior, of width 1 worth one label.
    """
    grid = np.exp(np.linspace(-4, 4, 81))
    rows = np.arange(len(y))
    scores = []
    for t in grid:
        p = softmax(logits / t)[rows, y]
        likelihood = np.log(np.maximum(p, 1e-12))
        known = 0.5 * (np.log(t / usual) / width) ** 2
        scores.append((likelihood if weights is None else weights * likelihood).sum() - known)
    return float(grid[int(np.argmax(scores))])


def usual_t(classes: int) -> float:
    """T of a least-squares layer on so many classes, whose answers are about probabilities."""
    return LEAST_SQUARES_T / (1 + float(np.log(classes)))


def as_sure_as(logits: np.ndarray, beliefs: np.ndarray) -> float:
    """T for which softmax(logits / T) is nearest to calibrated beliefs about the same images, in cross-entropy: where
    there is no label, confidences are those of the beliefs.

    Args:
        logits: float [n, K]. beliefs: [n, K]; rows sum to 1.
    """
    grid = np.exp(np.linspace(-7, 4, 111))
    scores = [float((beliefs * np.log(np.maximum(softmax(logits / t), 1e-12))).sum()) for t in grid]
    return float(grid[int(np.argmax(scores))])
