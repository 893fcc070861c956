"""The side of the images that `auto` trains on: the one that the user named, or the largest whose runs are long
enough."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..arguments import Config
from ..distributed import barrier, is_main_process
from ..errors import OneClass
from ..files import write_json
from ..models.quiet import unsaid
from ..tasks.data_classes import Attempt, Examples
from ..training.preparing import Prepared, caches_of, held_out, network_of
from .planning import settle
from .search_state import TRIALS, not_any_more, read_kept
from .trained import Trials, hushed

ENOUGH = 150  # steps of a trial that a smaller side has to allow
SIZE = "size.json"


def rebuilt(ready: Prepared, **settings: Any) -> Prepared:
    """The same run with other settings of the model or the views: its network, and the same images as that sees them.

    Raises:
        UserError: one of them cannot be read any more.
    """
    config = ready.config.replace(**settings)
    named = contextlib.nullcontext() if "model" in settings else unsaid("hf_lowlabel", logging.WARNING)
    with named:  # the same weights are said once
        network = network_of(ready.task, config, ready.dataset, ready.names, ready.accelerator.device)
    net = network.model
    before = np.asarray(ready.training.indices)  # one cache may have seen that an image is bad, where another streams
    at = ready.at._replace(train=before)
    training, labeled = caches_of(ready.task, net, config, ready.dataset, at, ready.total)
    lost = np.setdiff1d(positions(ready.labeled), positions(labeled))
    if ready.task.climbs and not len(lost):  # what is known of images goes by their place
        lost = np.setdiff1d(before, training.indices)
    if len(lost):
        raise not_any_more(ready.dataset.ids[lost[0]])
    held = held_out(ready.task, net, config, ready.dataset, ready.chosen, ready.at, ready.total)
    return replace(ready, config=config, network=network, training=training, labeled=labeled, held=held)


def positions(labeled: Examples) -> np.ndarray:
    """In the data set."""
    return np.asarray(labeled.cache.indices)[labeled.members.numpy()]


def at_fitting_side(
    ready: Prepared,
    given: Mapping[str, Any],
    configs: Callable[[Mapping[str, Any]], dict[Attempt, Config]],
    seconds: float,
    trials: str = TRIALS,
) -> tuple[Prepared, dict[str, Any], str | None]:
    """The run and the settings of its attempts at the side that was asked for, or the largest whose trials are long
    enough.

    Args:
        ready: a run at the usual side.
        given: settings that all attempts have.
        configs: settings -> those of every attempt.
        seconds: time left.
        trials: folder in the run's that keeps the side.

    Returns:
        The run, the settings, and a sentence where the side is smaller than the usual one for want of time.
    """
    sides = ready.task.sides(ready.dataset, given["image_size"])
    if not sides or given["stored_size"] is not None:
        return ready, dict(given), None
    path, side, said = ready.folder / trials / SIZE, sides[0], None
    if len(sides) > 1:
        if not path.is_file():
            side = measured(ready, sides, given, configs, seconds)
            barrier()  # all have looked
            if is_main_process():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, side)
            barrier()
        side = read_kept(path)
        said = (
            f"Learned from images of {side['image_size']} px on the shorter side, which fit the time; with more "
            "--minutes or a GPU they are larger, and --image-size sets that side."
        )
    if side["stored_size"] is None:
        return ready, dict(given), None
    return rebuilt(ready, **side), {**given, **side}, said


def measured(
    ready: Prepared, sides: Sequence[dict[str, Any]], given: Mapping[str, Any], configs: Callable, seconds: float
) -> dict[str, Any]:
    """By the seconds of a step, and of a fit, at the smallest side that shows what the masks do, which grow with the
    area."""
    sides, begin = list(sides), time.perf_counter()
    while (seen := showing(ready, sides[-1])) is None:
        sides.pop()
    small = sides[-1]
    trials = Trials(seen, configs({**given, **small}), ready.folder / TRIALS)
    with hushed():  # what diverges at this side is tried at the one that is taken
        each, fits, left = trials.looked(seconds - (time.perf_counter() - begin))
    for side in sides:
        area = (side["image_size"] / small["image_size"]) ** 2
        grown = {a: s * area for a, s in each.items()}
        labels = len(ready.labeled.members)
        found = settle(grown, left - fits * area, labels, choices=trials.choices, longer=trials.longer, quiet=True)
        if fits * area <= left and found.steps >= ENOUGH and len(found.attempts) == len(each):
            return side
    return small


def showing(ready: Prepared, side: dict[str, Any]) -> Prepared | None:
    """The run at a side; None where a mask loses the only object it shows, or all masks a class."""
    if side["stored_size"] is None:
        return ready
    try:
        found = rebuilt(ready, **side)
    except OneClass:
        return None
    before, after = (ready.task.shows(one.labeled, ready.names) for one in (ready, found))
    several = before.sum(1) > 1
    lost = (after.sum(1) < 2)[several].any() or (before.any(0) & ~after.any(0)).any()
    return None if lost else found
