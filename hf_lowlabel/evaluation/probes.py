"""What frozen features [N, D] know: nearest neighbours, spread, a linear classifier."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..errors import UserError
from ..objective import feature_std  # noqa: F401  one of the probes, shared with the objectives
from .neighbors import neighbor_votes


def knn_accuracy(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor | None = None,
    test_labels: Tensor | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
    batch: int = 1024,
) -> float:
    """Share of images whose class wins the vote of their nearest labeled features (`neighbors.neighbor_votes`).

    Args:
        features: float [N, D].
        labels: int [N]; images with label -1 take no part.
        test_features: float [M, D]. None: every labeled image is asked in turn and does not vote for itself.
        test_labels: int [M]; images with label -1 take no part.
        k: neighbours that vote, at most all that can.
        temperature: T of the weights exp(s / T).
        batch: images asked at a time.

    Raises:
        UserError: where nothing can vote or be asked.
    """
    if (test_features is None) != (test_labels is None):
        raise ValueError("Give test_features and test_labels together, or neither.")
    labels = labels.to(features.device)
    bank, votes = features[labels >= 0], labels[labels >= 0]
    queries, truth, others = None, votes, len(votes) - 1
    if test_features is not None:
        truth, others = test_labels.to(features.device), len(votes)
        queries, truth = test_features.to(features.device)[truth >= 0], truth[truth >= 0]
    if others < 1 or not len(truth):
        raise UserError(
            f"There are {len(votes)} labeled features and {len(truth)} to ask about, too few for the nearest-neighbour "
            "check. Give labels to some images, or leave the check out."
        )
    found = neighbor_votes(bank, votes, queries, k=k, temperature=temperature, batch=batch).argmax(1)
    return float((found == truth).sum()) / len(truth)


def linear_probe(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    test_features: Tensor | np.ndarray,
    test_labels: Tensor | np.ndarray,
    *,
    l2: float = 1.0,
    max_iter: int = 1000,
) -> float:
    """Test accuracy of multinomial logistic regression on standardised frozen features (scikit-learn, C = 1 / l2).

    Args:
        features: float [N, D].
        labels: int [N]; images with label -1 take no part.
        test_features: float [M, D].
        test_labels: int [M]; images with label -1 take no part.
        l2: weight of the penalty.
        max_iter: steps of the solver at most.

    Raises:
        UserError: for labels of fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, tx, ty = (_array(a) for a in (features, labels, test_features, test_labels))
    known = len(np.unique(y[y >= 0]))
    if known < 2:
        raise UserError(
            f"A linear probe needs labels of at least two classes, but there are labels of {known}. "
            "Label an image of another class, or leave the probe out."
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2, max_iter=max_iter))
    model.fit(x[y >= 0], y[y >= 0])
    return float(model.score(tx[ty >= 0], ty[ty >= 0]))


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
