"""Settings for encoders that were trained on very many images: what is trained of them, how fast, at which sizes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..arguments import Config
from ..models.adaptformer import takes_branches
from ..models.began import pretrained
from .data_classes import Attempt

log = logging.getLogger("hf_lowlabel")
# of a vision transformer: AdaptFormer (Chen et al. 2022) and the head alone, at the rate that is usual for adapters
BRANCHES: dict[str, Any] = dict(adapter_width=32, optimizer="adamw", learning_rate=1e-3, weight_decay=0.0)
LABELS: dict[str, dict[str, Any]] = {
    "foundation": dict(
        **BRANCHES,
        max_steps=1000,
        batch_size=16,
        unlabeled_ratio=2,
        lr_scheduler_type="cosine",
        warmup_ratio=0.05,
        max_grad_norm=1.0,
    )
}
MASKS: dict[str, dict[str, Any]] = {  # Yang et al. 2024, section 4.1, and their crops of VOC: 37 patches of 14 px
    "foundation": dict(
        architecture="linear",
        optimizer="adamw",
        learning_rate=5e-6,
        head_lr=40.0,
        weight_decay=0.01,
        batch_size=16,
        unlabeled_ratio=1,
        lr_scheduler_type="poly",
        scale=[0.5, 2.0],
        epochs=60,
        image_size=518,
        window=518,
    )
}


def with_branches(attempts: Sequence[Attempt], model: nn.Module) -> list[Attempt]:
    """What `auto` tries, with branches where it trains a vision transformer that takes them."""
    if not hasattr(model, "timm_model") or not takes_branches(model):
        return list(attempts)
    return [a if a.frozen else replace(a, settings={**a.settings, **BRANCHES}) for a in attempts]


def branched(config: Config, model: nn.Module) -> Config:
    """A run on a pretrained vision transformer of which the user said neither what is trained nor how fast: branches
    and the head, where the defaults are made for whole convolutional networks."""
    given, rates = config.model, {"optimizer", "learning_rate", "weight_decay"}
    small = given.lora_rank or given.adapter_width or given.freeze or given.freeze_encoder
    said = small or given.init_from or config.preset or config.training.layer_decay
    if said or config.method.frozen or not pretrained(config.flat()) or not rates <= config.filled:
        return config
    if not takes_branches(model):
        return config
    log.info(
        "a vision transformer: branches of %d units beside its MLPs and the head train, with adamw at %g; give "
        "--learning-rate, --lora-rank or --preset to train it otherwise",
        BRANCHES["adapter_width"],
        BRANCHES["learning_rate"],
    )
    return config.replace(**BRANCHES)


def whole_patches(model: nn.Module, side: int) -> int:
    """The side of a view in px that the patches of a vision transformer fill; of other encoders as it is."""
    strides, patch = set(getattr(model.network.encoder, "strides", ())), int(model.divisor)
    fitted = max(round(side / patch), 1) * patch
    if len(strides) != 1 or fitted == side:
        return side
    log.info("views of %d px instead of %d: the encoder's patches are %d px", fitted, side, patch)
    return fitted
