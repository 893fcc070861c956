"""`auto` on frozen features: every encoder and candidate head, the best as an ordinary run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import methods
from ..distributed import is_main_process, of_first
from ..evaluation.near_copies import copies_of_each
from ..hub.callback import CardCallback
from ..records import Row
from ..text import percent
from ..training.frozen import Fit
from ..training.preparing import Prepared, Run, check_labels, close
from ..training.priors import save_priors
from .adapted import adapt
from .advice_files import write_advice
from .class_names import ByNames
from .encoders import Features, name_of, unique
from .estimates import curve_of
from .finetuned import Finetuned, FromFrozen, finetune_from, sentence, trained_on
from .frozen import climb, rounds_of
from .image_side import rebuilt
from .last_run import first_that_ends, said_diverged
from .report import Advice, advise, said_later, said_tested
from .rungs import Tried
from .search_state import ENCODERS, ROUNDS, features_of_encoder, no_time_for, note, noted

log = logging.getLogger("hf_lowlabel")
CLIMB = 0.5  # share of the time left that the frozen rungs may take
CURVE = {True: 0.1, False: 0.5}  # likewise of the learning curve, where networks are trained and where not
Answer = tuple[Run, list[Any], Advice, Path | None]  # the run, what was tried, advice, the folder to label next


def from_features(
    ready: Prepared,
    given: Mapping[str, Any],
    models: Sequence[Any],
    keep: Path,
    to_label: int,
    seconds: float,
    train: bool,
    names: ByNames | None = None,
) -> Answer:
    """The best of the frozen rungs, or of the networks trained on from it, in a run folder.

    Args:
        ready: a run with the first of the models.
        given: settings of `finetune` that all runs have.
        models: encoders to try.
        keep: folder of features.
        to_label: images to choose for the next round of labels.
        seconds: time left.
        train: whether networks are trained, as far as there is time.
        names: what the names of the classes say of the images.
    """
    begin = time.perf_counter()
    y = ready.labeled.targets.numpy()
    check_labels(ready.chosen.split)
    readies, encoders = looked_at(ready, models, keep, begin + 0.7 * seconds, names)
    climbing, known = time.perf_counter(), noted(ready.folder, ROUNDS)
    most = CLIMB * (seconds - (climbing - begin))
    tried = climb(encoders, y, seed=ready.config.training.seed, seconds=most, rounds=known)
    rounds, took = rounds_of(tried), (time.perf_counter() - climbing) / len(encoders)
    note(ready.folder, ROUNDS, rounds)
    best = tried[0]
    at = [encoder.name for encoder in encoders].index(best.encoder)
    ready, encoder = readies[at], encoders[at]
    take(ready, tried, names)
    curve = curve_of(encoders, tried, CURVE[train] * (seconds - (time.perf_counter() - begin)))
    left, found = seconds - (time.perf_counter() - begin), []
    if train:
        found = finetune_from(ready, {**given, "model": models[at]}, encoders, best, left)
    kept: list[Any] = [one for one in found if one[0].kept]
    adapted = None
    if train and not kept:  # with the time that is left
        left = seconds - (time.perf_counter() - begin) - took
        adapted = adapt(ready, {**given, "model": models[at]}, encoder, best, left, names, rounds)
    if adapted is not None and adapted.kept:
        ready, encoder, encoders = adapted.ready, adapted.encoder, [adapted.encoder]
        tried = [*adapted.tried, *tried]
        best = tried[0]
        curve = curve_of(encoders, tried, CURVE[False] * (seconds - (time.perf_counter() - begin)))
    rows = list(ready.recorder.comparisons)

    def answer(better: tuple[Finetuned, FromFrozen] | None, gone: list[str]) -> Answer:
        """The frozen features' own where no network is better. gone: networks that diverged with all labels."""
        take(ready, tried, names)
        ready.recorder.comparisons = list(rows)
        metrics = tested(ready, encoder, tried, answer=better is None)
        advice = advise(ready, encoders, tried, {} if better else metrics, to_label, curve, better is not None)
        if names is not None:
            advice.sentences.append(names.sentence(tried))
        advice.sentences += [*(sentence(one) for one, _ in found), *said_diverged(gone)]
        advice.later = no_time_for(ready.folder) if train else {}
        advice.sentences += said_later(advice.later)
        ready.recorder.ladder += [row_of_halves(one, better is not None and one is better[0]) for one, _ in found]
        if adapted is not None:
            advice.sentences.append(adapted.sentence())
            if not adapted.kept:
                ready.recorder.ladder.append(row(adapted.tried[0]))
        ready.recorder.advice = advice.sentences
        ladder = list(tried)
        if better is not None:
            for line in ready.recorder.ladder:
                line["kept"] = line["kept"] and "halves" in line
            run = trained_on(ready, *better)
            advice.sentences += said_tested(ready, run.metrics)
            ladder = [better[0].after, *tried]
        else:
            run = save(ready, encoder, best, metrics, time.perf_counter() - begin)
        chosen = write_advice(ready, advice, encoder.x, ready.folder) if is_main_process() else None
        return run, ladder, advice, chosen

    return first_that_ends(ready.folder, [*kept, None], lambda one: one[0].attempt.name if one else "", answer)


def looked_at(
    ready: Prepared, models: Sequence[Any], keep: Path, until: float, names: ByNames | None
) -> tuple[list[Prepared], list[Features]]:
    """The run with each encoder, and their features; after the time `until` no further one is looked at."""
    y, rows = ready.labeled.targets.numpy(), ready.labeled.members.numpy()
    readies, encoders, before = [ready], list[Features](), noted(ready.folder, ENCODERS)
    said, copies = None if names is None else names.p, copies_of_each(ready.labeled)
    for number, model in enumerate(models):
        if number:
            readies.append(rebuilt(ready, model=model))
        started = time.perf_counter()
        x = features_of_encoder(readies[-1], keep)
        name = unique(name_of(model), [e.name for e in encoders])
        encoders.append(Features(name, x, rows, y, len(ready.names), said, copies, len(models)))
        log.info("features of %d images by %s in %.0f s", len(x), name, time.perf_counter() - started)
        late = of_first(float(time.perf_counter() > until)) if before is None else number + 1 >= before
        if late and number + 1 < len(models):
            log.warning(
                "no time is left for %s: a new search with more --minutes tries it",
                ", ".join(map(name_of, models[number + 1 :])),
            )
            break
    note(ready.folder, ENCODERS, len(encoders))
    return readies, encoders


def take(ready: Prepared, tried: list[Tried], names: ByNames | None) -> None:
    """Go on as a run of the best rung, so that training.yaml says how to make the same by hand."""
    best, recorder = tried[0], ready.recorder
    method = methods.find(best.rung.method)
    manifest = str(ready.folder / "split.json")  # the one that labels were drawn into may be gone by then
    prior = str(names.file) if names is not None and best.rung.names else None
    ready.config = ready.config.replace(method=method, method_args=dict(best.rung.args), split=manifest, prior=prior)
    recorder.takes(ready.config, ready.network.model.load_report)
    recorder.ladder = [row(one, one is best) for one in tried] + ([names.row()] if names is not None else [])


def row(one: Tried, kept: bool = False) -> dict[str, Any]:
    """Of the ladder."""
    return {"name": one.name, "by_labels": one.accuracy, "score": one.score, "kept": kept}


def row_of_halves(one: Finetuned, kept: bool) -> dict[str, Any]:
    """Of the ladder, for a network: it learned from half of the labels at a time, and the frozen row so has another
    score than where a fifth was left out."""
    beside = f" (2-fold; the frozen features, also 2-fold: {percent(one.before.accuracy)})"
    return {**row(one.after, kept), "name": one.after.name + beside, "halves": True}


def tested(ready: Prepared, encoder: Features, tried: list[Tried], answer: bool = True) -> dict[str, Any]:
    """Give the network the best head; its metrics, where there are test images, and a row for the other rungs.

    answer: whether the best head is the answer, and not a row beside what was trained on from it.
    """
    model, metrics, key = ready.network.model, dict[str, Any](), ready.task.score.key
    if "test" in ready.held:
        for one in tried[1:] if answer else tried:
            if one.encoder == encoder.name and not one.votes:
                set_head(model, encoder.head(one))
                scores = ready.task.evaluate(model, ready.held["test"], ready.names)
                ready.recorder.comparisons.append(Row(one.name, {k: scores[k] for k in (key, f"{key}_error")}))
    set_head(model, encoder.head(tried[0]))
    if "test" in ready.held:
        folder = ready.folder if answer else None
        metrics = ready.task.evaluate(model, ready.held["test"], ready.names, folder=folder)
    return metrics


def save(ready: Prepared, encoder: Features, best: Tried, metrics: dict[str, Any], seconds: float) -> Run:
    """Model, priors, metrics, record and card in the run folder."""
    recorder, model = ready.recorder, ready.network.model
    done = Fit(ready, seconds, [CardCallback()])
    if recorder.main:
        facts = {"method": best.rung.method, "rung": best.name}
        save_priors(ready.folder / "priors.safetensors", encoder.say(best), ready.training.ids, ready.names, facts)
    done.state.record = recorder.save(done, metrics, final=True)
    close(done)
    return Run(ready.config, ready.folder, model, metrics, done, recorder)


def set_head(model, head: tuple[np.ndarray, np.ndarray]) -> None:
    weight, bias = (torch.from_numpy(v) for v in head)
    model.set_classifier(weight, bias)
