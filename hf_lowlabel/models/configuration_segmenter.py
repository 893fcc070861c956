"""Configuration of the segmenter. Imports nothing but transformers: this file travels with exported checkpoints."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


class LowLabelSegmenterConfig(PreTrainedConfig):
    """An encoder of timm inside an architecture of segmentation_models_pytorch (smp), DeepLabV2 or a linear head.

    encoder: timm name without pretrained tag. architecture: an smp architecture ("unet", "deeplabv3plus", "segformer",
    "upernet", "dpt", ...), "deeplabv2" or "linear". architecture_args: keyword arguments of that architecture; the ones
    it does not know go to timm. size_divisor: px; inputs are padded to a multiple of it and the logits cropped back
    (None: what the network needs). image_size: px of the longer side to which an image is resized before it is
    segmented (None: as it is). image_mean, image_std: per channel, of values in 0..1. semantic_loss_ignore_index: value
    of `labels` that takes no part in the loss.
    """

    model_type = "lowlabel-segmenter"

    encoder: str = "resnet18"
    architecture: str = "unet"
    architecture_args: dict[str, Any] | None = None
    num_channels: int = 3
    size_divisor: int | None = None
    image_size: int | None = None
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    semantic_loss_ignore_index: int = 255
