"""What a card and a report say of a backbone: what target pretraining leaves, for whatever task comes after it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from ..arguments import Config
from ..distributed import choose_device
from ..models import LowLabelBackbone, brings_code, create_backbone
from ..models.saved_models import open_model
from ..records import Metric, RunRecord
from ..text import cell
from .classification_card import load_code
from .speaker import Speaker

HARDLY_MOVED = 0.003  # share of the length of the weights: target pretraining that changed next to nothing
COLLAPSED = 0.2  # spread of features below which they hardly differ


class Backbone(Speaker):
    """Stands where a task stands, for the runs of `pretrain`."""

    name: ClassVar[str] = "backbone"
    product: ClassVar[str] = "backbone"
    pipeline_tag: ClassVar[str] = "image-feature-extraction"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("knn_accuracy", "k-NN accuracy"),
        Metric("linear_probe_accuracy", "Linear probe accuracy"),
        Metric("clustering_accuracy", "Clustering accuracy"),
        Metric("feature_std", "Spread of features", percent=False),
        Metric("moved", "Distance from the starting weights"),
    )

    def load(self, model: str | Path, revision: str | None = None, device: str | None = None) -> nn.Module:
        """A saved backbone in eval mode on its device."""
        return open_model(LowLabelBackbone, model, revision).to(choose_device(device)).eval()

    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        which = f" (`{record.architecture}`)" if record.architecture else ""
        what = f"An image encoder{which} adapted without labels to the images{data}"
        return what + (f", with {method(record.method)}." if record.method else ".")

    def limits(self, record: RunRecord) -> list[str]:
        lines = ["It gives features, not classes: a classifier has to be trained on top."]
        spread = record.metrics.get("feature_std")
        if spread is not None and spread < COLLAPSED:
            lines.append(
                f"The features hardly differ between images (spread {spread:.2f}; 1 isotropic, 0 collapsed): "
                "do not rely on them."
            )
        moved = record.metrics.get("moved")
        if moved is not None and moved < HARDLY_MOVED:
            lines.append(
                f"Its weights are within {100 * moved:.2g} % of those it started from: pretraining has hardly changed "
                "it."
            )
        if record.data:
            lines.append(f"It was adapted to the images of {cell(record.data.name)}; other images were not measured.")
        return lines

    def next_step(self, model_id: str) -> str:
        command = f"hf-lowlabel finetune --model {model_id} --dataset YOUR_IMAGES --num-labels 40"
        return (
            "Finetune it on a few labels of the same kind of images:\n\n"
            f"```bash\n{command}\n```\n\nOr take its features:\n"
        )

    def snippets(self, record: RunRecord, model_id: str) -> list[str]:
        source = f"hf-hub:{record.hub_id}" if record.hub_id else f"local-dir:{model_id}"
        auto = load_code(record, model_id, "AutoModel")
        auto += "features = output.pooler_output  # [1, D]\nprint(features.shape)"
        if brings_code(record.architecture):
            return [auto]
        with_timm = f'import timm\n\nencoder = timm.create_model("{source}", pretrained=True, num_classes=0).eval()'
        if not fits_unet(record):
            return [auto, with_timm]
        unet = f'segmenter = smp.Unet("tu-{source}", encoder_weights=True, classes=2)'
        return [auto, with_timm, f"import segmentation_models_pytorch as smp\n\n{unet}"]


def starting_backbone(config: Config, start: str) -> nn.Module:
    """The network that a run began with: pretrained weights by name, or the random ones of its seed."""
    torch.manual_seed(config.training.seed)
    given = config.model
    side = config.views.image_size
    return create_backbone(start, pretrained=not given.from_scratch, revision=given.model_revision, image_size=side)


def fits_unet(record: RunRecord) -> bool:
    """Whether smp builds a Unet on this backbone: not on a plain ViT, nor on maps that end at another stride than
    32."""
    whole = record.hyperparameters.get("output_stride") in (None, 32)
    architecture = record.architecture
    return whole and architecture is not None and smp_builds(architecture)


@functools.cache  # a card is written at every checkpoint
def smp_builds(architecture: str) -> bool:
    import segmentation_models_pytorch as smp

    try:
        with torch.device("meta"):  # shapes alone: no memory, no time
            smp.Unet(f"tu-{architecture}", encoder_weights=None)
    except Exception:  # whatever timm and smp raise for a network they do not fit
        return False
    return True
