"""What the next round of labels would bring, and whether it is worth its time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .estimates import MORE, Z80, Interval

# standard deviation of the gain by `MORE` times the labels: under it 15 of 18 gains of 20 labels on the embedded digits
# (9 seeds, from 40 and from 60 labels) lay in the interval
ROUND_ERROR = 0.065
WORTH_A_ROUND = 0.01  # gain in accuracy below which a round of labels is not worth its time
SURE = 0.05  # where the gain may well be above it, that it is not is not known
LEAST_ERROR = 0.01  # below which the logarithm of an error says more of its noise than of labels


def gain_of(now: Interval, forecast: Interval, labels: int, more: int) -> Interval:
    """What `more` labels bring: on the line in log labels from today's accuracy to the forecast, whose error grows with
    the root of the way. No more than all that is wrong today."""
    share = float(np.log((labels + more) / labels) / np.log(MORE))
    value, sd, most = share * (forecast.value - now.value), ROUND_ERROR * share**0.5, 1 - now.value
    return Interval(*(min(v, most) for v in (value, value - Z80 * sd, value + Z80 * sd)))


def gain_by_rounds(rounds: Sequence[tuple[int, Interval | None]], more: int) -> Interval | None:
    """What `more` labels bring where nothing forecasts it: the line through the rounds so far in log labels and in the
    logarithm of what is wrong, which stays above nothing; each round as sure as its interval is narrow. None for fewer
    than two rounds.

    Args:
        rounds: (labels, score) of each.
    """
    known = [(n, one) for n, one in rounds if one is not None]
    if len({n for n, _ in known}) < 2:
        return None
    x = np.log([n for n, _ in known])
    wrong = np.array([max(1 - one.value, LEAST_ERROR) for _, one in known])
    y, sd = -np.log(wrong), np.array([max((one.high - one.low) / (2 * Z80), 1e-3) for _, one in known]) / wrong
    w = sd**-2
    x = x - np.average(x, weights=w)
    slope, error = (w * x * y).sum() / (w * x * x).sum(), (w * x * x).sum() ** -0.5
    way, now = np.log((known[-1][0] + more) / known[-1][0]), known[-1][1].value
    slopes = np.array([slope, slope - Z80 * error, slope + Z80 * error])
    return Interval(*(float(v) for v in np.clip(-(1 - now) * np.expm1(-slopes * way), -now, 1 - now)))


def not_worth_it(gain: Interval | None) -> bool:
    """Whether it is known that a round is hardly worth its time."""
    return gain is not None and gain.value < WORTH_A_ROUND and gain.high < SURE


def sentence(gain: Interval | None, stop: bool, more: int, doubtful: int) -> str:
    if not more:
        return "No image is left to choose."
    if gain is None:
        return f"{more} more labels: what they bring is not known yet. Go on."
    low, value, high = (f"{100 * v:+.0f}" for v in (gain.low, gain.value, gain.high))
    said = f"{more} more labels: {value} points ({low} to {high}, 80 %)"
    if not stop:
        return f"{said}. Go on." if gain.value >= WORTH_A_ROUND else f"{said}: not known yet. Go on."
    wrong = f", or look again at {doubtful} of the labels first (advice.html)" if doubtful else ""
    return f"{said}: hardly worth a round. Stop here{wrong}."
