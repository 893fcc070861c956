"""Many images, almost no labels: target pretraining, selection, semi-supervised finetuning, sharing.

    from hf_lowlabel import pretrain, finetune
    backbone = pretrain("photos/", model="resnet18", method="byol", output_dir="runs/backbone")
    run = finetune("photos/", model="runs/backbone", num_labels=40, output_dir="runs/classifier")
    run.model.save_pretrained("my-classifier")

help(pretrain) and help(finetune) list every setting; `METHODS` names the methods, and hf_lowlabel.methods.find(name) is
the class of one, with its paper, defaults and presets. Everything is imported on first use, so that `import
hf_lowlabel` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` below imports on first use
    from .api import finetune, pretrain
    from .arguments import Config, DataArguments, ModelArguments, TrainingArguments, ViewArguments
    from .data import ImageDataset, Split, load_segmentation, load_source, make_split
    from .errors import UserError
    from .hub.push import push
    from .hub.report import write_report as report
    from .methods import METHODS
    from .models import (
        LowLabelBackbone,
        LowLabelForImageClassification,
        create_backbone,
        create_classifier,
    )
    from .models.segmentation import create_segmenter
    from .models.segmenter import LowLabelForSemanticSegmentation
    from .objective import FinetuneObjective, Objective, PretrainObjective
    from .prediction import Predictions, evaluate, predict
    from .selection import priors, select
    from .training.callbacks import Callback, RunState
    from .training.run import Run

__version__ = "0.1.0"

_HOMES = {
    "pretrain": "api",
    "finetune": "api",
    "Run": "training.run",
    "Callback": "training.callbacks",
    "RunState": "training.callbacks",
    "Config": "arguments",
    "DataArguments": "arguments",
    "ModelArguments": "arguments",
    "ViewArguments": "arguments",
    "TrainingArguments": "arguments",
    "evaluate": "prediction",
    "predict": "prediction",
    "Predictions": "prediction",
    "load_source": "data",
    "load_segmentation": "data",
    "make_split": "data",
    "Split": "data",
    "ImageDataset": "data",
    "select": "selection",
    "priors": "selection",
    "push": "hub.push",
    "report": "hub.report:write_report",
    "LowLabelForImageClassification": "models",
    "LowLabelForSemanticSegmentation": "models.segmenter",
    "LowLabelBackbone": "models",
    "create_classifier": "models",
    "create_segmenter": "models.segmentation",
    "create_backbone": "models",
    "Objective": "objective",
    "PretrainObjective": "objective",
    "FinetuneObjective": "objective",
    "UserError": "errors",
    "METHODS": "methods",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), other or name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
