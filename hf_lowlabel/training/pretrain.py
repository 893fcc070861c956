"""A run of target pretraining, from its settings to the saved backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset
from ..data.pixels.images import square_of
from ..data.sources.streaming import ShardedStream, Shards
from ..data.splits.splits import Split
from ..distributed import world
from ..errors import UserError
from ..evaluation.inference import features_of, seen_by_all
from ..evaluation.probes import feature_std, knn_accuracy
from ..methods import name_of
from ..models import create_backbone
from ..models.lora import add_lora, merged
from ..objective import build_objective
from ..pretraining.l2_sp import L2SP
from ..records import Row
from ..tasks.backbone import HARDLY_MOVED
from ..tasks.base import Task
from ..tasks.caching import square_cache, square_statistics, tell_skipped
from ..tasks.classification import eval_view, separate_views
from ..tasks.data_classes import Examples
from ..tasks.networks import Network, timm_network
from . import setup
from .batches import ViewStream, pretrain_batches
from .callbacks import Callback
from .copies import out_of_pool, pictures
from .guard import skipped_words
from .loop import Loop
from .preparing import Run, close
from .recording import Recorder
from .same_run import check_early

log = logging.getLogger("hf_lowlabel")
KNN_IMAGES = 5000  # images at most in the nearest-neighbour check
SAMPLE = 2048  # images of a sharded data set


def run(task: Task, config: Config, folder: Path, callbacks: Sequence[Callback] = (), trial: bool = False) -> Run:
    """Adapt a backbone to the images of the run, and save it in `folder`.

    trial: nothing is written but checkpoints, nothing is evaluated.
    """
    args = config.training
    accelerator = setup.start_accelerator(args, folder)
    dataset, shards = open_images(task, config.data)
    split = read_split(config.data)
    at = split.resolve(dataset) if split else None
    check_early(config, folder, dataset, split)
    with accelerator.main_process_first():
        network = make_network(config, dataset, whole=task.labeling != "mask")
    encoder = network.model.to(accelerator.device)
    squares = 1 if shards else task.squares(dataset)
    members = at.train if at else np.arange(len(dataset))
    rows = (np.asarray(members)[:, None] * squares + np.arange(squares)).flatten()
    cache = square_cache(
        config.data,
        dataset.in_squares(squares),
        rows,
        preprocessing=encoder.preprocessing,
        device=accelerator.device,
        what="sample" if shards else "training",
        vital=rows[:0],
    )
    if at and not (shards or trial):
        leave_out_copies(cache, config.data, dataset, squares, np.concatenate([at.validation, at.test]), encoder)
    check_compared(config, len(cache))
    seen = read_shards(shards, config, network, accelerator) if shards else cache
    if config.model.from_scratch:
        mean, std = square_statistics(cache)
        encoder.config.pretrained_cfg.update(mean=mean, std=std)
    objective = make_objective(config, encoder, None if shards else len(cache))
    stream = make_stream(config, objective, seen, None if shards else len(cache), dataset, network, accelerator)
    args.max_steps = setup.steps(args, len(cache) // squares, args.batch_size)  # an epoch: as many views as images
    labels = torch.as_tensor(dataset.labels[cache.indices // squares]) if dataset.labels.ndim == 1 else None
    images = None if shards else len(cache) // squares
    recorder = Recorder(config, folder, dataset, split, encoder.load_report, images, [seen])
    if at:
        recorder.tests_on(dataset, at.test)
    identity = setup.identity(config, dataset, split, None if shards else cache)
    if shards:
        identity["data"]["number of processes"] = world()
    loop = Loop(
        objective,
        lambda start: pretrain_batches(stream, list(stream.transform.views), start),
        args,
        folder,
        accelerator=accelerator,
        base_learning_rate=args.learning_rate * args.batch_size / 256,
        evaluate=None if trial else lambda trained: collapse_monitor(trained.evaluated, cache, labels),
        save=None if trial else lambda loop: recorder.save(loop, {}, final=False),
        identity=identity,
        start=None if trial else lambda: setup.start_trackers(accelerator, config),
        callbacks=callbacks,
        layout=setup.layout_of(config, objective, network.size[0], accelerator.device),
        compile=config.model.compile,
    )
    if not (args.dry_run or trial):
        before = collapse_monitor(objective.evaluated, cache, labels)
        recorder.comparisons.append(Row(f"before: {recorder.start_words()}", before))
    with setup.tracked(accelerator):
        loop.fit()
        if trial:
            return Run(config, folder, objective.evaluated, {}, loop, recorder)
        if shards:
            tell_skipped(seen, seen.seen, "streamed")
        loop.take_best()
        metrics = collapse_monitor(objective.evaluated, cache, labels)
        if isinstance(objective, L2SP):
            metrics["moved"] = objective.moved()
            warn_if_hardly_moved(metrics["moved"], config)
        recorder.warn(skipped_words(loop.guard, loop.step))
        loop.state.record = recorder.save(loop, metrics, final=True)
        close(loop)
        return Run(config, folder, merged(objective.evaluated).eval(), metrics, loop, recorder)


def leave_out_copies(
    cache: Any, data: DataArguments, dataset: ImageDataset, squares: int, aside: np.ndarray, encoder: Any
) -> None:
    """Take the copies of held-out images out of a cache; these are decoded for it alone, and stay in no memory.

    Args:
        cache: the images of a run. data: its settings. dataset: all images. squares: of an image.
        aside: positions of those that are held out. encoder: what sees them.
    """
    if not aside.size:
        return
    images = square_cache(
        data,
        dataset.in_squares(squares),
        (aside[:, None] * squares + np.arange(squares)).flatten(),
        preprocessing=encoder.preprocessing,
        device=next(encoder.parameters()).device,
        what="held-out",
    )
    held = Examples(images, torch.arange(len(images)), None)
    kept = out_of_pool(cache, np.arange(len(cache)), [held], {*pictures(held)} - {""})
    gone = np.delete(cache.indices, kept) // squares
    if len(gone):
        cache.keep(np.flatnonzero(~np.isin(cache.indices // squares, gone)))


def open_images(task: Task, data: DataArguments) -> tuple[ImageDataset, Shards | None]:
    """The images; of a sharded data set a sample that stands for them in statistics and checks, and the shards."""
    if not data.sharded:
        return task.open_images(data), None
    shards = Shards(
        data.dataset,
        config=data.dataset_config,
        split=data.dataset_split,
        revision=data.dataset_revision,
        image_column=data.image_column,
    )
    return shards.sample(SAMPLE), shards


def read_split(data: DataArguments) -> Split | None:
    """The manifest, whose held-out images are left out; a published list of ids (.txt) holds nothing out."""
    return Split.load(data.split) if data.split and not str(data.split).endswith(".txt") else None


def make_network(config: Config, dataset: ImageDataset, *, whole: bool) -> Network:
    any_size = bool(config.method_args.get("local_crops"))

    def create(**given):
        return create_backbone(output_stride=config.model.output_stride, any_size=any_size, **given)

    return timm_network(config.model, config.views, dataset, create, whole=whole)


def make_objective(config: Config, encoder, images: int | None):
    if config.model.lora_rank:
        add_lora(encoder, config.model.lora_rank, config.model.lora_alpha)
    if config.method.maps:
        encoder.freeze_beyond_map()
    objective, args = build_objective(config.method, encoder, config.method_args, num_images=images), config.training
    if (parts := args.gradient_accumulation_steps) > 1 and config.method.compares and not hasattr(objective, "queue"):
        log.info("images are compared within each micro-batch alone, %d at a time", args.batch_size // parts)
    if config.training.l2_sp and not config.model.from_scratch:
        objective = L2SP(objective, config.training.l2_sp / config.training.batch_size)
    setup.start_from(objective, config.model)
    if isinstance(objective, L2SP):
        objective.begin()
    return objective


def check_compared(config: Config, images: int) -> None:
    """UserError for a single image where the method tells images from each other: its gradient is 0 or says nothing."""
    if config.method.compares and images < 2:
        raise UserError(
            f"There is 1 image to train on, but {name_of(config.method)} compares images. Add images, or give a "
            "--method that learns from each alone, such as byol."
        )


def make_stream(
    config: Config, objective, cache, count: int | None, dataset, network: Network, accelerator
) -> ViewStream:
    args, size = config.training, network.size[0]
    kinds = {f"{i}-{kind}": kind for i, kind in enumerate(objective.views)}
    transform = separate_views(
        kinds, config, dataset, network.model, size, multiple=network.model.patch, geometry=objective.geometry
    )
    members = None if count is None else torch.arange(count)
    return setup.stream_of(args, accelerator, network, cache, members, args.batch_size, transform, name="unlabeled")


def read_shards(shards: Shards, config: Config, network: Network, accelerator) -> ShardedStream:
    return ShardedStream(
        shards,
        **square_of(network.model.preprocessing),
        device=accelerator.device,
        seed=config.training.seed,
        rank=accelerator.process_index,
        world=world(),
        workers=config.data.workers,
        max_bad=config.data.max_bad,
    )


def collapse_monitor(encoder, cache, labels: torch.Tensor | None) -> dict[str, float]:
    """`feature_std` of the pooled features (1 spread out, 0 collapsed) and, where labels exist, their leave-one-out
    nearest-neighbour accuracy. The labels are looked at here only; nothing is trained or chosen by them."""
    chosen = torch.linspace(0, len(cache) - 1, min(KNN_IMAGES, len(cache))).long()
    features = features_of(encoder, cache, eval_view(encoder), chosen)
    out = {"feature_std": float(feature_std(features))}
    if labels is None:
        return out
    chosen = seen_by_all(cache, chosen)  # a label belongs to the image that was seen
    known = labels[chosen] >= 0
    if known.sum() >= 10 and labels[chosen][known].unique().numel() > 1:
        out["knn_accuracy"] = float(knn_accuracy(features[known], labels[chosen][known]))
    return out


def warn_if_hardly_moved(moved: float, config: Config) -> None:
    if moved >= HARDLY_MOVED or config.training.dry_run:
        return
    log.warning(
        "the weights are within %.2g %% of those they started from: the images have hardly changed the backbone. "
        "Give more --epochs, a higher --learning-rate (%g) or a lower --l2-sp (%g)",
        100 * moved,
        config.training.learning_rate,
        config.training.l2_sp,
    )
