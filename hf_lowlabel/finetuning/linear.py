"""Linear layers on frozen features: logistic regression on a few labels, least squares on beliefs about every image.

Features are scaled as a whole, x' = (x - mean) / s with s^2 = mean |x - mean|^2, never each by itself: with fewer
labels than features that would make the noisiest ones as loud as the others. All of it is folded into the layer that
is returned, weight float32 [K, D] and bias float32 [K] on the features as the network gives them.
"""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from ..evaluation.neighbors import check_numbers

ABSENT = -30.0  # logit of a class without a label, of a probe that is one opinion among others
NEVER = -1e4  # bias of a class without a label: it loses to all others
STRENGTHS = (10.0, 1.0, 0.1, 0.01)  # penalties tried by cross-validation
ROWS = 65536  # of features that are in float64 at a time
FOLDS, MOST = 5, 1000  # of that cross-validation: folds, and labels that take part


def whole_scale(features: np.ndarray) -> tuple[np.ndarray, float]:
    """(mean float64 [D], s) of features [N, D]."""
    mean = np.mean(features, 0, dtype=np.float64)
    parts = (features[i : i + ROWS] - mean for i in range(0, len(features), ROWS))  # a float64 copy of all is large
    spread = float((sum((part * part).sum(0) for part in parts) / len(features)).sum()) ** 0.5
    return mean, spread if spread > 1e-12 * (1 + float(np.abs(mean).max())) else np.inf


def scaled_as_whole(features: np.ndarray, mean: np.ndarray, s: float) -> np.ndarray:
    """(features - mean) / s, float32 [N, D]."""
    out = np.empty(features.shape, np.float32)
    for i in range(0, len(features), ROWS):
        out[i : i + ROWS] = (features[i : i + ROWS] - mean) / s
    return out


def probe_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    l2: float | None = None,
    max_iter: int = 1000,
    copies: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on the labeled images.

        min sum_labeled CE(y, V x' + c) + l2 / 2 |V|^2,   x' scaled as a whole over ALL images;   weight = V / s

    Args:
        features: float [N, D] of labeled and unlabeled images.
        labels: int [N], -1 where there is none.
        num_classes: K.
        l2: weight of the penalty; None: the one of `STRENGTHS` under which stratified cross-validation on the labels
            finds them likeliest, 1.0 where no class has two.
        max_iter: steps of the solver at most.
        copies: what images share with each other, int [N, 2], or None (see `group_of`).

    Returns:
        (weight float32 [K, D], bias float32 [K]); a class without a label gets weight 0 and a bias that loses to all.

    Raises:
        UserError: labels of fewer than two classes.
    """
    x, y = labeled_rows(features, labels)
    known = np.unique(y)
    if len(known) < 2:
        raise UserError(
            "All labels are of one class. Label an image of another class: a probe tells at least two apart."
        )
    mean, s = whole_scale(features)
    x = (x - mean) / s
    if l2 is None:
        l2 = best_l2(x, y, max_iter, None if copies is None else copies[labels >= 0])
    V, c = logistic(x, y, l2, max_iter)
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, NEVER)
    weight[known] = V / s
    bias[known] = c - weight[known] @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def labeled_rows(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the images that have one. Raises UserError where they do not go together."""
    known = labels >= 0
    if len(features) != len(labels) or not known.any():
        raise UserError(
            f"There are {len(features)} features and {len(labels)} labels, {known.sum()} of them known. Give one label "
            "for each image, -1 where it is not known, and at least one that is."
        )
    check_numbers(features)
    return features[known], labels[known]


def logistic(x: np.ndarray, y: np.ndarray, l2: float, max_iter: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """(V [k, D], c [k]) for the k classes in y, in their order."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=1 / l2, max_iter=max_iter).fit(x, y)
    V, c = fit.coef_, fit.intercept_
    if len(fit.classes_) == 2:  # scikit-learn keeps the difference of the two alone
        V, c = np.concatenate([np.zeros_like(V), V]), np.concatenate([np.zeros_like(c), c])
    return V, c


def best_l2(x: np.ndarray, y: np.ndarray, max_iter: int = 1000, copies: np.ndarray | None = None) -> float:
    """The penalty under which labels left out are likeliest; 1.0 where no class has two. copies: see `group_of`."""
    random = np.random.default_rng(0)
    if len(y) > MOST:
        rows = random.permutation(len(y))[:MOST]
        x, y, copies = x[rows], y[rows], None if copies is None else copies[rows]
    fold = stratified_folds(y, FOLDS, random, copies)
    if not (fold >= 0).any():
        return 1.0
    scores = []
    for l2 in STRENGTHS:
        likelihood = []
        for f in range(FOLDS):
            out = fold == f
            kept = np.unique(y[~out])
            if not out.any() or len(kept) < 2:
                continue
            V, c = logistic(x[~out], y[~out], l2, max_iter)
            p = softmax(x[out] @ V.T + c)[np.arange(out.sum()), np.searchsorted(kept, y[out])]
            likelihood += np.log(np.maximum(p, 1e-9)).tolist()
        scores.append(np.mean(likelihood) if likelihood else 0.0)
    return STRENGTHS[int(np.argmax(scores))]


def stratified_folds(
    y: np.ndarray, folds: int, random: np.random.Generator, copies: np.ndarray | None = None
) -> np.ndarray:
    """A fold for every label, int64 [n], classes spread evenly over them and the images of a group in one; -1 for
    the groups of a class that would be left out whole, such as its only one. copies: see `group_of`."""
    if copies is not None:
        group, first = group_of(copies)
        fold = stratified_folds(y[first], folds, random)[group]
        for k in np.unique(y):  # a group may have several classes: none of them is left out whole
            if len(np.unique(fold[y == k])) == 1:
                fold[np.isin(group, group[y == k])] = -1
        return fold
    out, start = np.full(len(y), -1), 0
    for k in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == k))
        if len(rows) > 1:
            out[rows] = (start + np.arange(len(rows))) % min(folds, len(y))
            start += len(rows)
    return out


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class LeastSquares:
    """Linear layers by least squares, for any number of targets, from one factorisation of the features.

        min sum_i |t_i - V x'_i - c|^2 + l2 N |V|^2      x' scaled as a whole, l2 a share of the number of images N

    Args:
        features: float [N, D].
    """

    def __init__(self, features: np.ndarray):
        self.mean, self.s = whole_scale(features)
        x = (np.asarray(features, np.float32) - self.mean.astype(np.float32)) / np.float32(self.s)
        values, self.axes = np.linalg.eigh((x.T @ x).astype(np.float64))
        self.values, self.axes = np.maximum(values, 0), self.axes.astype(np.float32)
        self.u = x @ self.axes  # [N, D]

    def fit(self, targets: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) for targets [N, K]."""
        t = targets - targets.mean(0)
        V = self.axes @ ((self.u.T @ t.astype(np.float32)) / self._penalised(l2)[:, None])  # [D, K]
        weight = V.T.astype(np.float64) / self.s
        return weight.astype(np.float32), (targets.mean(0) - weight @ self.mean).astype(np.float32)

    def predict(self, targets: np.ndarray, l2: float, rows: np.ndarray | None = None) -> np.ndarray:
        """What the layer gives for the images, float64 [N, K] (rows: [n, K])."""
        t = targets - targets.mean(0)
        V = (self.u.T @ t.astype(np.float32)) / self._penalised(l2)[:, None]
        return (self.u if rows is None else self.u[rows]) @ V + targets.mean(0)

    def left_out(
        self, targets: np.ndarray, l2: float, rows: np.ndarray | None = None, copies: np.ndarray | None = None
    ) -> np.ndarray:
        """What the layer fitted without an image gives for it: (z - h t) / (1 - h), h the leverage of the image.

        copies: what images share (see `group_of`): those of a group are left out together, where h is a matrix.
        """
        if copies is not None:
            return self._left_out_together(targets, l2, copies)
        u, t = (self.u, targets) if rows is None else (self.u[rows], targets[rows])
        h = ((u**2) / self._penalised(l2)).sum(1, keepdims=True) + 1 / len(self.u)
        h = np.minimum(h, 1 - 1e-6)
        return (self.predict(targets, l2, rows) - h * t) / (1 - h)

    def _left_out_together(self, targets: np.ndarray, l2: float, copies: np.ndarray) -> np.ndarray:
        group, _ = group_of(copies)
        out, order = self.left_out(targets, l2), np.argsort(group, kind="stable")
        ends = np.flatnonzero(np.diff(group[order])) + 1
        for rows in (r for r in np.split(order, ends) if len(r) > 1):
            u = self.u[rows].astype(np.float64)
            h = (u / self._penalised(l2)) @ u.T + 1 / len(self.u)
            kept = np.eye(len(rows)) * (1 + 1e-6) - h
            out[rows] = targets[rows] - np.linalg.solve(kept, targets[rows] - self.predict(targets, l2, rows))
        return out

    def _penalised(self, l2: float) -> np.ndarray:
        return (self.values + l2 * len(self.u)).astype(np.float32)


def left_out_in_turn(
    y: np.ndarray, folds: int = FOLDS, repeats: int = 1, seed: int = 0, copies: np.ndarray | None = None
) -> list[np.ndarray]:
    """Stratified cross-validation of labels int [n]: masks of those that are left out, bool [n]; none is the only one
    of its class, and labels of two classes are always left. copies: those of a group go together, for they would
    give the answer away (`group_of`)."""
    random, out = np.random.default_rng(seed), []
    for _ in range(repeats):
        fold = stratified_folds(y, folds, random, copies)
        masks = [fold == f for f in range(fold.max() + 1)]
        out += [m for m in masks if m.any() and len(np.unique(y[~m])) > 1]
    return out


class ProbeBeliefs:
    """What a probe says of every image, [N, K], for any part of the labels; its penalty is chosen once, on all."""

    def __init__(
        self,
        features: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        num_classes: int,
        copies: np.ndarray | None = None,
    ):
        self.mean, self.s = whole_scale(features)
        self.x = scaled_as_whole(features, self.mean, self.s)
        self.rows, self.num_classes = rows, num_classes
        self.l2 = best_l2(self.x[rows], y, copies=copies) if len(np.unique(y)) > 1 else 1.0

    def logits(self, labels: np.ndarray, images: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Of the given images, for the labels that are not -1; `ABSENT` for a class without one."""
        known = labels >= 0
        classes = np.unique(labels[known])
        out = np.full((len(self.x[images]), self.num_classes), ABSENT)
        if len(classes) > 1:
            V, c = logistic(self.x[self.rows[known]], labels[known], self.l2)
            out[:, classes] = self.x[images] @ V.T + c
        else:
            out[:, classes] = 0.0
        return out

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        return softmax(self.logits(labels))

    def head(self, y: np.ndarray, t: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of the layer on the network, its logits divided by t."""
        weight, bias = np.zeros((self.num_classes, self.x.shape[1])), np.full(self.num_classes, NEVER)
        classes = np.unique(y)
        V, c = logistic(self.x[self.rows], y, self.l2)
        weight[classes] = V / self.s / t
        bias[classes] = c / t - weight[classes] @ self.mean
        return weight.astype(np.float32), bias.astype(np.float32)


def left_out_logits(
    x: np.ndarray, y: np.ndarray, num_classes: int, copies: np.ndarray | None = None
) -> tuple[ProbeBeliefs, np.ndarray, np.ndarray]:
    """A probe, and what it says of each label that is left out in turn, of a picture with copies once: logits [m, K]
    and which labels, int64 [m]. copies: see `group_of`."""
    probe, logits, rows = ProbeBeliefs(x, np.arange(len(y)), y, num_classes, copies), [], []
    once = first_of_each(len(y), copies)
    for out in left_out_in_turn(y, copies=copies):
        rows.append(np.flatnonzero(out & once))
        logits.append(probe.logits(np.where(out, -1, y), rows[-1]))
    if not rows:
        return probe, np.zeros((0, num_classes)), np.zeros(0, np.int64)
    return probe, np.concatenate(logits), np.concatenate(rows)


def group_of(copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the group of each image, int64 [n], groups numbered as they come, and the first image of each, int64.

    copies: int [n, 2], the group that is left out together and the picture of each image, by any numbers
    (`near_copies.copies_of_each`), or int [n] where each group is one picture.
    """
    groups = copies if copies.ndim == 1 else copies[:, 0]
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number], np.sort(first)


def first_of_each(count: int, copies: np.ndarray | None) -> np.ndarray:
    """One image of each picture, bool [count]; all of them where there are no copies (None, see `group_of`)."""
    out = np.ones(count, bool)
    if copies is not None:
        pictures = copies if copies.ndim == 1 else copies[:, 1]
        out[:] = False
        out[np.unique(pictures, return_index=True)[1]] = True
    return out


def drawn_again(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Positions of the images, int64, of as many groups drawn with replacement. groups: of each image, 0 .. G - 1."""
    n = int(groups.max()) + 1
    drawn = random.integers(0, n, n)
    if n == len(groups):
        return np.argsort(groups)[drawn]
    order, size = np.argsort(groups, kind="stable"), np.bincount(groups)
    start = np.cumsum(size) - size
    return np.concatenate([order[start[g] : start[g] + size[g]] for g in drawn])
