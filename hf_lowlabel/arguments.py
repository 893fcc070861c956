"""Every setting of a run, once: name, unit, default, and what it does. Python, YAML and the command line read this file.

A setting left at None takes the method's own default (`hf-lowlabel methods NAME` shows it). No torch is imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import UserError, in_memory, unknown
from .methods import find, methods_for


def setting(default: Any, help: str, **kwargs) -> Any:
    """A dataclass field with its help text; `choices` restrict it, `of` is the type of a list's entries, `task` its only task."""
    metadata = {"help": help, **kwargs}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class DataSource:
    """Where images are: what every verb that reads a data set takes."""

    dataset: str | None = setting(
        None, "images: Hub id, local folder, parquet file or folder, 'digits' or (with masks) 'shapes'"
    )
    dataset_config: str | None = setting(None, "configuration of a Hub data set")
    dataset_split: str = setting("train", "split that training images come from")
    dataset_revision: str | None = setting(None, "revision (commit, tag or branch) of a Hub data set")
    image_column: str | None = setting(None, "column that holds the image; found by itself when None")
    label_column: str | None = setting(None, "column that holds the class; found by itself when None")

    def where(self, split: str | None = None) -> dict[str, Any]:
        """The arguments of `load_source`; `split` instead of the one that is set."""
        return dict(
            dataset=self.dataset,
            config=self.dataset_config,
            split=split or self.dataset_split,
            revision=self.dataset_revision,
            image_column=self.image_column,
            label_column=self.label_column,
        )


@dataclass
class RunConfig(DataSource):
    """What `pretrain` and `finetune` share."""

    task: str = setting(
        "classification",
        "what is learned: the class of an image, or of every pixel",
        choices=("classification", "segmentation"),
    )
    mask_column: str | None = setting(
        None, "column that holds the mask; found by itself when None", task="segmentation"
    )
    classes: list = setting(
        [], "classes of the masks in the order of their values, or a text file of them", task="segmentation"
    )
    mask_format: str | None = setting(
        None,
        "what a mask's pixels are; None: class indices, as the layout has them",
        choices=("index", "binary", "colors"),
        task="segmentation",
    )
    mask_ignore: list = setting([], "values of a mask that take no part, beside 255", of=int, task="segmentation")
    split: str | None = setting(
        None,
        "split manifest (JSON): which images are labeled and which are held out; for masks also a list of ids (.txt)",
    )
    unlabeled_dataset: str | None = setting(None, "a second source of images without labels, joined to the first")
    unlabeled_dataset_split: str = setting("train", "split of the second source")
    model: str = setting(
        "resnet18", "timm name, 'hf_hub:org/name', Hub id, or a local folder (a target-pretrained one too)"
    )
    model_revision: str | None = setting(None, "revision of a model on the Hub")
    from_scratch: bool = setting(False, "start from random weights: a timm name is then only an architecture")
    init_from: str | None = setting(None, "take the weights of this checkpoint or run folder, and nothing else of it")
    method: str | None = setting(None, "name of the method; `hf-lowlabel methods` lists them")
    method_args: dict = setting({}, "hyperparameters of the method, as KEY=VALUE ...")
    preset: str | None = setting(None, "named set of values from a paper, e.g. 'cifar' or 'pretrained'")

    image_size: int | None = setting(
        None, "side of a training view in px; the model's own, or the images' when smaller"
    )
    stored_size: int | None = setting(
        None,
        "side of a stored image in px; None: image_size below 64 px, about 8/7 of it above; with masks "
        "the longer side (None: images stay as they are). Pretraining stores squares: the middle of an image, for "
        "segmentation as many as make up a wide one (two for 2:1)",
    )
    flip: bool | None = setting(None, "mirror images at random; None: as the data allows (never for digits)")
    augment: str = setting(
        "fixmatch-pytorch", "RandAugment preset of the strong view", choices=("fixmatch-pytorch", "usb")
    )
    min_scale: float | None = setting(None, "smallest share of the image area in a random resized crop")
    randaugment: bool = setting(
        False, "RandAugment in the views of pretraining too: it turns and shears, which crops do not"
    )
    color: bool = setting(True, "jitter colours (off: brightness and contrast only, for gray images)")

    max_steps: int | None = setting(None, "optimizer steps")
    epochs: float | None = setting(None, "length in passes over the unlabeled images instead of max_steps")
    batch_size: int | None = setting(None, "images per optimizer step over all processes (finetune: labeled images)")
    gradient_accumulation_steps: int = setting(1, "micro-batches per optimizer step")
    optimizer: str | None = setting(None, "optimizer", choices=("sgd", "lars", "adam", "adamw"))
    learning_rate: float | None = setting(None, "learning rate; pretraining scales it by batch_size / 256")
    weight_decay: float | None = setting(None, "weight decay; biases and normalisation weights take none")
    lr_scheduler_type: str | None = setting(
        None,
        "learning rate over time",
        choices=(
            "cosine",
            "fixmatch",
            "constant",
            "linear",
            "poly",
            "steps",
            "steps-late",
            "steps-moam",
            "steps-even",
            "steps-tuning",
        ),
    )
    warmup_ratio: float | None = setting(None, "share of the steps over which the learning rate rises from 0")
    head_lr: float | None = setting(
        None, "learning rate of the head (with masks: decoder and head) as a multiple of the body's; None: 1"
    )
    max_grad_norm: float | None = setting(None, "largest norm of the gradient; None: not clipped")
    precision: str = setting("fp32", "arithmetic of the forward pass", choices=("fp32", "bf16"))
    compile: bool = setting(False, "torch.compile the network")
    channels_last: bool = setting(True, "memory layout of images and convolutions, the faster one on GPUs and CPUs")

    seed: int = setting(0, "decides the labels drawn, initial weights, order of images and every view")
    output_dir: str | None = setting(None, "run folder: model, card, metrics, log and checkpoints")
    resume: bool = setting(False, "go on from the newest whole checkpoint in output_dir")
    max_bad: float = setting(0.01, "share of unreadable images that is skipped and listed; above it the run stops")
    save_steps: int | None = setting(None, "steps between checkpoints; None: ten in a run, at least 100 steps apart")
    save_total_limit: int = setting(2, "checkpoints kept; the older ones go after a newer one is safe on disk")
    logging_steps: int = setting(50, "steps between log lines")
    eval_steps: int | None = setting(None, "steps between evaluations; None: ten in a run")
    max_bad_steps: int = setting(10, "steps in a row with a loss that is NaN or infinite before training stops")
    report_to: list = setting([], "tracker names that Accelerate knows: tensorboard, trackio, wandb ...")
    memory_budget: float | None = setting(None, "GiB of images held decoded; None: half of what is free on the device")
    streaming: bool | None = setting(None, "decode images as they are needed; None: when they exceed memory_budget")
    workers: int = setting(2, "processes that decode images when streaming")
    device: str | None = setting(None, "'cpu' to leave a GPU alone; None: the best there is")
    dry_run: bool = setting(False, "2 steps, evaluation and save; prints the configuration, memory and expected time")
    push_to_hub: str | None = setting(None, "Hub id (org/name) to push the finished model to")
    hub_private: bool = setting(False, "push_to_hub makes a private repository")

    def resolved(self) -> RunConfig:
        """A copy in which the method's defaults and the preset fill every setting left at None. Raises UserError."""
        if (self.verb, self.task) not in DEFAULT_METHODS:
            raise unknown("task", self.task, [task for _, task in DEFAULT_METHODS])
        if self.method is None:
            return dataclasses.replace(self, method=DEFAULT_METHODS[self.verb, self.task]).resolved()
        if self.method not in methods_for(self.verb):
            raise unknown(f"{self.verb} method", self.method, methods_for(self.verb))
        spec, masks = find(self.method), self.verb == "finetune" and self.task == "segmentation"
        if self.verb == "finetune" and self.task not in spec.tasks:
            raise UserError(
                f"{self.method} is a method for {' and '.join(spec.tasks)}, found a run of {self.task}; fix: --task "
                f"{spec.tasks[0]}, or --method with one of "
                f"{', '.join(n for n in methods_for(self.verb) if self.task in find(n).tasks)}"
            )
        of_paper = self.verb == "pretrain" or self.task == spec.tasks[0]  # see methods.Method
        defaults, presets = (spec.defaults, spec.presets) if of_paper else ({}, {})
        if self.preset is not None and self.preset not in presets:
            raise unknown(f"preset of {self.method}", self.preset, presets)
        chosen = {**defaults, **presets.get(self.preset, {})}
        if self.epochs is not None or ("epochs" in chosen and self.max_steps is None):
            chosen["max_steps"] = self.max_steps  # the length is given in epochs: no default in steps
        if self.max_steps is not None:
            chosen["epochs"] = self.epochs
        values = {**({} if spec.frozen else FALLBACKS["segmentation" if masks else self.verb]), **chosen}
        out = dataclasses.replace(self, method_args={**values.pop("method_args", {}), **self.method_args})
        for name, value in values.items():
            if getattr(out, name) is None:
                setattr(out, name, value)
        out.validate()
        return out

    def validate(self) -> None:
        """Errors that need neither data nor weights."""
        if not self.dataset:
            raise UserError("no data given; expected --dataset with a Hub id, a folder, a parquet file or 'digits'")
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata.get("choices")
            if choices and value is not None and value not in choices:
                raise unknown(f.name, value, choices)
            if f.metadata.get("task", self.task) != self.task and value != default_of(f):
                raise UserError(
                    f"found {f.name} in a run of {self.task}; expected it with task {f.metadata['task']} only; fix: "
                    f"--task {f.metadata['task']}, or leave it out"
                )
        if (scale := getattr(self, "scale", [1, 1])) and not (len(scale) == 2 and 0 < scale[0] <= scale[1]):
            raise UserError(f"scale is {scale}; expected two factors above 0, the smaller first, such as 0.5 1.5")
        positive = (
            "image_size",
            "stored_size",
            "max_steps",
            "epochs",
            "batch_size",
            "gradient_accumulation_steps",
            "save_steps",
            "logging_steps",
            "eval_steps",
            "save_total_limit",
            "max_bad_steps",
            "max_grad_norm",
            "memory_budget",
            "image_height",
            "window",
            "lora_rank",
            "lora_alpha",
            "adapter_width",
            "unlabeled_ratio",
            "early_stopping",
        )
        for name in positive:
            if getattr(self, name, None) is not None and getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected a number above 0")
        drawn = [
            f.name for f in fields(self) if f.name in OF_A_DRAW and self.split and getattr(self, f.name) != f.default
        ]
        if drawn:
            raise UserError(
                f"found {', '.join(drawn)} beside a split; expected one of them, since the split says which images are held "
                "out; fix: leave it out, or give it to `hf-lowlabel split`"
            )
        for name in ("warmup_ratio", "max_bad"):
            if getattr(self, name, None) is not None and not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        for name in ("learning_rate", "weight_decay", "workers", "head_lr", "freeze"):
            if getattr(self, name, None) is not None and getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; expected 0 to {2**32 - 1}")
        if not 0 <= getattr(self, "drop_rate", 0.0) < 1:
            raise UserError(f"drop_rate is {self.drop_rate}; expected a share of the features from 0 to below 1")
        if find(self.method).frozen:
            if self.push_to_hub and self.method != "probe":
                raise UserError(
                    f"found push_to_hub for {self.method}, which leaves no network; expected a method that makes one; fix: "
                    "leave it out, and give the run's priors.safetensors to a run of probe or self-training (--prior)"
                )
            given = [f.name for f in fields(self) if f.name in OF_TRAINING and getattr(self, f.name) != f.default]
            if given:
                raise UserError(
                    f"found {', '.join(given)} for {self.method}, which trains no network; expected none of them; fix: leave "
                    "them out, or take another --method"
                )
        if getattr(self, "prior", None) and not find(self.method).prior:
            able = [name for name in methods_for("finetune") if find(name).prior]
            raise UserError(
                f"found prior pseudo-labels for {self.method}, which has no use for them; expected one of "
                f"{', '.join(able)}; fix: --method, or leave out --prior"
            )
        if find(self.method).prior == "must" and not self.prior:
            raise UserError(
                f"found no pseudo-labels for {self.method}; expected --prior FILE; fix: `hf-lowlabel priors`, or take "
                "priors.safetensors of a run of probe, knn or label-spreading"
            )
        if not 0 <= getattr(self, "prior_until", 0.0) <= 1:
            raise UserError(f"prior_until is {self.prior_until}; expected a share of training from 0 to 1")
        small = [n for n in ("lora_rank", "adapter_width") if getattr(self, n, None)]
        if len(small) == 2:
            raise UserError("found lora_rank and adapter_width; expected one of them")
        if small and self.freeze:
            raise UserError(f"found freeze with {small[0]}; expected one of them: adapters leave every stage as it is")
        if getattr(self, "lora_alpha", None) and not self.lora_rank:
            raise UserError("found lora_alpha without lora_rank; expected both, or neither")
        if small and self.from_scratch:
            raise UserError(
                f"found {small[0]} with from_scratch; expected pretrained weights, since adapters leave all others as they "
                f"are; fix: give --model with weights, or leave out --{small[0].replace('_', '-')}"
            )


def settings_text(cls: type[DataSource]) -> str:
    """Every setting with its default and what it does, for help()."""
    defaults = cls()
    lines = [
        f"    {f.name} ({getattr(defaults, f.name)!r}): {f.metadata['help']}"
        + (f"; {', '.join(map(str, f.metadata['choices']))}" if "choices" in f.metadata else "")
        for f in fields(cls)
    ]
    return "\n".join(["\n\n    Settings (default):", *lines, ""])


@dataclass
class PretrainConfig(RunConfig):
    """Target pretraining: adapt weights to the user's images without labels."""

    verb: typing.ClassVar[str] = "pretrain"
    method: str | None = setting(None, "self-supervised method (default: byol; for segmentation pixpro)")
    output_stride: int | None = setting(
        None, "px per cell of the last feature map; None: the network's own, mostly 32", choices=(8, 16, 32)
    )
    l2_sp: float | None = setting(
        None,
        "lambda of |Phi - Phi_start|^2, beside the sum over a step's images (Xu et al. Eq. 3); 0 with --from-scratch",
    )
    sharded: bool = setting(
        False,
        "read a Hub data set or parquet files as they come, each process its own files, nothing stored: for "
        "data that no disk holds; needs max_steps",
    )

    def resolved(self) -> PretrainConfig:
        if self.sharded:
            wrong = [
                name
                for name in ("epochs", "split", "unlabeled_dataset", "label_column", "streaming")
                if getattr(self, name) is not None
            ]
            if wrong:
                raise UserError(
                    f"found {', '.join(wrong)} with sharded; expected none of them: images that are read as they come are "
                    "neither counted nor told apart nor kept; fix: leave them out, or --streaming for data that a disk holds"
                )
            if self.max_steps is None:
                raise UserError(
                    "found sharded without max_steps; expected --max-steps N: nobody knows the number of images"
                )
        return super().resolved()


@dataclass
class FinetuneConfig(RunConfig):
    """Supervised or semi-supervised finetuning from a few labels."""

    verb: typing.ClassVar[str] = "finetune"
    method: str | None = setting(None, "algorithm (default: fixmatch; for segmentation cutmix)")
    architecture: str | None = setting(
        None,
        "what stands on the encoder `model`: deeplabv3plus-os16, deeplabv2, unet, upernet, segformer, "
        "dpt ..., any of smp's",
        task="segmentation",
    )
    architecture_args: dict = setting({}, "arguments of the architecture, as KEY=VALUE ...", task="segmentation")
    image_height: int | None = setting(None, "height of a training view in px; None: image_size", task="segmentation")
    scale: list | None = setting(
        None, "smallest and largest factor by which a training view is scaled", of=float, task="segmentation"
    )
    window: int | None = setting(
        None, "side in px of a window that slides over test images; None: whole images", task="segmentation"
    )
    num_labels: int | None = setting(None, "labels to keep, drawn by seed; or give --split")
    class_balanced: bool = setting(False, "draw the same number of labels from every class", task="classification")
    validation: int = setting(0, "labeled images held out to choose by; they are not trained on")
    test_fraction: float = setting(0.2, "share of the images held out as test set when the data brings none")
    test_dataset_split: str | None = setting(None, "split of the data set to test on; None: 'test', then 'validation'")
    unlabeled_ratio: int | None = setting(None, "unlabeled images per labeled one in a batch (mu)")
    early_stopping: int | None = setting(
        None, "evaluations without a better score (metric_for_best_model) before training stops"
    )
    metric_for_best_model: str | None = setting(
        None,
        "score whose best evaluation is saved; None: validation accuracy (mean IoU) where there are "
        "validation images, else Sel of a semi-supervised method, with masks the last",
        choices=("validation", "sel", "last"),
    )
    prior: str | None = setting(
        None, "prior pseudo-labels (safetensors, from `hf-lowlabel priors`) that guide the start", task="classification"
    )
    prior_until: float = setting(0.0586, "share of training up to which they do (AS3L: 60 of 1024 epochs)")
    drop_rate: float = setting(0.0, "dropout before the classifier head", task="classification")
    freeze: int = setting(
        0, "leading stages of the network whose weights stay as they are, the stem with them", task="classification"
    )
    lora_rank: int | None = setting(
        None,
        "train low-rank adapters of this rank and the head, and nothing else (Hu et al. 2022; peft)",
        task="classification",
    )
    lora_alpha: float | None = setting(
        None, "adapters count lora_alpha / lora_rank times; None: once", task="classification"
    )
    adapter_width: int | None = setting(
        None,
        "train branches of this many units beside a vision transformer's MLPs and the head, and "
        "nothing else (AdaptFormer, Chen et al. 2022: 64)",
        task="classification",
    )
    compare_supervised: str | None = setting(
        None, "run folder of the supervised baseline at the same labels, for the card"
    )


OF_A_DRAW = {"validation", "test_fraction", "class_balanced"}  # settings that a manifest has settled
# settings that mean nothing to a method on frozen features
OF_TRAINING = {
    "max_steps",
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_ratio",
    "head_lr",
    "max_grad_norm",
    "precision",
    "compile",
    "resume",
    "unlabeled_ratio",
    "early_stopping",
    "metric_for_best_model",
    "drop_rate",
    "freeze",
    "lora_rank",
    "lora_alpha",
    "adapter_width",
}

for _config in (DataSource, PretrainConfig, FinetuneConfig):
    _config.__doc__ += settings_text(_config)

FALLBACKS: dict[str, dict] = {
    "pretrain": dict(
        max_steps=1000,
        batch_size=256,
        optimizer="lars",
        learning_rate=0.3,
        weight_decay=1e-6,
        lr_scheduler_type="cosine",
        warmup_ratio=0.0,
        head_lr=1.0,
        l2_sp=1e-2,
    ),
    "finetune": dict(
        max_steps=5000,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=5e-4,
        lr_scheduler_type="fixmatch",
        warmup_ratio=0.0,
        head_lr=1.0,
        unlabeled_ratio=7,
    ),
    "segmentation": dict(
        max_steps=10_000,
        batch_size=10,
        optimizer="adam",
        learning_rate=1e-4,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        head_lr=1.0,
        unlabeled_ratio=1,
        architecture="deeplabv3plus-os16",
        scale=[0.5, 1.5],
    ),
}
DEFAULT_METHODS = {
    ("pretrain", "classification"): "byol",
    ("pretrain", "segmentation"): "pixpro",
    ("finetune", "classification"): "fixmatch",
    ("finetune", "segmentation"): "cutmix",
}


def default_of(f: dataclasses.Field) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


_hints = functools.cache(typing.get_type_hints)  # a millisecond each, asked for every field


def field_type(f: dataclasses.Field, cls: type) -> tuple[type, bool]:
    """(bare type, whether None is allowed) of a config field."""
    hint = _hints(cls)[f.name]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        args = [a for a in typing.get_args(hint) if a is not type(None)]
        return args[0], True
    return hint, False


def coerce(cls: type, name: str, value: Any) -> Any:
    """`value` as the type of field `name`, or a UserError that names both."""
    f = next(f for f in fields(cls) if f.name == name)
    kind, optional = field_type(f, cls)
    if value is None and optional:
        return None
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-2 as a string
        except ValueError:
            pass
    elif kind is list and isinstance(value, (str, list, tuple)):
        entries = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) else value
        of = f.metadata.get("of", str)
        try:
            return [of(v) for v in entries]
        except ValueError as e:
            raise UserError(f"{name} is {value!r}; expected a list of {of.__name__}") from e
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    elif kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif name in ("dataset", "unlabeled_dataset"):
        raise in_memory(value)
    raise UserError(
        f"{name} is {value!r} ({type(value).__name__}); expected {kind.__name__}{' or null' if optional else ''}"
    )


def from_dict(cls: type[RunConfig], values: dict[str, Any], where: str = "configuration") -> RunConfig:
    """A config from plain values; an unknown key is an error that names the nearest known one."""
    known = {f.name for f in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown(f"key in the {where}", key, known)
    return cls(**{k: coerce(cls, k, v) for k, v in values.items()})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; keys may use '-' for '_'."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise UserError(f"found no configuration file at {path}; expected a YAML file")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as e:
        raise UserError(f"{path} is not valid YAML: {e}") from e
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}; expected 'name: value' lines")
    return {str(k).replace("-", "_"): v for k, v in values.items()}


def to_dict(config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)
