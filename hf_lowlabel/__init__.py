"""Many images, almost no labels: target pretraining, selection, semi-supervised finetuning, sharing.

    from hf_lowlabel import pretrain, finetune
    backbone = pretrain("photos/", model="resnet18", method="byol", output_dir="runs/backbone")
    run = finetune("photos/", model="runs/backbone", num_labels=40, output_dir="runs/classifier")
    run.model.save_pretrained("my-classifier")

help(pretrain) and help(finetune) list every setting; `METHODS` names the methods, and hf_lowlabel.methods.find(name) is
the class of one, with its paper, defaults and presets; `losses` has their formulas as plain functions. Everything is
imported on first use, so that `import hf_lowlabel` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` below imports on first use
    import hf_lowlabel.losses as losses  # noqa: F401

    from .api import (
        evaluate as evaluate,
        finetune as finetune,
        pretrain as pretrain,
    )
    from .arguments import (
        Config as Config,
        DataArguments as DataArguments,
        ModelArguments as ModelArguments,
        TrainingArguments as TrainingArguments,
        ViewArguments as ViewArguments,
    )
    from .data import (
        ImageDataset as ImageDataset,
        Split as Split,
        load_segmentation as load_segmentation,
        load_source as load_source,
        make_split as make_split,
    )
    from .errors import UserError as UserError
    from .hub.push import push as push
    from .hub.report import report as report
    from .ladder.auto import (
        Best as Best,
        auto as auto,
    )
    from .methods import METHODS as METHODS
    from .models import (
        LowLabelBackbone as LowLabelBackbone,
        LowLabelForImageClassification as LowLabelForImageClassification,
        create_backbone as create_backbone,
        create_classifier as create_classifier,
    )
    from .models.segmentation import create_segmenter as create_segmenter
    from .models.segmenter import LowLabelForSemanticSegmentation as LowLabelForSemanticSegmentation
    from .objective import (
        FinetuneObjective as FinetuneObjective,
        Objective as Objective,
        PretrainObjective as PretrainObjective,
    )
    from .prediction import (
        Predictions as Predictions,
        predict as predict,
    )
    from .selection.prior_labels import priors as priors
    from .selection.verbs import (
        Selection as Selection,
        select as select,
    )
    from .training.callbacks import (
        Callback as Callback,
        RunState as RunState,
    )
    from .training.preparing import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "auto": "ladder.auto",
    "Best": "ladder.auto",
    "pretrain": "api",
    "finetune": "api",
    "Run": "training.preparing",
    "Callback": "training.callbacks",
    "RunState": "training.callbacks",
    "Config": "arguments",
    "DataArguments": "arguments",
    "ModelArguments": "arguments",
    "ViewArguments": "arguments",
    "TrainingArguments": "arguments",
    "evaluate": "api",
    "predict": "prediction",
    "Predictions": "prediction",
    "load_source": "data",
    "load_segmentation": "data",
    "make_split": "data",
    "Split": "data",
    "ImageDataset": "data",
    "select": "selection.verbs",
    "Selection": "selection.verbs",
    "priors": "selection.prior_labels",
    "push": "hub.push",
    "report": "hub.report",
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
__all__ = sorted([*_HOMES, "losses"])


def __getattr__(name: str):
    if name == "losses":
        return importlib.import_module(f"{__name__}.losses")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
