"""A run of supervised or semi-supervised segmentation, from its configuration to the saved segmenter."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..arguments import FinetuneConfig
from ..data.segmentation import SegmentationSource
from ..distributed import world
from ..errors import UserError
from ..evaluation.checkpoints import LAST, median_of_last
from ..evaluation.overlays import Examples
from ..evaluation.segmentation import Normalise, evaluate_segmentation, probabilities
from ..methods import build_objective
from ..models import LoadReport
from ..models.segmentation import create_segmenter
from ..models.segmenter import LowLabelForSemanticSegmentation
from ..views.joint import JointView
from . import setup
from .batches import finetune_batches
from .finetune_run import tested_on
from .loop import Loop
from .mask_batches import MaskStream
from .results import Recorder, Run
from .segment_data import choose_split, make_padded_cache, open_masks, shown_in, statistics_of

log = logging.getLogger("hf_lowlabel")
PICTURED = 6  # test images in the sheet of overlays


def run(config: FinetuneConfig, folder: Path) -> Run:
    """Train a segmenter and save it in `folder`."""
    accelerator = setup.start_accelerator(config, folder)
    source = open_masks(config)
    split, test_source, test_at = choose_split(config, source)
    at, names, device = split.resolve(source), source.class_names, accelerator.device
    size = view_size(config, source)
    with accelerator.main_process_first():
        model = make_segmenter(config, names)
    labeled_pool = make_padded_cache(config, source, at.labeled, device, "labeled", masks=True, max_bad=0.0)
    pool = make_padded_cache(config, source, at.train, device, "training", masks=False)
    parts = {"validation": (source, at.validation), "test": (test_source, test_at)}
    truth = {k: make_padded_cache(config, s, i, device, k, masks=True) for k, (s, i) in parts.items() if len(i)}
    if config.from_scratch and not config.init_from:
        model.config.image_mean, model.config.image_std = statistics_of(pool)
    seen = dict(mean=model.config.image_mean, std=model.config.image_std)
    objective = build_objective(
        config.method,
        model,
        config.method_args,
        num_classes=len(names),
        num_images=len(pool),
        num_labeled=len(labeled_pool),
    )
    setup.start_from(objective, config)

    def stream(name, images, per_step, kinds):
        flip = source.flip if config.flip is None else config.flip
        views = JointView(kinds, size=size, scale=tuple(config.scale), flip=flip, color=config.color, **seen)
        return MaskStream(
            images,
            torch.arange(len(images)),
            per_step,
            views,
            name=name,
            seed=config.seed,
            rank=accelerator.process_index,
            world=world(),
        )

    labeled = stream("labeled", labeled_pool, config.batch_size, objective.labeled_views)
    kinds = getattr(objective, "dense_views", objective.unlabeled_views)
    unlabeled = stream("unlabeled", pool, config.batch_size * config.unlabeled_ratio, kinds) if kinds else None
    config.max_steps = setup.steps(config, len(pool), config.batch_size * config.unlabeled_ratio)
    recorder = Recorder(
        config, folder, source, split, model.load_report, pools={"training": pool, "labeled": labeled_pool, **truth}
    )
    recorder.tests_on(test_source, test_at, *tested_on(config, source, test_source))
    recorder.shown = dict(zip(names, shown_in(labeled_pool, len(names)), strict=True))

    def scores(network, images) -> dict:
        return evaluate_segmentation(network, images, names, window=config.window and (config.window,) * 2, **seen)

    def watch(trained, step: int) -> dict:
        return {f"{k}_miou": scores(trained.evaluated, images)["miou"] for k, images in truth.items()}

    loop = Loop(
        objective,
        lambda start: finetune_batches(labeled, unlabeled, start),
        config,
        folder,
        accelerator=accelerator,
        learning_rate=config.learning_rate,
        evaluate=watch,
        metric_for_best_model=metric_for_best_model(config, "validation" in truth),
        on_save=lambda loop: recorder.save(loop, {}, final=False),
        data=setup.identity(source, split, pool),
    )
    loop.fit(config.resume)
    loop.take_best()
    network, metrics = objective.evaluated, {}
    if "validation" in truth:
        metrics["validation_miou"] = scores(network, truth["validation"])["miou"]
    if "test" in truth:
        metrics |= scores(network, truth["test"])
        metrics |= {f"miou_median_of_{LAST}": m for m in [median_of_last(loop.history, "test_miou")] if m is not None}
        if recorder.main:
            overlays = test_examples(network, truth["test"], config.window, **seen)
            recorder.mask_pictures(overlays, metrics)
    recorder.save(loop, metrics, final=True)
    return Run(config, folder, network, metrics, loop, recorder)


def view_size(config: FinetuneConfig, source: SegmentationSource) -> tuple[int, int]:
    """(height, width) in px of a training view: what is asked for, else the images' short side, 321 px at most."""
    width = config.image_size or min(321, setup.typical_side(source))
    config.image_size = width
    return config.image_height or width, width


def make_segmenter(config: FinetuneConfig, names: list[str]) -> LowLabelForSemanticSegmentation:
    """The network of the run: a fresh head on the encoder `model`, or all of an earlier segmenter (--init-from FOLDER)."""
    if config.init_from and setup.is_model_folder(config.init_from):
        model = LowLabelForSemanticSegmentation.from_pretrained(config.init_from)
        theirs = [model.config.id2label[k] for k in range(model.config.num_labels)]
        if theirs != names:
            raise UserError(
                f"found a segmenter of the classes {', '.join(theirs[:8])} in {config.init_from}; expected "
                f"{', '.join(names[:8])}, those of the masks; fix: --model instead of --init-from takes the encoder alone"
            )
        model.load_report = LoadReport(config.init_from, matched=list(model.state_dict()), head="kept")
    else:
        model = create_segmenter(
            config.model,
            len(names),
            architecture=config.architecture,
            architecture_args=config.architecture_args,
            pretrained=not config.from_scratch,
            class_names=names,
            revision=config.model_revision,
        )
    model.config.image_size = config.stored_size
    return model


def metric_for_best_model(config: FinetuneConfig, has_validation: bool) -> str | None:
    """The score by which the saved weights are chosen; None: the last ones."""
    if config.metric_for_best_model == "sel":
        raise UserError(
            "metric_for_best_model is 'sel', which is a score of classifiers; expected validation or last for segmentation"
        )
    if config.metric_for_best_model == "validation" and not has_validation:
        raise UserError(
            "metric_for_best_model is 'validation'; expected validation images; fix: --validation N, or a split with some"
        )
    return "validation_miou" if has_validation and config.metric_for_best_model != "last" else None


@torch.inference_mode()
def test_examples(model, pool, window: int | None, mean, std) -> Examples:
    """Input, truth and prediction of a few images spread over the pool, computed on this process alone."""
    positions = torch.linspace(0, len(pool) - 1, min(PICTURED, len(pool))).long().unique()
    examples, normalise = Examples(positions.tolist(), pool.ids), Normalise(mean, std)
    device = next(model.parameters()).device
    model.eval()
    for i in positions.tolist():
        h, w = pool.sizes[i].tolist()
        packed = pool.take(torch.tensor([i]))[..., :h, :w]
        p = probabilities(model, normalise(packed[:, :3].to(device)), window and (window, window))
        examples(i, packed[0, :3], packed[0, 3], p[0])
    return examples
