"""Formulas of multi-label classification, where an image has any number of K classes.

Letters: N images, p [N, K] probabilities, y [N, K] of 0 and 1, and yhat = 1[p > threshold].

    AP_k = sum_n (R_n - R_(n-1)) P_n over the thresholds n of class k,   mAP = mean of AP_k
    F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k),   macro: mean of F1_k,   micro: F1 of the counts of all classes together

A class without a positive image has no AP and no F1, and is left out of both means; its false positives still count in
the micro F1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ..errors import UserError

DRAWS, FEWEST_DRAWS, WORK = 100, 20, 8_000_000  # of the images, for an error; probabilities looked at in all of them
CHANCE, HARDLY = 1.28, 0.05  # standard errors, and area under the ROC curve, over 1/2 that say little
THRESHOLD = 0.5  # above which a class counts as predicted


def multilabel_scores(
    probs: np.ndarray, targets: np.ndarray, class_names: Sequence[str], threshold: float = THRESHOLD
) -> dict:
    """Every score of a multi-label classifier, as a dict that `json.dumps` takes; what has no value is None.

    Args:
        probs: probabilities, float64 [N, K].
        targets: which classes each image has, int8 [N, K] of 0 and 1.
        class_names: the K names.
        threshold: a class counts as predicted where its probability is larger.

    Returns:
        "map", "f1_macro", "f1_micro" and "exact_match" (share of images all of whose classes are right), and by class
        "per_class" (AP), "per_class_f1", "per_class_images" (number of positive images) and "per_class_named" (on how
        many it is predicted); "threshold"; "near_chance" and "too_few", the names of `near_chance`; "map_error", the
        standard error of mAP over images, by drawing them again (bootstrap), None for fewer than 4.
    """
    predicted = (probs > threshold).astype(np.int8)
    positives, called = targets.sum(0, dtype=np.int64), predicted.sum(0, dtype=np.int64)  # [K]
    hits = (targets & predicted).sum(0, dtype=np.int64)
    some = np.flatnonzero(positives)
    near, few = ([class_names[k] for k in np.flatnonzero(some)] for some in near_chance(probs, targets))
    ap = np.atleast_1d(average_precision_score(targets[:, some], probs[:, some], average=None))
    f1 = 2 * hits[some] / (positives + called)[some]
    return {
        "images": len(targets),
        "map": float(ap.mean()),
        "map_error": map_error(probs, targets),
        "f1_macro": float(f1.mean()),
        "f1_micro": float(2 * hits.sum() / (positives + called).sum()),
        "exact_match": float((predicted == targets).all(1).mean()),
        "class_names": list(class_names),
        "per_class": _of_all(ap, some, len(class_names)),
        "per_class_f1": _of_all(f1, some, len(class_names)),
        "per_class_images": positives.tolist(),
        "per_class_named": called.tolist(),
        "threshold": threshold,
        "near_chance": near,
        "too_few": few,
    }


def near_chance(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Classes that are hardly told apart, and others of which too few images say whether they are, bool [2, K].

    The area under the ROC curve is within `HARDLY` of 1/2, or only within `CHANCE` times its error where ranks are
    random, sqrt((n+ + n- + 1) / (12 n+ n-)) with n+ images that have the class and n- others."""
    n, shown = len(targets), targets.sum(0)
    near = np.zeros((2, targets.shape[1]), bool)
    for k in np.flatnonzero((shown > 0) & (shown < n)):
        error = ((n + 1) / (12 * shown[k] * (n - shown[k]))) ** 0.5
        over = roc_auc_score(targets[:, k], probs[:, k]) - 0.5
        near[:, k] = over <= HARDLY, HARDLY < over < CHANCE * error
    return near


def lone(targets: np.ndarray) -> np.ndarray:
    """Classes, bool [K], that a single image has, or all but one at most: without it there is nothing to learn from."""
    shown = targets.sum(0)
    return (shown > 0) & (np.minimum(shown, len(targets) - shown) < 2)


def map_error(probs: np.ndarray, targets: np.ndarray) -> float | None:
    """See `multilabel_scores`. Each class is sorted once: a draw is how often each image counts."""
    n, random = len(targets), np.random.default_rng(0)
    if n < 4:
        return None
    ranked, found = Ranked(probs, targets), []
    for _ in range(max(FEWEST_DRAWS, min(DRAWS, WORK // targets.size))):
        ap = ranked.precisions(np.bincount(random.integers(0, n, n), minlength=n))
        found += [float(ap.mean())] if len(ap) else []
    return float(np.std(found)) if found else None


def mean_average_precision(probs: np.ndarray, targets: np.ndarray) -> float:
    """mAP alone, of probs [N, K] and targets [N, K] of 0 and 1. Raises UserError where no image has a class."""
    ap = Ranked(probs, targets).precisions(np.ones(len(targets), int))
    if not len(ap):
        raise UserError(f"None of the {len(targets)} images has any of the {targets.shape[1]} classes.")
    return float(ap.mean())


class Ranked:
    """Images by the probability of each class, the surest first."""

    def __init__(self, probs: np.ndarray, targets: np.ndarray):
        self.order = np.argsort(-probs, axis=0, kind="stable")  # [N, K]
        sure = np.take_along_axis(probs, self.order, 0)
        self.true = np.take_along_axis(targets, self.order, 0).astype(bool)
        # a threshold is below equal ones
        self.last = np.vstack([sure[1:] != sure[:-1], np.ones((1, sure.shape[1]), bool)])

    def precisions(self, weight: np.ndarray) -> np.ndarray:
        """AP of the classes that any image has, where each image counts weight [N] times."""
        weight = weight[self.order]
        hits, called = np.cumsum(weight * self.true, 0), np.cumsum(weight, 0)
        positives, none = hits[-1], np.zeros((1, hits.shape[1]), int)
        upto = np.vstack([none, np.maximum.accumulate(np.where(self.last, hits, 0), 0)[:-1]])
        gained = np.where(self.last, hits - upto, 0)
        ap = (gained * hits / np.maximum(called, 1)).sum(0)
        return ap[positives > 0] / positives[positives > 0]


def check_label_scores(probs: np.ndarray, targets: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 [N, K] and targets as int8 [N, K].

    Args:
        probs: probabilities [N, K].
        targets: 0 or 1 for each image and class, [N, K].
        num_classes: K.

    Raises:
        UserError: says what is wrong with them.
    """
    probs, targets = np.asarray(probs, np.float64), np.asarray(targets)
    if probs.ndim != 2 or probs.shape != targets.shape or probs.shape[1] != num_classes or not len(probs):
        raise UserError(
            f"The probabilities have the shape {probs.shape} and the targets {targets.shape}. For {num_classes} class "
            f"names give [N, {num_classes}] for both, with N >= 1."
        )
    if not np.isin(targets, (0, 1)).all():
        raise UserError(
            f"The targets range from {targets.min()} to {targets.max()}, but each has to be 0 or 1. Leave images whose "
            "classes are not known out of the test set."
        )
    if not np.isfinite(probs).all() or probs.min() < 0 or probs.max() > 1:
        raise UserError(
            f"The probabilities range from {probs.min():.4g} to {probs.max():.4g}, but they have to lie between 0 and "
            "1. Take the sigmoid of logits first, and check that training did not diverge."
        )
    if not targets.any():
        raise UserError(f"None of the {len(targets)} images has any of the {num_classes} classes. Add some that do.")
    return probs, targets.astype(np.int8)


def _of_all(values: np.ndarray, some: np.ndarray, num_classes: int) -> list[float | None]:
    """The values of the classes `some`, None for the others."""
    known = dict(zip(some.tolist(), values.tolist(), strict=True))
    return [known.get(k) for k in range(num_classes)]
