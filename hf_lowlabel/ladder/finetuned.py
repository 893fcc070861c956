"""Finetunes the network from the best head on frozen features; kept if cross-validation favours it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..distributed import barrier
from ..finetuning.linear import left_out_in_turn
from ..hub.callback import CardCallback
from ..tasks.data_classes import Attempt
from ..tasks.foundation import with_branches
from ..text import percent
from ..training.preparing import Prepared, Run
from ..training.priors import save_priors
from ..training.run import train
from .encoders import Features
from .frozen import said, wanted
from .on_training import configs_of
from .rungs import PROBE, Rung, Tried, clearly_more
from .search_state import TRIALS
from .trained import Trials

log = logging.getLogger("hf_lowlabel")
PRIORS = "priors.safetensors"
FOLDS = 2


@dataclass
class Finetuned:
    """An attempt on top of a frozen rung. before, after: what the rung and the network said of the same labels left
    out. gain: of the score. steps: of a run.
    """

    attempt: Attempt
    before: Tried
    after: Tried
    gain: float
    steps: int

    @property
    def kept(self) -> bool:
        """Whether clearly more of the labels left out are right: surer alone is no reason to train."""
        return clearly_more(self.after.correct, self.before.correct)

    @property
    def points(self) -> float:
        """By how much the accuracy differs."""
        return (self.after.accuracy or 0.0) - (self.before.accuracy or 0.0)


class FromFrozen(Trials):
    """Trials whose network starts from a head fitted to what the best frozen rung believes of all images."""

    def __init__(self, ready: Prepared, configs: Mapping, folder: Path, encoders: Sequence[Features], best: Tried):
        self.encoders, self.best = encoders, best
        self.encoder = next(e for e in encoders if e.name == best.encoder)
        super().__init__(ready, configs, folder, copies=self.encoder.copies)
        self.y = self.encoder.y
        seed = ready.config.training.seed
        self.masks = left_out_in_turn(self.y, folds=FOLDS, seed=seed, copies=self.copies)

    needed = False
    choices = (FOLDS,)
    longer = 1.0

    def folds(self, count: int) -> list[np.ndarray]:
        return [np.flatnonzero(mask) for mask in self.masks]

    def fold_settings(self, out: np.ndarray, folder: Path) -> dict[str, Any]:
        if not len(out):
            self.save_beliefs(self.folder / PRIORS, self.y)
            return dict(prior=str(self.folder / PRIORS))
        self.save_beliefs(folder / PRIORS, self.encoder.without(np.isin(np.arange(len(self.y)), out)))
        return dict(prior=str(folder / PRIORS))

    def save_beliefs(self, path: Path, labels: np.ndarray) -> None:
        targets = None
        if self.best.rung is not PROBE:
            targets = wanted(self.encoders, labels, [self.best.rung])[self.best.key]
        p = self.encoder.believe(targets, self.best.t, labels)
        if self.ready.recorder.main:
            save_priors(path, p, self.ready.training.ids, self.ready.names, {"rung": self.best.name})
        barrier()

    def compared(self, attempt: Attempt, tallies: np.ndarray, steps: int) -> Finetuned:
        """The network and the rung it starts from on the same labels left out."""
        asked, rungs = [self.encoder.asked(mask) for mask in self.masks], [self.best.rung]
        label = np.concatenate(asked)
        logits = [
            said(self.encoders, self.encoder.without(mask), of, rungs)[self.best.key]
            for mask, of in zip(self.masks, asked, strict=True)
        ]
        of, same = self.best, dict(group=self.best.group, even=self.best.even)
        before = Tried(of.rung, of.encoder, of.votes, label, np.concatenate(logits), of.targets, **same)
        own = Rung(f"{attempt.name} from {self.best.rung.name}", attempt.settings["method"])
        z = np.log(np.maximum(tallies[:, 0], 1e-12))
        after = Tried(own, of.encoder, False, label, z, of.targets, 1.0, **same)
        for one in (before, after):
            one.judge(self.y)
        return Finetuned(attempt, before, after, after.score - before.score, steps)


def finetune_from(
    ready: Prepared, given: Mapping[str, Any], encoders: Sequence[Features], best: Tried, seconds: float
) -> list[tuple[Finetuned, FromFrozen]]:
    """Every attempt that fits the time left, the best first; none where no label can be left out.

    Args:
        ready: the run, with the network of the best rung.
        given: settings of `finetune` that all attempts have.
        encoders: the features.
        best: the best frozen rung.
        seconds: time left.
    """
    if best.accuracy is None:
        return []
    attempts = with_branches(ready.task.attempts, ready.network.model)
    begin, folder = time.perf_counter(), ready.folder / TRIALS
    configs = configs_of(attempts, {**given, "prior": str(folder / PRIORS)}, ready.folder)
    trials = FromFrozen(ready, configs, folder, encoders, best)
    if not trials.masks:
        log.info("the network is not finetuned: the labels cannot be halved for cross-validation")
        return []
    tried, plan = trials.climb(seconds - (time.perf_counter() - begin))
    found = [trials.compared(trial.attempt, trial.tallies, plan["steps"]) for trial in tried]
    for one in found:
        log.info("%s: %+.1f points in cross-validation", one.attempt.name, 100 * one.points)
    return [(one, trials) for one in sorted(found, key=by_gain)]


def by_gain(one: Finetuned) -> float:
    return -one.gain


def trained_on(ready: Prepared, one: Finetuned, trials: FromFrozen) -> Run:
    """The attempt with all labels, in the run folder."""
    every = np.arange(len(ready.labeled.members))
    resume = (ready.folder / "checkpoints").is_dir()
    trials.save_beliefs(ready.folder / PRIORS, trials.y)
    prior = str(ready.folder / PRIORS)
    last = trials.part(one.attempt, every, ready.folder, max_steps=one.steps, resume=resume, prior=prior)
    last = replace(last, held=ready.held)
    last.recorder.takes(last.config, last.network.model.load_report)
    return train(last, [CardCallback()])


def sentence(one: Finetuned) -> str:
    """What finetuning the network brought, for the advice."""
    what = f"{one.attempt.name} from that head, {one.steps} steps"
    a, b = percent(one.before.accuracy or 0.0), percent(one.after.accuracy or 0.0)
    verdict = "taken" if one.kept else "not taken"
    return f"Finetuning the network ({what}): {b} right in cross-validation, the frozen features {a}; {verdict}."
