"""The demonstrations of this library: a few labels of an embedded data set, and what each stage makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A run of a demonstration.

    name: its folder. title: for people. settings: of the run. verb: "pretrain", "finetune", "auto". start: name of the
    stage whose weights it starts from; None: random ones.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    verb: str = "finetune"
    start: str | None = None


@dataclass(frozen=True)
class Demo:
    """dataset: an embedded one. draw: how labels are drawn. shared: settings of all stages; the last one is "model"."""

    dataset: str
    num_labels: int
    shared: Mapping[str, Any]
    stages: tuple[Stage, ...]
    draw: Mapping[str, Any] = field(default_factory=dict)


# ---- digits: split -> supervised -> target pretraining -> auto from its weights
_SIMCLR = dict(batch_size=256, optimizer="sgd", weight_decay=1e-4, warmup_ratio=0.1, randaugment=True)
DIGITS_PRETRAIN: dict[
    str, dict[str, Any]
] = {  # contrast learns most in two minutes; BYOL needs more steps and smaller crops
    "simclr": dict(_SIMCLR, method="simclr", max_steps=1500, learning_rate=0.2, min_scale=0.5),
    "byol": dict(
        _SIMCLR,
        method="byol",
        max_steps=1500,
        learning_rate=1.5,
        min_scale=0.2,
        method_args=dict(hidden=256, out=64, m0=0.95),
    ),
}
DIGITS_SHARED = dict(dataset="digits", model="cnn6_32", image_size=16, stored_size=16, logging_steps=100)
DIGITS_PRIORS = dict(propagation="label-spreading", neighbors=7, balanced=True, hard=True, finetune=False)
# a head that starts at random and statistics of the batch: a network this small learns both within the run
DIGITS_FINETUNE: dict[str, Any] = dict(
    max_steps=600, batch_size=16, unlabeled_ratio=5, learning_rate=0.03, head_init="random", freeze_norm=False
)
# its thresholds start low: priors count before the network is sure
FROM_PRIORS = dict(method="flexmatch", prior_until=0.6)
# the demonstration has a network of timm's, which any process loads
DIGITS = Demo(
    "digits",
    40,
    {**DIGITS_SHARED, "model": "test_byobnet"},
    (
        Stage("supervised", "supervised baseline on the labels alone", dict(DIGITS_FINETUNE, method="supervised")),
        Stage(
            "pretrained",
            "target pretraining without labels (SimCLR)",
            dict(DIGITS_PRETRAIN["simclr"], max_steps=1000),
            "pretrain",
        ),
        Stage(
            "model",
            "auto: heads on the frozen features, then finetuning from the best, chosen by cross-validation",
            dict(minutes=1.0),
            "auto",
            start="pretrained",
        ),
    ),
    dict(class_balanced=True, test_fraction=0.2),
)

# ---- shapes: split -> supervised -> UniMatch -> supervised on changed colours, of which twenty masks show few
SHAPES_SHARED = dict(
    task="segmentation",
    dataset="shapes",
    model="cnn6_16",
    channels_last=True,
    optimizer="adamw",
    weight_decay=1e-2,
    logging_steps=100,
)
SHAPES_FINETUNE = dict(
    architecture="unet",
    architecture_args=dict(encoder_depth=3, decoder_channels=[32, 16, 16]),
    image_size=48,
    scale=[0.8, 1.25],
    max_steps=1200,
    batch_size=8,
    learning_rate=3e-3,
    head_lr=1.0,
    lr_scheduler_type="cosine",
    eval_steps=400,
)
SHAPES_METHODS: dict[str, dict[str, Any]] = {
    "supervised": dict(
        method="supervised", method_args=dict(ema_decay=0.99, strong=False)
    ),  # the views that UniMatch gives its labeled images
    "supervised, strong views": dict(method="supervised", method_args=dict(ema_decay=0.99)),
    "unimatch": dict(method="unimatch", method_args=dict(tau=0.9, ema_decay=0.99)),
}
SHAPES = Demo(
    "shapes",
    20,
    SHAPES_SHARED,
    (
        Stage("supervised", "supervised, plain views", {**SHAPES_FINETUNE, **SHAPES_METHODS["supervised"]}),
        Stage("unimatch", "UniMatch, all images", {**SHAPES_FINETUNE, **SHAPES_METHODS["unimatch"]}),
        Stage(
            "model",
            "supervised, colours changed at random",
            {**SHAPES_FINETUNE, **SHAPES_METHODS["supervised, strong views"]},
        ),
    ),
)

# ---- scenes: split -> supervised -> FixMatch, several classes an image
SCENES = Demo(
    "scenes",
    100,
    dict(task="multilabel", dataset="scenes", model="cnn6_16", optimizer="adamw", weight_decay=1e-2, image_size=64)
    | dict(max_steps=300, batch_size=16, learning_rate=3e-3, eval_steps=100, method_args=dict(ema_decay=0.99)),
    (
        Stage("supervised", "supervised, labels alone", dict(method="supervised")),
        Stage("model", "FixMatch", dict(method="fixmatch", unlabeled_ratio=2)),
    ),
)

DEMOS = {"classification": DIGITS, "multilabel": SCENES, "segmentation": SHAPES}  # by task
