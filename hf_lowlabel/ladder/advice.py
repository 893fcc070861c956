"""Images to look at next: images worth labeling, near-duplicates, doubtful labels, outliers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.labels.labels import joined
from ..data.splits.splits import Split
from ..evaluation.multilabel import lone, near_chance
from ..evaluation.near_copies import near_copies, near_copies_of, pictures_by, small_copies
from ..evaluation.neighbors import neighbours
from ..finetuning.graph import rooted
from ..finetuning.linear import first_of_each, softmax
from ..selection.by_model import spread_out
from ..text import percent
from .rungs import Tried

log = logging.getLogger("hf_lowlabel")
NEAR = 1e-3  # mean distance to the nearest images, of rows of length 1, below which they are copies
FAR = 1.25  # times the median at least: where all are alike, deviations are small
STRANGE = 6.0  # median absolute deviations from the median distance to the nearest images
SHOWN = 12
COMPARED = 20_000  # images of which each is compared with each other; of more so many pairs as these have
SURE = 0.8  # probability from which on an image is not in doubt
TRUSTED = 0.5  # cross-validated accuracy below which a head says nothing about single labels
WRONG = 0.05  # share of the labels that is wrong, as is usual
NAMED = 0.07  # probability from which on a label is worth a second look (recipes/benchmarks/rounds.py wrong)


@dataclass(frozen=True)
class Remark:
    """rows: images it is about, positions among the training images. why: in words. looks_like: the most likely class
    and its probability, where that is what it is about."""

    rows: tuple[int, ...]
    why: str
    looks_like: tuple[str, float] | None = None


def next_to_label(p: np.ndarray, x: np.ndarray, free: np.ndarray, names: list[str], count: int) -> list[Remark]:
    """Unlabeled images whose two best classes are close, far from each other: the half of the images in doubt, the
    first the most doubtful, then each the farthest from those chosen.

    Args:
        p: probabilities [N, K]. x: features [N, D]. free: rows without a label, int64.
    """
    if not len(free) or count < 1:
        return []
    top = np.sort(p[free], 1)
    out = []
    for i in free[spread_out(top[:, -2] - top[:, -1], rooted(x)[free], count)]:
        second, first = np.argsort(p[i])[-2:]
        why = f"uncertain: {names[first]} ({percent(p[i, first], 0)}) or {names[second]} ({percent(p[i, second], 0)})"
        if p[i, first] > SURE:  # it was chosen for its distance
            why = f"unlike the others here, probably {names[first]} ({percent(p[i, first], 0)})"
        out.append(Remark((int(i),), why, (names[first], float(p[i, first]))))
    return out


def copies(training: Any, asked: np.ndarray) -> list[Remark]:
    """Pairs of the images of a cache that are all but the same as pictures. Of more than `COMPARED` images those that
    are equal, and those with one of `asked`, the first to be looked at first: all pairs would take minutes to hours.
    """
    every = torch.arange(len(training))
    small = small_copies(training, every)
    own = (training.shown(every) == every).numpy()  # the others cannot be read, and look like the image next to them
    rows, small = np.flatnonzero(own), small[own]
    if len(small) <= COMPARED:
        pairs = near_copies(small)
    else:
        some = np.searchsorted(rows, asked[own[asked]])[: COMPARED**2 // len(small)]
        log.info("of %d images %d are compared with all others for copies, besides equal ones", len(small), len(some))
        pairs = near_copies_of(small, some)
    return [Remark((int(rows[i]), int(rows[j])), "nearly identical") for i, j in pairs]


def doubtful_labels(best: Tried, y: np.ndarray, rows: np.ndarray, names: list[str]) -> list[Remark]:
    """Labels that may be wrong, the most likely errors first.

    p_k is what the best rung, fitted without a label, gives the class of that label. If a share `WRONG` of labels is
    wrong, and a wrong one is any other of the K classes alike, then by Bayes' rule

        odds that it is wrong = WRONG / (1 - WRONG) * (1 - p_k) / ((K - 1) p_k).

    A label is named from a probability of `NAMED` on: where classes are hard to tell apart, a class that was not
    expected is no error yet. Nor is any where the rung is right of less than `TRUSTED` of the labels: its probabilities
    are fitted to these few, and most of what it does not expect is an error of its own.
    """
    if best.accuracy is None or best.accuracy < TRUSTED:
        return []
    p = np.zeros((len(y), best.logits.shape[1]))
    np.add.at(p, best.label, softmax(best.logits / best.t))
    p = p[best.asked] / np.bincount(best.label, minlength=len(y))[best.asked, None]
    given = y[best.asked]
    own = p[np.arange(len(given)), given]
    odds = WRONG / (1 - WRONG) * (1 - own) / ((p.shape[1] - 1) * np.maximum(own, 1e-12))
    wrong = odds / (1 + odds)
    out = []
    for i in np.argsort(-wrong, kind="stable"):
        j = int(p[i].argmax())
        if wrong[i] >= NAMED and j != given[i]:
            likely, looks = percent(own[i], 0), percent(p[i, j], 0)
            words = f"labeled {names[given[i]]} ({likely} likely), looks like {names[j]} ({looks})"
            out.append(Remark((int(rows[best.asked[i]]),), words, (names[j], float(p[i, j]))))
    return out


def unreviewed(found: list[Remark], ids: Sequence[str], split: Split) -> list[Remark]:
    """Without labels that a person has looked at a second time. ids: of the training images."""
    reviewed = {*split.reviewed}
    return [one for one in found if ids[one.rows[0]] not in reviewed]


def doubtful_of_several(tallies: np.ndarray, rows: np.ndarray, names: list[str]) -> list[Remark]:
    """As `doubtful_labels`, where an image may have several of the K classes: if a share `WRONG` of labels is wrong,
    each in one class, which is any of them alike, the odds that a label is are

        sum over k of WRONG / K / (1 - WRONG) * (1 - q_k) / q_k, with q_k the probability of what it says of class k,

    of the classes of which the other answer is likelier than not, and as likely as it is on the mean of the images that
    have it (confident learning: Northcutt et al. 2021, arXiv 1911.00068). One that is not learned says nothing.

    Args:
        tallies: [n, 2, K], the probability of each class by a model without the label, and the label.
        rows: of what image each is.
    """
    p, given = tallies[:, 0], tallies[:, 1] > 0.5
    own = np.maximum(np.where(given, p, 1 - p), 1e-12)
    deaf = near_chance(p, given)[0] | lone(given)
    usual = np.stack([usual_of(1 - p, ~given), usual_of(p, given)])  # [2, K]
    apart = (own < 0.5) & (1 - own >= np.where(given, usual[0], usual[1])) & ~deaf
    odds = (WRONG / p.shape[1] / (1 - WRONG) * (1 - own) / own * apart).sum(1)
    out = []
    for i in np.argsort(-odds, kind="stable"):
        if odds[i] / (1 + odds[i]) >= NAMED:
            said, likely = (joined(np.array(names)[there].tolist()) for there in (given[i], given[i] ^ apart[i]))
            odd = [k for k in np.argsort(own[i]) if apart[i, k]]
            why = ", ".join(f"{names[k]} is {percent(p[i, k], 0)} likely" for k in odd[:3])
            like = (likely, float(1 - own[i, odd].max()))
            out.append(Remark((int(rows[i]),), f"labeled {said}, but {why}", like))
    return out


def usual_of(p: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Mean probability [K] among the images that have a class, 0 where none has. p, there: [n, K]."""
    return (p * there).sum(0) / np.maximum(there.sum(0), 1)


def distances(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, int64 [m], their mean distances to the 5 nearest of all, what such distances usually are) of features x.

    Of more than `COMPARED` rows those that are farthest from the others of a group at random are compared with all.
    """

    def nearest(x: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        return np.sqrt(neighbours(x, 5, asked)[1]).mean(1)

    if len(x) <= COMPARED:
        every = nearest(x)
        return np.arange(len(x)), every, every
    count, guess = COMPARED**2 // len(x), np.zeros(len(x))
    order = np.random.default_rng(0).permutation(len(x))
    for group in np.array_split(order, -(-len(x) // count)):
        guess[group] = nearest(x[group])
    some = np.sort(np.argsort(-guess, kind="stable")[: count // 2])
    return some, nearest(x, some), nearest(x, order[: count // 2])


def strangers(x: np.ndarray, copies: Sequence[Remark] = ()) -> list[Remark]:
    """Outliers, the farthest first: they may show none of the classes. Of near-duplicates only one is compared, since
    each is close to its copy.

    x: features [N, D]. copies: what `copies` found among the images.
    """
    number = pictures_by([(one.rows[0], one.rows[1]) for one in copies], len(x))
    rows = np.flatnonzero(first_of_each(len(x), number))
    if len(rows) < 2:
        return []
    some, mean, usual = distances(rooted(x[rows]))
    apart = usual[usual > NEAR]
    if not len(apart):
        return []
    middle = np.median(apart)
    limit = max(middle + STRANGE * np.median(np.abs(apart - middle)), FAR * middle)
    found = np.flatnonzero(mean > limit)
    return [
        Remark((int(rows[some[i]]),), f"outlier: {mean[i] / middle:.1f} times the usual distance")
        for i in found[np.argsort(-mean[found], kind="stable")]
    ]


def confused(p: np.ndarray, names: list[str]) -> list[tuple[str, str, float]]:
    """Pairs of classes by the share of all images that hang between them, sum_i 2 p_ia p_ib / N; the largest first."""
    shared = 2 * (p.T @ p) / len(p)
    pairs = [(names[a], names[b], float(shared[a, b])) for a in range(len(names)) for b in range(a + 1, len(names))]
    return sorted(pairs, key=lambda pair: -pair[2])


def said_shares(even: np.ndarray | None, names: list[str]) -> list[str]:
    """The class weights if the labels are balanced over the classes but the images seem not to be.

    even: shares of the classes, [K], or None (`graph.shares_behind`).
    """
    if even is None:
        return []
    known = [k for k in np.argsort(-even, kind="stable") if even[k] > 0]  # nothing is known of one without a label
    shares = ", ".join(f"{names[k]} {percent(float(even[k]), 0)}" for k in known[:5]) + (
        " ..." if len(known) > 5 else ""
    )
    return [
        f"The labels are balanced over the classes, but the images as a whole look like {shares}; classes are "
        "weighted by these shares."
    ]
