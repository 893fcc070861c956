"""Many images, almost no labels: target pretraining, selection, semi-supervised finetuning, sharing.

    from hf_lowlabel import pretrain, finetune
    backbone = pretrain(dataset="photos/", model="resnet18", method="byol", output_dir="runs/backbone")
    run = finetune(dataset="photos/", model="runs/backbone", num_labels=40, output_dir="runs/classifier")
    run.model.save_pretrained("my-classifier")

help(pretrain) and help(finetune) list every setting; `METHODS` names the methods,
and hf_lowlabel.methods.find(name) is the class of one, with its paper, defaults and presets.
Everything is imported on first use, so that `import hf_lowlabel` costs next to nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "pretrain": "api",
    "finetune": "api",
    "Run": "training.run",
    "Config": "arguments",
    "DataArguments": "arguments",
    "ModelArguments": "arguments",
    "ViewArguments": "arguments",
    "TrainingArguments": "arguments",
    "evaluate": "prediction",
    "predict": "prediction",
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


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
