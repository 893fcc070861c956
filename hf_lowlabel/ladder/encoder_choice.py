"""Which of several encoders `auto` trains with masks: the one whose frozen maps tell the pixels apart best."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arguments import Config
from ..tasks.data_classes import Attempt
from ..text import listed
from ..training.preparing import Prepared
from .encoders import name_of, unique
from .image_side import at_fitting_side, rebuilt
from .planning import FOLDS, in_time
from .search_state import ENCODERS, TRIALS, note, noted
from .trained import Trials
from .trials import Trial

log = logging.getLogger("hf_lowlabel")
SHARE = 0.4  # of the time left, for looking at all encoders
PLACE = f"{TRIALS}/encoders"


def with_best_encoder(
    ready: Prepared,
    given: Mapping[str, Any],
    models: Sequence[Any],
    configs: Callable[[Sequence[Attempt], Mapping[str, Any]], dict[Attempt, Config]],
    copies: np.ndarray | None,
    seconds: float,
) -> tuple[Prepared, dict[str, Any], str, list[Trial], str]:
    """The run with the encoder whose frozen probe scores highest in the cross-validation that all attempts have.

    Args:
        ready: a run with the first of the models.
        given: settings of `finetune` that all attempts have.
        models: encoders.
        configs: attempts, settings -> the resolved settings of every attempt.
        copies: as of `Trials`.
        seconds: time left.

    Returns:
        The run, its settings, the name of its encoder, the trials of the others, and a sentence on all of them.
    """
    begin, known, names = time.perf_counter(), noted(ready.folder, ENCODERS), list[str]()
    for model in models:
        names.append(unique(name_of(model), names))
    plain = next(attempt for attempt in ready.task.attempts if attempt.frozen)
    probes = [
        replace(plain, name=f"{plain.name}, {name}", settings={**plain.settings, "model": model})
        for name, model in zip(names, models, strict=True)
    ]
    every = partial(configs, probes)
    seen, sized, _ = at_fitting_side(ready, given, every, SHARE * seconds, PLACE)
    left = SHARE * seconds - (time.perf_counter() - begin) if known is None else float("inf")
    tried, of = list[Trial](), every(sized)
    for number in in_time(range(len(models))[:known], left):
        # a folder each: that of a trial has no more of its name than letters and digits
        trials = Trials(seen, of, ready.folder / PLACE / str(number), copies=copies)
        one = trials.tried(probes[number], {"folds": min(max(FOLDS), trials.groups), "steps": 1, "last": 1})
        assert one is not None  # nothing is trained that could diverge
        tried.append(one)
    note(ready.folder, ENCODERS, len(tried))
    told, late = tried[0].told, names[len(tried) :]
    best = max(range(len(tried)), key=lambda number: tried[number].score) if told else 0
    if best:
        ready = rebuilt(ready, model=models[best])
    scores = ready.task.score
    shown = ", ".join(f"{name} {scores.show(one.score)}" for name, one in zip(names, tried, strict=False))
    said = f"Encoders by a linear probe of their frozen features, cross-validated: {shown}; {names[best]} is taken."
    if not told:
        said = f"Of the encoders {names[best]}, the first, is taken: no two classes can be judged by cross-validation."
    if late:
        log.warning("no time is left for %s: a new search with more --minutes tries it", ", ".join(late))
        said += f" There was no time for {listed(late, 5)}."
    others = [one for one in tried if one is not tried[best]]
    return ready, {**given, "model": models[best]}, names[best], others, said
