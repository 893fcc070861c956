"""Cross-validation folds, stratified by class."""

from __future__ import annotations

import numpy as np

from ..finetuning.linear import group_of


def spread_over_folds(shows: np.ndarray, count: int, seed: int, copies: np.ndarray | None = None) -> list[np.ndarray]:
    """Folds of labeled images, at most `count`, none of them empty.

    The images of the rarest class are dealt out first, each to the fold that has fewest of it (Sechidis et al. 2011,
    iterative stratification); folds are as large as each other. Where what is left shows fewer than two classes, an
    image that shows another one is never left out.

    Args:
        shows: which classes each image shows, bool [n, K].
        count: folds.
        seed: decides between folds that are alike.
        copies: what images share with each other, int [n, 2], or None (`copies_of_each`): those of a group go
            together, for they would give the answer away.

    Returns:
        int64 positions of the images, for each fold.
    """
    if copies is not None:
        group, first = group_of(copies)
        any_of = np.zeros((len(first), shows.shape[1]), bool)
        np.logical_or.at(any_of, group, shows)
        return [np.flatnonzero(np.isin(group, rows)) for rows in spread_over_folds(any_of, count, seed)]
    n, random = len(shows), np.random.default_rng(seed)
    count = min(count, n)
    most = -(-n // count)
    fold, order = np.full(n, -1), random.permutation(n)
    classes = [k for k in np.argsort(shows.sum(0), kind="stable") if shows[:, k].any()]
    sizes = np.zeros(count, int)
    for shown in [*(shows[:, k] for k in classes), np.ones(n, bool)]:
        of_class = np.bincount(fold[shown & (fold >= 0)], minlength=count)
        for i in order[shown[order] & (fold[order] < 0)]:
            f = np.lexsort((random.random(count), sizes, of_class, sizes >= most))[0]
            fold[i], sizes[f], of_class[f] = f, sizes[f] + 1, of_class[f] + 1
    out = [np.flatnonzero(fold == f) for f in range(count)]
    return [rows for rows in (without_the_only(shows, rows) for rows in out) if len(rows)]


def without_the_only(shows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Images of a fold, less those without which nothing could be told apart."""
    kept = np.delete(shows, out, axis=0).any(0)
    for i in out if shows.any(0).sum() > 1 else ():
        if kept.sum() < 2 and (shows[i] & ~kept).any():
            kept, out = kept | shows[i], out[out != i]
    return out
