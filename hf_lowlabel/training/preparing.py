"""A finetuning run before fitting (`Prepared`) and after (`Run`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from .. import methods
from ..arguments import Config, DataArguments
from ..data.caches.decoding import check_share
from ..data.dataset import ImageDataset
from ..data.masks.mask_faults import check_masks
from ..data.splits.splits import Split, SplitIndices
from ..errors import TooManyBad, UserError
from ..settings import usual_rate
from ..tasks.base import Task
from ..tasks.data_classes import Chosen, Examples
from ..tasks.foundation import branched
from ..tasks.networks import Network
from ..text import listed
from . import setup
from .class_counts import tell_counts, tell_without
from .copies import agreeing, apart, out_of_pool, pictures
from .lineage import began_at_random
from .recording import Recorder
from .same_run import check_early

log = logging.getLogger("hf_lowlabel")


class Progress(Protocol):
    """A training loop, or what stands in its place: how long it was, and what was logged."""

    inner: Any
    step: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]


class Run:
    """A finished (or dry) run, as `pretrain` and `finetune` return it.

    config: the settings, resolved. folder: where model, card, split, metrics and pictures lie. model: the network that
    was saved, in memory; `model.save_pretrained(folder)` saves it elsewhere. metrics: results on the test images by
    name. history: the logged rows. progress: the training loop, or its replacement. recorder: the facts of the
    card.
    """

    def __init__(
        self, config: Config, folder: Path, model: nn.Module, metrics: dict, progress: Progress, recorder: Recorder
    ):
        self.config, self.folder, self.model, self.metrics = config, folder, model, metrics
        self.progress, self.recorder = progress, recorder

    def __fspath__(self) -> str:
        """Its folder: a run may be given wherever a run folder may."""
        if self.config.training.dry_run:
            raise UserError("This was a dry run, which leaves no folder. Give its model, run.model.")
        return str(self.folder)

    @property
    def history(self) -> list[dict]:
        return self.progress.history

    def __repr__(self) -> str:
        few = len(self.metrics.get("class_names") or ()) <= 5  # any of five is no score
        shown = {k: v for k, v in self.metrics.items() if isinstance(v, float) and not (few and k == "top5_accuracy")}
        shown = {k: round(v, 4) for k, v in shown.items()}
        method = methods.name_of(self.config.method)
        return f"Run({self.config.verb} {method}, {self.folder}, {shown})"


@dataclass
class Prepared:
    """All that a run has before it fits anything.

    total: images of all its parts as they were chosen, of which `max_bad` is a share.
    held: part ("validation", "test") -> images that are not trained on. unseen: part -> positions of those that are no
    copies of labeled ones, of parts that have copies. head: what a fresh head was fitted to, "probe" or "priors".
    """

    task: Task
    config: Config
    folder: Path
    accelerator: Accelerator
    dataset: ImageDataset
    chosen: Chosen
    at: SplitIndices
    network: Network
    training: Any
    labeled: Examples
    held: dict[str, Examples]
    recorder: Recorder
    unseen: Mapping[str, np.ndarray]
    total: int
    head: str | None = None

    @property
    def names(self) -> list[str]:
        return self.chosen.split.class_names


def prepare(task: Task, config: Config, folder: Path, left_out: Sequence[tuple[str, str]] = ()) -> Prepared:
    """Data, split, network and caches; bad input is found here, before anything is computed.

    left_out: labels that were not used, beside those of the data, as in `ImageDataset`.
    """
    accelerator = setup.start_accelerator(config.training, folder)
    dataset = task.open(config.data)
    if left_out:
        dataset = replace(dataset, left_out=[*dataset.left_out, *left_out])
    chosen = task.choose_split(config.data, config.training.seed, dataset)
    method, prior = config.method, config.training.prior
    # a method that spreads priors does so beside labels; to one that takes them as labels they are enough
    if not (chosen.split.labeled or prior and method.frozen and not method.spreads_priors):
        instead = ", or take --method probe, which fits a linear layer to --prior alone" * bool(prior)
        raise UserError(
            f"There are no labels, and {methods.name_of(method)} needs some. Label at least one image{instead}."
        )
    if task.climbs and chosen.split.labeled and not prior:
        check_labels(chosen.split)
    check_early(config, folder, dataset, chosen.split)
    at, names = chosen.split.resolve(dataset), chosen.split.class_names
    tell_counts(task, dataset, at, names)
    check_masks((dataset, np.concatenate([at.labeled, at.validation])), (chosen.test, chosen.test_at))
    with accelerator.main_process_first():
        network = network_of(task, config, dataset, names, accelerator.device)
    model = network.model
    if (rate := usual_rate(config, task)) and began_at_random(config.model, model.load_report.revision):
        log.info("the network was pretrained from random weights, so that it trains at the usual rate, %g", rate)
        config = config.replace(learning_rate=rate)
    elif "adapter_width" in task.takes:
        config = branched(config, model)
    total = len(at.train) + len(at.validation) + len(chosen.test_at)
    training, labeled = caches_of(task, model, config, dataset, at, total)
    dataset, chosen, at = without_unreadable(task, dataset, chosen, at, labeled)
    held = held_out(task, model, config, dataset, chosen, at, total)
    check_bad(training, labeled, held, config, total)
    seen = pictures(labeled) if len(labeled.members) else []
    shown = {part: pictures(images) for part, images in held.items()}
    unseen = apart(seen, held, shown)
    if some := {part: kept for part, kept in unseen.items() if len(kept)}:
        chosen = replace(chosen, test_at=some.get("test", chosen.test_at))
        at = at._replace(validation=some.get("validation", at.validation))
        held = held_out(task, model, config, dataset, chosen, at, total)
    free = np.flatnonzero(~np.isin(training.indices, at.labeled))
    held_pictures = {picture for found in shown.values() for picture in found} - {*seen, ""}
    kept = out_of_pool(training, free, list(held.values()), held_pictures)
    if len(kept) < len(training):
        at = at._replace(train=np.setdiff1d(at.train, np.delete(training.indices, kept)))
        labeled = among(training, labeled, kept)
    agreed = agreeing(labeled, seen, names, config.data.skip_conflicts)
    if len(agreed) < len(seen):
        labeled = labeled.some(agreed)
        chosen, at = labeled_alone(task, dataset, chosen, at, agreed)
    if config.model.from_scratch and not config.model.init_from:
        task.normalise(model, training)
    caches = [training, *(images.cache for images in (labeled, *held.values()) if images.cache is not training)]
    recorder = Recorder(config, folder, dataset, chosen.split, model.load_report, len(training), caches)
    recorder.tests_on(chosen.test, chosen.test_at, chosen.words, chosen.published)
    shows = task.shows(labeled, names)
    recorder.shown = None if shows is None else dict(zip(names, shows.sum(0).tolist(), strict=True))
    if task.labeling == "mask":
        tell_without(recorder.labels().without)
    made = (network, training, labeled, held, recorder, unseen, total)
    return Prepared(task, config, folder, accelerator, dataset, chosen, at, *made)


def among(training: Any, labeled: Examples, kept: np.ndarray) -> Examples:
    """Let a cache hold the images at `kept` alone, int64 in order, and the labeled ones are found there."""
    if labeled.cache is training:
        labeled = replace(labeled, members=torch.from_numpy(np.searchsorted(kept, labeled.members.numpy())))
    training.keep(kept)
    return labeled


def of_those(ready: Prepared, kept: np.ndarray) -> Prepared:
    """The run with the training images at `kept` alone, int64 in order; its labeled images are among them."""
    ready.recorder.images = len(kept)
    return replace(ready, labeled=among(ready.training, ready.labeled, kept))


def without_unreadable(
    task: Task, dataset: ImageDataset, chosen: Chosen, at: SplitIndices, labeled: Examples
) -> tuple[ImageDataset, Chosen, SplitIndices]:
    """The run without the labels of images that cannot be read, which are listed; the caches hold few enough such."""
    read = np.isin(at.labeled, np.asarray(labeled.cache.indices)[labeled.members.numpy()])
    if read.all():
        return dataset, chosen, at
    why = dict(labeled.cache.skipped)
    lost = [(dataset.ids[i], f"it cannot be read: {why.get(dataset.ids[i], 'damaged')}") for i in at.labeled[~read]]
    many = f"{len(lost)} of the {len(read)} labeled images cannot be read ({listed((id for id, _ in lost), 5)})"
    if not read.any():
        raise UserError(f"{many}, and there is no other label. Mend the files, or label other images.")
    log.warning("%s: their labels are left out. Mend the files to use them", many)
    chosen, at = labeled_alone(task, dataset, chosen, at, np.flatnonzero(read))
    return replace(dataset, left_out=[*dataset.left_out, *lost]), chosen, at


def labeled_alone(
    task: Task, dataset: ImageDataset, chosen: Chosen, at: SplitIndices, rows: np.ndarray
) -> tuple[Chosen, SplitIndices]:
    """The split with those of its labels alone that stand at `rows`. UserError where too few classes are left."""
    at = at._replace(labeled=at.labeled[rows], labels=at.labels[rows])
    known = {dataset.ids[i] for i in at.labeled}
    of = {id: name for id, name in chosen.split.labeled.items() if id in known}
    chosen = replace(chosen, split=replace(chosen.split, labeled=of))
    if task.climbs:
        check_labels(chosen.split)
    return chosen, at


def held_out(
    task: Task, model: nn.Module, config: Config, dataset: ImageDataset, chosen: Chosen, at: SplitIndices, total: int
) -> dict[str, Examples]:
    """Part -> the images of it, of those that have any. total: as in `Prepared`."""
    parts = {"validation": (dataset, at.validation), "test": (chosen.test, chosen.test_at)}
    names, held = chosen.split.class_names, {}
    for part, (source, rows) in parts.items():
        if len(rows):
            with of_all(config, total, len(rows), part) as data:
                held[part] = task.held(model, data, source, rows, names, part)
    return held


def caches_of(
    task: Task, model: nn.Module, config: Config, dataset: ImageDataset, at: SplitIndices, total: int
) -> tuple[Any, Examples]:
    """The images that are trained on, and the labeled ones. total: as in `Prepared`."""
    with of_all(config, total, len(at.train)) as data:
        training, labeled = task.caches(model, data, dataset, at)
    if hasattr(training, "beside"):  # what streams goes on counting; no other cache goes on without an image
        training.max_bad, training.beside = config.data.max_bad, total - len(at.train)
    return training, labeled


@contextlib.contextmanager
def of_all(config: Config, total: int, count: int, held: str = "") -> Iterator[DataArguments]:
    """Settings by which a part of `count` images may lack as many as all `total` together; what is too much is said of
    all. held: the name of a part that scores are of, which may lack one image, or a tenth of itself."""
    share = config.data.max_bad
    own = max(share, 0.1) if held else 1.0
    most = min(share * total, max(1, own * count)) + 1e-6  # which a rounded quotient would fall below
    try:
        yield replace(config.data, max_bad=min(1.0, most / max(count, 1)))
    except TooManyBad as error:
        for among, allowed in ((total, share), (error.count, own), (error.count, share)):
            check_share(error.skipped, among, allowed, held if among < total else "")
        raise


def check_bad(training: Any, labeled: Examples, held: Mapping[str, Examples], config: Config, total: int) -> None:
    """TooManyBad where the parts lack more images together than `max_bad` allows of the `total`."""
    lost = dict([*training.skipped, *labeled.cache.skipped])
    bad = [*lost.items(), *(one for images in held.values() for one in images.cache.skipped)]
    if bad:
        check_share(bad, total, config.data.max_bad)


def check_labels(split: Split) -> None:
    """UserError for labels of fewer than two classes."""
    if None in split.labeled.values():  # a list of ids alone: the data has the labels
        return
    given = sorted({str(name) for name in split.labeled.values()})
    if len(given) < 2:
        count = len(split.labeled)
        raise UserError(
            f"{'The only label is' if count == 1 else f'All {count} labels are'} of the class {given[0]!r}. Label at "
            "least one image of another class: two are needed to tell apart."
            if given
            else "There are no labels. Label at least one image of each of two classes."
        )


def network_of(task: Task, config: Config, dataset: Any, names: list[str], device: Any) -> Network:
    """A fresh network for these images, which knows how their values were read."""
    network = task.build(config, dataset, names)
    network.model.to(device)
    if config.data.value_range:  # for whoever uses the model
        network.model.config.value_range = list(config.data.value_range)
    if dataset.masks is not None:  # in which colours its own masks can lie among those
        network.model.config.class_colors = dataset.masks.format.class_colors()
    return network


def close(loop: Any) -> None:
    """Tell the callbacks that the run is complete."""
    loop.tell("on_save")
    loop.tell("on_train_end")
