"""`auto` with trained networks: cross-validates every attempt of a task, and trains the best on all labels as an
ordinary run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..api.running import settled
from ..arguments import Config
from ..distributed import is_main_process, world
from ..errors import UserError
from ..evaluation.inference import seen_by_all
from ..evaluation.near_copies import copies_of_each, copies_tested
from ..finetuning.graph import rooted
from ..finetuning.linear import group_of
from ..hub.callback import CardCallback
from ..labeling.answer_kinds import kind_of
from ..selection.by_model import said_of_each, spread_out
from ..tasks.data_classes import Attempt
from ..tasks.foundation import with_branches
from ..tasks.uncertainty import Doubt
from ..training import frozen
from ..training.preparing import Prepared
from ..training.run import train as train_network
from . import advice as find
from .advice import Remark
from .advice_files import write_advice
from .encoder_choice import with_best_encoder
from .estimates import CLEAR, CLEAR_LOSS, Z80, Interval
from .fair_sample import Likeness, likeness, some_without
from .folds import spread_over_folds
from .image_side import at_fitting_side
from .last_run import first_that_ends, said_diverged
from .planning import FOLDS
from .report import HELP, Advice, between, said_images, said_later, said_unlike
from .search_state import TRIALS, features_of_encoder, no_time_for, readable
from .trained import Trials, hushed
from .trials import Trial, gain_over, ranked, score_interval

ASKED = 2000  # images without a label at most among which the next ones are chosen


def configs_of(attempts: Sequence[Attempt], given: Mapping[str, Any], folder: Path) -> dict[Attempt, Config]:
    """The resolved settings of every attempt, beside what the user gave.

    Args:
        attempts: of the task.
        given: settings of `finetune` that all have.
        folder: the run folder, in which the manifest lies.
    """
    shared = {**given, "split": str(folder / "split.json"), "output_dir": str(folder), "callbacks": ()}

    def fitting(settings: Mapping[str, Any]) -> dict[str, Any]:
        """A batch that the processes can share."""
        whole = {"batch_size": -(-settings["batch_size"] // world()) * world()} if "batch_size" in settings else {}
        return {**shared, **settings, **whole}

    return {attempt: settled("finetune", fitting(attempt.settings)) for attempt in attempts}


def from_training(
    ready: Prepared,
    given: Mapping[str, Any],
    models: Sequence[Any],
    keep: Path,
    to_label: int,
    seconds: float,
    train: bool = True,
):
    """The best attempt in a run folder.

    Args:
        ready: a run with all labels and the first of the models.
        given: settings of `finetune` that all attempts have.
        models: encoders to choose from.
        keep: folder of features, for attempts on frozen ones.
        to_label: images to choose for the next round of labels.
        seconds: time left.
        train: networks too, and not only heads on frozen features.

    Returns:
        The run, the trials, the best first, advice, and the folder to label next.
    """
    begin, task, count = time.perf_counter(), ready.task, len(ready.labeled.members)
    copies = copies_of_each(ready.labeled)
    if count < 2 or (copies is not None and len(group_of(copies)[1]) < 2):
        one = f"There is one image with {task.label_words}"
        same = f"All {count} images with {task.label_words} are copies of one picture"
        raise UserError(
            f"{one if count < 2 else same}, and cross-validation needs at least two. Add "
            "some, or use `hf-lowlabel finetune`."
        )
    shows = task.shows(ready.labeled, ready.names)
    if shows is not None and not spread_over_folds(shows, min(FOLDS), ready.config.training.seed, copies):
        raise UserError(
            f"Each of the {count} images with {task.label_words} shows one class, and another: without either there "
            "is nothing to tell apart. Add some for cross-validation."
        )
    attempts = [a for a in task.attempts if train or a.frozen]
    of_folder = partial(configs_of, folder=ready.folder)
    others, said = list[Trial](), list[str]()
    if len(models) > 1:
        left = seconds - (time.perf_counter() - begin)
        ready, given, name, others, word = with_best_encoder(ready, given, models, of_folder, copies, left)
        attempts, said = [replace(a, name=f"{a.name}, {name}") for a in attempts], [word]
    every = partial(of_folder, with_branches(attempts, ready.network.model))
    ready, given, smaller = at_fitting_side(ready, given, every, seconds - (time.perf_counter() - begin))
    configs = every(given)
    if any(a.frozen and not config.method.of_pixels for a, config in configs.items()):
        ready = readable(ready, keep)
    of_encoder = partial(features_of_encoder, ready, keep)
    trials = Trials(ready, configs, ready.folder / TRIALS, of_encoder, copies)
    found, plan = trials.climb(seconds - (time.perf_counter() - begin))
    tried = ranked(task, found, ready.names)
    said += [smaller] if smaller else []
    with_all = partial(with_all_labels, ready, trials, plan, tried, others, said, to_label, train)
    return first_that_ends(ready.folder, tried, lambda one: one.name, with_all)


def with_all_labels(
    ready: Prepared,
    trials: Trials,
    plan: Mapping[str, Any],
    tried: Sequence[Trial],
    others: Sequence[Trial],
    said: Sequence[str],
    to_label: int,
    train: bool,
    best: Trial,
    gone: Sequence[str],
):
    """The last run, of one of the trials, and what `from_training` returns of it. others: trials of other encoders,
    which are shown. gone: those whose run diverged."""
    task, recorder = ready.task, ready.recorder
    tried = [best, *(one for one in tried if one is not best)]
    resume = (ready.folder / "checkpoints").is_dir()
    steps = {} if best.attempt.frozen else dict(max_steps=plan["last"], resume=resume)
    with hushed():  # what was loaded has been said
        last = trials.part(best.attempt, np.arange(len(ready.labeled.members)), ready.folder, **steps)
    last = replace(last, held=ready.held)
    recorder.takes(last.config, last.network.model.load_report)
    shown = [best, *sorted([*tried[1:], *others], key=lambda t: -t.score)]
    recorder.ladder = [
        {"name": t.name, "by_labels": t.score, "score": t.score, "kept": t is best, "floor": t.attempt.floor}
        for t in shown
    ]
    advice = advise(ready, tried, plan, train, copied=not trials.once.all())
    advice.later = no_time_for(ready.folder) if train else {}
    advice.tested = copies_tested(ready.labeled, ready.held.get("test"))
    known = trials.known_features()
    if ready.labeled.targets is not None:  # masks are judged by `review`, pixel by pixel
        judge(advice, ready, trials, best, plan, known)
    advice.sentences += [
        *said_unlike(likeness_of(ready, trials.once, known)),
        *said_diverged(gone),
        *said,
        *said_later(advice.later),
        *said_images(ready, advice, []),
    ]
    recorder.advice = list(advice.sentences)
    callbacks = [CardCallback()]
    known = known if best.attempt.frozen else None  # training changes them
    run = frozen.fit(last, callbacks, known) if best.attempt.frozen else train_network(last, callbacks)
    if task.score.key in run.metrics:
        tested = task.score.show(run.metrics[task.score.key])
        advice.sentences.insert(1, f"On the {run.metrics['images']} test images: {task.score.title} {tested}.")
    advice.next, x = next_to_label(last, run.model, to_label, known)
    chosen = write_advice(ready, advice, x, ready.folder) if is_main_process() else None
    return run, shown, advice, chosen


# ---- what is said of them -------------------------------------------------------------------------------------------
def advise(
    ready: Prepared, tried: Sequence[Trial], plan: Mapping[str, Any], trained: bool = True, copied: bool = False
) -> Advice:
    """Score of the best on new images, and the gain by unlabeled images; all by cross-validation."""
    task, names, best = ready.task, ready.names, tried[0]
    plain = max((t for t in tried if not t.attempt.unlabeled), key=lambda t: t.score)
    interval, score = score_interval(task, best, names), task.score
    count, out = len(best.tallies), Advice([], None, "unclear", None, None)
    apart, groups = " of different pictures" if copied else "", int(best.groups.max()) + 1
    if groups < count:
        apart += f" (grouped by file or film: {groups} groups)"
    of = f"{plan['folds'] - 1} in {plan['folds']}"
    short = "" if best.attempt.frozen or plan["last"] <= plan["steps"] else " and fewer steps"
    how = (
        f"is expected with all {task.label_words}; {score.show(best.score)} was measured with {of} of them{short}, by "
    )
    how += f"cross-validation over {count} {task.label_words}{apart}"
    if interval is None:
        out.sentences.append(f"On new images: {score.title} about {score.show(best.expected)} {how}; too few for more.")
    else:
        out.accuracy = interval
        out.sentences.append(f"On new images: {score.title} {between(interval)} {how}.")
    out.sentences += task.said_left_out(best.tallies, names)
    if best is not plain:
        why = f", not clearly more, while {best.name} has all labels for its last run" if best.attempt.floor else ""
        out.sentences.append(f"{plain.name} on the same: {score.show(plain.score)}{why}.")
    using = [t for t in tried if t.attempt.unlabeled]
    if len(ready.training) == count_labeled(ready) or not using:
        out.sentences.append(f"Unlabeled images: {why_not_tried(ready, plan, trained)}.")
        return out
    other = max(using, key=lambda t: t.score)
    alike = [t for t in tried if not (t.attempt.unlabeled or t.attempt.frozen)]  # what training does is another matter
    plain = max(alike, key=lambda t: t.score, default=plain)
    gain = gain_over(task, other, plain, names)
    out.gain = Interval(gain.value, gain.value - Z80 * gain.sd, gain.value + Z80 * gain.sd)
    out.helps = "yes" if gain.value > CLEAR * gain.sd else "no" if gain.value < -CLEAR_LOSS * gain.sd else "unclear"
    low, high = (f"{100 * v:+.0f}" for v in (out.gain.low, out.gain.high))
    points = f"{100 * gain.value:+.0f} points ({low} to {high}; {other.name} against {plain.name})"
    out.sentences.append(f"Unlabeled images: {HELP[out.helps]}, {points}.")
    return out


def judge(
    advice: Advice, ready: Prepared, trials: Trials, best: Trial, plan: Mapping[str, Any], known: np.ndarray | None
) -> None:
    """Find doubtful labels, copies and outliers. known: features of all training images."""
    labeled = ready.labeled.members.numpy()
    advice.doubtful = find.doubtful_of_several(best.tallies, labeled[trials.judged(plan)], ready.names)
    advice.copies = find.copies(ready.training, labeled)
    advice.strangers = find.strangers(known, advice.copies) if known is not None else []


def count_labeled(ready: Prepared) -> int:
    """Of the training images."""
    return len(np.intersect1d(ready.training.indices, ready.at.labeled))


def why_not_tried(ready: Prepared, plan: Mapping[str, Any], trained: bool) -> str:
    """Why nothing is known of what unlabeled images add."""
    if len(ready.training) == count_labeled(ready):
        return "there are none"
    if not trained:
        return "not tried, since no network was trained (--no-train)"
    begun = {*plan["attempts"], *plan.get("diverged", ())}
    planned = any(a.unlabeled and name.startswith(a.name) for a in ready.task.attempts for name in begun)
    return "training with them diverged" if planned else "there was no time to try them"


def likeness_of(ready: Prepared, once: np.ndarray, known: np.ndarray | None) -> Likeness | None:
    """By features of the network as it was before it was trained. once: one labeled image of each picture, bool [n].
    known: the features of all training images, [N, D], where they are there."""
    where = {int(at): i for i, at in enumerate(ready.training.indices)}
    labeled = np.array([where[int(at)] for at in ready.at.labeled if int(at) in where], np.int64)
    some = labeled[once] if len(once) == len(labeled) else labeled
    asked = np.concatenate([some, some_without(len(ready.training), labeled)])
    found = None if known is None else known[asked]
    x = ready.task.doubt(ready.network.model, ready.training, torch.from_numpy(asked)).x if found is None else found
    return likeness(x[: len(some)], x[len(some) :])


def next_to_label(
    ready: Prepared, model: torch.nn.Module, count: int, known: np.ndarray | None
) -> tuple[list[Remark], np.ndarray]:
    """Images without a label of which the model is least sure, far from each other; and the features of all, [N, D],
    zeros where they were not asked for. known: by the model, of all training images, where they are there."""
    labeled, kind = set(ready.at.labeled.tolist()), kind_of(ready.task.name)
    if kind.page == "mask":  # which a person would paint a second time, where it was not drawn to learn from
        labeled |= set(np.flatnonzero(ready.dataset.has_target).tolist())
    free = np.array([i for i, at in enumerate(ready.training.indices) if int(at) not in labeled], np.int64)
    free = ready.chosen.split.without_passed_over(free, ready.training.ids)
    if not len(free) or count < 1:
        return [], np.zeros((len(ready.training), 1))
    some = free[np.linspace(0, len(free) - 1, min(ASKED, len(free))).astype(int)]
    task: Any = ready.task
    found = None if known is None else task.doubt_of(model, known[some])
    if found is None:
        asked = torch.from_numpy(some)
        found = task.doubt(model, ready.training, asked)
        own = (seen_by_all(ready.training, asked) == asked).numpy()  # the others cannot be read
        some, found = some[own], Doubt(*(v[own] for v in found))
        if not len(some):
            return [], np.zeros((len(ready.training), 1))
    doubt, p, seen = found
    x = np.zeros((len(ready.training), seen.shape[1]))
    x[some] = seen
    chosen = spread_out(doubt, rooted(seen), count)
    said = said_of_each(p, doubt, chosen, ready.names, ready.task.doubts[0], kind)
    return [Remark((int(some[i]),), why, likely) for i, (likely, why) in zip(chosen, said, strict=True)], x
