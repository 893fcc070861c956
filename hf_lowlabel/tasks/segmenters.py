"""The network of a segmentation run, and a saved one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..arguments import ModelArguments
from ..data.dataset import ImageDataset
from ..errors import UserError
from ..evaluation.segmentation import OwnSize
from ..models import LoadReport, brings_code, create_backbone
from ..models.saved_models import open_model
from ..models.segmentation import create_segmenter
from ..models.segmenter import LowLabelForSemanticSegmentation
from ..text import series
from .data_classes import Examples
from .networks import is_model_folder


def segmenter_for(given: ModelArguments, names: list[str]) -> Any:
    """A fresh head on the encoder `model`, or all of an earlier segmenter (init_from, or in memory).

    Args:
        given: the settings of the network.
        names: its classes.

    Raises:
        UserError: the earlier segmenter has other classes.
    """
    start = given.init_from if given.init_from and is_model_folder(given.init_from) else None
    if not isinstance(given.model, LowLabelForSemanticSegmentation) and not start:
        return create_segmenter(
            given.model if isinstance(given.model, str) else create_backbone(given.model),
            len(names),
            architecture=given.architecture,
            architecture_args=given.architecture_args,
            pretrained=not given.from_scratch,
            class_names=names,
            revision=given.model_revision,
        )
    model = given.model if start is None else open_model(LowLabelForSemanticSegmentation, start)
    theirs = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if theirs != names:
        raise UserError(
            f"The segmenter of {start or 'the model'} has the classes {', '.join(theirs[:8])}, and the masks have "
            f"{series(names[:8])}. Give --model instead of --init-from: it takes the encoder alone."
        )
    model.load_report = LoadReport(start or "a segmenter in memory", matched=list(model.state_dict()), head="kept")
    return model


def load_segmenter(model: str | Path | nn.Module, revision: str | None) -> Any:
    """A saved segmenter; one in memory as it is. Raises UserError where there is none."""
    if not isinstance(model, (str, Path)):
        return model
    return open_model(LowLabelForSemanticSegmentation, model, revision)


def brought_code(model: nn.Module) -> bool:
    """Whether timm lacks the encoder of a segmenter, so that it is open to nobody without its code."""
    config: Any = model.config
    return brings_code(config.encoder)


def seen(model: nn.Module) -> dict[str, Sequence[float]]:
    """How a segmenter wants its images normalised."""
    config: Any = model.config
    return dict(mean=config.image_mean, std=config.image_std)


def of_own_size(model: nn.Module, images: Examples, names: list[str], source: ImageDataset | None) -> OwnSize | None:
    """Scores the masks of `source` as they are, where images and masks are resized to be scored."""
    if source is None or not model.config.image_size:
        return None
    at = np.asarray(images.cache.indices)
    return OwnSize(lambda row: source.mask(int(at[row])), len(names))
