"""Evaluates cross-validation trials: the best one, its margin, and its expected score on new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tasks.data_classes import Attempt
from ..training.cross_validated import at_least_half, redrawn
from .estimates import CLEAR, CLEAR_LOSS, FEWEST, USUAL, Z80, Interval
from .rungs import tried_words

TAKEN = 0.5  # standard errors by which an attempt has to be better than another that is safer
TAKEN_FROZEN = 1.28  # the same of frozen features over training, by what is expected of the last runs
# than the bootstrap says, which knows nothing of what the labeled images have in common and others lack: with 1.9
# intervals held in 7 of 10 draws of masks, with 1.2 in 6 (recipes/benchmarks/auto_masks.py)
WIDER = 1.9


@dataclass
class Trial:
    """An attempt and what it reached.

    tallies: of every image that was left out, [n, ...]. score: of all of them. left: what the last run, with all labels
    and more steps, leaves of the trial's error (`left_of_error`). group: number of the group of each, 0 .. G - 1, int
    [n]; None: each is one. told: whether they show two classes; else there is no score, which is 0 here.
    """

    attempt: Attempt
    tallies: np.ndarray
    score: float
    left: float = 1.0
    group: np.ndarray | None = None
    told: bool = True

    @property
    def name(self) -> str:
        return self.attempt.name

    @property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.tallies)) if self.group is None else self.group

    @property
    def count(self) -> int:
        """Of groups."""
        return int(self.groups.max()) + 1

    @property
    def accuracy(self) -> float | None:
        return self.score if self.told else None

    @property
    def expected(self) -> float:
        """Score of the last run on new images."""
        return 1 - (1 - self.score) * self.left

    def __repr__(self) -> str:
        return tried_words("Trial", self.name, self.accuracy)


def left_of_error(attempt: Attempt, plan: Mapping[str, Any], share: float) -> float:
    """(times as many labels x times as many steps) ** -`USUAL`, as errors fall with the number of labels. share: of the
    labels, that a trial has.

    Attempts on frozen features have no steps: trials show too much of them beside networks that train for longer later.
    """
    steps = 1 if attempt.frozen else plan["last"] / plan["steps"]
    return float((steps / share) ** -USUAL)


def ranked(task, tried: list[Trial], names: list[str]) -> list[Trial]:
    """The best first. One that uses labels alone has to be clearly better than the floor of the task, and one that uses
    unlabeled images than that. Without a score the floor is the best, or the plainest."""
    alone = [t for t in tried if not t.attempt.unlabeled]
    best = next((t for t in alone if t.attempt.floor), None) or max(alone, key=lambda t: t.score)
    for group in (alone, tried) if best.told else ():
        order = sorted(group, key=lambda t: -t.score)
        best = next(t for t in order if t is best or clearly_better(task, t, best, names))
    return [best, *(t for t in sorted(tried, key=lambda t: -t.score) if t is not best)]


def clearly_better(task, one: Trial, other: Trial, names: list[str]) -> bool:
    gain = gain_over(task, one, other, names)
    if one.attempt.frozen and not other.attempt.frozen:
        return one.expected - other.expected > TAKEN_FROZEN * gain.sd
    return gain.value > TAKEN * gain.sd


@dataclass(frozen=True)
class Gain:
    """A difference of scores and its standard error."""

    value: float
    sd: float


def gain_over(task, one: Trial, other: Trial, names: list[str]) -> Gain:
    scores = redrawn(task, [one.tallies, other.tallies], names, one.groups)
    sd = float((scores[:, 0] - scores[:, 1]).std()) if len(scores) else np.inf
    return Gain(one.score - other.score, sd if one.count >= FEWEST else at_least_half(sd, one.count))


def gain_interval(task, one: Trial, other: Trial, names: list[str]) -> tuple[str, Interval | None]:
    """The verdict ("yes", "no", "unclear") and the gain, 80 %; None for fewer than `FEWEST` groups of images."""
    if one.count < FEWEST:
        return "unclear", None
    gain = gain_over(task, one, other, names)
    sd = at_least_half(gain.sd, one.count)
    helps = "yes" if gain.value > CLEAR * sd else "no" if gain.value < -CLEAR_LOSS * sd else "unclear"
    return helps, Interval(gain.value, gain.value - Z80 * sd, gain.value + Z80 * sd)


def score_interval(task, one: Trial, names: list[str]) -> Interval | None:
    """Of the last run's score on new images, 80 %; None for fewer than `FEWEST` groups of them."""
    n = one.count
    if n < FEWEST:
        return None
    scores = redrawn(task, [one.tallies], names, one.groups)
    return Interval.around(one.expected, at_least_half(float(scores.std()) * (n / (n - 1)) ** 0.5 * WIDER, n))
