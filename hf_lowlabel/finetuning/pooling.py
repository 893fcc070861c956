"""Which images and labels make a graph, where there are too many for all of them."""

from __future__ import annotations

import logging

import numpy as np

log = logging.getLogger("hf_lowlabel")
MOST_POOLED = 20_000  # images of a graph


def pooled_rows(labels: np.ndarray, most: int | None = None) -> np.ndarray:
    """Images that make the graph, int64 in order: all up to `most` (at most `MOST_POOLED`), else so many: the labeled
    ones up to half of them, above that a part of each class, and a random part of the others."""
    most = MOST_POOLED if most is None else min(most, MOST_POOLED)
    if len(labels) <= most:
        return np.arange(len(labels))
    known, rest = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    known = of_each_class(known, labels[known], max(most // 2, most - len(rest)))
    some = np.random.default_rng(0).permutation(rest)[: most - len(known)]
    return np.sort(np.concatenate([known, some]))


def of_each_class(rows: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """`most` of some labeled images, int64 in order, drawn at random with the same share of each class y, int [n], and
    two of each at least where it has them and they fit, so that one may be left out; all where there are no more."""
    if len(rows) <= most:
        return rows
    order = np.random.default_rng(0).permutation(len(rows))
    order = order[np.argsort(y[order], kind="stable")]
    size = np.bincount(y)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)  # within its class
    rank = np.where(place < 2, place - 2, (place + 0.5) / size[y[order]])  # one of each class, then the second
    return np.sort(rows[order[np.argsort(rank, kind="stable")[:most]]])


def tell_pooled(part: int, labels: int) -> None:
    if part < labels:
        log.info("labels spread over a graph from %d of the %d labels, the same share of each class", part, labels)
