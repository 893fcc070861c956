"""Scores of a run on complete arrays, by the modules of `modules.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .classification import check_class_scores, softmax
from .modules import ClassificationScores, MultiLabelScores


def classification_metrics(
    scores: np.ndarray, targets: np.ndarray, class_names: Sequence[str], *, probabilities: bool = False
) -> dict:
    """Every score of a classifier, as a dict that `json.dumps` takes; what cannot be computed is None.

    Args:
        scores: logits [N, K], or probabilities when `probabilities` is true.
        targets: true classes, int [N] in 0..K-1.
        class_names: the K names.

    Returns:
        What `classification.classification_scores` returns.

    Raises:
        UserError: names what is wrong with scores or targets.
    """
    scores, targets = check_class_scores(scores, targets, len(class_names), probabilities)
    probs = scores if probabilities else softmax(scores)
    return ClassificationScores(class_names).compute(predictions=probs, references=targets)


def multilabel_metrics(probs: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> dict:
    """Every score of a multi-label classifier, as a dict that `json.dumps` takes; what has no value is None.

    Args:
        probs: probabilities, float [N, K].
        targets: which classes each image has, int8 [N, K] of 0 and 1.
        class_names: the K names.

    Returns:
        What `multilabel.multilabel_scores` returns.

    Raises:
        UserError: names what is wrong with probabilities or targets.
    """
    return MultiLabelScores(class_names).compute(predictions=probs, references=targets)
