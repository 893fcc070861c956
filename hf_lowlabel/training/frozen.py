"""A run on frozen features, in seconds: no network is trained (probe, knn, label-spreading).

    features of all training images and their few labels -> class probabilities of every image

`probe` is a linear layer, so its run folder is an ordinary model. Neighbours are no network: the other two leave the
classes of this run's own images, `predictions.parquet` (id, part, class, confidence), and nothing to predict others
with. All leave `priors.safetensors`, the probabilities of every training image, for `--prior`: with `--method probe`
that is a linear head fitted to them, with `--method self-training` a whole network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import methods
from ..errors import UserError
from ..evaluation.inference import seen_by_all
from ..evaluation.near_copies import copies_by_image
from ..finetuning.uninformative import informative, over_all_classes
from ..table_writer import write_table
from ..tasks.networks import is_model_folder
from . import setup
from .callbacks import Callback, RunState
from .preparing import Prepared, Run, close, of_those
from .priors import load_priors, save_priors


class Fit:
    """What a run without training has in place of a loop: the network, and how long it took in seconds."""

    def __init__(self, ready: Prepared, seconds: float, callbacks: Sequence[Callback]):
        self.evaluated, self.seconds, self.step, self.steps = ready.network.model, seconds, 0, 0
        self.history: list[dict] = []
        self.callbacks, self.inner = list(callbacks), self
        main = ready.accelerator.is_main_process
        self.state = RunState(ready.folder, self, 0, history=self.history, is_main_process=main)

    def tell(self, event: str, *values) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self.state, *values)


def fit(ready: Prepared, callbacks: Sequence[Callback] = (), known: np.ndarray | None = None) -> Run:
    """Fit the method to features, evaluate it and save what it is.

    known: the features of the training images, float32 [N, D], where they are there already.
    """
    config, task, model = ready.config, ready.task, ready.network.model
    name = methods.name_of(config.method)
    if config.model.init_from and not is_model_folder(config.model.init_from):
        raise UserError(
            f"There is no config.json in {config.model.init_from}, and {name} takes no tensors of a checkpoint. Give "
            "another --init-from, or --model with a timm name or a Hub id."
        )
    method = config.method(**config.method_args)
    if config.method.of_pixels:
        return fit_pixels(ready, method, callbacks)
    caches = {"training": ready.training, **{part: images.cache for part, images in ready.held.items()}}
    begin = time.perf_counter()
    features = {} if known is None else {"training": known}
    features |= {part: task.features(model, cache) for part, cache in caches.items() if part not in features}
    every = torch.arange(len(ready.training))
    own = (seen_by_all(ready.training, every) == every).numpy()
    if known is None and not own.all():  # a cache that streams gave the image beside one that cannot be read
        ready, features["training"] = of_those(ready, np.flatnonzero(own)), features["training"][own]
    labels = task.known_labels(ready.labeled, len(ready.training))
    more = beside_labels(method, ready)
    if config.training.prior:
        believed = load_priors(config.training.prior, ready.training.ids, ready.names, ready.chosen.split).numpy()
        if config.method.spreads_priors:
            more["priors"] = believed
        else:
            labels = with_priors(labels, believed)
    probabilities = predict(method, task, model, features, labels, num_classes=len(ready.names), **more)
    done = Fit(ready, time.perf_counter() - begin, callbacks)
    setup.start_trackers(ready.accelerator, config)

    metrics = {}
    if "test" in ready.held:
        metrics = task.report(probabilities["test"], ready.held["test"], ready.names, ready.folder)
    if "validation" in ready.held:
        key = task.score.key
        scores = task.report(probabilities["validation"], ready.held["validation"], ready.names, None)
        metrics[f"validation_{key}"] = scores[key]
    metrics |= ready.recorder.left_out
    if ready.recorder.main:
        path = ready.folder / "priors.safetensors"
        said = over_all_classes(probabilities["training"])
        save_priors(path, said, ready.training.ids, ready.names, {"method": name})
        write_table(ready.folder / "predictions.parquet", table(ready, caches, probabilities))
    done.state.record = ready.recorder.save(done, metrics, final=True, model=hasattr(method, "head"))
    close(done)
    return Run(config, ready.folder, model, metrics, done, ready.recorder)


def fit_pixels(ready: Prepared, method, callbacks: Sequence[Callback]) -> Run:
    """A layer on feature maps: a segmenter, evaluated and saved as a trained one."""
    task: Any = ready.task
    model, names, key, begin = ready.network.model, ready.names, task.score.key, time.perf_counter()
    task.fit_pixels(method, model, ready.labeled, names)
    done, metrics, window = Fit(ready, time.perf_counter() - begin, callbacks), {}, ready.config.views.window
    setup.start_trackers(ready.accelerator, ready.config)
    if "validation" in ready.held:
        metrics[f"validation_{key}"] = task.evaluate(model, ready.held["validation"], names, window=window)[key]
    if "test" in ready.held:
        metrics |= task.evaluate(model, ready.held["test"], names, window=window, folder=ready.folder)
    metrics |= ready.recorder.left_out
    done.state.record = ready.recorder.save(done, metrics, final=True)
    close(done)
    return Run(ready.config, ready.folder, model, metrics, done, ready.recorder)


def beside_labels(method, ready: Prepared) -> dict[str, Any]:
    """Which labeled images are copies of a picture, for a method that asks: they are not left out apart."""
    if not method.takes_copies:
        return {}
    return {"copies": copies_by_image(ready.labeled, len(ready.training))}


def with_priors(labels: np.ndarray, believed: np.ndarray) -> np.ndarray:
    """Labels int64 [N], and where there is none the most probable class of the priors [N, K], if they say one."""
    return np.where((labels < 0) & informative(believed), believed.argmax(1), labels)


def predict(method, task, model: nn.Module, features: dict, labels: np.ndarray, **known) -> dict:
    """Class probabilities [n, K] of the images of every part; a method with a `head` becomes that of the model.

    known: num_classes, priors [N, K] for a method that spreads them, and `beside_labels`.
    """
    x = features["training"]
    if hasattr(method, "head"):
        weight, bias = method.head(x, labels, **known)
        model.set_classifier(torch.from_numpy(weight).to(model.device), torch.from_numpy(bias).to(model.device))
        return {part: task.predictions_of(model, f) for part, f in features.items()}
    together = method.fit_predict(x, labels, np.concatenate(list(features.values())), **known)
    ends = np.cumsum([len(f) for f in features.values()])[:-1]
    return dict(zip(features, np.split(together, ends), strict=True))


def table(ready: Prepared, caches: dict, probabilities: dict[str, np.ndarray]) -> list[dict]:
    """A row for every image: id, part (labeled, unlabeled, test, validation), predicted class and its probability."""
    known = set(ready.labeled.members.tolist())

    def named(part: str, i: int) -> str:
        return part if part != "training" else "labeled" if i in known else "unlabeled"

    return [
        {"id": id, "part": named(part, i), **ready.task.answer(torch.as_tensor(p), ready.names)}
        for part, cache in caches.items()
        for i, (id, p) in enumerate(zip(cache.ids, probabilities[part], strict=True))
    ]
