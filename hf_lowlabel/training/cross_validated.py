"""Cross-validated score of frozen features, for runs without a test image.

The finetuned network is not measured by it, which would take a training for each part of the labels (`auto` does that).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import methods
from ..errors import UserError
from ..evaluation.classification import Z80, wilson
from ..finetuning.linear import drawn_again
from ..tasks import get_task
from ..tasks.data_classes import LeftOut
from .measured import CROSS_VALIDATED, NOT_KNOWN, NOT_MEASURED
from .preparing import Prepared, Run

log = logging.getLogger("hf_lowlabel")
REDRAWN = 400  # bootstrap samples
PREFIX = "left_out_"  # of scores of such a layer where it is the model, and behind PROBE where it is beside it
PROBE = "probe_"


def tell_left_out(ready: Prepared) -> None:
    """Log the score, and note it and a sentence about it for the record; nothing where images are tested on."""
    task, recorder = ready.task, ready.recorder
    if "test" in ready.held or ready.config.training.dry_run:
        return
    if seen := recorder.labels_seen(ready.at.labeled):
        said = (
            f"{NOT_KNOWN}, and {seen} of the {len(ready.at.labeled)} labels were used to train the weights "
            "that this run starts from, so cross-validation would be too optimistic: the score is unknown. "
            "Give --test-fraction, or start from earlier weights."
        )
        log.warning(said)
        recorder.advice.append(said)
        return
    try:
        found = task.tallies_left_out(ready.network.model, ready.labeled, ready.names)
        if found is None:
            return
        if not task.tells_apart(found.tallies):
            log.info("no cross-validated score: the %s show one class", task.label_words)
            return
        value, (low, high) = task.total(task.judged(found.tallies), ready.names), interval(ready, found)
    except UserError as error:  # a network with two heads has no one place to read features at; masks without a class
        log.info("no cross-validated score: %s", error)
        return
    score, n = task.score, len(found.tallies)
    own = methods.name_of(ready.config.method) == "probe" and not ready.config.training.prior
    before = PREFIX if own else PROBE + PREFIX
    key = f"{before}{score.key}"
    recorder.left_out = {key: value, f"{key}_low": low, f"{key}_high": high, f"{before}{task.label_words}": n}
    start = "random weights" if ready.config.model.from_scratch else recorder.start_words()
    said = (
        f"{NOT_MEASURED} on the frozen features of {start} was: {score.title} {score.show(value)}, "
        f"{CROSS_VALIDATED} {n} {task.label_words} (80 % interval {score.show(low)} to "
        f"{score.show(high)}). The finetuned model should not be below that; "
        "`hf-lowlabel auto` trains on parts of the labels and measures it."
    )
    for words in (said, *task.said_left_out(found.tallies, ready.names)):
        log.info(words)
        recorder.advice.append(words)


def left_out_words(run: Run) -> str:
    """The score in a line, and whose it is; "" where there is none."""
    if not run.recorder.left_out:
        return ""
    task, key = get_task(run.config.task), next(iter(run.recorder.left_out))
    value, low, high, n = run.recorder.left_out.values()
    show, title = task.score.show, task.score.title
    said = f"{title[0].lower()}{title[1:]} {show(value)} ({show(low)} to {show(high)})"
    said += f", cross-validated on {n} {task.label_words}"
    return f"a linear layer on the frozen features: {said}" + key.startswith(PROBE) * "; this model was not measured"


def interval(ready: Prepared, found: LeftOut) -> tuple[float, float]:
    """80 %: Wilson's of a share of images, whose groups are worth n = 1 / sum weight^2, else by the spread over samples
    of the groups drawn with replacement, and of half a group at least."""
    task, tallies, groups = ready.task, found.tallies, np.unique(found.group, return_inverse=True)[1]
    p, weights, n = task.total(task.judged(tallies), ready.names), task.weights(tallies), groups.max() + 1
    if weights is not None:
        n = 1 / float((np.bincount(groups, weights) ** 2).sum())
        low, high = wilson(np.array(p), np.array(n))
        return float(low), float(high)
    scores = redrawn(task, [tallies], ready.names, groups)
    half = Z80 * at_least_half(float(scores.std()) if len(scores) else np.inf, n)
    return max(p - half, 0.0), min(p + half, 1.0)


def at_least_half(error: float, groups: int) -> float:
    """A standard error of a score, of half a group at least: that few of them agree says little of the next one."""
    return max(error, 0.5 / groups)


def redrawn(task: Any, of: Sequence[np.ndarray], names: list[str], groups: np.ndarray) -> np.ndarray:
    """Scores [`REDRAWN` at most, len(of)] of groups of images drawn again with replacement, the same ones for all.

    Args:
        task: what makes a score of tallies. of: tallies [n, ...] of the same images. names: of the classes. groups:
            of each image, 0 .. G - 1, int [n].
    """
    random, out = np.random.default_rng(0), []
    of = [task.judged(tallies) for tallies in of]  # by all of them: a draw has some twice
    for _ in range(REDRAWN):
        rows = drawn_again(groups, random)
        with contextlib.suppress(UserError):  # a draw without any pixel or class to compare with
            out.append([task.total(tallies[rows], names) for tallies in of])
    return np.array(out).reshape(-1, len(of))
