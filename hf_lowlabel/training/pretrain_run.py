"""A run of target pretraining, from its configuration to the saved backbone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from ..arguments import PretrainConfig
from ..data.dataset import ImageDataset
from ..data.splits import Split
from ..data.streaming import ShardedStream, Shards
from ..distributed import world
from ..evaluation.probes import feature_std, knn_accuracy
from ..hub.card_parts import HARDLY_MOVED
from ..methods import build_objective, find
from ..models import create_backbone
from ..pretraining.l2_sp import L2SP
from ..records import Row
from ..views.table import build_view
from . import setup
from .batches import ViewStream, pretrain_batches
from .inference import features_of
from .loop import Loop
from .results import Recorder, Run
from .segment_data import open_images, squares_of

log = logging.getLogger("hf_lowlabel")
KNN_IMAGES = 5000  # images at most in the nearest-neighbour check
SAMPLE = 2048  # images of a sharded data set


def run(config: PretrainConfig, folder: Path) -> Run:
    """Adapt a backbone to the images of the run, and save it in `folder`."""
    accelerator = setup.start_accelerator(config, folder)
    source, shards = open_data(config)
    split = (
        Split.load(config.split) if config.split and not config.split.endswith(".txt") else None
    )  # a list holds nothing out
    at = split.resolve(source) if split else None
    members = at.train if at else np.arange(len(source))
    with accelerator.main_process_first():
        encoder, size, stored = setup.make_network(
            config,
            source,
            lambda **kw: create_backbone(
                output_stride=config.output_stride, any_size=bool(config.method_args.get("local_crops")), **kw
            ),
        )
    count = squares_of(source) if config.task == "segmentation" and not shards else 1
    rows = (np.asarray(members)[:, None] * count + np.arange(count)).flatten()
    pool = setup.make_pool(
        config,
        source.in_squares(count),
        rows,
        stored,
        encoder.preprocessing["interpolation"],
        accelerator.device,
        "sample" if shards else "pool",
        rows[:0],
    )
    seen = read_shards(shards, config, encoder, stored, accelerator) if shards else pool
    if config.from_scratch:
        setup.normalise(encoder, pool)
    prep = encoder.preprocessing
    if find(config.method).maps:
        encoder.freeze_beyond_map()
    objective = build_objective(config.method, encoder, config.method_args, num_images=None if shards else len(pool))
    if config.l2_sp and not config.from_scratch:
        objective = L2SP(objective, config.l2_sp / config.batch_size)
    setup.start_from(objective, config)
    kinds = {f"{i}-{kind}": kind for i, kind in enumerate(objective.views)}
    views = setup.make_views(config, kinds, source, size, prep["mean"], prep["std"], encoder.patch)
    stream = ViewStream(
        seen,
        None if shards else torch.arange(len(pool)),
        config.batch_size,
        views,
        name="unlabeled",
        seed=config.seed,
        rank=accelerator.process_index,
        world=world(),
        geometry=getattr(objective, "geometry", False),
        chunk=setup.steps_ahead(config, config.batch_size // world(), stored, accelerator.device),
    )
    config.max_steps = setup.steps(config, len(pool) // count)  # an epoch is as many views as there are images
    plain = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    labels = torch.as_tensor(source.labels[pool.indices // count])
    recorder = Recorder(config, folder, source, split, encoder.load_report, pools={"pool": seen}, squares=count)
    if at:
        recorder.tests_on(source, at.test)

    def watch(trained, step: int) -> dict:
        return collapse_monitor(trained.evaluated, pool, plain, labels)

    loop = Loop(
        objective,
        lambda start: pretrain_batches(stream, start),
        config,
        folder,
        accelerator=accelerator,
        learning_rate=config.learning_rate * config.batch_size / 256,
        evaluate=watch,
        on_save=lambda loop: recorder.save(loop, {}, final=False),
        data={
            **setup.identity(source, split, None if shards else pool),
            **({"number of processes": str(world())} if shards else {}),
        },
    )
    if not config.dry_run:
        before = collapse_monitor(objective.evaluated, pool, plain, labels)
        recorder.comparisons.append(Row(f"before: {recorder.start_words()}", before))
    loop.fit(config.resume)
    if shards:
        setup.tell_skipped(seen, seen.seen, "streamed")
    loop.take_best()
    metrics = collapse_monitor(objective.evaluated, pool, plain, labels)
    if isinstance(objective, L2SP):
        metrics["moved"] = objective.moved()
        if metrics["moved"] < HARDLY_MOVED and not config.dry_run:
            log.warning(
                "the weights are within %.2g %% of those they started from: the images have hardly changed the backbone; fix: more "
                "--epochs, a higher --lr (%g) or a lower --l2-sp (%g)",
                100 * metrics["moved"],
                config.learning_rate,
                config.l2_sp,
            )
    recorder.save(loop, metrics, final=True)
    return Run(config, folder, objective.evaluated.eval(), metrics, loop, recorder)


def open_data(config: PretrainConfig) -> tuple[ImageDataset, Shards | None]:
    """The images; of a sharded data set a sample that stands for them in statistics and checks, and the shards."""
    if config.sharded:
        where = config.where()
        where.pop("label_column")
        shards = Shards(**where)
        return shards.sample(SAMPLE), shards
    return (open_images(config) if config.task == "segmentation" else setup.open_source(config)), None


def read_shards(shards: Shards, config: PretrainConfig, encoder, size: int, accelerator) -> ShardedStream:
    return ShardedStream(
        shards,
        size=size,
        interpolation=encoder.preprocessing["interpolation"],
        device=accelerator.device,
        seed=config.seed,
        rank=accelerator.process_index,
        world=world(),
        workers=config.workers,
        max_bad=config.max_bad,
    )


def collapse_monitor(encoder, pool, plain, labels: torch.Tensor) -> dict[str, float]:
    """`feature_std` of the pooled features (1 spread out, 0 collapsed) and, where labels exist, their leave-one-out
    nearest-neighbour accuracy. The labels are looked at here only; nothing is trained or chosen by them."""
    chosen = torch.linspace(0, len(pool) - 1, min(KNN_IMAGES, len(pool))).long()
    features = features_of(encoder, pool, plain, chosen)
    out = {"feature_std": float(feature_std(features))}
    known = labels[chosen] >= 0
    if known.sum() >= 10 and labels[chosen][known].unique().numel() > 1:
        out["knn_accuracy"] = float(knn_accuracy(features[known], labels[chosen][known]))
    return out
