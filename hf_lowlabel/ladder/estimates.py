"""How good a model is without a test set, whether unlabeled images help, and what more labels would bring.

All of it from the labels themselves, each left out in turn; the widths are those under which intervals held on other
data (recipes/benchmarks/auto.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.classification import Z80 as Z80
from ..finetuning.graph import weight_by_class
from ..text import percent
from ..training.cross_validated import at_least_half
from .encoders import Features
from .frozen import said
from .planning import in_time
from .rungs import Tried

OPTIMISM = 0.02  # at an accuracy of one half and 40 labels or fewer, by which the best of several rungs looks better
WORTH = 20  # labels that the mean confidence on all images is worth as an estimate of the accuracy
INFLATION = 1.1  # the error of an estimate, in standard errors of as many independent labels
GAIN_INFLATION = 1.5  # the same of a gain
FEWEST = 4  # groups of images, fewer of which do not tell how far a score scatters
CLEAR, CLEAR_LOSS = 1.0, 2.0  # standard errors of a gain, of a loss, that are taken for one
CLEAR_EVENLY = 2.0  # of a gain where there are as many labels of each class, which is not so of the images
MORE = 2.5  # times the labels, of the forecast
PARTS = (0.35, 0.5, 0.7, 0.85)  # of the labels, points of the learning curve
DRAWS = 8  # of each part
USUAL = 0.2  # exponent of the power law by which errors fall with the number of labels, on other data
OWN = 0.25  # share of the labels' own curve in the forecast: a few labels say little about a slope
FORECAST_ERROR = 0.03  # standard deviation that a forecast has beyond that of today's accuracy
FARTHEST = 10  # times the labels, beyond which nothing is said of so few
CARRIED = 0.8  # share of today's error that a forecast still has: the curve flattens


@dataclass(frozen=True)
class Interval:
    """A share with its 80 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{percent(self.value)} (80 % interval {percent(self.low)} to {percent(self.high)})"

    @classmethod
    def around(cls, value: float, sd: float) -> Interval:
        value = min(max(value, 0.0), 1.0)
        return cls(value, max(value - Z80 * sd, 0.0), min(value + Z80 * sd, 1.0))


def standard_error(p: float, n: float) -> float:
    """Of a share p seen on n labels; one pseudo-count on either side keeps it above 0."""
    q = (p * n + 1) / (n + 2)
    return float(np.sqrt(q * (1 - q) / n))


def confidence(encoder: Features, best: Tried) -> float:
    """Mean probability of the most probable class over all images without a label, as the calibrated rung says it."""
    free = np.setdiff1d(np.arange(len(encoder.x)), encoder.rows)
    if len(free):
        return float(encoder.say(best)[free].max(1).mean())
    return float(best.confidence.mean()) if len(best.confidence) else float("nan")


def accuracy(best: Tried, confidence: float) -> Interval | None:
    """Of the best rung on new images; None where no label could be left out.

    A mean of the share right of the labels left out, whose groups are worth n = 1 / sum weight^2, and of the
    confidence on the images without one, n : `WORTH`.
    """
    if best.accuracy is None or len(best.weight) < 2:
        return None
    n = 1 / float(best.weight @ best.weight)
    value = (n * best.accuracy + WORTH * confidence) / (n + WORTH)
    value -= OPTIMISM * min(1.0, (40 / n) ** 0.5) * 4 * value * (1 - value)
    return Interval.around(value, INFLATION * standard_error(value, n))


@dataclass(frozen=True)
class Help:
    """Whether unlabeled images help: "yes", "no" or "unclear", and the gain in accuracy."""

    verdict: str
    gain: Interval | None


def unlabeled_help(tried: Sequence[Tried]) -> Help:
    """The best rung that uses unlabeled images against the best that does not, on the same labels. Votes are left out:
    what several encoders gain is another matter. An encoder that was adapted to the images has learned from them.

    The verdict is by the probability of the true class, in standard errors of the paired difference.
    """
    tried = [one for one in tried if not one.rung.names]  # what the names of the classes add is another matter
    using = [one for one in tried if one.unlabeled and len(one.label) and not one.votes]
    without = [one for one in tried if not one.unlabeled and len(one.label)]
    if not using or not without or len(using[0].weight) < FEWEST:
        return Help("unclear", None)
    a, b = max(using, key=lambda o: o.score), max(without, key=lambda o: o.score)
    n = len(a.weight)
    d = n * a.weight * (a.probability - b.probability)
    t = float(d.mean()) / max(float(d.std(ddof=1)) / n**0.5, 1e-3)
    gain = n * a.weight * (a.correct - b.correct)
    spread = GAIN_INFLATION * at_least_half(float(gain.std(ddof=1)) / n**0.5, n)
    value = float(gain.mean())
    interval = Interval(value, max(value - Z80 * spread, -1.0), min(value + Z80 * spread, 1.0))
    verdict = "yes" if t > (CLEAR_EVENLY if a.evenly else CLEAR) else "no" if t < -CLEAR_LOSS else "unclear"
    against = value < 0 if verdict == "yes" else value > 0  # probabilities say one thing and right answers the other
    return Help("unclear" if against else verdict, interval)


@dataclass(frozen=True)
class Curve:
    """labels: int [P] and their accuracy [P] when parts of the labels are used. forecast: of `MORE` times the labels.
    needed: labels -> accuracy that is expected of them.
    """

    labels: list[int]
    accuracy: list[float]
    forecast: Interval
    expected: Callable[[float], float]


def learning_curve(
    encoders: Sequence[Features],
    y: np.ndarray,
    best: Tried,
    now: Interval | None,
    seed: int = 0,
    seconds: float = float("inf"),
) -> Curve | None:
    """The best rung with parts of the labels, tested on the rest, and what that says of more labels; now: `accuracy`.

    Several families are fitted, each through today's estimate, and averaged: a + b log m, a - b m^-1/2 and
    1 - c m^-b (Mahmood et al. 2022 on why one is not enough). Their slopes are uncertain at so few labels, so that the
    usual one counts three times as much. None where the labels are too few. seconds: that it may take; each part is
    drawn once in any case.
    """
    one, first = encoders[0], encoders[0].first
    if now is None or best.accuracy is None or len(first) < 3 * len(np.unique(y)):
        return None
    random = np.random.default_rng(seed)
    if not best.votes:
        encoders = [encoder for encoder in encoders if encoder.name == best.encoder]
    drawn = [[left_out_part(y[first], part, random) for _ in range(DRAWS)] for part in PARTS]
    correct, used, draws = np.zeros(len(PARTS)), np.zeros(len(PARTS), int), 0
    for draw in in_time(range(DRAWS), seconds):
        draws += 1
        for part, out in ((part, masks[draw]) for part, masks in enumerate(drawn)):
            if out is None:
                continue
            without = out[one.group]
            asked = one.asked(without)
            z = said(encoders, one.without(without), asked, [best.rung])[best.key]
            truth = y[asked]
            correct[part] += float(weight_by_class(truth, z.shape[1], best.even) @ (z.argmax(1) == truth))
            used[part] += int((~out).sum())
    known = used > 0  # of the others all labels of each class are used
    sizes = [round(count / draws) for count in used[known]]
    scores = (correct[known] / draws).tolist()
    if len(sizes) < 2:
        return None
    m = np.array([*sizes, len(first)], float)
    a = np.array([*scores, best.accuracy])  # of a kind: all by labels left out
    expected = average_of_families(m, a, len(first), now.value)
    value = expected(MORE * len(first))
    sd = float(np.hypot(CARRIED * (now.high - now.low) / (2 * Z80), FORECAST_ERROR))
    return Curve([int(v) for v in m], [float(v) for v in a], Interval.around(value, sd), expected)


def curve_of(encoders: Sequence[Features], tried: Sequence[Tried], seconds: float = float("inf")) -> Curve | None:
    """`learning_curve` of the best of what was tried."""
    best = tried[0]
    encoder = next(e for e in encoders if e.name == best.encoder)
    now = accuracy(best, confidence(encoder, best))
    return learning_curve(encoders, encoder.y, best, now, seconds=seconds)


def left_out_part(y: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray | None:
    """Mask of the labels that are left out when a part of each class is used, at least one; None: nothing is left."""
    out = np.zeros(len(y), bool)
    for k in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == k))
        out[rows[max(1, round(part * len(rows))) :]] = True
    return out if out.any() else None


def average_of_families(m: np.ndarray, a: np.ndarray, labels: int, now: float) -> Callable[[float], float]:
    """Accuracy as a function of the number of labels, through (labels, now), never falling and below 1: for the most
    part a power law of the usual exponent."""

    def slope(u: np.ndarray, v: np.ndarray) -> float:
        u = u - u.mean()
        return max(float((u * (v - v.mean())).sum() / max(float((u * u).sum()), 1e-12)), 0.0)

    error = np.log(np.maximum(1 - a, 1e-3))
    b_log, b_root, b_power = slope(np.log(m), a), slope(-(m**-0.5), a), slope(-np.log(m), error)
    left = max(1 - now, 1e-3)

    def expected(n: float) -> float:
        grown = np.log(n / labels)
        guesses = (
            now + b_log * grown,
            now + b_root * (labels**-0.5 - n**-0.5),
            1 - left * np.exp(-b_power * grown),
        )
        usual = 1 - left * np.exp(-USUAL * grown)
        guess = OWN * np.mean(guesses) + (1 - OWN) * usual
        return float(min(max(guess, now if n >= labels else 0.0), 0.999))

    return expected


def labels_for(curve: Curve, target: float, labels: int) -> int | None:
    """Labels of which `target` is expected; None: more than `FARTHEST` times as many as there are."""
    for n in range(labels, FARTHEST * labels + 1, max(1, labels // 10)):
        if curve.expected(n) >= target:
            return n
    return None
