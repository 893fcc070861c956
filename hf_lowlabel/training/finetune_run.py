"""A run of supervised or semi-supervised finetuning, from its configuration to the saved classifier."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..arguments import FinetuneConfig
from ..data.dataset import ImageDataset, load_source
from ..data.splits import Split, SplitIndices, make_split
from ..distributed import world
from ..errors import MissingSplit, UserError
from ..evaluation.checkpoints import LAST, median_of_last, sel
from ..evaluation.metrics import classification_metrics, softmax
from ..finetuning.weights import Prior
from ..methods import build_objective
from ..models import create_classifier
from ..models.adaptformer import add_adaptformer
from ..models.lora import add_lora, merged
from ..models.timm_checkpoint import freeze_stages
from ..objective import Objective
from ..views.table import build_view
from . import setup
from .baselines import frozen_row
from .batches import ViewStream, finetune_batches
from .inference import logits_of
from .loop import Loop
from .priors import load_priors
from .results import Recorder, Run

log = logging.getLogger("hf_lowlabel")
SEL_IMAGES = 2000  # unlabeled images at most by which the saved weights are chosen


def run(config: FinetuneConfig, folder: Path) -> Run:
    """Train a classifier and save it in `folder`."""
    accelerator = setup.start_accelerator(config, folder)
    source = setup.open_source(config)
    split, test_source, test_at = choose_split(config, source)
    at = split.resolve(source)
    names = split.class_names
    with accelerator.main_process_first():
        model, size, stored = setup.make_network(
            config,
            source,
            lambda **kw: create_classifier(num_labels=len(names), class_names=names, drop_rate=config.drop_rate, **kw),
        )
    interpolation, device = model.preprocessing["interpolation"], accelerator.device
    pool = setup.make_pool(config, source, at.train, stored, interpolation, device, "training", at.labeled)
    known = {}  # part -> (pool, labels [N]) of images that are not trained on
    for part, images, indices in (("validation", source, at.validation), ("test", test_source, test_at)):
        if len(indices):
            held = setup.make_pool(config, images, indices, stored, interpolation, device, part)
            known[part] = held, torch.as_tensor(images.with_classes(names).labels[held.indices])
    if config.from_scratch:
        setup.normalise(model, pool)
    prep = model.preprocessing
    objective = make_objective(config, model, pool, at, names)

    def stream(name, members, per_step, kinds, targets=None):
        views = setup.make_views(config, kinds, source, size, prep["mean"], prep["std"])
        return ViewStream(
            pool,
            members,
            per_step,
            views,
            name=name,
            seed=config.seed,
            rank=accelerator.process_index,
            world=world(),
            targets=targets,
            chunk=setup.steps_ahead(config, per_step // world(), stored, device),
        )

    labeled = stream(
        "labeled",
        labeled_positions(pool, at.labeled, source),
        config.batch_size,
        objective.labeled_views,
        torch.as_tensor(at.labels),
    )
    per_step = config.batch_size * config.unlabeled_ratio
    unlabeled = (
        stream("unlabeled", torch.arange(len(pool)), per_step, objective.unlabeled_views)
        if objective.unlabeled_views
        else None
    )
    config.max_steps = setup.steps(config, len(pool), per_step)
    plain = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    recorder = Recorder(
        config,
        folder,
        source,
        split,
        model.load_report,
        pools={"training": pool, **{k: p for k, (p, _) in known.items()}},
    )
    recorder.tests_on(test_source, test_at, *tested_on(config, source, test_source))
    loop = Loop(
        objective,
        lambda start: finetune_batches(labeled, unlabeled, start),
        config,
        folder,
        accelerator=accelerator,
        learning_rate=config.learning_rate,
        evaluate=watcher(known, plain, pool if unlabeled else None),
        metric_for_best_model=_keep_best(config, "validation" in known, unlabeled is not None),
        on_save=lambda loop: recorder.save(loop, {}, final=False),
        data=setup.identity(source, split, pool),
    )
    if "test" in known and not (config.from_scratch or config.dry_run):
        row = frozen_row(
            objective.evaluated, recorder.start_words(), plain, pool, labeled.members, at.labels, *known["test"]
        )
        recorder.comparisons += [row] if row else []
    loop.fit(config.resume)
    loop.take_best()
    trained = merged(objective.evaluated).eval()
    metrics = final_metrics(trained, known, plain, names, loop.history, recorder)
    recorder.save(loop, metrics, final=True)
    return Run(config, folder, trained, metrics, loop, recorder)


def make_objective(config: FinetuneConfig, model, pool, at: SplitIndices, names: list[str]) -> Objective:
    """The method over the network, with adapters, frozen stages, priors and starting weights as the settings say."""
    if config.lora_rank:
        add_lora(model, config.lora_rank, config.lora_alpha)
    if config.adapter_width:
        add_adaptformer(model, config.adapter_width)
    if config.freeze:
        freeze_stages(model, config.freeze)
    priors = load_priors(config.prior, pool.ids, names) if config.prior else None
    objective = build_objective(
        config.method,
        model,
        config.method_args,
        num_classes=len(names),
        num_images=len(pool),
        num_labeled=len(at.labeled),
        priors=priors,
    )
    if priors is not None and hasattr(objective, "rule"):
        objective.rule = Prior(objective.rule, priors, until=config.prior_until)
    setup.start_from(objective, config)
    return objective


def watcher(known: dict, plain, unlabeled) -> Callable[[Objective, int], dict]:
    """What an evaluation logs: accuracy of every part of `known` and, with an `unlabeled` pool, Sel on some of it."""
    asked = torch.linspace(0, len(unlabeled) - 1, min(SEL_IMAGES, len(unlabeled))).long() if unlabeled else None

    def watch(objective: Objective, step: int) -> dict:
        scores = {
            f"{part}_accuracy": float((logits_of(objective.evaluated, p, plain).argmax(1) == y).float().mean())
            for part, (p, y) in known.items()
        }
        if unlabeled:
            scores["sel"] = sel(softmax(logits_of(objective.evaluated, unlabeled, plain, asked).numpy()))
        return scores

    return watch


def final_metrics(trained, known: dict, plain, names: list[str], history: list[dict], recorder: Recorder) -> dict:
    """Metrics of the test images, pictures of them, and the accuracy on validation images."""
    metrics = {}
    for part, (p, y) in known.items():
        logits = logits_of(trained, p, plain).numpy()
        scores = classification_metrics(logits, y.numpy(), names)
        if part == "test":
            metrics |= scores
            metrics |= {f"accuracy_median_of_{LAST}": m for m in [median_of_last(history)] if m is not None}
            recorder.pictures(p, softmax(logits), y.numpy(), names, scores)
        else:
            metrics["validation_accuracy"] = scores["accuracy"]
    return metrics


def _keep_best(config: FinetuneConfig, has_validation: bool, has_unlabeled: bool) -> str | None:
    """The score by which the saved weights are chosen; None: the last ones."""
    for kind, there, need in (
        ("validation", has_validation, "validation images; fix: --validation N, or a split with some"),
        ("sel", has_unlabeled, "a method that uses unlabeled images"),
    ):
        if config.metric_for_best_model == kind and not there:
            raise UserError(f"metric_for_best_model is {kind!r}; expected {need}")
    if config.metric_for_best_model == "last":
        return None
    return (
        "validation_accuracy"
        if has_validation and config.metric_for_best_model != "sel"
        else "sel"
        if has_unlabeled
        else None
    )


def choose_split(config: FinetuneConfig, source: ImageDataset) -> tuple[Split, ImageDataset, np.ndarray]:
    """(which images are labeled, where the test images are, which they are).

    The test set is the manifest's own, else the data set's `test` (or `validation`) split if it has labels, else
    `test_fraction` of the labeled images. Raises UserError where neither a label budget nor a manifest is given.
    """
    if (config.split is None) == (config.num_labels is None):
        raise UserError(
            "expected either --num-labels N (a budget to draw) or --split split.json (a manifest), found "
            + ("neither" if config.split is None else "both")
        )
    given = Split.load(config.split) if config.split else None
    if given is not None and given.test:
        return given, source, given.resolve(source).test
    other = None if config.dataset_split != "train" and config.test_dataset_split is None else _test_source(config)
    if given is None:
        given = make_split(
            source,
            config.num_labels,
            seed=config.seed,
            class_balanced=config.class_balanced,
            validation=config.validation,
            test_fraction=0.0 if other is not None else config.test_fraction,
        )
    if other is not None:
        return given, other, np.flatnonzero(other.with_classes(given.class_names).labels >= 0)
    return given, source, given.resolve(source).test


def tested_on(config: FinetuneConfig, source: ImageDataset, test_source: ImageDataset) -> tuple[str, str | None]:
    """Which images are the test set, for the card: in words, and the name of a published split where they are that."""
    if test_source is not source:
        return f"split {test_source.split!r}", test_source.split
    return (
        "held out by the manifest" if config.split else f"{config.test_fraction:.0%} of the labeled images, held out"
    ), None


def _test_source(config: FinetuneConfig) -> ImageDataset | None:
    """The data set's own test images: of the split that is asked for, else the first of test and validation with labels."""
    for name in [config.test_dataset_split] if config.test_dataset_split else ["test", "validation"]:
        try:
            other = load_source(**config.where(name))
        except MissingSplit:
            if config.test_dataset_split:
                raise
            continue
        if (other.labels >= 0).any():
            return other
        found = f"found no label in split {name!r} of {config.dataset!r}"
        if config.test_dataset_split:
            raise UserError(f"{found}; expected some to test on; fix: --test-dataset-split")
        log.warning("%s: it is not the test set", found)
    return None


def labeled_positions(pool, labeled: np.ndarray, source: ImageDataset) -> torch.Tensor:
    """Positions in the pool of labeled images given as positions in the source; one that was unreadable is an error."""
    order = np.argsort(pool.indices, kind="stable")  # a dict of all images would take 100 bytes each
    where = order[np.minimum(np.searchsorted(pool.indices, labeled, sorter=order), len(order) - 1)]
    lost = [source.ids[i] for i in labeled[pool.indices[where] != labeled]]
    if lost:
        raise UserError(
            f"{len(lost)} labeled images cannot be read ({', '.join(lost[:5])}); expected every labeled image to be "
            "whole; fix the files or leave them out of the split"
        )
    return torch.as_tensor(where)
