"""The one run of finetuning, whatever the task and the method: from settings to a saved model.

data -> which images are labeled -> network -> caches -> fit (a loop, or frozen features) -> scores -> folder
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..arguments import Config
from ..errors import Diverged, UserError
from ..evaluation.checkpoints import LAST, SEL_MEANS, median_of_last
from ..finetuning.weights import Prior
from ..models.adaptformer import add_adaptformer
from ..models.began import pretrained
from ..models.lora import add_lora, merged
from ..models.timm_checkpoint import freeze_stages
from ..objective import Objective, build_objective
from ..records import Row
from ..tasks.base import Task
from ..tasks.data_classes import Examples
from . import frozen, setup
from .batches import ViewStream, finetune_batches
from .callbacks import Callback
from .cross_validated import tell_left_out
from .guard import skipped_words
from .head import fit_head
from .loop import KEEPS_STATISTICS, Loop
from .optim import slow_down
from .preparing import Prepared, Run, close, prepare
from .priors import check_there, load_priors

log = logging.getLogger("hf_lowlabel")


def run(task: Task, config: Config, folder: Path, callbacks: Sequence[Callback] = ()) -> Run:
    """Train and save in `folder`. config: resolved settings, whose method is a class."""
    if config.training.prior:
        check_there(config.training.prior)
    ready = prepare(task, config, folder)
    tell_left_out(ready)
    with setup.tracked(ready.accelerator):
        if config.method.frozen:
            return frozen.fit(ready, callbacks)
        return train(ready, callbacks)


def train(ready: Prepared, callbacks: Sequence[Callback] = ()) -> Run:
    """From a prepared run to a saved model."""
    loop = fitted(ready, callbacks)
    return finish(ready, merged(loop.inner.evaluated).eval(), loop)


def fitted(ready: Prepared, callbacks: Sequence[Callback] = (), trial: bool = False) -> Loop:
    """The loop of a prepared run at its end, with the network that counts in `inner.evaluated`.

    trial: only the network is wanted: neither model nor record is written, nothing is evaluated on the way.
    """
    objective = make_objective(ready)
    labeled, unlabeled = make_streams(ready, objective)
    config, args, recorder = ready.config, ready.config.training, ready.recorder
    best = None if trial else best_score(ready, unlabeled is not None)
    loop = Loop(
        objective,
        lambda start: finetune_batches(labeled, unlabeled, start),
        args,
        ready.folder,
        accelerator=ready.accelerator,
        base_learning_rate=args.learning_rate,
        evaluate=None if trial else lambda trained: watch(ready, trained, unlabeled is not None),
        best_score=best,
        known=ready.head is not None and best not in (None, "sel"),  # Sel would compare what calibration made of it
        save=None if trial else lambda loop: recorder.save(loop, {}, final=False),
        identity=setup.identity(config, ready.dataset, ready.chosen.split, ready.training),
        start=None if trial else lambda: setup.start_trackers(ready.accelerator, config),
        callbacks=callbacks,
        layout=setup.layout_of(config, objective, ready.network.size[0], ready.accelerator.device),
        compile=config.model.compile,
    )
    if not trial:
        compare_with_frozen(ready, objective)
        if unlabeled is not None and ready.task.labels_score:
            log.info(SEL_MEANS)
    loop.fit()
    loop.take_best()
    return loop


def make_objective(ready: Prepared) -> Objective:
    """The method over the network, with adapters, frozen stages, priors and starting weights as the settings say."""
    config, model, names = ready.config, ready.network.model, ready.names
    given = config.model
    prior = config.training.prior
    priors = load_priors(prior, ready.training.ids, names, ready.chosen.split) if prior else None
    ready.head = fit_head(ready, priors)  # before adapters, which leave the features as they are
    if keeps_statistics(config):
        keep_statistics(model)
    if given.lora_rank:
        add_lora(model, given.lora_rank, given.lora_alpha)
    if given.adapter_width:
        add_adaptformer(model, given.adapter_width)
    if given.freeze:
        freeze_stages(model, given.freeze)
    if given.freeze_encoder:
        for parameter in model.body_parameters():
            parameter.requires_grad_(False)
    if config.training.layer_decay:
        slow_down(model, config.training.layer_decay)
    objective = build_objective(
        config.method,
        model,
        config.method_args,
        num_classes=len(names),
        num_images=len(ready.training),
        num_labeled=len(ready.labeled.members),
        priors=priors,
    )
    if priors is not None and hasattr(objective, "rule"):
        objective.rule = Prior(objective.rule, priors, until=config.training.prior_until)
    setup.start_from(objective, given)
    return objective


LOOKED_AT, FEWEST_TOLD = 8, 4  # images: looked at, and of a test set that two scores are told apart by
ASKED, FEW_IMAGES = 500, 10  # images of a part that are asked about in the end; training images that tell nothing
FEW = 128  # images a micro-batch below which their BatchNorm statistics say less than those the weights came with


def keeps_statistics(config: Config) -> bool:
    """Whether BatchNorm layers keep the statistics that the weights came with."""
    if config.model.freeze_norm is not None:
        return config.model.freeze_norm
    given = config.model
    if given.freeze_encoder:
        return True
    came = given.init_from or pretrained(config.flat())
    args, sees_unlabeled = config.training, bool(config.method.unlabeled_views)
    seen = args.batch_size * (1 + sees_unlabeled * args.unlabeled_ratio)
    return bool(came) and seen // args.gradient_accumulation_steps < FEW


def keep_statistics(model: nn.Module) -> None:
    """Mark the BatchNorm layers whose statistics came with the weights, not those of a fresh decoder."""
    fresh = tuple(model.load_report.missing)
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not f"{name}.running_mean".endswith(fresh):
            setattr(module, KEEPS_STATISTICS, True)


def make_streams(ready: Prepared, objective: Objective) -> tuple[ViewStream, ViewStream | None]:
    """Batches of labeled and, where the method asks for them, of unlabeled views; max_steps is settled here."""
    config, args, task = ready.config, ready.config.training, ready.task

    def stream(name: str, cache, members, per_step: int, kinds: dict[str, str], targets=None) -> ViewStream:
        transform = task.views(kinds, config, ready.dataset, ready.network)
        given = cache, members, per_step, transform
        return setup.stream_of(args, ready.accelerator, ready.network, *given, name=name, targets=targets)

    known = ready.labeled
    labeled = stream("labeled", known.cache, known.members, args.batch_size, objective.labeled_views, known.targets)
    kinds = task.unlabeled_views(objective)
    if not kinds:  # an epoch is a pass over what is seen
        args.max_steps = setup.steps(args, len(known.members), args.batch_size)
        return labeled, None
    per_step = args.batch_size * args.unlabeled_ratio
    args.max_steps = setup.steps(args, len(ready.training), per_step)
    return labeled, stream("unlabeled", ready.training, torch.arange(len(ready.training)), per_step, kinds)


def watch(ready: Prepared, objective: Objective, has_unlabeled: bool) -> dict[str, float]:
    """What an evaluation logs: the task's score of every held-out part, and what unlabeled images tell."""
    key, model = ready.task.score.key, objective.evaluated
    scores = {
        f"{part}_{key}": float(ready.task.evaluate(model, images, ready.names, window=ready.config.views.window)[key])
        for part, images in ready.held.items()
    }
    if has_unlabeled and ready.task.labels_score:
        scores |= ready.task.unlabeled_score(model, ready.training)
    return scores


def best_score(ready: Prepared, has_unlabeled: bool) -> str | None:
    """The score by which the saved weights are chosen; None: the last ones."""
    asked, has_validation = ready.config.training.metric_for_best_model, "validation" in ready.held
    sel = has_unlabeled and ready.task.labels_score
    if asked == "validation" and not has_validation:
        raise UserError(
            "metric_for_best_model is 'validation', and no image is held out for it. Give --validation N, or a split "
            "that has validation images."
        )
    if asked == "sel" and not sel:
        raise UserError(
            "metric_for_best_model is 'sel', which this run does not measure: it needs a classifier and a method "
            "that uses unlabeled images. Give validation or last."
        )
    if asked == "last":
        return None
    return f"validation_{ready.task.score.key}" if has_validation and asked != "sel" else "sel" if sel else None


def compare_with_frozen(ready: Prepared, objective: Objective) -> None:
    """Rows of the card: what is known on the test images without training; `auto` knows that already."""
    config, recorder, task = ready.config, ready.recorder, ready.task
    if recorder.comparisons or "test" not in ready.held or config.model.from_scratch or config.training.dry_run:
        return
    model, test, key = objective.evaluated, ready.held["test"], task.score.key
    try:
        row = task.frozen_row(model, recorder.start_words(), ready.labeled, test, ready.names)
        recorder.comparisons += [row] if row else []
    except UserError as error:
        log.info("no linear probe of the starting weights: %s", error)
    if ready.head == "priors":
        scores = task.evaluate(model, test, ready.names)
        row = Row("the head fitted to the priors, before training", {k: scores[k] for k in (key, f"{key}_error")})
        recorder.comparisons.append(row)


def finish(ready: Prepared, model: nn.Module, loop: Loop) -> Run:
    """Metrics and pictures of the test images, and all of it on disk."""
    task, metrics, key = ready.task, {}, ready.task.score.key
    window = ready.config.views.window
    if "validation" in ready.held:
        metrics[f"validation_{key}"] = task.evaluate(model, ready.held["validation"], ready.names, window=window)[key]
    if "test" in ready.held:
        metrics |= task.evaluate(model, ready.held["test"], ready.names, window=window, folder=ready.folder)
        if (median := median_of_last(loop.history, f"test_{key}")) is not None:
            metrics[f"{key}_median_of_{LAST}"] = median
    if not ready.held and len(ready.labeled.members):
        look_at_answers(ready, model)
    metrics |= ready.recorder.left_out
    tell_frozen(ready, metrics)
    ready.recorder.warn(skipped_words(loop.guard, loop.step))
    ready.recorder.warn(one_class_words(ready, model))
    loop.state.record = ready.recorder.save(loop, metrics, final=True)
    close(loop)
    return Run(ready.config, ready.folder, model, metrics, loop, ready.recorder)


def look_at_answers(ready: Prepared, model: nn.Module) -> None:
    """Of a few labeled images, where there are no others: Diverged for a network whose answers are no numbers."""
    some = ready.labeled.some(np.arange(min(LOOKED_AT, len(ready.labeled.members))))
    try:
        ready.task.evaluate(model, some, ready.names, window=ready.config.views.window)
    except Diverged:
        raise
    except UserError:  # no score can be told from these
        pass


def one_class_words(ready: Prepared, model: nn.Module) -> str | None:
    """A sentence for a classifier that says one class of everything, images that are known to be of others too.

    Training images alone do not tell: of a class that is rare there may be none among those asked.
    """
    task: Any = ready.task
    if not task.labels_score or len(ready.names) < 2 or len(ready.training) < FEW_IMAGES:
        return None
    known = [some_of_each(images) for images in (ready.labeled, *ready.held.values())]
    shown = {int(y) for images in known if images.targets is not None for y in images.targets}
    if len(shown) < 2:
        return None
    spread = torch.linspace(0, len(ready.training) - 1, min(ASKED, len(ready.training))).long()
    spread = spread[~torch.isin(spread, known[0].members)]  # which are asked already
    said, asked = set[int](), 0
    for cache, members in [*((images.cache, images.members) for images in known), (ready.training, spread)]:
        if len(members):  # the same on all processes, which answer together
            said |= {*task.predictions(model, cache, members).argmax(1).tolist()}
            asked += len(members)
        if len(said) > 1:
            return None
    return (
        f"The model says {ready.names[said.pop()]!r} of all {asked} images that it was asked about, whatever they "
        f"show, those with a label of {len(shown)} classes too: it tells none of the {len(ready.names)} classes apart. "
        "Train again for longer (--max-steps), with a lower --learning-rate, or with --method probe, which trains a "
        "linear layer alone."
    )


def some_of_each(images: Examples) -> Examples:
    """`ASKED` images at most, of all classes in turn."""
    y = images.targets.cpu().numpy() if images.targets is not None else np.zeros(0, int)
    order = np.argsort(y, kind="stable")
    turn = np.arange(len(y)) - np.searchsorted(y[order], y[order])  # of an image among those of its class
    return images.some(order[np.argsort(turn, kind="stable")][:ASKED])


def tell_frozen(ready: Prepared, metrics: Mapping[str, Any]) -> None:
    """Where the run stands beside what seconds of frozen features give; a warning where that is more, by more than the
    standard error of two scores that are as uncertain as the more uncertain one: all right of a few shows none."""
    score = ready.task.score
    reached, error = metrics.get(score.key), f"{score.key}_error"
    if reached is None or not ready.recorder.comparisons or not ready.recorder.main:
        return
    row = max(ready.recorder.comparisons, key=lambda row: row.metrics[score.key])
    frozen = row.metrics[score.key]
    if reached >= frozen:
        log.info("%s %s; %s: %s", score.title, score.show(reached), row.name, score.show(frozen))
        return
    both = [values.get(error) for values in (metrics, row.metrics)]
    if metrics["images"] < FEWEST_TOLD or None in both or frozen - reached < math.sqrt(2) * max(both):
        log.info(
            "%s %s; %s: %s. A test set of %d does not tell these apart: a larger one does (--test-fraction), and the "
            "cheaper model is as good until then",
            score.title,
            score.show(reached),
            row.name,
            score.show(frozen),
            metrics["images"],
        )
        return
    below = f"{score.title} {score.show(reached)} is below {score.show(frozen)} ({row.name})"
    if ready.recorder.ladder:  # a search took it
        log.warning(
            "%s on the test images. It was chosen by cross-validation: label images that are unlike those with a "
            "label, and search again",
            below,
        )
        return
    log.warning(
        "%s: this model is not the answer. Take `finetune --method probe` with the same labels%s, `hf-lowlabel auto`, "
        "which chooses by the labels, or %s",
        below,
        " and the same --prior" if ready.head == "priors" else "",
        "a lower --learning-rate" if ready.head else "more --max-steps",
    )
