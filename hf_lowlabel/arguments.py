"""Every setting of a run, once: name, unit, default, constraints, what it does. Python, YAML and command line read it.

A setting left at None takes the method's own default (`hf-lowlabel methods NAME` shows it). No torch is imported here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .fields import Setting, coerce, setting, settings_in, settings_text
from .foreign_names import no_such_setting
from .view_arguments import ViewArguments as ViewArguments

if TYPE_CHECKING:
    from .input_types import Data, Model
    from .methods import AnyMethod
else:  # types that import torch and datasets are for type checkers alone
    AnyMethod = Data = Model = Any

SCHEDULES = ("cosine", "fixmatch", "constant", "linear", "poly", "steps", "steps-late", "steps-moam", "steps-even")
SCHEDULES += ("steps-rotnet", "steps-tuning", "steps-eman", "steps-thirds", "steps-quarters", "adamatch")
ADAPTING = dict(trains=True, of_task=True)
TUNING = dict(verb="finetune", **ADAPTING)  # a way to finetune that only some tasks have
HELD_OUT = dict(verb="finetune", draw=True)  # what a split manifest settles
HERE = dict(may_change=True, private=True)  # where a run is and what becomes of it


@dataclass
class DataArguments:
    """Where images and labels come from, and how images are read."""

    dataset: Data = setting(
        None, "images: Hub id, local folder, parquet, 'digits' or 'shapes'; in Python also a Dataset, DataFrame or list"
    )
    dataset_config: str | None = setting(None, "configuration of a Hub data set")
    dataset_split: str = setting("train", "split that training images come from")
    dataset_revision: str | None = setting(None, "revision (commit, tag or branch) of a Hub data set")
    image_column: str | None = setting(None, "column that holds the image; None: detected")
    label_column: str | None = setting(None, "column that holds the class; None: detected")
    value_range: list[float] = setting([], "black and white values of images of more than 8 bits: 0 4095")
    pages: bool = setting(False, "TIFF pages and GIF frames are images, held out by file; else only the first")
    no_label: list[str] = setting([], "words in a table that mean no label; default: nan none null na n/a <na>")
    skip_missing: bool = setting(
        False, "leave out and list rows of a table, or masks, that belong to no image; pass over labels of some classes"
    )
    skip_conflicts: bool = setting(False, "leave images unlabeled if table rows or copies disagree on the label")
    plain_folders: bool = setting(False, "folders only sort the images, by date for instance: none is a class")
    mask_column: str | None = setting(None, "column that holds the mask; None: detected", of_task=True)
    classes: list[str] = setting([], "mask classes in the order of their values, or a text file of them", of_task=True)
    mask_format: str | None = setting(
        None,
        "encoding of masks; None: the layout's own, else class indices",
        choices=("index", "binary", "colors"),
        of_task=True,
    )
    mask_ignore: list[int] = setting([], "mask values to ignore, besides 255", of_task=True, min=0)
    instances: bool = setting(False, "mask values are object numbers, all of one class", of_task=True)
    split: str | None = setting(
        None, "split manifest (JSON; or a Split): what is labeled and held out; for masks also a list of ids (.txt)"
    )
    unlabeled_dataset: Data | None = setting(None, "a second source of images without labels, joined to the first")
    unlabeled_dataset_split: str = setting("train", "split of the second source")
    num_labels: int | None = setting(
        None, "labels to keep, drawn by seed; None: those of --split, else all", unit="labels", min=1, verb="finetune"
    )
    class_balanced: bool = setting(False, "draw labels evenly from all classes, if possible", of_task=True, **HELD_OUT)
    validation: int = setting(
        0, "labeled images held out for validation, never trained on", unit="images", min=0, **HELD_OUT
    )
    test_fraction: float = setting(
        0.2, "share of the images held out as a test set if the data has none", share=True, **HELD_OUT
    )
    test_dataset_split: str | None = setting(
        None, "split of the data set to test on; None: that of --split, else 'test', 'validation'", verb="finetune"
    )
    max_bad: float = setting(
        0.01, "share of unreadable images that is skipped and listed; above it the run stops", share=True
    )
    memory_budget: float | None = setting(
        None, "memory for decoded images; None: half of the device's free memory", unit="GiB", above=0, may_change=True
    )
    streaming: bool | None = setting(None, "decode on demand; None: if images exceed memory_budget", may_change=True)
    workers: int = setting(2, "processes that decode images when streaming", unit="processes", min=0, may_change=True)
    sharded: bool = setting(
        False,
        "stream parquet, a Hub data set or an IterableDataset, for data larger than the disk; needs max_steps",
        verb="pretrain",
    )


@dataclass
class ModelArguments:
    """The network: initial weights, decoder or head, and which weights are trained."""

    model: Model = setting("resnet18", "timm name, 'hf_hub:org/name', Hub id, folder (also of `pretrain`), timm module")
    model_revision: str | None = setting(None, "revision of a model on the Hub")
    from_scratch: bool = setting(False, "start from random weights; a timm name is only the architecture")
    init_from: str | None = setting(None, "take only the weights of this checkpoint or run folder")
    architecture: str | None = setting(
        None,
        "decoder: any of smp's, deeplabv3plus-os16 (default), deeplabv2 ..., linear (default on a ViT)",
        of_task=True,
        verb="finetune",
    )
    architecture_args: dict = setting(
        {}, "arguments of the architecture, as KEY=VALUE ..., in Python a dict", of_task=True, verb="finetune"
    )
    output_stride: int | None = setting(
        None,
        "stride of the last feature map; None: the network's own, mostly 32",
        unit="px",
        choices=(8, 16, 32),
        verb="pretrain",
    )
    drop_rate: float = setting(0.0, "dropout before the classifier; 0: the network's own", min=0, below=1, **TUNING)
    freeze: int = setting(0, "leading stages of the network to freeze, with its stem", unit="stages", min=0, **TUNING)
    freeze_encoder: bool = setting(False, "train only the decoder or head", **TUNING)
    lora_rank: int | None = setting(
        None, "train only low-rank adapters of this rank and the head (Hu et al. 2022; peft)", min=1, **ADAPTING
    )
    lora_alpha: float | None = setting(None, "scale adapters by lora_alpha / lora_rank; None: 1", above=0, **ADAPTING)
    adapter_width: int | None = setting(
        None,
        "train only branches of this width beside a ViT's MLPs and the head (AdaptFormer, Chen et al. 2022: 64)",
        unit="units",
        min=1,
        **TUNING,
    )
    head_init: str | None = setting(
        None,
        "initial head on pretrained weights: fitted to the labels (probe), to prior pseudo-labels (priors), or "
        "random; None: priors if given, else probe",
        choices=("probe", "priors", "random"),
        **TUNING,
    )
    freeze_norm: bool | None = setting(
        None,
        "freeze the BatchNorm statistics; None: with pretrained weights and fewer than 128 images per micro-batch",
        trains=True,
        verb="finetune",
    )
    channels_last: bool | None = setting(None, "layout of images in memory; None: the faster one on this device")
    compile: bool = setting(False, "torch.compile the network", trains=True, may_change=True)


@dataclass
class TrainingArguments:
    """Length, rates, optimizer and outputs of training; named as in transformers.TrainingArguments."""

    max_steps: int | None = setting(None, "optimizer steps", unit="steps", min=1, trains=True)
    epochs: float | None = setting(
        None,
        "passes over unlabeled (supervised: labeled) images; or give max_steps",
        unit="epochs",
        above=0,
        trains=True,
    )
    batch_size: int | None = setting(
        None, "images (finetune: labeled ones) per optimizer step, all processes", unit="images", min=1, trains=True
    )
    gradient_accumulation_steps: int = setting(
        1, "micro-batches per optimizer step; BatchNorm and contrastive losses see one at a time", min=1, trains=True
    )
    optimizer: str | None = setting(
        None,
        "optimizer; sgd: Nesterov momentum 0.9, momentum: plain momentum",
        choices=("sgd", "momentum", "lars", "adam", "adamw"),
        trains=True,
    )
    learning_rate: float | None = setting(
        None,
        "learning rate; pretraining scales it by batch_size / 256; None: the paper's; when finetuning pretrained "
        "weights, times batch_size / the method's own if that is smaller, and a tenth with a fitted head",
        min=0,
        trains=True,
    )
    weight_decay: float | None = setting(None, "weight decay; not for biases and normalisation", min=0, trains=True)
    lr_scheduler_type: str | None = setting(None, "learning-rate schedule", choices=SCHEDULES, trains=True)
    warmup_ratio: float | None = setting(
        None, "share of the steps over which the learning rate rises from 0", share=True, trains=True
    )
    head_lr: float | None = setting(
        None,
        "learning rate of head and decoder, as a multiple of the body's; None: 1, new decoders 10",
        min=0,
        trains=True,
    )
    layer_decay: float | None = setting(
        None,
        "learning rate of a layer as a multiple of the next one's, from the head down (Clark et al. 2020); None: 1",
        above=0,
        max=1,
        trains=True,
        verb="finetune",
    )
    max_grad_norm: float | None = setting(None, "largest norm of the gradient; None: not clipped", above=0, trains=True)
    precision: str = setting("fp32", "precision of the forward pass", choices=("fp32", "bf16"), trains=True)
    unlabeled_ratio: int | None = setting(
        None, "unlabeled images per labeled one in a batch (mu)", min=1, trains=True, verb="finetune"
    )
    l2_sp: float | None = setting(
        None,
        "weight of |Phi - Phi_start|^2, added to the summed loss of a step (Xu et al. Eq. 3); 0 with --from-scratch",
        min=0,
        verb="pretrain",
    )
    early_stopping: int | None = setting(
        None,
        "evaluations without a better score (metric_for_best_model) before training stops",
        unit="evaluations",
        min=1,
        trains=True,
        may_change=True,
        verb="finetune",
    )
    metric_for_best_model: str | None = setting(
        None,
        "score that chooses the saved checkpoint; None: validation accuracy (mean IoU) if there are validation images, "
        "else sel for semi-supervised methods (confident pseudo-labels, even over classes); with masks the last",
        choices=("validation", "sel", "last"),
        trains=True,
        verb="finetune",
    )
    prior: str | None = setting(
        None,
        "prior pseudo-labels (safetensors, from `hf-lowlabel priors`) that guide the start",
        of_task=True,
        verb="finetune",
    )
    prior_until: float = setting(
        0.0586,
        "share of training guided by `prior` (AS3L: 60 of 1024 epochs)",
        share=True,
        of_task=True,
        verb="finetune",
    )
    compare_supervised: str | None = setting(
        None, "run folder of the supervised baseline on the same labels, for the card", may_change=True, verb="finetune"
    )
    seed: int = setting(
        0, "decides the labels drawn, initial weights, order of images and every view", min=0, max=2**32 - 1
    )
    output_dir: str | None = setting(None, "run folder: model, card, metrics, log and checkpoints", **HERE)
    resume: bool = setting(False, "resume from output_dir's newest whole checkpoint", **HERE)
    save_steps: int | None = setting(
        None, "steps between checkpoints; None: ten, at least 100 steps apart", unit="steps", min=1, may_change=True
    )
    save_total_limit: int = setting(
        2, "checkpoints kept; older ones are deleted once a newer one is on disk", min=1, may_change=True
    )
    logging_steps: int = setting(
        50, "steps between log lines; 20 lines at least, or one a step", unit="steps", min=1, may_change=True
    )
    eval_steps: int | None = setting(
        None, "steps between evaluations; None: ten in a run", unit="steps", min=1, may_change=True
    )
    max_bad_steps: int = setting(
        10, "steps in a row with a NaN or infinite loss before training stops", unit="steps", min=1, may_change=True
    )
    report_to: list[str] = setting(
        [], "tracker names that Accelerate knows: tensorboard, trackio, wandb ...", may_change=True
    )
    device: str | None = setting(None, "'cpu' to use no GPU; None: the best available", may_change=True)
    dry_run: bool = setting(
        False, "2 steps, evaluation and save; prints the configuration, memory and expected time", **HERE
    )
    push_to_hub: str | None = setting(None, "Hub id (org/name) to push the finished model to", **HERE)
    hub_private: bool = setting(False, "create the repository as private", **HERE)


GROUPS = {"data": DataArguments, "model": ModelArguments, "views": ViewArguments, "training": TrainingArguments}


@dataclass
class Config:
    """Everything that decides a run.

    `verb` is "pretrain" or "finetune", `task` what is learned, `method` the method's name or a class of one's own with
    its hyperparameters `method_args` and a `preset` of its values; `data`, `model`, `views` and `training` are the
    groups of settings. `filled`: settings chosen by the method or the task.
    """

    verb: str
    task: str = setting(
        "classification",
        "what is learned: classification (the class of an image), multilabel (all that apply), segmentation (of every "
        "pixel)",
    )
    method: AnyMethod = setting(
        None, "method name, or a class; None: byol (masks: pixpro), for finetune fixmatch (masks: unimatch)"
    )
    method_args: dict = setting({}, "hyperparameters of the method, as KEY=VALUE ..., in Python a dict")
    preset: str | None = setting(None, "named set of values from a paper, e.g. 'cifar' or 'pretrained'")
    data: DataArguments = field(default_factory=DataArguments)
    model: ModelArguments = field(default_factory=ModelArguments)
    views: ViewArguments = field(default_factory=ViewArguments)
    training: TrainingArguments = field(default_factory=TrainingArguments)
    filled: frozenset[str] = field(default=frozenset(), compare=False)  # settings that the user did not choose

    @classmethod
    def from_flat(cls, verb: str, values: dict[str, Any], where: str = "call") -> Config:
        """A configuration from settings by name, each brought to its type.

        Args:
            verb: "pretrain" or "finetune".
            values: name -> value.
            where: what the names stand in, for the error.

        Raises:
            UserError: a name that is none of this verb's settings, a value of another type.
        """
        return cls(verb).replace(where, **values)

    def replace(self, where: str = "call", /, **changes: Any) -> Config:
        """A copy with other values of the settings named in `changes`; nothing of it is shared with this one."""
        known, out = known_settings(self.verb), type(self)(self.verb)
        for name in changes:
            if name not in known:
                raise no_such_setting(name, known, where, known_settings())
        for name, value in self.flat().items():
            s = known[name]
            home = out if s.group is None else getattr(out, s.group)
            setattr(home, name, coerce(s, changes[name]) if name in changes else value)
        return out

    def flat(self) -> dict[str, Any]:
        """The settings of this verb by name, without groups; lists and mappings are copies."""
        known = known_settings(self.verb).values()
        found = {s.name: getattr(getattr(self, s.group) if s.group else self, s.name) for s in known}
        return {name: type(v)(v) if type(v) in (list, dict) else v for name, v in found.items()}


@functools.cache
def known_settings(verb: str | None = None) -> dict[str, Setting]:
    """Name -> setting of a verb, or of both (None): first those of the configuration itself, then group by group."""
    every = settings_in(Config) + [s for group, cls in GROUPS.items() for s in settings_in(cls, group)]
    return {s.name: s for s in every if verb is None or s.meta.get("verb", verb) == verb}


def marked(mark: str) -> frozenset[str]:
    """Names of the settings with a mark: "may_change", "private", "draw", "trains" or "of_task"."""
    return frozenset(name for name, s in known_settings().items() if s.meta.get(mark))


for _cls in (*GROUPS.values(), Config):
    _cls.__doc__ += settings_text(settings_in(_cls))
