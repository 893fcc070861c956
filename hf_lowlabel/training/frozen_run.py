"""A run on frozen features, in seconds: no network is trained (probe, knn, label-spreading).

    features of all training images and their few labels -> class probabilities of every image

`probe` is a linear layer, so its run folder is an ordinary model. Neighbours are no network: the other two leave the
classes of this run's own images, `predictions.parquet` (id, part, class, confidence), and nothing to predict others
with. All three leave `priors.safetensors`, the probabilities of every training image, for `--prior`: with
`--method probe` that is a linear head fitted to them, with `--method self-training` a whole network.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..arguments import FinetuneConfig
from ..errors import UserError
from ..evaluation.metrics import classification_metrics, softmax
from ..methods import check_arguments, find, hyperparameters
from ..models import create_classifier
from ..views.table import build_view
from . import setup
from .finetune_run import choose_split, labeled_positions, tested_on
from .inference import features_of, logits_of
from .priors import load_priors, save_priors
from .results import Recorder, Run
from .serving import write_table

log = logging.getLogger("hf_lowlabel")


@dataclass
class Fit:
    """What a run without training has in place of a loop: the network, and how long it took in seconds."""

    evaluated: nn.Module
    accelerator: object
    seconds: float = 0.0
    step: int = 0
    steps: int = 0
    history: list = field(default_factory=list)

    @property
    def inner(self) -> Fit:
        return self


def run(config: FinetuneConfig, folder: Path) -> Run:
    """Fit the method to features, evaluate it and save what it is."""
    check_arguments(config.method, config.method_args, hyperparameters(find(config.method)))
    if config.init_from and not setup.is_model_folder(config.init_from):
        raise UserError(
            f"found no config.json in {config.init_from}; expected a run folder or a saved model, since {config.method} takes "
            "no tensors of a checkpoint; fix: another --init-from, or --model for a timm name or a Hub id"
        )
    accelerator = setup.start_accelerator(config, folder)
    source = setup.open_source(config)
    split, test_source, test_at = choose_split(config, source)
    at, names = split.resolve(source), split.class_names
    with accelerator.main_process_first():
        model, size, stored = setup.make_network(
            config, source, lambda **kw: create_classifier(num_labels=len(names), class_names=names, **kw)
        )
    asked = {"training": (source, at.train), "test": (test_source, test_at), "validation": (source, at.validation)}
    pools = {
        part: setup.make_pool(
            config, where, members, stored, model.preprocessing["interpolation"], accelerator.device, part
        )
        for part, (where, members) in asked.items()
        if len(members)
    }
    pool = pools["training"]
    if config.from_scratch:
        setup.normalise(model, pool)
    model.to(accelerator.device)
    prep = model.preprocessing
    view = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    recorder = Recorder(config, folder, source, split, model.load_report, pools=pools)
    recorder.tests_on(test_source, test_at, *tested_on(config, source, test_source))

    begin = time.perf_counter()
    features = {part: features_of(model, p, view).numpy() for part, p in pools.items()}
    given = labeled_positions(pool, at.labeled, source).numpy()
    labels = known_labels(config, pool, given, at.labels, names)
    ask = {part: lambda p=p: logits_of(model, p, view) for part, p in pools.items()}
    probabilities = fit(config, model, features, labels, len(names), ask)
    done = Fit(model, accelerator, time.perf_counter() - begin)

    truth = {
        part: where.with_classes(names).labels[pools[part].indices]
        for part, (where, _) in asked.items()
        if part in pools
    }
    metrics = {}
    if "test" in pools:
        metrics = classification_metrics(probabilities["test"], truth["test"], names, probabilities=True)
        recorder.pictures(pools["test"], probabilities["test"], truth["test"], names, metrics)
    if "validation" in pools:
        metrics["validation_accuracy"] = float((probabilities["validation"].argmax(1) == truth["validation"]).mean())
    if recorder.main:
        save_priors(
            folder / "priors.safetensors", probabilities["training"], pool.ids, names, {"method": config.method}
        )
        write_table(table(pools, probabilities, given, names), folder / "predictions.parquet")
    recorder.save(done, metrics, final=True, model=config.method == "probe")
    return Run(config, folder, model, metrics, done, recorder)


def known_labels(config: FinetuneConfig, pool, given: np.ndarray, classes: np.ndarray, names: list[str]) -> np.ndarray:
    """int64 [pool], -1 where there is none: the labels, and where --prior is given its most probable classes."""
    labels = np.full(len(pool), -1)
    labels[given] = classes
    if not config.prior:
        return labels
    believed = load_priors(config.prior, pool.ids, names).numpy()
    return np.where((labels < 0) & (believed.sum(1) > 0), believed.argmax(1), labels)


def fit(
    config: FinetuneConfig, model, features: dict[str, np.ndarray], labels: np.ndarray, num_classes: int, logits: dict
) -> dict:
    """Class probabilities [n, K] of the images of every pool; `probe` becomes the head of the model, which is asked."""
    x, method = features["training"], find(config.method)(**config.method_args)
    if config.method == "probe":
        weight, bias = method.head(x, labels, num_classes=num_classes)
        model.set_classifier(torch.from_numpy(weight).to(model.device), torch.from_numpy(bias).to(model.device))
        return {part: softmax(ask().numpy()) for part, ask in logits.items()}
    together = method.fit_predict(x, labels, np.concatenate(list(features.values())), num_classes=num_classes)
    return dict(zip(features, np.split(together, np.cumsum([len(f) for f in features.values()])[:-1]), strict=True))


def table(pools: dict, probabilities: dict[str, np.ndarray], labeled: np.ndarray, names: list[str]) -> list[dict]:
    """A row for every image: id, part (labeled, unlabeled, test, validation), predicted class and its probability."""
    known = set(labeled.tolist())
    return [
        {
            "id": id,
            "part": part if part != "training" else "labeled" if i in known else "unlabeled",
            "class": names[int(p.argmax())],
            "confidence": float(p.max()),
        }
        for part, pool in pools.items()
        for i, (id, p) in enumerate(zip(pool.ids, probabilities[part], strict=True))
    ]
