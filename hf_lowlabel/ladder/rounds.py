"""Rounds of labels: choose images, label them, `auto`, choose again; every state is a folder, so that any process goes
on.

DIR/round-0/to_label     the first images, where none has a label; written by `select`
DIR/round-1              what `auto` makes of the labels there are then: a model, advice, and to_label for the next
DIR/round-2 ...
DIR/labeled.json         all labels so far, of all rounds
DIR/first_labels.json    which labels there were at the beginning: they are read once
DIR/features             features of all images, computed once
DIR/rounds.jsonl         one line a round: labels, accuracy, what more labels would bring

Masks are painted on the page that begins with those of the last round's model, and put beside the images of the data.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import DataArguments
from ..commands import DONE
from ..data.dataset import ImageDataset
from ..data.splits import Split
from ..errors import UserError
from ..files import COPY, filling, read_json, write_json, write_text
from ..selection.kinds import kind_of
from ..selection.labels import Task
from ..selection.other_rounds import NOTE, places
from ..selection.verbs import select
from ..tasks import get_task
from ..training.folder import IGNORED, SEARCH, claim, release
from .answers import LABELED, check_paintable, check_unanswered, has_any, taken, unanswered, without_photos
from .auto import MINUTES, NoLabels, auto
from .estimates import MORE, Z80, Interval
from .first_labels import READ, note_first, tell_changes
from .gathering import brought_up, gathered, of_first, pass_over_gone, same_photos, taken_along
from .keeping import OtherSearch
from .report import read_advice

log = logging.getLogger("hf_lowlabel")
# standard deviation of the gain by `MORE` times the labels: under it 15 of 18 gains of 20 labels on the embedded digits
# (9 seeds, from 40 and from 60 labels) lay in the interval
ROUND_ERROR = 0.065
WORTH_A_ROUND = 0.01  # gain in accuracy below which a round of labels is not worth its time


@dataclass(frozen=True)
class Round:
    """One finished round.

    labels: given so far. accuracy: on new images, by labels left out, of masks the mean IoU; None where they are too
    few. forecast: of `estimates.MORE` times the labels; of masks None. gain: what the next round would bring. test: on
    test images, where there are any. stop: whether the next round is not worth its time. sentence: the same in words.
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
            known = "not known yet" if one.accuracy is None else shown(one.accuracy)
            test = "" if one.test is None else f"   test {100 * one.test:.1f} %"
            lines.append(f"{one.round:>5} {one.labels:>6}  {known}{test}")
        return "\n".join([*lines, *(one.sentence for one in self.rounds[-1:])])


def loop(
    dataset: str | Path,
    model: str | Sequence[str],
    output_dir: str | Path,
    *,
    task: str = "classification",
    ask: Callable[[Path, Path | None], Any] | None = None,
    tell: Callable[[State], None] = lambda state: None,
    partial: bool = False,
    budget: int = 40,
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
        output_dir: where all of it is; the same call goes on from what is there.
        task: what is learned, as for `auto`.
        ask: shows a folder to a person, with the folder of the last round's model where there is one, and returns when
            he is done; None: labels.csv is filled in, or masks/, by other means.
        tell: called after each round.
        partial: go on with images that are still without an answer.
        budget: images to label first, where none has a label.
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
    if per_round < 1 or budget < 1 or not minutes > 0:
        raise UserError("Give a --budget and --per-round of at least 1, and --minutes above 0.")
    models = [model] if isinstance(model, str) else list(model)
    common = dict(image_size=image_size, max_bad=max_bad, seed=seed, device=device)
    given, of, kind = dict(data or {}), get_task(task), kind_of(task)
    if kind.page == "mask":
        check_paintable(of, dataset, given)
    folder = claim(output_dir, resume=True)
    try:
        given |= without_photos(folder, dataset, given) if kind.page == "mask" else {}
        images = DataArguments(dataset=dataset, **given)
        check_own(folder, dataset, task, lambda: of.open(images))
        brought_up(folder, task)
        if places(folder, ("to_label",)):
            tell_changes(folder, first or {})
        while True:
            state = state_of(folder, per_round, task)
            if state.open and kind.page != "mask" and Path(dataset).expanduser().is_dir():
                pass_over_gone(Path(state.to_label or ""), of.open(images))
                state = state_of(folder, per_round, task)
            if state.to_label is None and state.rounds:
                return state
            if state.open and ask is not None:
                ask(Path(state.to_label or ""), state.run)
                state = state_of(folder, per_round, task)
            if state.open and not partial:
                return state
            begins = state.to_label is None and kind.page == "mask" and not (first or {}).get("split")
            if begins and not has_any(of, images, given.get("classes", [])):
                first_images(images, models[0], folder / "round-0", budget, {**common, "task": task})
                continue
            brought_up(folder, task)
            if state.to_label is None:
                note_first(folder, first or {})
            place = state.to_label or of_first(first or {})
            if kind.page == "mask":
                labels = taken(state.to_label, dataset, folder) if state.to_label else dict(first or {})
            elif place is not None:
                gathered(place, of.open(images), kind.several).save(folder / LABELED)
                labels = dict(split=folder / LABELED)
            else:
                labels = dict(first or {})
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
            state, partial = state_of(folder, per_round, task), False
            tell(state)
    except (UserError, OSError):
        if {p.name for p in folder.iterdir()} - IGNORED - {LABELED, READ} == {NOTE}:  # nothing to go on from yet
            (folder / NOTE).unlink()
            for name in (LABELED, READ):
                (folder / name).unlink(missing_ok=True)
        raise
    finally:
        release(folder)


def check_own(folder: Path, dataset: str | Path, task: str, opened: Callable[[], ImageDataset]) -> None:
    """UserError for a folder of other data, of another task, or of something else; an empty one is noted to be of
    these, and so is one whose photos moved there. opened: the data."""
    name = str(Path(dataset).expanduser().resolve()) if Path(dataset).expanduser().exists() else str(dataset)
    note = folder / NOTE
    if note.is_file():
        said = read_json(note)
        if not isinstance(said, dict) or "dataset" not in said:
            raise UserError(f"{note} does not say what data the rounds are about. Give another --output-dir.")
        known = {"task": "classification", **said}
        if known["task"] != task:
            raise UserError(
                f"The rounds in {folder} are about {known['task']}, not about {task}. Give another --output-dir."
            )
        if known["dataset"] != name:
            if not same_photos(folder, opened()):
                raise UserError(
                    f"The rounds in {folder} are about {known['dataset']}, not about {name}, which holds other photos. "
                    f"Give another --output-dir.{taken_along(folder)}"
                )
            log.warning("the photos of the rounds in %s are in %s now; the rounds go on with them", folder, name)
            write_json(note, {**known, "dataset": name})
        return
    if found := sorted(p.name for p in folder.iterdir() if p.name not in IGNORED):
        raise UserError(
            f"There is {', '.join(found[:3])}{' ...' if len(found) > 3 else ''} in {folder}, and no {NOTE}, so that "
            "it is not a folder of rounds. Give another --output-dir."
        )
    write_json(note, {"dataset": name, "task": task})


def first_images(data: DataArguments, model: str, folder: Path, budget: int, common: dict[str, Any]) -> None:
    shutil.rmtree(folder / "to_label", ignore_errors=True)  # without selection.json, its last file: of a killed process
    keep = str(folder / "features.safetensors")
    names = list(data.classes) or None
    with filling(folder):
        select(model, data, budget=budget, output=str(folder / "to_label"), features=keep, classes=names, **common)


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
    accuracy, forecast = (Interval(**said[key]) if said[key] else None for key in ("accuracy", "forecast"))
    labels, doubtful = len(split.labeled), len(said["doubtful"])
    place = run / "to_label"
    more = min(per_round, len(Task.load(place).files)) if (place / "selection.json").is_file() else 0
    gain = gain_of(accuracy, forecast, labels, more) if accuracy and forecast and more else None
    if accuracy and not forecast and more:
        gain = gain_by_rounds([*((r.labels, r.accuracy) for r in before), (labels, accuracy)], more)
    stop = gain is not None and gain.value < WORTH_A_ROUND
    words = sentence(gain, stop, more, doubtful)
    return Round(len(before) + 1, str(run), labels, accuracy, forecast, gain, test, stop, words)


def gain_of(now: Interval, forecast: Interval, labels: int, more: int) -> Interval:
    """What `more` labels bring: on the line in log labels from today's accuracy to the forecast, whose error grows with
    the root of the way."""
    share = float(np.log((labels + more) / labels) / np.log(MORE))
    value, sd = share * (forecast.value - now.value), ROUND_ERROR * share**0.5
    return Interval(value, value - Z80 * sd, value + Z80 * sd)


def gain_by_rounds(rounds: Sequence[tuple[int, Interval | None]], more: int) -> Interval | None:
    """What `more` labels bring where nothing forecasts it: the line in log labels through the rounds so far, each as
    sure as its interval is narrow. None for fewer than two rounds.

    Args:
        rounds: (labels, score) of each.
    """
    known = [(n, one) for n, one in rounds if one is not None]
    if len({n for n, _ in known}) < 2:
        return None
    x = np.log([n for n, _ in known])
    y = np.array([one.value for _, one in known])
    sd = np.array([max((one.high - one.low) / (2 * Z80), 1e-3) for _, one in known])
    w = sd**-2
    x = x - np.average(x, weights=w)
    slope, error = (w * x * y).sum() / (w * x * x).sum(), (w * x * x).sum() ** -0.5
    way = float(np.log((known[-1][0] + more) / known[-1][0]))
    value, width = float(slope) * way, Z80 * float(error) * way
    return Interval(value, value - width, value + width)


def sentence(gain: Interval | None, stop: bool, more: int, doubtful: int) -> str:
    if not more:
        return "No image is left to choose."
    if gain is None:
        return f"{more} more labels: what they bring is not known yet. Go on."
    low, value, high = (f"{100 * v:+.0f}" for v in (gain.low, gain.value, gain.high))
    said = f"{more} more labels: {value} points ({low} to {high}, 80 %)"
    if not stop:
        return f"{said}. Go on."
    wrong = f", or look again at {doubtful} of the labels first (advice.html)" if doubtful else ""
    return f"{said}: hardly worth a round. Stop here{wrong}."


def shown(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
