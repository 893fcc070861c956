"""The two verbs that train: `pretrain` and `finetune`, from settings to a saved model with its card."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import yaml

from ..arguments import FinetuneConfig, PretrainConfig, RunConfig, from_dict, settings_text, to_dict
from ..errors import UserError
from ..methods import find
from . import finetune_run, frozen_run, pretrain_run
from .folder import claim, forget, release
from .loop import duration
from .results import Run, peak_memory


def pretrain(config: PretrainConfig | None = None, **settings) -> Run:
    """Target pretraining: adapt a backbone to the images of `dataset`, without labels.

    Takes a PretrainConfig (`config`) or its fields by name; returns a Run, its folder a saved backbone. Images that a `split` holds out for validation or test are left out.
    Raises UserError for bad input, before anything is computed.
    """
    return _run(pretrain_run.run, _config(PretrainConfig, config, settings))


def finetune(config: FinetuneConfig | None = None, **settings) -> Run:
    """Train a classifier from a few labels and, for the semi-supervised methods, all images of `dataset`; with
    task="segmentation" a segmenter from a few masks.

    Takes a FinetuneConfig (`config`) or its fields by name; returns a Run, its folder a saved model. Raises
    UserError for bad input, before anything is computed.
    """
    config = _config(FinetuneConfig, config, settings)
    if config.task == "segmentation":
        from . import segment_run  # smp, which nothing else needs

        return _run(segment_run.run, config)
    return _run((frozen_run if find(config.method).frozen else finetune_run).run, config)


pretrain.__doc__ += settings_text(PretrainConfig)
finetune.__doc__ += settings_text(FinetuneConfig)


def _config(cls: type[RunConfig], config: RunConfig | None, settings: dict) -> RunConfig:
    config = from_dict(cls, settings, "call") if config is None else dataclasses.replace(config, **settings)
    return config.resolved()


def _run(body, config: RunConfig) -> Run:
    """`body` inside a claimed folder, then the push, if one is asked for; a dry run works in a folder that vanishes."""
    pushes = config.push_to_hub and int(os.environ.get("RANK", "0")) == 0
    if pushes:
        from ..hub.upload import check_access

        check_access(config.push_to_hub)
    if config.dry_run:
        with tempfile.TemporaryDirectory(prefix="hf-lowlabel-dry-") as folder:
            return body(config, Path(folder))
    folder = claim(config.output_dir or f"runs/{config.verb}-{config.method}-{_slug(config.dataset)}", config.resume)
    try:
        run = body(config, folder)
    except UserError:
        if not config.resume and int(os.environ.get("RANK", "0")) == 0:
            forget(folder)
        raise
    finally:
        release(folder)
    if pushes:
        run.push_to_hub(config.push_to_hub, private=config.hub_private)
    return run


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in Path(name).name).strip("-").lower() or "data"


def summarise(run: Run) -> None:
    """Print what came out, or for a dry run what the real run will take; of several processes the first one does."""
    if int(os.environ.get("RANK", "0")):
        return
    config, loop = run.config, run.loop
    if config.dry_run:
        print(
            yaml.safe_dump(
                {k: v for k, v in to_dict(config).items() if v not in (None, [], {})}, sort_keys=False
            ).rstrip()
        )
        pools = sum(pool.nbytes for pool in run.recorder.pools.values())
        print(f"\nmemory: {peak_memory() / 2**30:.2f} GiB at most ({pools / 2**30:.3f} GiB of it images)")
        if not loop.steps:
            print("dry run: features, evaluation and save worked; nothing was kept")
            return
        seconds = config.max_steps * loop.step_seconds + config.max_steps / loop.real_eval_every() * loop.eval_seconds
        print(
            f"time: {duration(seconds)} expected for {config.max_steps} steps at {loop.step_seconds:.3f} s each "
            f"and {loop.eval_seconds:.1f} s an evaluation"
        )
        print("dry run: 2 steps, evaluation and save worked; nothing was kept")
        return
    scores = {
        k: v
        for k, v in run.metrics.items()
        if isinstance(v, float)
        and k
        in (
            "accuracy",
            "balanced_accuracy",
            "ece",
            "validation_accuracy",
            "feature_std",
            "knn_accuracy",
            "moved",
            "miou",
            "dice",
            "pixel_accuracy",
            "validation_miou",
        )
    }
    print("  ".join(f"{k} {v:.4f}" for k, v in scores.items()) or "nothing was measured: no labeled image is held out")
    if "miou" in run.metrics:
        print("IoU  " + per_class(run.metrics))
    left = (
        "model.safetensors",
        "predictions.parquet",
        "priors.safetensors",
        "README.md",
        "split.json",
        "metrics.json",
        "curves.png",
    )
    print(f"saved to {run.folder}: {', '.join(name for name in left if (run.folder / name).is_file())} ...")


def per_class(metrics: dict) -> str:
    """The IoU of each class on one line; "–" for a class that is nowhere."""
    pairs = zip(metrics["class_names"], metrics["per_class"], strict=True)
    return "  ".join(f"{name} {'–' if value is None else format(value, '.3f')}" for name, value in pairs)
