"""The features of all training images by one encoder, ready for any labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..finetuning.graph import Pool
from ..finetuning.linear import ProbeBeliefs, first_of_each, group_of, softmax
from ..finetuning.pooling import pooled_rows
from ..finetuning.probes import Propagation
from .rungs import Rung, Tried


class Once(Pool):
    """A pool for one set of labels: rungs whose graph is the same share what was propagated over it."""

    def __init__(self, pool: Pool):
        self.pool, self.even, self.made = pool, pool.even, dict[tuple[Any, ...], np.ndarray]()

    def propagate(self, *given: Any, seeds: np.ndarray | None = None, **own: Any) -> np.ndarray:
        key = (seeds is None, *sorted(own.items()))
        if key not in self.made:
            self.made[key] = self.pool.propagate(*given, seeds=seeds, **own)
        return self.made[key]


class Features:
    """The features [N, D] of all training images by one encoder, ready for any labels.

    rows: of the labeled images, int64 [L]. y: their classes. Above `pooling.MOST_POOLED` images a part of them, `some`
    [n], makes the graph, as in the method `propagation`; `inside`: which labels are of those, bool [L], `at`: where
    they are among them. The others are labels of the probe alone. by_names: what
    the names of the classes say of all images, [N, K], or None. copies: what labeled images share with each other, int
    [L, 2], or None (`copies_of_each`); `group`, `first`: the same by `group_of`. once: labels that are judged, bool
    [L], of a picture with copies the first. among: how many encoders are kept at a time.
    """

    def __init__(
        self,
        name: str,
        x: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        num_classes: int,
        by_names: np.ndarray | None = None,
        copies: np.ndarray | None = None,
        among: int = 1,
    ):
        self.copies = copies
        self.group, self.first = group_of(np.arange(len(y)) if copies is None else copies)
        self.once = first_of_each(len(y), copies)
        self.name, self.x, self.rows, self.y, self.num_classes = name, x, rows, y, num_classes
        labels = np.full(len(x), -1)
        labels[rows] = y
        self.some = pooled_rows(labels)
        self.inside = np.isin(rows, self.some)
        self.at = np.searchsorted(self.some, rows[self.inside])
        part = len(self.some) < len(x)
        pooled = x[self.some] if part else x
        self.pool = Pool(pooled)
        self.reach = self.pool.reach(self.at, among=among)
        self.seeds = None if by_names is None else self.pool.seeds(by_names[self.some])
        self.probe = ProbeBeliefs(x, rows, y, num_classes, copies)
        shows = None if copies is None else copies[self.inside]
        own = (pooled, self.at, y[self.inside], num_classes, shows)
        self.believed = ProbeBeliefs(*own) if part else self.probe
        self.pool.look_behind(self.reach, self.at, y[self.inside], self.believed(y[self.inside]))

    def without(self, out: np.ndarray) -> np.ndarray:
        """The classes, -1 of labels that are left out."""
        return np.where(out, -1, self.y)

    def asked(self, out: np.ndarray) -> np.ndarray:
        """Of labels that are left out, bool [L], those that are judged, int64."""
        return np.flatnonzero(out & self.once)

    def targets(self, rung: Rung, labels: np.ndarray, believed: np.ndarray, once: Once | None = None) -> np.ndarray:
        """[n, K], of the images of the graph. once: of these labels, for several rungs."""
        seeds, pool = self.seeds if rung.names else None, once or Once(self.pool)
        return Propagation(**rung.args).targets(pool, self.reach, self.at, labels[self.inside], believed, seeds)

    def left_out(self, targets: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Logits [m, K] of labeled images by a head that was fitted without them. out: which, int64 [m]."""
        place = np.cumsum(self.inside) - 1
        known = self.inside[out]
        z = self.pool.left_out(targets, self.at[place[out[known]]])
        if known.all():
            return z
        weight, bias = self.pool.layer(targets)
        every = self.x[self.rows[out]] @ weight.T.astype(np.float64) + bias
        every[known] = z
        return every

    def head(self, tried: Tried) -> tuple[np.ndarray, np.ndarray]:
        """(weight float32 [K, D], bias float32 [K]) of a rung's layer on the network."""
        if tried.targets is None:
            return self.probe.head(self.y, tried.t)
        return self.pool.head(tried.targets, tried.t)

    def say(self, tried: Tried) -> np.ndarray:
        """Probabilities [N, K] of all images by the rung, of those in the graph when their own target is left out."""
        return self.believe(tried.targets, tried.t, self.y)

    def believe(self, targets: np.ndarray | None, t: float, labels: np.ndarray) -> np.ndarray:
        """The same for targets [n, K], or for a probe of labels (None)."""
        if targets is None:
            return softmax(self.probe.logits(labels) / t)
        own = softmax(self.pool.left_out(targets, np.arange(len(targets))) / t)
        if len(own) == len(self.x):
            return own
        weight, bias = self.pool.layer(targets)
        out = softmax((self.x @ weight.T + bias) / t)
        out[self.some] = own
        return out


def name_of(model: Any) -> str:
    if isinstance(model, (str, Path)):
        return Path(model).name if Path(model).exists() else str(model)
    return type(model).__name__


def unique(name: str, taken: Sequence[str]) -> str:
    return name if name not in taken else unique(f"{name} again", taken)
