"""Candidates that train the network, scored by cross-validation.

folds of the labels -> every attempt trained without each fold and tested on it -> the best of them by all folds

What a trial found is kept in the run folder, so that a search that was killed goes on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import set_seed
from safetensors.numpy import load_file, save_file

from ..arguments import Config
from ..distributed import all_mean, barrier, is_main_process
from ..errors import Diverged, UserError
from ..files import whole, write_json
from ..finetuning.linear import first_of_each, group_of
from ..models.lora import merged
from ..models.quiet import unsaid
from ..tasks.data_classes import Attempt
from ..training.callbacks import Callback
from ..training.frozen import beside_labels
from ..training.preparing import Prepared, network_of
from ..training.run import fitted
from .clock import Clock
from .folds import spread_over_folds
from .planning import FOLDS, SPENT, settle
from .search_state import PLAN, read_kept
from .trials import Trial, left_of_error

log = logging.getLogger("hf_lowlabel")
Answer = TypeVar("Answer")
LOOKED = 0.05  # share of the time that timing one attempt may take


class Trials:
    """Attempts on the data of one prepared run.

    needed: whether the plainest attempt is tried however short the time is. choices: numbers of folds. longer: how many
    times the steps of a trial the last run has.

    Args:
        ready: the run, with all labels.
        configs: attempt -> its resolved settings; max_steps is set by the plan.
        folder: where what was found is kept.
        features: features of the training images, for attempts on frozen features; called once.
        copies: what labeled images share with each other, int [n, 2], or None (`copies_of_each`).
    """

    needed = True
    choices: tuple[int, ...] = FOLDS
    longer = 2.0

    def __init__(
        self,
        ready: Prepared,
        configs: Mapping[Attempt, Config],
        folder: Path,
        features: Callable[[], np.ndarray] | None = None,
        copies: np.ndarray | None = None,
    ):
        self.ready, self.configs, self.folder = ready, dict(configs), folder
        self.features = None if features is None else functools.cache(features)
        self.names, self.window = ready.names, ready.config.views.window
        count = len(ready.labeled.members)
        shown = np.ones(count, bool) if self.shows is None else ready.task.judgeable(self.shows)
        self.copies, self.some, self.once = copies, np.flatnonzero(shown), shown.copy()
        self.once[self.some] = first_of_each(len(self.some), None if copies is None else copies[self.some])
        self.copied = self.once.sum() < len(self.some)
        self.group, _ = group_of(np.arange(count) if copies is None else copies)
        self.groups = len(np.unique(self.group[self.some]))

    def folds(self, count: int) -> list[np.ndarray]:
        """The labels that are left out together: positions among the labeled images."""
        assert self.shows is not None  # a task with one class an image has folds of its own
        copies = None if self.copies is None else self.copies[self.some]
        seed = self.ready.config.training.seed
        return [self.some[out] for out in spread_over_folds(self.shows[self.some], count, seed, copies)]

    @cached_property
    def shows(self) -> np.ndarray | None:
        return self.ready.task.shows(self.ready.labeled, self.names)

    def fold_settings(self, out: np.ndarray, folder: Path) -> dict[str, Any]:
        """Settings of a run without the labels `out` that depend on which these are."""
        return {}

    # ---- one run ----------------------------------------------------------------------------------------------------
    def part(self, attempt: Attempt, rows: np.ndarray, folder: Path, **settings: Any) -> Prepared:
        """A run of an attempt from its start with the labels `rows` alone."""
        ready, config = self.ready, self.configs[attempt].replace(**settings)
        folder.mkdir(parents=True, exist_ok=True)
        set_seed(config.training.seed)  # as a run by hand, whose network is built right after that
        network = network_of(ready.task, config, ready.dataset, self.names, ready.accelerator.device)
        labeled = ready.labeled.some(rows)
        return replace(ready, config=config, folder=folder, network=network, labeled=labeled, held={})

    def fit(self, ready: Prepared, callbacks: Sequence[Callback] = ()) -> torch.nn.Module:
        if not ready.config.method.frozen:
            return merged(fitted(ready, callbacks, trial=True).inner.evaluated).eval()
        task: Any = ready.task
        of: Any = ready.config.method
        method, model = of(**ready.config.method_args), ready.network.model
        if method.of_pixels:
            task.fit_pixels(method, model, ready.labeled, self.names)
            return model.eval()
        assert self.features is not None
        x = self.features()
        known = task.known_labels(ready.labeled, len(x))
        head = method.head(x, known, num_classes=len(self.names), **beside_labels(method, ready))
        model.set_classifier(*(torch.from_numpy(v).to(model.device) for v in head))
        return model.eval()

    def seconds(self, attempt: Attempt, most: float = float("inf")) -> float:
        """Of one step, the same on every process; 0 for frozen features. most: that the looking may take."""
        if attempt.frozen:
            return 0.0
        clock, rows = Clock(most), np.arange(len(self.ready.labeled.members))
        with hushed(), self.aside() as folder:
            long = dict(
                max_steps=10**6, save_steps=10**6, output_dir=str(folder), **self.fold_settings(rows[:0], folder)
            )
            self.fit(self.part(attempt, rows, folder, **long), [clock])
        return clock.seconds

    def fit_seconds(self, attempt: Attempt) -> float:
        """Of a fit to the frozen features of all labeled images, the same on every process."""
        if self.features is not None and not self.configs[attempt].method.of_pixels:
            self.features()  # made once, and kept
        begin, rows = time.perf_counter(), np.arange(len(self.ready.labeled.members))
        with hushed(), self.aside() as folder:
            self.fit(self.part(attempt, rows, folder, output_dir=str(folder)))
        return float(all_mean(torch.tensor(time.perf_counter() - begin)))

    def known_features(self) -> np.ndarray | None:
        """Those of the training images where an attempt has asked for them; masks are learned from maps."""
        pooled = any(a.frozen and not config.method.of_pixels for a, config in self.configs.items())
        return self.features() if pooled and self.features is not None else None

    @contextlib.contextmanager
    def aside(self) -> Iterator[Path]:
        """A folder for a run whose time alone counts."""
        folder, gone = self.folder / "clock", None
        try:
            yield folder
        except Diverged as error:  # on all processes
            gone = error
        self.forget(folder)
        if gone:
            raise gone

    # ---- all of them ------------------------------------------------------------------------------------------------
    def timed(self, seconds: float) -> dict[Attempt, float]:
        """`seconds` of a step of every attempt that does not diverge meanwhile. seconds: time left."""
        found = {a: unless_diverged(a, partial(self.seconds, a, LOOKED * seconds)) for a in self.configs}
        return {attempt: each for attempt, each in found.items() if each is not None}

    def looked(self, seconds: float) -> tuple[dict[Attempt, float], float, float]:
        """`timed`, the seconds that all fits to frozen features take, and those that may be planned with them, of
        `seconds` that were left before this."""
        begin = time.perf_counter()
        each = self.timed(seconds)
        fits = (max(self.choices) + 1) * sum(self.fit_seconds(a) for a in each if a.frozen)  # folds and the last
        return each, fits, SPENT * (seconds - (time.perf_counter() - begin))

    def plan(self, seconds: float) -> dict[str, Any]:
        """How many folds and steps fit, and which attempts; from the disk where a search was begun."""
        path = self.folder / PLAN
        if path.is_file():
            return read_kept(path)
        each, fits, left = self.looked(seconds)
        quiet = not is_main_process()
        found = settle(each, left - fits, self.groups, self.needed, self.choices, self.longer, quiet)
        names, gone = [a.name for a in found.attempts], [a.name for a in self.configs if a not in each]
        plan = {"folds": found.folds, "steps": found.steps, "last": found.last, "attempts": names, "diverged": gone}
        plan["later"] = found.later
        if is_main_process():
            path.parent.mkdir(exist_ok=True)
            write_json(path, plan)
        barrier()
        return read_kept(path)  # what the first process has planned, by its clock

    def climb(self, seconds: float) -> tuple[list[Trial], dict[str, Any]]:
        """All attempts that fit the time, and the plan.

        Args:
            seconds: time left.
        """
        plan = self.plan(seconds)
        tried, gone = [], plan.setdefault("diverged", [])
        for attempt in (r for r in self.configs if r.name in {*plan["attempts"]} - {*gone}):
            if (one := self.tried(attempt, plan)) is not None:
                tried.append(one)
                continue
            gone.append(attempt.name)  # a search that goes on does not train it again
            if is_main_process():
                write_json(self.folder / PLAN, plan)
            barrier()
        if self.needed and not any(not trial.attempt.unlabeled for trial in tried):
            raise UserError(
                "Every way to train on the labels alone diverged. Look at images and labels, or give another --model."
            )
        return tried, plan

    def tried(self, attempt: Attempt, plan: dict[str, Any]) -> Trial | None:
        """An attempt, cross-validated; None where its network diverges."""
        tallies = unless_diverged(attempt, partial(self.in_turn, attempt, plan))
        if tallies is None:
            return None
        task, group = self.ready.task, None
        told = task.tells_apart(tallies)
        score = task.total(task.judged(tallies), self.names) if told else 0.0
        if self.copies is not None:
            group = np.unique(self.group[self.judged(plan)], return_inverse=True)[1]
        log.info("%s: %s cross-validated", attempt.name, task.score.show(score) if told else "not")
        return Trial(attempt, tallies, score, left_of_error(attempt, plan, self.share(plan)), group, told)

    def in_turn(self, attempt: Attempt, plan: dict[str, Any]) -> np.ndarray:
        """Tallies of all folds."""
        folds = self.folds(plan["folds"])
        return np.concatenate([self.left_out(attempt, out, f, plan) for f, out in enumerate(folds)])

    def share(self, plan: Mapping[str, Any]) -> float:
        """Of the labels, that is there to learn from while an image is judged."""
        folds, count = self.folds(plan["folds"]), len(self.some)
        return float(
            np.average([1 - len(out) / count for out in folds], weights=[self.once[out].sum() for out in folds])
        )

    def judged(self, plan: Mapping[str, Any]) -> np.ndarray:
        """Positions of the labeled images of these tallies, int64 [m]."""
        return np.concatenate([out[self.once[out]] for out in self.folds(plan["folds"])])

    def left_out(self, attempt: Attempt, out: np.ndarray, number: int, plan: dict[str, Any]) -> np.ndarray:
        """Tallies of the pictures of a fold, of copies the first, by a network that was trained without them."""
        folder = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', attempt.name.lower())}-{number}"
        kept = folder / "tallies.safetensors"
        judged = out[self.once[out]]
        if kept.is_file() and len(found := load_file(kept)["tallies"]) == len(judged):  # else of an older version
            self.forget(folder / "checkpoints")  # a search may have been killed right before that
            return found
        rows = np.setdiff1d(np.arange(len(self.ready.labeled.members)), out)
        resume = (folder / "checkpoints").is_dir()
        settings = dict(output_dir=str(folder), **self.fold_settings(out, folder))
        if not attempt.frozen:
            settings |= dict(max_steps=plan["steps"], resume=resume)
        try:
            with hushed():
                model = self.fit(self.part(attempt, rows, folder, **settings))
            tallies = self.ready.task.tallies(model, self.ready.labeled.some(judged), self.names, self.window)
        except Diverged:  # on all processes
            self.forget(folder / "checkpoints")
            raise
        if is_main_process():
            with whole(kept) as part:
                save_file({"tallies": np.ascontiguousarray(tallies)}, part)
        self.forget(folder / "checkpoints")
        return tallies

    def forget(self, folder: Path) -> None:
        barrier()
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)
        barrier()


def unless_diverged(attempt: Attempt, work: Callable[[], Answer]) -> Answer | None:
    """What `work` says of an attempt; None, with a word about it, where its network diverges."""
    try:
        return work()
    except Diverged as error:
        log.warning("%s is not taken: %s", attempt.name, str(error).split(";")[0])
        return None


def hushed() -> contextlib.AbstractContextManager[None]:
    """Trials say nothing: their warnings come again in the last run, and how to go on is not theirs to say."""
    return unsaid(log.name, logging.ERROR)
