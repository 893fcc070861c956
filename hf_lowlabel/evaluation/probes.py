"""What frozen features [N, D] know: nearest neighbours, spread, a linear classifier, clusters."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..objective import feature_std  # noqa: F401  one of the probes, shared with the objectives


@torch.no_grad()
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
    """Weighted vote of the k most similar labeled features (Wu et al. 2018, section 3.4).

        w_c = sum_{j in N_k(i)} exp(s_ij / T) 1[y_j = c],   s_ij = cosine similarity,   T = 0.07

    features [N, D] with labels int [N]; images with label -1 take no part. Without a test set every labeled image is
    asked in turn and does not vote for itself. `k` is cut down to the number of images that can vote.
    """
    labels = labels.to(features.device)
    known = labels >= 0
    bank, votes = F.normalize(features[known].float(), dim=1), labels[known]  # [N, D], [N]
    alone = test_features is None
    if alone != (test_labels is None):
        raise ValueError("give test_features and test_labels together, or neither")
    if not alone:
        test_features, test_labels = test_features.to(features.device), test_labels.to(features.device)
        asked = test_labels >= 0
        queries, truth = F.normalize(test_features[asked].float(), dim=1), test_labels[asked]
    else:
        queries, truth = bank, votes
    k = min(k, len(bank) - alone)
    if k < 1 or not len(queries):
        raise UserError(
            f"found {len(bank)} labeled features and {len(queries)} to ask about; expected at least {1 + alone} and 1; "
            "fix: give labels to some images, or leave the nearest-neighbour check out"
        )
    classes, right = int(votes.max()) + 1, torch.zeros((), device=features.device)
    for start in range(0, len(queries), batch):
        s = queries[start : start + batch] @ bank.T  # [b, N]
        if alone:
            rows = torch.arange(len(s), device=s.device)
            s[rows, start + rows] = -torch.inf
        nearest, index = s.topk(k, dim=1)  # [b, k]
        w = torch.exp((nearest - 1) / temperature)  # the constant exp(1/T) changes no vote and could overflow
        scores = w.new_zeros(len(s), classes).scatter_add_(1, votes[index], w)  # [b, K]
        right += (scores.argmax(1) == truth[start : start + batch]).sum()
    return float(right) / len(queries)


def linear_probe(
    features: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    test_features: Tensor | np.ndarray,
    test_labels: Tensor | np.ndarray,
    *,
    l2: float = 1.0,
    max_iter: int = 1000,
) -> float:
    """Test accuracy of multinomial logistic regression on standardised frozen features (scikit-learn, C = 1 / l2)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, tx, ty = (_array(a) for a in (features, labels, test_features, test_labels))
    if len(np.unique(y[y >= 0])) < 2:
        raise UserError(
            f"found labels of {len(np.unique(y[y >= 0]))} class(es); expected at least two; "
            "fix: label an image of another class, or leave the linear probe out"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2, max_iter=max_iter))
    model.fit(x[y >= 0], y[y >= 0])
    return float(model.score(tx[ty >= 0], ty[ty >= 0]))


def clustering_accuracy(clusters: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> float:
    """max_P (1/N) tr(P^T L_c^T L) over permutations P (Xu et al., Eq. 8-9), by the Hungarian algorithm.

    L_c and L are the one-hot clusters and labels. With unequal numbers of clusters and classes the surplus stays
    unmatched and counts as wrong.
    """
    from scipy.optimize import linear_sum_assignment

    clusters, labels = _array(clusters), _array(labels)
    if clusters.shape != labels.shape or not len(labels) or clusters.min() < 0 or labels.min() < 0:
        raise UserError(
            f"found clusters of shape {clusters.shape} and labels of shape {labels.shape}; "
            "expected one cluster and one label, both at least 0, for each of N >= 1 images; "
            "fix: leave unlabeled images out"
        )
    together = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)  # L_c^T L
    np.add.at(together, (clusters, labels), 1)
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / len(labels))


def kmeans_accuracy(features: Tensor | np.ndarray, labels: Tensor | np.ndarray, *, seed: int = 0) -> float:
    """Clustering accuracy of k-means on l2-normalised features with one cluster per class (Xu et al., Table 10)."""
    from sklearn.cluster import KMeans

    x, y = _array(features).astype(np.float64), _array(labels)
    x, y = x[y >= 0], y[y >= 0]
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return clustering_accuracy(KMeans(len(np.unique(y)), n_init=10, random_state=seed).fit_predict(x), y)


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
