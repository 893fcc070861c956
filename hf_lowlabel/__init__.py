"""Many images, almost no labels: target pretraining, selection, semi-supervised finetuning, sharing.

    from hf_lowlabel import pretrain, finetune
    backbone = pretrain(dataset="photos/", model="resnet18", method="byol", output_dir="runs/backbone")
    run = finetune(dataset="photos/", model="runs/backbone", num_labels=40, output_dir="runs/classifier")
    run.model.save_pretrained("my-classifier")

help(pretrain) and help(finetune) list every setting; `METHODS` maps the name of a method to its paper, defaults and
presets.
Everything is imported on first use, so that `import hf_lowlabel` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ imports the same names from the same places
    from .arguments import (
        DataSource as DataSource,
        FinetuneConfig as FinetuneConfig,
        PretrainConfig as PretrainConfig,
    )
    from .data import ImageDataset as ImageDataset, Split as Split, load_source as load_source, make_split as make_split
    from .errors import UserError as UserError
    from .methods import METHODS as METHODS
    from .models import (
        LowLabelBackbone as LowLabelBackbone,
        LowLabelForImageClassification as LowLabelForImageClassification,
        create_backbone as create_backbone,
        create_classifier as create_classifier,
    )
    from .objective import (
        FinetuneObjective as FinetuneObjective,
        Objective as Objective,
        PretrainObjective as PretrainObjective,
    )
    from .training.runs import Run as Run, finetune as finetune, pretrain as pretrain
    from .training.serving import evaluate as evaluate, predict as predict

__version__ = "0.1.0"

_HOMES = {
    "pretrain": "training.runs",
    "finetune": "training.runs",
    "Run": "training.runs",
    "PretrainConfig": "arguments",
    "FinetuneConfig": "arguments",
    "DataSource": "arguments",
    "evaluate": "training.serving",
    "predict": "training.serving",
    "load_source": "data",
    "make_split": "data",
    "Split": "data",
    "ImageDataset": "data",
    "LowLabelForImageClassification": "models",
    "LowLabelBackbone": "models",
    "create_classifier": "models",
    "create_backbone": "models",
    "Objective": "objective",
    "PretrainObjective": "objective",
    "FinetuneObjective": "objective",
    "UserError": "errors",
    "METHODS": "methods",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
