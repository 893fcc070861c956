"""Rounds of labels: choose images, label them, `auto`, choose again; every state is a folder, so that any process goes
on.

DIR/round-0/to_label     the first images, where none has a label; written by `select`
DIR/round-1              what `auto` makes of the labels there are then: a model, advice, and to_label for the next
DIR/round-2 ...
DIR/labeled.json         all labels so far, of all rounds
DIR/first_labels.json    which labels there were at the beginning: they are read once
DIR/masks.json           which masks of the rounds lie beside the images of the data
DIR/features             features of all images, computed once
DIR/rounds.jsonl         one line a round: labels, accuracy, what more labels would bring

Masks are painted on the page that begins with those of the last round's model, and put beside the images of the data.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..arguments import DataArguments
from ..commands import DONE
from ..data.splits.splits import Split
from ..errors import UserError, above_zero, at_least
from ..files import A_MODEL, COPY, by_name, filling, read_json, write_text
from ..labeling.answer_kinds import kind_of
from ..labeling.labels import Asked
from ..labeling.other_rounds import NOTE, number_of, places
from ..selection.by_model import is_finished
from ..selection.verbs import select
from ..tasks import get_task
from ..tasks.base import Task
from ..training.folder import IGNORED, SEARCH, claim, release
from .advice_files import read_advice
from .answers import (
    LABELED,
    check_in_order,
    check_paintable,
    check_unanswered,
    masks_beside,
    taken,
    tell_budget,
    unanswered,
    without_photos,
)
from .auto import BUDGETS, MINUTES, NoLabels, auto
from .estimates import Interval
from .first_labels import READ, note_first, tell_changes
from .gathering import brought_up, check_own, gathered, has_new, of_first, pass_over_gone
from .next_gain import gain_by_rounds, gain_of, not_worth_it, sentence
from .report import between
from .search_state import OtherSearch, resumable


@dataclass(frozen=True)
class Round:
    """One finished round.

    labels: given so far. accuracy: on new images, by cross-validation, of masks the mean IoU; None where they are too
    few. forecast: of `estimates.MORE` times the labels; of masks None. gain: what the next round would bring. test: on
    test images, where there are any. stop: whether the next round is not worth its time. sentence: the same in words.
    trained_on: whether accuracy is of the frozen features that the round's network was finetuned from. guessing:
    whether it may be no better than naming the most frequent class each time.
    """

    round: int
    folder: str
    labels: int
    accuracy: Interval | None
    forecast: Interval | None
    gain: Interval | None
    test: float | None
    stop: bool
    sentence: str
    trained_on: bool = False
    guessing: bool = False


@dataclass(frozen=True)
class State:
    """rounds: those finished. to_label: the folder that waits for labels; None: no image is left. open: its images
    without an answer. score: what `accuracy` of a round is called.
    """

    rounds: list[Round]
    to_label: Path | None
    open: int
    score: str = "Accuracy"

    @property
    def run(self) -> Path | None:
        """The folder of the last round's model."""
        return Path(self.rounds[-1].folder) if self.rounds else None

    def __str__(self) -> str:
        lines = [f"{'round':>5} {'labels':>6}  {self.score} on new images (80 % interval)"] if self.rounds else []
        for one in self.rounds:
            known = "not known yet" if one.accuracy is None else between(one.accuracy)
            whose = " by its frozen features, before the network was trained" if one.trained_on else ""
            whose += ", maybe no better than guessing" if one.guessing else ""
            test = "" if one.test is None else f"   test {100 * one.test:.1f} %"
            lines.append(f"{one.round:>5} {one.labels:>6}  {known}{whose}{test}")
        return "\n".join([*lines, *(one.sentence for one in self.rounds[-1:])])


def loop(
    dataset: str | Path,
    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output_dir: str | Path,
    *,
    task: str = "classification",
    ask: Callable[[Path, Path | None], Any] | None = None,
    tell: Callable[[State], None] = lambda state: None,
    partial: bool = False,
    budget: int | None = None,
    per_round: int = 20,
    data: Mapping[str, Any] | None = None,
    first: Mapping[str, Any] | None = None,
    minutes: float = MINUTES,
    train: bool = True,
    image_size: int | None = None,
    max_bad: float = 0.01,
    seed: int = 0,
    device: str | None = None,
) -> State:
    """Go on with rounds of labels until a person is asked for some, or no image is left.

    Args:
        dataset: images, as for `auto`; of masks a folder.
        model: encoders, as for `auto`; the first chooses the first images.
        output_dir: where all of it is; the same call resumes from what is there.
        task: what is learned, as for `auto`.
        ask: shows a folder to a person, with the folder of the last round's model where there is one, and returns when
            he is done; None: labels.csv is filled in, or masks/, by other means.
        tell: called after each round.
        partial: go on without the images that have no answer.
        budget: images to label first, where none has a label; None: 40, of masks 20. All of fewer.
        per_round: images to label in each further round.
        data: further settings of the data, as for `auto`.
        first: which labels there are at the beginning: labels, split, num_labels, class_balanced, test_fraction of
            `auto`.
        minutes, train, image_size, max_bad, seed, device: as for `auto`.

    Returns:
        The rounds so far, and what waits for labels.

    Raises:
        UserError: bad input, or another process works in `output_dir`.
    """
    at_least("budget", budget, 1)
    at_least("per_round", per_round, 1)
    above_zero("minutes", minutes)
    given_models = model if isinstance(model, (list, tuple)) else [model]
    models = [str(by_name("model", one, A_MODEL, needed=True)) for one in given_models]
    common = dict(image_size=image_size, max_bad=max_bad, seed=seed, device=device)
    given, of, kind, begins_with = dict(data or {}), get_task(task), kind_of(task), dict(first or {})
    if kind.page == "mask":
        check_paintable(of, dataset, given)
    folder = claim(output_dir, resume=True)
    try:
        given |= without_photos(folder, dataset, given) if kind.page == "mask" else {}
        images = DataArguments(dataset=dataset, **given)
        check_own(folder, images, task, lambda: of.open(images))
        brought_up(folder, task)
        if places(folder, ("to_label",)):
            tell_changes(folder, begins_with, given.get("classes", []))
        else:
            masks = masks_beside(dataset, images.dataset_split) if kind.page == "mask" else None
            note_first(folder, begins_with, masks, given.get("classes", []))
            tell_budget(budget, begins_with, of, images)
        learned = False  # a round in this call
        while True:
            state = state_of(folder, per_round, task)
            check_in_order(folder, len(state.rounds))
            if state.open and kind.page != "mask" and Path(dataset).expanduser().is_dir():
                pass_over_gone(Path(state.to_label or ""), of.open(images))
                state = state_of(folder, per_round, task)
            done = state.to_label is None and state.run is not None
            if done and (learned or not has_new(state.run, of.open(images))):
                return state
            if state.open and ask is not None:
                ask(Path(state.to_label or ""), state.run)
                state = state_of(folder, per_round, task)
            if state.open and not partial:
                return state
            if has_nothing(state, of, images, begins_with):
                first_images(images, models[0], folder / "round-0", budget, {**common, "task": task})
                continue
            brought_up(folder, task)
            labels = labels_of_next(state, folder, of, images, begins_with)
            run = folder / f"round-{len(state.rounds) + 1}"
            check_unanswered(run / "to_label", kind)
            if not (run / SEARCH).is_file():  # nothing that `auto` goes on from
                shutil.rmtree(run, ignore_errors=True)
            settings = dict(minutes=minutes, train=train, to_label=per_round, features=folder / "features", **common)
            try:
                auto(dataset, models, task=task, output_dir=run, **{**given, **labels}, **settings)
            except OtherSearch:  # of a process that was killed, before there were further labels
                shutil.rmtree(run)
                continue
            except NoLabels:
                first_images(images, models[0], folder / "round-0", budget, {**common, "task": task})
                continue
            state, partial, learned = state_of(folder, per_round, task), False, True
            tell(state)
    except (UserError, OSError):
        if {p.name for p in folder.iterdir()} - IGNORED - {LABELED, READ} == {NOTE}:  # nothing to go on from yet
            (folder / NOTE).unlink()
            for name in (LABELED, READ):
                (folder / name).unlink(missing_ok=True)
        raise
    finally:
        release(folder)


def has_nothing(state: State, task: Task, images: DataArguments, first: Mapping[str, Any]) -> bool:
    """Whether no round has begun and nobody has painted a mask yet; of classes `auto` says it (NoLabels)."""
    if state.to_label is not None or state.rounds or kind_of(task.name).page != "mask" or first.get("split"):
        return False
    return not task.open_to_select(images, images.classes or None).has_target.any()


def labels_of_next(
    state: State, folder: Path, task: Task, images: DataArguments, first: Mapping[str, Any]
) -> dict[str, Any]:
    """What `auto` is told of the labels that the next round learns from.

    Those of the folder that waits for labels, else of the last one that had its answers, with all that it knows of; of
    masks they lie beside the images by then. Before there is any such folder, those that there were at the beginning,
    in a folder to label or as `auto` reads them by itself.
    """
    kind = kind_of(task.name)
    done = [place for place in places(folder, ("to_label",)) if number_of(place) <= len(state.rounds)]
    answered = state.to_label or (done[-1] if state.rounds and done else None)
    if kind.page == "mask":
        return taken(answered, images.dataset, folder) if answered else dict(first)
    place = answered or of_first(first)
    if place is None:
        return dict(first)
    gathered(place, task.open(images), kind.several).save(folder / LABELED)
    return dict(split=folder / LABELED)


def first_images(data: DataArguments, model: str, folder: Path, budget: int | None, common: dict[str, Any]) -> None:
    shutil.rmtree(folder / "to_label", ignore_errors=True)  # without selection.json, its last file: of a killed process
    keep = folder.parent / "features"  # where the next round looks for them
    names, task = list(data.classes) or None, common["task"]
    how = {**common, "features": str(keep), "budget": budget or BUDGETS[kind_of(task).page == "mask"], "at_most": True}
    how |= {"as_runs": True}
    if is_finished(get_task(task), model):  # which sees images as it does
        how |= {"features": None, "image_size": None}
    with resumable(folder.parent), filling(folder), filling(keep):
        select(model, data, output=str(folder / "to_label"), classes=names, **how)


def state_of(folder: Path, per_round: int, task: str = "classification") -> State:
    """What the folders say; rounds.jsonl is brought up to date with them."""
    rounds: list[Round] = []
    score = get_task(task).score
    while (run := folder / f"round-{len(rounds) + 1}") and (run / DONE).is_file():
        rounds.append(read_round(run, rounds, per_round, score.key))
    if rounds:
        write_text(
            folder / "rounds.jsonl", "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rounds)
        )
    place = folder / f"round-{len(rounds)}" / "to_label"
    if not (place / "selection.json").is_file():
        return State(rounds, None, 0, score.title)
    return State(rounds, place, unanswered(place, kind_of(task)), score.title)


def read_round(run: Path, before: Sequence[Round], per_round: int, score: str) -> Round:
    said, split = read_advice(run), Split.load(run / "split.json")
    file = run / "metrics.json"
    metrics = read_json(file) if file.is_file() else {}
    if not isinstance(metrics, dict):
        raise UserError(f"{file} does not hold metrics. {COPY}")
    test = metrics.get(score)
    accuracy, forecast = (interval_of(said[key]) for key in ("accuracy", "forecast"))
    labels, doubtful = len(split.labeled), len(said["doubtful"])
    place = run / "to_label"
    more = min(per_round, len(Asked.load(place).files)) if (place / "selection.json").is_file() else 0
    gain = gain_of(accuracy, forecast, labels, more) if accuracy and forecast and more else None
    if accuracy and not forecast and more:
        gain = gain_by_rounds([*((r.labels, r.accuracy) for r in before), (labels, accuracy)], more)
    stop = not_worth_it(gain)
    words = sentence(gain, stop, more, doubtful)
    trained_on = bool(accuracy and said.get("trained_on"))  # advice of older versions does not say it
    guessing = bool(said.get("guessing"))
    return Round(len(before) + 1, str(run), labels, accuracy, forecast, gain, test, stop, words, trained_on, guessing)


def interval_of(said: Mapping[str, Any] | None) -> Interval | None:
    return Interval(*(float(said[name]) for name in ("value", "low", "high"))) if said else None
