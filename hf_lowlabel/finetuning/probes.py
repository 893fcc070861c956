"""Baselines on frozen features: nearest neighbours, logistic regression, label spreading. No network is trained.

features [N, D] of the labeled and unlabeled images with labels int [N], -1 for unlabeled; query [Q, D]; every function
returns class probabilities float32 [Q, num_classes], 0 for a class without a label. They answer in seconds, and with
strong pretrained features they are hard to beat. The classes are what `hf-lowlabel finetune --method` runs of them.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.neighbors import neighbor_votes
from ..methods import Method


def knn(
    features: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """p_c propto sum of exp(s_j / T) over the k most similar labeled images j of class c (Wu et al. 2018, section 3.4).

    s_j: cosine similarity. k: neighbours that vote, at most the number of labels. temperature: T.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(a)) for a in _labeled(features, labels))
    asked = torch.from_numpy(np.ascontiguousarray(query))
    return neighbor_votes(x, y, asked, num_classes=num_classes, k=k, temperature=temperature).numpy()


def probe_head(
    features: np.ndarray, labels: np.ndarray, *, num_classes: int, l2: float = 1.0, max_iter: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """(weight [num_classes, D], bias [num_classes]) of a linear layer on raw features, by logistic regression.

        min sum_labeled CE(y, V x' + c) + l2 / 2 |V|^2,   x' = (x - mean) / std over ALL images;   weight = V / std

    l2: weight of the penalty. A class without a label gets weight 0 and a bias that loses to all others.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = _labeled(features, labels)
    mean, std = np.mean(features, 0, dtype=np.float64), np.std(features, 0, dtype=np.float64)
    std = np.where(std > 1e-6 * max(std.max(), 1e-30), std, np.inf)  # what never changes says nothing
    known = np.unique(y)
    if len(known) < 2:
        raise UserError(
            "All labels are of one class. Label an image of another class: a probe tells at least two apart."
        )
    fit = LogisticRegression(C=1 / l2, max_iter=max_iter).fit((x - mean) / std, y)
    V, c = fit.coef_, fit.intercept_
    if len(known) == 2:  # scikit-learn keeps the difference of the two alone
        V, c = np.concatenate([np.zeros_like(V), V]), np.concatenate([np.zeros_like(c), c])
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -1e4)
    weight[known] = V / std
    bias[known] = c - weight[known] @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def label_spreading(
    features: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    *,
    num_classes: int,
    neighbours: int = 10,
    alpha: float = 0.8,
    max_iter: int = 100,
) -> np.ndarray:
    """F <- alpha S F + (1 - alpha) Y over the neighbour graph of all images (Zhou et al. 2004); queries ask neighbours.

    neighbours: of each image in the graph, by cosine. alpha: share that comes from the neighbours at every round.
    """
    from sklearn.semi_supervised import LabelSpreading

    _labeled(features, labels)
    neighbours = min(neighbours, len(features) - 1)
    model = LabelSpreading(kernel="knn", n_neighbors=neighbours, alpha=alpha, max_iter=max_iter)
    model.fit(_unit(features), labels)
    out = np.zeros((len(query), num_classes), np.float32)
    out[:, model.classes_] = np.nan_to_num(model.predict_proba(_unit(query)))
    lost = out.sum(1) == 0  # a query whose neighbours no label has reached: every class alike
    out[np.ix_(lost, model.classes_)] = 1 / len(model.classes_)
    return out


class FrozenMethod(Method):
    """A method that reads the features of a network as it is: `fit_predict` is all it does."""

    verb, frozen = "finetune", True
    needs = "features of all images, no training"

    def fit_predict(
        self, features: np.ndarray, labels: np.ndarray, query: np.ndarray, *, num_classes: int
    ) -> np.ndarray:
        """Class probabilities of the query images.

        Args:
            features: [N, D] of the labeled and unlabeled images.
            labels: int [N], -1 where there is none.
            query: [Q, D], features of the images to predict.
            num_classes: K.

        Returns:
            float32 [Q, K], 0 for a class without a label.

        Raises:
            UserError: no label, or too few to fit.
        """
        raise TypeError(f"{type(self).__name__} must define fit_predict(features, labels, query, num_classes)")


class KNN(FrozenMethod):
    """`knn`. k: neighbours that vote, at most the number of labels. temperature: T of their similarity."""

    paper = "Wu et al., Unsupervised feature learning via non-parametric instance discrimination, section 3.4"
    year, arxiv = 2018, "1805.01978"

    def __init__(self, *, k: int = 20, temperature: float = 0.07):
        self.k, self.temperature = k, temperature

    def fit_predict(self, features, labels, query, *, num_classes):
        return knn(features, labels, query, num_classes=num_classes, k=self.k, temperature=self.temperature)


class Probe(FrozenMethod):
    """`probe_head`. l2: weight of the penalty. max_iter: of the solver."""

    paper = "logistic regression on frozen features"
    year = 2019
    prior = "may"

    def __init__(self, *, l2: float = 1.0, max_iter: int = 1000):
        self.l2, self.max_iter = l2, max_iter

    def head(self, features: np.ndarray, labels: np.ndarray, *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of the linear layer that predicts."""
        return probe_head(features, labels, num_classes=num_classes, l2=self.l2, max_iter=self.max_iter)

    def fit_predict(self, features, labels, query, *, num_classes):
        weight, bias = self.head(features, labels, num_classes=num_classes)
        z = query.astype(np.float64) @ weight.T.astype(np.float64) + bias
        e = np.exp(z - z.max(1, keepdims=True))
        return (e / e.sum(1, keepdims=True)).astype(np.float32)


class LabelSpreading(FrozenMethod):
    """`label_spreading`. neighbours: in the graph. alpha: share from the neighbours per round. max_iter: rounds."""

    paper = "Zhou et al., Learning with local and global consistency"
    year = 2004

    def __init__(self, *, neighbours: int = 10, alpha: float = 0.8, max_iter: int = 100):
        self.neighbours, self.alpha, self.max_iter = neighbours, alpha, max_iter

    def fit_predict(self, features, labels, query, *, num_classes):
        own = dict(neighbours=self.neighbours, alpha=self.alpha, max_iter=self.max_iter)
        return label_spreading(features, labels, query, num_classes=num_classes, **own)


def _labeled(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = labels >= 0
    if len(features) != len(labels) or not known.any():
        raise UserError(
            f"There are {len(features)} features and {len(labels)} labels, {known.sum()} of them known. Give one label "
            "for each image, -1 where it is not known, and at least one that is."
        )
    return features[known], labels[known]


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
