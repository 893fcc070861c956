"""Classifiers of pixels on a frozen encoder's feature maps, in seconds from a few masks: a linear one and neighbours.

    logits = bilinear(V f + c) at the image's size,   f: the encoder's last maps beside each other (segmenter_parts.py)

Bilinear scaling commutes with a linear layer, so the layer is fitted to features scaled to the pixels it is judged on:
a logistic regression on some pixels of every mask. Pixels of one image say much the same, so the penalty is chosen,
and the confidences are calibrated, on masks that are left out whole.
"""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from ..ranges import Count, Positive, Several
from .linear import NEVER, softmax
from .pooling import of_each_class
from .probes import FrozenMethod
from .temperature import temperature

STRENGTHS = (1.0, 0.1, 1e-2, 1e-3)  # penalties tried, a share of the number of pixels
FOLDS, MOST = 4, 4000  # of that cross-validation: parts of the masks, and pixels that take part
NEIGHBOURS, TEMPERATURES = (20, 5, 50), (0.07, 0.02, 0.2)  # of kNN; the first where one mask is all there is
AXES, GTOL = 384, 3e-4  # principal axes of the features that are looked at, and the gradient at which the solver stops


class PixelProbe(FrozenMethod):
    """Logistic regression on the pixels of the masks.

        min sum_i w_i CE(y_i, V x_i + c) + l2 M / 2 |V|^2

    l2: of M pixels; None: the one of `STRENGTHS` under which masks that are left out are likeliest. pixels: at most so
    many, of all masks together. max_iter: of the solver.
    """

    name, tasks, of_pixels = "probe", ("segmentation",), True
    paper = "logistic regression on frozen feature maps; Oquab et al. 2023, section 7.4, have the same head"
    year, arxiv = 2023, "2304.07193"
    needs = "feature maps of the labeled images, no training"
    defaults = dict(architecture="linear")

    def __init__(self, *, l2: Positive | None = None, pixels: Several = 20_000, max_iter: Count = 300):
        self.l2, self.pixels, self.max_iter = l2, int(pixels), int(max_iter)

    def head(
        self, x: np.ndarray, labels: np.ndarray, weights: np.ndarray, masks: np.ndarray, *, num_classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The layer on scaled features.

        Args:
            x: float32 [M, D], features of pixels.
            labels: int64 [M], their classes.
            weights: float64 [M], how much each counts, 1 on average.
            masks: int64 [M], which mask each is of.
            num_classes: K.

        Returns:
            (weight float32 [K, D], bias float32 [K]), calibrated; a class without a pixel loses to all others.

        Raises:
            UserError: pixels of fewer than two classes.
        """
        known = np.unique(labels)
        if len(known) < 2:
            raise UserError(
                "All labeled pixels are of one class. Label an image that shows another class: a probe tells at least "
                "two apart."
            )
        fit = Softmax(x, labels, weights, self.max_iter)
        l2, t = self.chosen(fit, masks)
        V, c = fit(np.arange(len(x)), l2)
        weight = np.zeros((num_classes, x.shape[1]), np.float32)
        bias = np.full(num_classes, NEVER, np.float32)
        weight[known], bias[known] = fit.on_features(V) / t, c / t
        return weight, bias

    def chosen(self, fit: Softmax, masks: np.ndarray) -> tuple[float, float]:
        """(l2, temperature) under which masks that are left out are likeliest; (l2, 1) where none can be.

        A pixel is asked for where the masks of the other folds show its class, and another one to tell it from.
        """
        numbers = np.unique(masks, return_inverse=True)[1]
        some = of_each_class(np.arange(len(masks)), numbers, MOST)
        fold, parts = folds(numbers)[some], []
        for f in np.unique(fold):
            inside, out = some[fold != f], some[fold == f]
            out = out[np.isin(fit.y[out], fit.y[inside])]
            if len(out) and len(np.unique(fit.y[inside])) > 1:
                parts.append((inside, out))
        best = (-np.inf, self.l2 or STRENGTHS[1], 1.0)
        if not parts:
            return best[1:]
        at = np.concatenate([out for _, out in parts])
        for l2 in [self.l2] if self.l2 else STRENGTHS:
            z = np.concatenate([fit.logits(inside, l2, out) for inside, out in parts])
            p = softmax(z)[np.arange(len(at)), fit.y[at]]
            likelihood = float(np.average(np.log(np.maximum(p, 1e-9)), weights=fit.w[at]))
            if likelihood > best[0]:
                best = likelihood, l2, temperature(z, fit.y[at], fit.w[at])
        return best[1:]


def folds(masks: np.ndarray) -> np.ndarray:
    """A fold for every pixel, int64 [M]: masks go into them at random, lest their order keep a class in one fold."""
    number = np.unique(masks, return_inverse=True)[1]
    return (np.random.default_rng(0).permutation(number.max() + 1) % FOLDS)[number]


class PixelKNN(FrozenMethod):
    """The nearest pixels of the masks vote (`segmenter_parts.Neighbours`).

    stored: pixels that vote, at most, of all masks together. k, temperature: None: those of `NEIGHBOURS` and
    `TEMPERATURES` under which masks that are left out are likeliest.
    """

    name, tasks, of_pixels = "knn", ("segmentation",), True
    paper = "Wu et al., Unsupervised feature learning via non-parametric instance discrimination, section 3.4"
    year, arxiv = 2018, "1805.01978"
    needs = "feature maps of the labeled images, no training"
    defaults = dict(architecture="knn")

    def __init__(self, *, stored: Several = 4000, k: Count | None = None, temperature: Positive | None = None):
        self.pixels, self.k, self.temperature = int(stored), k, temperature

    def chosen(
        self, x: np.ndarray, labels: np.ndarray, weights: np.ndarray, masks: np.ndarray, *, num_classes: int
    ) -> tuple[int, float]:
        """(k, temperature) under which masks that are left out are likeliest; x: float32 [M, D], of unit length."""
        ks = [self.k] if self.k else list(NEIGHBOURS)
        ts = [self.temperature] if self.temperature else list(TEMPERATURES)
        fold = folds(masks)
        if fold.max() == 0:
            return ks[0], ts[0]
        scores = dict.fromkeys([(k, t) for k in ks for t in ts], 0.0)
        for f in np.unique(fold):
            inside, out = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
            near = x[out] @ x[inside].T
            order = np.argsort(-near, axis=1)[:, : max(ks)]
            s, at = np.take_along_axis(near, order, 1), inside[order]
            for k, t in scores:
                w = weights[at[:, :k]] * np.exp((s[:, :k] - s[:, :1]) / t)
                own = (w * (labels[at[:, :k]] == labels[out][:, None])).sum(1) / w.sum(1)
                scores[k, t] += float((weights[out] * np.log(np.maximum(own, 1e-4))).sum())
        return max(scores, key=scores.__getitem__)


class Softmax:
    """Logistic regressions on any of the same rows, quickly: in the basis of the features' principal axes, each scaled
    by about the root of the curvature along it, so that the solver needs few steps.

    Args:
        x: float32 [M, D].
        labels: int64 [M].
        weights: float64 [M].
        max_iter: steps of the solver at most.
    """

    def __init__(self, x: np.ndarray, labels: np.ndarray, weights: np.ndarray, max_iter: int):
        known, self.y = np.unique(labels, return_inverse=True)
        self.w, self.count, self.max_iter = weights, len(known), max_iter
        values, axes = np.linalg.eigh((x.T @ (x / len(x))).astype(np.float64))
        kept = np.argsort(-values)[:AXES]
        self.values, self.axes = np.maximum(values[kept], 0), axes[:, kept].astype(np.float32)
        self.u = x @ self.axes  # [M, d]

    def __call__(self, rows: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
        """(V [k, d], c [k]) on `u`, for the k classes of all rows."""
        from scipy.optimize import minimize

        scale = (1 / np.sqrt(self.values / 4 + l2)).astype(np.float32)  # a softmax has a curvature of 1/4 at most
        u, y, k = self.u[rows] * scale, self.y[rows], self.count
        w = (self.w[rows] / self.w[rows].sum()).astype(np.float32)[:, None]
        own, penalty = np.eye(k, dtype=np.float32)[y], l2 * scale**2

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            theta = flat.reshape(k, -1).astype(np.float32)
            z = u @ theta[:, :-1].T + theta[:, -1]
            z -= z.max(1, keepdims=True)
            e = np.exp(z)
            total = e.sum(1, keepdims=True)
            d = w * (e / total - own)
            gradient = np.concatenate([d.T @ u + penalty * theta[:, :-1], d.sum(0)[:, None]], axis=1)
            value = (w[:, 0] * (np.log(total[:, 0]) - (own * z).sum(1))).sum() + (
                penalty * theta[:, :-1] ** 2
            ).sum() / 2
            return float(value), gradient.astype(np.float64).ravel()

        found = minimize(
            loss,
            np.zeros(k * (u.shape[1] + 1)),
            jac=True,
            method="L-BFGS-B",
            options=dict(maxiter=self.max_iter, gtol=GTOL),
        )
        theta = found.x.reshape(k, -1)
        return theta[:, :-1] * scale, theta[:, -1]

    def logits(self, rows: np.ndarray, l2: float, asked: np.ndarray) -> np.ndarray:
        """What the layer fitted to `rows` says of the rows `asked`, float64 [n, k]."""
        V, c = self(rows, l2)
        return self.u[asked] @ V.T + c

    def on_features(self, V: np.ndarray) -> np.ndarray:
        """A layer on `u` as one on the features, [k, D]."""
        return V @ self.axes.T
