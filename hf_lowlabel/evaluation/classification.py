"""Formulas of classification in plain numpy; one function each, every sum in float64.

Letters: N images, K classes, p [N, K] probabilities, y [N] true classes, yhat_i = argmax_k p_ik, c_i = max_k p_ik.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import UserError

BINS = 15  # of the reliability diagram (Guo et al. 2017, section 5, M = 15)
Z80 = 1.2816  # standard deviations on either side of an 80 % interval
LARGEST_CONFUSION = 256  # classes; above, the matrix is left out of the JSON and only its largest errors are kept


def softmax(logits: np.ndarray) -> np.ndarray:
    """p_ik = exp(z_ik - max_j z_ij) / sum_j exp(z_ij - max_j z_ij)"""
    z = np.asarray(logits, np.float64)
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """(1/N) sum_i 1[yhat_i = y_i]; `scores` [N, K] may be logits or probabilities."""
    return float((np.asarray(scores).argmax(1) == np.asarray(targets)).mean())


def top_k_accuracy(scores: np.ndarray, targets: np.ndarray, k: int = 5) -> float:
    """(1/N) sum_i 1[y_i is among the min(k, K) classes of largest score]; ties go to the lower class."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    k = min(k, scores.shape[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # [N, k]
    return float((best == targets[:, None]).any(1).mean())


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """M_ab = number of images of class a that were called b; int64 [K, K], rows are the truth."""
    flat = np.asarray(targets, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """a_k = M_kk / sum_b M_kb, the recall of class k; NaN for a class without images. float64 [K]"""
    images = confusion.sum(1)
    return np.divide(np.diag(confusion), images, out=np.full(len(images), np.nan), where=images > 0)


def calibration_bins(probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> dict[str, np.ndarray]:
    """Bins B_m = {i : (m-1)/M < c_i <= m/M} with |B_m|, mean confidence and accuracy of each (NaN where empty)."""
    probs, targets = np.asarray(probs, np.float64), np.asarray(targets)
    confidence, right = probs.max(1), (probs.argmax(1) == targets).astype(np.float64)  # [N]
    edges = np.arange(1, bins + 1) / bins
    where = np.minimum(np.searchsorted(edges, confidence, side="left"), bins - 1)  # rounding may give c a hair above 1
    images = np.bincount(where, minlength=bins)

    def mean(x: np.ndarray) -> np.ndarray:
        total = np.bincount(where, weights=x, minlength=bins)
        return np.divide(total, images, out=np.full(bins, np.nan), where=images > 0)

    return {"images": images, "confidence": mean(confidence), "accuracy": mean(right)}


def wilson(share: np.ndarray, images: np.ndarray, z: float = Z80) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the 80 % interval of a share seen among so many images (Wilson 1927), which never leaves 0..1.

    Args:
        share: in 0..1, [M]. images: int [M], above 0. z: standard deviations on either side.
    """
    n = np.asarray(images, float)
    middle, square = (share + z * z / (2 * n)) / (1 + z * z / n), share * (1 - share) / n + z * z / (4 * n * n)
    half = z * np.sqrt(square) / (1 + z * z / n)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def expected_calibration_error(probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """ECE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|  (Guo et al. 2017, Eq. 3; M = 15 bins of equal width)"""
    b = calibration_bins(probs, targets, bins)
    full = b["images"] > 0
    return float((b["images"] * np.abs(b["accuracy"] - b["confidence"]))[full].sum() / b["images"].sum())


def negative_log_likelihood(probs: np.ndarray, targets: np.ndarray) -> float:
    """-(1/N) sum_i log p_i,y_i in nats; a probability of 0 counts as the smallest normal float64 (708.4 nats)."""
    chosen = np.take_along_axis(np.asarray(probs, np.float64), np.asarray(targets)[:, None], 1)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def most_confused(confusion: np.ndarray, class_names: Sequence[str], count: int = 10) -> list[dict]:
    """The largest off-diagonal entries, as [{"true", "predicted", "images"}], largest first."""
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    pairs = [divmod(int(i), len(errors)) for i in order]
    return [
        {"true": class_names[a], "predicted": class_names[b], "images": int(errors[a, b])}
        for a, b in pairs
        if errors[a, b]
    ]


def classification_scores(probs: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> dict:
    """Every score of a classifier, as a dict that `json.dumps` takes; what cannot be computed is None.

    Args:
        probs: class probabilities, float64 [N, K].
        targets: true classes, int64 [N] in 0..K-1.
        class_names: the K names.

    Returns:
        The scores by name. `accuracy_error` is the standard error of the accuracy for N independent images,
        sqrt(a (1 - a) / N); `per_class` is the recall of each class.
    """
    k, n = len(class_names), len(targets)
    confusion = confusion_matrix(probs.argmax(1), targets, k)
    recall, bins, right = per_class_accuracy(confusion), calibration_bins(probs, targets), accuracy(probs, targets)
    return {
        "images": n,
        "accuracy": right,
        "accuracy_error": math.sqrt(right * (1 - right) / n),
        "top5_accuracy": top_k_accuracy(probs, targets, 5),
        "balanced_accuracy": float(np.nanmean(recall)),
        "nll": negative_log_likelihood(probs, targets),
        "ece": expected_calibration_error(probs, targets),
        "confidence": float(probs.max(1).mean()),
        "class_names": list(class_names),
        "per_class": [number(a) for a in recall],
        "per_class_images": confusion.sum(1).tolist(),
        "most_confused": most_confused(confusion, class_names),
        "confusion": confusion.tolist() if k <= LARGEST_CONFUSION else None,
        "reliability": {name: [number(x) for x in column] for name, column in bins.items()},
    }


def check_class_scores(scores: np.ndarray, targets: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 [N, K] and targets as int64 [N].

    Args:
        scores: probabilities [N, K].
        targets: class indices [N].
        num_classes: K.

    Raises:
        UserError: says what is wrong with them.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or scores.shape[1] != num_classes or not len(scores):
        raise UserError(
            f"The scores have the shape {scores.shape} and the targets {targets.shape}. For {num_classes} class names "
            f"give scores [N, {num_classes}] and targets [N] with N >= 1: one row of scores for each labeled image."
        )
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= num_classes:
        raise UserError(
            f"The targets are of type {targets.dtype}, from {targets.min()} to {targets.max()}, but {num_classes} "
            f"class names need integers from 0 to {num_classes - 1}. Leave unlabeled images (-1) out of the test set, "
            "and check the class names."
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(1).sum())
        raise UserError(
            f"There are NaN or infinite scores for {bad} of {len(scores)} images. Evaluate in float32, and check that "
            "training did not diverge."
        )
    if scores.min() < -1e-6 or np.abs(scores.sum(1) - 1).max() > 1e-3:
        raise UserError(
            f"The rows sum to {scores.sum(1).min():.4g} .. {scores.sum(1).max():.4g}, but probabilities sum to 1. "
            "Take the softmax of logits first."
        )
    return scores, targets.astype(np.int64)


def number(x: float) -> float | int | None:
    """A JSON number; NaN, which JSON lacks, is None."""
    return None if isinstance(x, float) and math.isnan(x) else x.item() if isinstance(x, np.generic) else x
