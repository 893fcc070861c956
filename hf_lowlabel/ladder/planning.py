"""Plans a search within its time: number of folds, attempts, and training steps of each."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ..distributed import of_first
from ..tasks.data_classes import Attempt

log = logging.getLogger("hf_lowlabel")
FOLDS = (3, 2)  # tried in this order, as time allows
FEWEST, MOST = 60, 600  # steps of a trial
SPENT = 0.85  # share of the time left that is planned: the rest is for reading, testing and saving
Round = TypeVar("Round")


def in_time(rounds: Sequence[Round], seconds: float) -> Iterator[Round]:
    """The first of some rounds of the same work, and more while the next one fits the time; all processes go by the
    clock of the first."""
    begin = time.perf_counter()
    for done, one in enumerate(rounds, 1):
        yield one
        needed = (time.perf_counter() - begin) * (done + 1) / done
        if done < len(rounds) and of_first(needed) > of_first(seconds):
            return


class Fitting(NamedTuple):
    """folds: of the labels. steps: of a trial. last: of the run with all labels. later: attempts for which the time was
    short -> how many minutes more they take."""

    folds: int
    steps: int
    last: int
    attempts: list[Attempt]
    later: dict[str, int] = {}


def settle(
    each: Mapping[Attempt, float],
    left: float,
    labels: int,
    needed: bool = True,
    choices: Sequence[int] = FOLDS,
    longer: float = 1.0,
    quiet: bool = False,
) -> Fitting:
    """What fits: fewer folds first, then fewer attempts; the floor of the task is tried before it is given up with a
    last run that is no longer than a trial.

    Args:
        each: seconds of a step, the plainest attempt first.
        left: seconds.
        labels: number of labeled images.
        needed: whether the plainest attempt stays in any case.
        choices: numbers of folds, the most wanted first.
        longer: how many times the steps of a trial the last run has.
        quiet: nothing is said of what does not fit.
    """
    attempts, level, later = list(each), logging.DEBUG if quiet else logging.WARNING, dict[str, int]()
    while attempts:
        ways = [(folds, longer) for folds in choices]
        if attempts[-1].floor:
            ways.append((choices[-1], 1.0))
        for folds, last in ways:
            folds = min(folds, labels)
            every = sum(folds * each[r] for r in attempts) + last * max(each[r] for r in attempts)
            steps = int(left / every) if every > 0 else MOST
            if steps >= FEWEST:
                steps = min(steps, MOST)
                return Fitting(folds, steps, min(int(last * steps), MOST), attempts, later)
        more = math.ceil((FEWEST * every - left) / SPENT / 60)  # minutes, by the way that takes least
        if needed and len(attempts) == 1:
            said = "%.0f s are short for these images: give about %d more --minutes, or a smaller --image-size"
            log.log(level, said, max(left, 0), more)
            return Fitting(folds, FEWEST, min(int(longer * FEWEST), MOST), attempts, later)
        said = (
            "%s is not tried: there is no time for it. A new search with %d more --minutes, in another --output-dir, "
            "tries it"
        )
        later[attempts[-1].name] = more
        log.log(level, said, attempts.pop().name, more)
    return Fitting(choices[-1], FEWEST, FEWEST, [], later)
