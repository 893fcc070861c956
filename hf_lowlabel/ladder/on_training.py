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
from ..distributed import is_main_process
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
from ..text import percent
from ..training import frozen
from ..training.preparing import Prepared
from ..training.run import train as train_network
from . import advice as find
from .advice import Remark
from .advice_files import write_advice
from .encoder_choice import with_best_encoder
from .fair_sample import Likeness, likeness, some_without
from .folds import spread_over_folds
from .image_side import at_fitting_side, positions
from .last_run import first_that_ends, said_diverged
from .planning import FOLDS
from .report import HELP, Advice, between, said_images, said_later, said_unlike
from .search_state import TRIALS, features_of_encoder, no_time_for, readable, shared_batch
from .trained import Trials, hushed
from .trials import Trial, gain_interval, ranked, score_interval

ASKED = 2000  # images without a label at most among which the next ones are chosen


def configs_of(attempts: Sequence[Attempt], given: Mapping[str, Any], folder: Path) -> dict[Attempt, Config]:
    """The resolved settings of every attempt, beside what the user gave.

    Args:
        attempts: of the task.
        given: settings of `finetune` that all have.
        folder: the run folder, in which the manifest lies.
    """
    shared = {**given, "split": str(folder / "split.json"), "output_dir": str(folder), "callbacks": ()}

    return {a: settled("finetune", {**shared, **a.settings, **shared_batch(a.settings)}) for a in attempts}


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
    begin, task = time.perf_counter(), ready.task
    copies, shows = copies_of_each(ready.labeled), task.shows(ready.labeled, ready.names)
    assert shows is not None  # a task with one class an image begins on features
    some = np.flatnonzero(task.judgeable(shows))
    count, blank = len(some), said_blank(ready, some)
    copies_some = None if copies is None else copies[some]
    if count < 2 or (copies_some is not None and len(group_of(copies_some)[1]) < 2):
        one = f"{blank} There is {'one' if count else 'no'} other image with {task.label_words}".strip()
        one = one if blank else one.replace("other ", "")
        same = f"All {count} images with {task.label_words} are copies of one picture"
        raise UserError(
            f"{one if count < 2 else same}, and cross-validation needs at least two. Add "
            "some, or use `hf-lowlabel finetune`."
        )
    if not spread_over_folds(shows[some], min(FOLDS), ready.config.training.seed, copies_some):
        raise UserError(
            f"Each of the {count} images with {task.label_words} shows one class, and another: without either there "
            "is nothing to tell apart. Add some for cross-validation."
        )
    attempts = [a for a in task.attempts if train or a.frozen]
    of_folder = partial(configs_of, folder=ready.folder)
    others, said = list[Trial](), [blank] if blank else []
    if len(models) > 1:
        left = seconds - (time.perf_counter() - begin)
        ready, given, name, others, word = with_best_encoder(ready, given, models, of_folder, copies, left)
        attempts = [replace(a, name=f"{a.name}, {name}") for a in attempts]
        said.append(word)
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
        {"name": t.name, "by_labels": t.accuracy, "score": t.score, "kept": t is best, "floor": t.attempt.floor}
        for t in shown
    ]
    advice = advise(ready, trials, tried, plan, train, gone)
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
    advice.next, x, asked = next_to_label(last, run.model, to_label, known)
    chosen = write_advice(ready, advice, x, ready.folder, asked) if is_main_process() else None
    return run, shown, advice, chosen


# ---- what is said of them -------------------------------------------------------------------------------------------
def said_blank(ready: Prepared, some: np.ndarray) -> str:
    """A sentence on labeled images of which nothing can be judged: all but `some`. "": there are none."""
    at = np.delete(positions(ready.labeled), some)
    if not len(at):
        return ""
    of, which = f"{len(at)} of the {len(at) + len(some)} {ready.task.label_words}", ready.dataset.ids[at[0]]
    one = f"{of}, that of {which}, is" if len(at) == 1 else f"{of}, such as that of {which}, are"
    return f"{one} ignored at every pixel, so that nothing is learned from or judged by them."


def advise(
    ready: Prepared, trials: Trials, tried: Sequence[Trial], plan: Mapping[str, Any], trained: bool, gone: Sequence[str]
) -> Advice:
    """Score of the best on new images, and the gain by unlabeled images; all by cross-validation. trained: whether
    networks were. gone: names of those whose last run diverged."""
    task, names, best = ready.task, ready.names, tried[0]
    out, shows = Advice([], None, "unclear", None, None), trials.shows
    assert shows is not None
    if not best.told:
        out.sentences.append(task.said_untold(best.tallies, names, shows))
    else:
        said_score(out, ready, trials, tried, plan, gone)
        out.sentences += task.said_left_out(best.tallies, names, shows)
    using = [t for t in tried if t.attempt.unlabeled]
    if len(ready.training) == count_labeled(ready) or not using:
        out.sentences.append(f"Unlabeled images: {why_not_tried(ready, plan, trained)}.")
        return out
    other = max(using, key=lambda t: t.score)
    alike = [t for t in tried if not (t.attempt.unlabeled or t.attempt.frozen)]  # what training does is another matter
    plain = max(alike, key=lambda t: t.score, default=plainest(tried))
    points = ""
    if best.told:
        out.helps, out.gain = gain_interval(task, other, plain, names)
    if out.gain is not None:
        value, low, high = (f"{100 * v:+.0f}" for v in (out.gain.value, out.gain.low, out.gain.high))
        points = f", {value} points ({low} to {high}; {other.name} against {plain.name})"
    out.sentences.append(f"Unlabeled images: {HELP[out.helps]}{points}.")
    return out


def plainest(tried: Sequence[Trial]) -> Trial:
    """The best of those that use labels alone."""
    return max((t for t in tried if not t.attempt.unlabeled), key=lambda t: t.score)


def said_score(
    out: Advice,
    ready: Prepared,
    trials: Trials,
    tried: Sequence[Trial],
    plan: Mapping[str, Any],
    gone: Sequence[str],
) -> None:
    """What is expected of the best, and how the best by labels alone compares."""
    task, best, plain, score = ready.task, tried[0], plainest(tried), ready.task.score
    interval, count = score_interval(task, best, ready.names), len(best.tallies)
    apart = " of different pictures" if trials.copied else ""
    if best.count < count:
        apart += f" (grouped by file or film: {best.count} groups)"
    share, even = trials.share(plan), 1 - 1 / plan["folds"]
    of = f"{plan['folds'] - 1} in {plan['folds']}" if abs(share - even) < 0.05 else f"about {percent(share, 0)}"
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
    if best is not plain:
        why = ""
        if best.attempt.floor and plain.name not in gone:
            why = ", not clearly more"
            if plain.attempt.frozen and not best.attempt.frozen:
                why += f", while {best.name} is trained for longer in its last run" * bool(short)
        out.sentences.append(f"{plain.name} on the same: {score.show(plain.score)}{why}.")


def judge(
    advice: Advice, ready: Prepared, trials: Trials, best: Trial, plan: Mapping[str, Any], known: np.ndarray | None
) -> None:
    """Find doubtful labels, copies and outliers. known: features of all training images."""
    labeled = ready.labeled.members.numpy()
    doubtful = find.doubtful_of_several(best.tallies, labeled[trials.judged(plan)], ready.names)
    advice.doubtful = find.unreviewed(doubtful, ready.training.ids, ready.chosen.split)
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
) -> tuple[list[Remark], np.ndarray, np.ndarray]:
    """Images without a label of which the model is least sure, far from each other; features [M, D] of training images,
    and which these are, int64 [M]. known: by the model, of all of them, where they are there."""
    labeled, kind = set(ready.at.labeled.tolist()), kind_of(ready.task.name)
    if kind.page == "mask":  # which a person would paint a second time, where it was not drawn to learn from
        labeled |= set(np.flatnonzero(ready.dataset.has_target).tolist())
    free = np.array([i for i, at in enumerate(ready.training.indices) if int(at) not in labeled], np.int64)
    free = ready.chosen.split.without_passed_over(free, ready.training.ids)
    if not len(free) or count < 1:
        return [], np.zeros((0, 1)), free[:0]
    some = free[np.linspace(0, len(free) - 1, min(ASKED, len(free))).astype(int)]
    task: Any = ready.task
    found = None if known is None else task.doubt_of(model, known[some])
    if found is None:
        asked = torch.from_numpy(some)
        found = task.doubt(model, ready.training, asked)
        own = (seen_by_all(ready.training, asked) == asked).numpy()  # the others cannot be read
        some, found = some[own], Doubt(*(v[own] for v in found))
        if not len(some):
            return [], np.zeros((0, 1)), some
    doubt, p, seen = found
    chosen = spread_out(doubt, rooted(seen), count)
    said = said_of_each(p, doubt, chosen, ready.names, ready.task.doubts[0], kind)
    remarks = [Remark((int(some[i]),), why, likely) for i, (likely, why) in zip(chosen, said, strict=True)]
    return (remarks, seen, some) if known is None else (remarks, known, np.arange(len(known)))
