"""The two verbs that train: `pretrain` and `finetune`, from a configuration to a saved model with its card."""
from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from ..config import FinetuneConfig, PretrainConfig, RunConfig, from_dict, to_dict
from ..data.sources import Source, load_source
from ..data.splits import Split, make_split
from ..distributed import world
from ..errors import MissingSplit, UserError
from ..evaluation.checkpoints import LAST, median_of_last, sel
from ..evaluation.metrics import classification_metrics, softmax
from ..evaluation.probes import feature_std, knn_accuracy
from ..finetuning.weights import Prior
from ..models import create_backbone, create_classifier
from ..pretraining.anchor import Anchored
from ..views.table import build_view
from . import setup
from .batches import ViewStream, finetune_batches, pretrain_batches
from .folder import claim, release
from .inference import features_of, logits_of
from .loop import Loop, duration
from .priors import load_priors
from .results import Recorder, peak_memory

log = logging.getLogger("hf_lowlabel")
SEL_IMAGES = 2000  # unlabeled images at most by which the saved weights are chosen
KNN_IMAGES = 5000  # images at most in the nearest-neighbour check of a pretraining run


class Run:
    """A finished (or dry) run: `model`, `metrics`, `folder` and `loop`."""

    def __init__(self, config: RunConfig, folder: Path, model: torch.nn.Module, metrics: dict, loop: Loop, recorder: Recorder):
        self.config, self.folder, self.model, self.metrics = config, folder, model, metrics
        self.loop, self.recorder = loop, recorder

    def __repr__(self) -> str:
        shown = {k: round(v, 4) for k, v in self.metrics.items() if isinstance(v, float)}
        return f"Run({self.config.verb} {self.config.method}, {self.folder}, {shown})"


def pretrain(config: PretrainConfig | None = None, **settings) -> Run:
    """Target pretraining: adapt a backbone to the images of `dataset`, without labels.

    Takes a PretrainConfig or its fields by name. Images that a `split` holds out for validation or test are left out.
    Raises UserError for bad input, before anything is computed.
    """
    return _run(_pretrain, _config(PretrainConfig, config, settings))


def finetune(config: FinetuneConfig | None = None, **settings) -> Run:
    """Train a classifier from a few labels and, for the semi-supervised methods, all images of `dataset`.

    Takes a FinetuneConfig or its fields by name. Raises UserError for bad input, before anything is computed.
    """
    return _run(_finetune, _config(FinetuneConfig, config, settings))


def _config(cls: type[RunConfig], config: RunConfig | None, settings: dict) -> RunConfig:
    config = from_dict(cls, settings, "call") if config is None else dataclasses.replace(config, **settings)
    return config.resolved()


def _run(body, config: RunConfig) -> Run:
    """`body` inside a claimed folder; a dry run works in a folder that vanishes."""
    if config.dry_run:
        with tempfile.TemporaryDirectory(prefix="hf-lowlabel-dry-") as folder:
            return body(config, Path(folder))
    folder = claim(config.output_dir or f"runs/{config.verb}-{config.method}-{_slug(config.dataset)}", config.resume)
    try:
        return body(config, folder)
    finally:
        release(folder)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in Path(name).name).strip("-").lower() or "data"


# ---- pretraining ------------------------------------------------------------------------------------------------------
def _pretrain(config: PretrainConfig, folder: Path) -> Run:
    accelerator = setup.start_accelerator(config, folder)
    source = setup.open_source(config)
    split = Split.load(config.split) if config.split else None
    members = split.resolve(source).train if split else np.arange(len(source))
    with accelerator.main_process_first():
        encoder, size, stored = _network(config, source, lambda **kw: create_backbone(**kw))
    pool = setup.make_pool(config, source, members, stored, encoder.preprocessing["interpolation"], accelerator.device, "pool")
    if config.from_scratch:
        _normalise(encoder, pool)
    prep = encoder.preprocessing
    objective = setup.build_objective(config.method, encoder, config.method_args, pool=len(pool))
    if config.l2_start and not config.from_scratch:
        objective = Anchored(objective, config.l2_start)
    start_from(objective, config)
    kinds = {f"{i}-{kind}": kind for i, kind in enumerate(objective.views)}
    views = setup.make_views(config, kinds, source, size, prep["mean"], prep["std"])
    stream = ViewStream(pool, torch.arange(len(pool)), config.batch_size, views, name="unlabeled", seed=config.seed,
                        rank=accelerator.process_index, world=world(), geometry=getattr(objective, "geometry", False))
    config.max_steps = _steps(config, len(pool))
    plain = build_view("plain", size=size, mean=prep["mean"], std=prep["std"])
    labels = torch.as_tensor(source.labels[pool.indices])
    recorder = Recorder(config, folder, source, split, encoder.load_report, pools={"pool": pool})

    def watch(trained, step: int) -> dict:
        return collapse_monitor(trained.evaluated, pool, plain, labels)

    loop = Loop(objective, lambda start: pretrain_batches(stream, start), config, folder, accelerator=accelerator,
                lr=config.lr * config.batch_size / 256, evaluate=watch, on_save=lambda loop: recorder.save(loop, {}, final=False),
                data=identity(source, split))
    loop.fit(config.resume)
    loop.take_best()
    metrics = collapse_monitor(objective.evaluated, pool, plain, labels)
    recorder.save(loop, metrics, final=True)
    return Run(config, folder, objective.evaluated, metrics, loop, recorder)


def collapse_monitor(encoder, pool, plain, labels: torch.Tensor) -> dict[str, float]:
    """`feature_std` of the pooled features (1 spread out, 0 collapsed) and, where labels exist, their leave-one-out
    nearest-neighbour accuracy. The labels are looked at here only; nothing is trained or chosen by them."""
    chosen = torch.linspace(0, len(pool) - 1, min(KNN_IMAGES, len(pool))).long()
    features = features_of(encoder, pool, plain, chosen)
    out = {"feature_std": float(feature_std(features))}
    known = labels[chosen] >= 0
    if known.sum() > 20 and labels[chosen][known].unique().numel() > 1:
        out["knn_accuracy"] = float(knn_accuracy(features[known], labels[chosen][known]))
    return out


# ---- finetuning -------------------------------------------------------------------------------------------------------
def _finetune(config: FinetuneConfig, folder: Path) -> Run:
    accelerator = setup.start_accelerator(config, folder)
    source = setup.open_source(config)
    split, test_source, test_at = choose_split(config, source)
    at = split.resolve(source)
    names = split.class_names
    with accelerator.main_process_first():
        model, size, stored = _network(config, source, lambda **kw: create_classifier(
            num_labels=len(names), class_names=names, drop_rate=config.drop_rate, **kw))
    interpolation, device = model.preprocessing["interpolation"], accelerator.device
    pool = setup.make_pool(config, source, at.train, stored, interpolation, device, "training")
    test_pool = setup.make_pool(config, test_source, test_at, stored, interpolation, device, "test") if len(test_at) else None
    held = setup.make_pool(config, source, at.validation, stored, interpolation, device, "validation") if len(at.validation) else None
    if config.from_scratch:
        _normalise(model, pool)
    prep = model.preprocessing
    objective = setup.build_objective(config.method, model, config.method_args, num_classes=len(names), pool=len(pool),
                                      num_labeled=len(at.labeled))
    if config.prior:
        objective.rule = Prior(objective.rule, load_priors(config.prior, pool.ids, names), until=config.prior_until)
    start_from(objective, config)

    def stream(name, members, per_step, kinds, targets=None):
        views = setup.make_views(config, kinds, source, size, prep["mean"], prep["std"])
        return ViewStream(pool, members, per_step, views, name=name, seed=config.seed, rank=accelerator.process_index,
                          world=world(), targets=targets)

    labeled = stream("labeled", _positions(pool, at.labeled, source), config.batch_size, objective.labeled_views,
                     torch.as_tensor(at.labels))
    unlabeled = None
    if objective.unlabeled_views:
        unlabeled = stream("unlabeled", torch.arange(len(pool)), config.batch_size * config.unlabeled_ratio,
                           objective.unlabeled_views)
    config.max_steps = _steps(config, len(pool), config.batch_size * config.unlabeled_ratio)
    plain = build_view("plain", size=size, mean=prep["mean"], std=prep["std"])
    truth = {"validation": (held, source), "test": (test_pool, test_source)}
    truth = {k: (p, torch.as_tensor(s.with_classes(names).labels[p.indices])) for k, (p, s) in truth.items() if p is not None}
    recorder = Recorder(config, folder, source, split, model.load_report,
                        pools={"training": pool, **{k: p for k, (p, _) in truth.items()}})

    keep_best = _keep_best(config, held is not None, unlabeled is not None)
    asked = torch.linspace(0, len(pool) - 1, min(SEL_IMAGES, len(pool))).long()

    def watch(trained, step: int) -> dict:
        scores = {f"{k}_accuracy": float((logits_of(trained.evaluated, p, plain).argmax(1) == y).float().mean())
                  for k, (p, y) in truth.items()}
        if unlabeled is not None:
            scores["sel"] = sel(softmax(logits_of(trained.evaluated, pool, plain, asked).numpy()))
        return scores

    loop = Loop(objective, lambda start: finetune_batches(labeled, unlabeled, start), config, folder, accelerator=accelerator,
                lr=config.lr, evaluate=watch, keep_best=keep_best,
                on_save=lambda loop: recorder.save(loop, {}, final=False), data=identity(source, split))
    loop.fit(config.resume)
    loop.take_best()
    metrics = {}
    for part, (p, y) in truth.items():
        logits = logits_of(objective.evaluated, p, plain).numpy()
        scores = classification_metrics(logits, y.numpy(), names)
        if part == "test":
            metrics |= scores
            metrics |= {f"accuracy_median_of_{LAST}": m for m in [median_of_last(loop.history)] if m is not None}
            recorder.pictures(p, softmax(logits), y.numpy(), names, scores)
        else:
            metrics["validation_accuracy"] = scores["accuracy"]
    recorder.save(loop, metrics, final=True)
    return Run(config, folder, objective.evaluated, metrics, loop, recorder)


def _keep_best(config: FinetuneConfig, has_validation: bool, has_unlabeled: bool) -> str | None:
    """The score by which the saved weights are chosen; None: the last ones."""
    for kind, there, need in (("validation", has_validation, "validation images; fix: --validation N, or a split with some"),
                              ("sel", has_unlabeled, "a method that uses unlabeled images")):
        if config.keep_best == kind and not there:
            raise UserError(f"keep_best is {kind!r}; expected {need}")
    if config.keep_best == "last":
        return None
    return "validation_accuracy" if has_validation and config.keep_best != "sel" else "sel" if has_unlabeled else None


def choose_split(config: FinetuneConfig, source: Source) -> tuple[Split, Source, np.ndarray]:
    """(which images are labeled, where the test images are, which they are).

    The test set is the manifest's own, else the data set's `test` (or `validation`) split, else `test_fraction` of the
    labeled images. Raises UserError where neither a label budget nor a manifest is given.
    """
    if (config.split is None) == (config.num_labels is None):
        raise UserError("expected either --num-labels N (a budget to draw) or --split split.json (a manifest), found "
                        + ("neither" if config.split is None else "both"))
    given = Split.load(config.split) if config.split else None
    if given is not None and given.test:
        return given, source, given.resolve(source).test
    other = None if config.dataset_split != "train" and config.test_dataset_split is None else _test_source(config)
    if given is None:
        given = make_split(source, config.num_labels, seed=config.seed, class_balanced=config.class_balanced,
                           validation=config.validation, test_fraction=0.0 if other is not None else config.test_fraction)
    if other is not None:
        return given, other, np.flatnonzero(other.with_classes(given.class_names).labels >= 0)
    return given, source, given.resolve(source).test


def _test_source(config: FinetuneConfig) -> Source | None:
    for name in [config.test_dataset_split] if config.test_dataset_split else ["test", "validation"]:
        try:
            return load_source(config.dataset, config=config.dataset_config, split=name, revision=config.dataset_revision,
                               image_column=config.image_column, label_column=config.label_column)
        except MissingSplit:
            if config.test_dataset_split:
                raise
    return None


def _positions(pool, labeled: np.ndarray, source: Source) -> torch.Tensor:
    """Positions in the pool of labeled images given as positions in the source; one that was unreadable is an error."""
    where = {int(i): at for at, i in enumerate(pool.indices)}
    lost = [source.ids[i] for i in labeled if int(i) not in where]
    if lost:
        raise UserError(f"{len(lost)} labeled images cannot be read ({', '.join(lost[:5])}); expected every labeled image to be "
                        "whole; fix the files or leave them out of the split")
    return torch.tensor([where[int(i)] for i in labeled])


# ---- shared -----------------------------------------------------------------------------------------------------------
def _network(config: RunConfig, source: Source, create) -> tuple[torch.nn.Module, int, int]:
    """(network, side of a view, side of a stored image) with the preprocessing that evaluation will use."""
    name = config.init_from if config.init_from and is_model_folder(config.init_from) else config.model
    scratch = config.from_scratch and name == config.model
    arguments = dict(name=name, pretrained=not scratch, revision=config.model_revision)
    network = create(**arguments, image_size=config.image_size)
    cfg = network.config.pretrained_cfg
    side = network.preprocessing["input_size"][-1]
    size, stored = setup.sizes(config, side, setup.typical_side(source), fixed=bool(cfg.get("fixed_input_size")))
    cfg.update(input_size=[3, size, size], crop_pct=crop_share(size, stored), crop_mode="center")
    log.info("%s, views of %d px from images of %d px", network.load_report, size, stored)
    return network, size, stored


def crop_share(size: int, stored: int) -> float:
    """size / stored, rounded so that floor(size / share) is `stored` again: processors resize the short side to that."""
    share = size / stored
    return share if math.floor(size / share) == stored else math.nextafter(share, 0.0)


def identity(source: Source, split: Split | None) -> dict[str, str]:
    """What a resumed run must find again."""
    return {"fingerprint of the images": source.fingerprint, **({"hash of the split": split.hash} if split else {})}


def is_model_folder(path: str) -> bool:
    return (Path(path) / "config.json").is_file()


def _normalise(network, pool) -> None:
    """Mean and standard deviation of the user's own images, for a network that starts from random weights."""
    mean, std = setup.statistics_of(pool)
    network.config.pretrained_cfg.update(mean=mean, std=std)


def start_from(objective, config: RunConfig) -> None:
    """--init-from a checkpoint of an unfinished run: its tensors, teacher and all, and nothing else of it."""
    if not config.init_from or is_model_folder(config.init_from):
        return
    from safetensors.torch import load_file

    path = Path(config.init_from)
    file = path / "objective.safetensors"
    if not file.is_file():
        raise UserError(f"found neither config.json nor objective.safetensors in {path}; expected a run folder, a saved model or one "
                        "of a run's checkpoints/step-*")
    tensors = {k: v for k, v in load_file(file).items() if not k.startswith("best::")}
    try:
        objective.load_state_dict(tensors)
    except RuntimeError as e:
        raise UserError(f"the checkpoint {path} does not fit this method and model: {' '.join(str(e).split())[:300]}") from e


def _steps(config: RunConfig, pool: int, per_step: int | None = None) -> int:
    if config.max_steps is not None:
        return config.max_steps
    return max(1, round(config.epochs * pool / (per_step or config.batch_size)))




def summarise(run: Run) -> None:
    """Print what came out, or for a dry run what the real run will take."""
    config, loop = run.config, run.loop
    if config.dry_run:
        print(yaml.safe_dump({k: v for k, v in to_dict(config).items() if v not in (None, [], {})}, sort_keys=False).rstrip())
        pools = sum(pool.nbytes for pool in run.recorder.pools.values())
        print(f"\nmemory: {peak_memory() / 2**30:.2f} GiB at most ({pools / 2**30:.3f} GiB of it images)")
        seconds = config.max_steps * loop.step_seconds + config.max_steps / loop.real_eval_every() * loop.eval_seconds
        print(f"time: {duration(seconds)} expected for {config.max_steps} steps at {loop.step_seconds:.3f} s each "
              f"and {loop.eval_seconds:.1f} s an evaluation")
        print("dry run: 2 steps, evaluation and save worked; nothing was kept")
        return
    scores = {k: v for k, v in run.metrics.items() if isinstance(v, float) and k in (
        "accuracy", "balanced_accuracy", "ece", "validation_accuracy", "feature_std", "knn_accuracy")}
    print("  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    print(f"saved to {run.folder}: model.safetensors, README.md (card), split.json, metrics.json, curves.png ...")
