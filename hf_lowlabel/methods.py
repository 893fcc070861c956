"""The methods of this library by name. What is known of one (paper, settings, tasks) stands on its class, see `Method`.

Nothing heavy is imported here: the command line knows every name without torch. `find(name)` imports the class.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import UserError, unknown
from .fields import Setting
from .ranges import check_value, parameters_of, settings_of
from .text import series

if TYPE_CHECKING:
    from torch import nn

METHODS: dict[str, str] = {  # name -> "module:Class" below hf_lowlabel; the folder tells the verb
    "byol": "pretraining.byol:BYOL",
    "byol-eman": "pretraining.byol_eman:BYOLEMAN",
    "moco": "pretraining.moco:MoCo",
    "simsiam": "pretraining.simsiam:SimSiam",
    "simclr": "pretraining.simclr:SimCLR",
    "vicreg": "pretraining.vicreg:VICReg",
    "dino": "pretraining.dino:DINO",
    "lejepa": "pretraining.lejepa:LeJEPA",
    "rotnet": "pretraining.rotnet:RotNet",
    "exemplar": "pretraining.exemplar:Exemplar",
    "densecl": "pretraining.densecl:DenseCL",
    "pixpro": "pretraining.pixpro:PixPro",
    "pixpro-affine": "pretraining.pixpro_affine:PixProAffine",
    "supervised": "finetuning.supervised:Supervised",
    "probe": "finetuning.probes:Probe",
    "knn": "finetuning.probes:KNN",
    "label-spreading": "finetuning.probes:LabelSpreading",
    "propagation": "finetuning.probes:Propagation",
    "fixmatch": "finetuning.fixmatch:FixMatch",
    "pseudo-label": "finetuning.pseudo_label:PseudoLabel",
    "self-training": "finetuning.self_training:SelfTraining",
    "pi-model": "finetuning.pi_model:PiModel",
    "temporal-ensembling": "finetuning.temporal_ensembling:TemporalEnsembling",
    "temporal-consistency": "finetuning.temporal_consistency:TemporalConsistency",
    "mean-teacher": "finetuning.mean_teacher:MeanTeacher",
    "vat": "finetuning.vat:VAT",
    "vat-entmin": "finetuning.vat:VATEntMin",
    "uda": "finetuning.uda:UDA",
    "mixmatch": "finetuning.mixmatch:MixMatch",
    "remixmatch": "finetuning.remixmatch:ReMixMatch",
    "fixmatch-eman": "finetuning.eman:FixMatchEMAN",
    "flexmatch": "finetuning.fixmatch:FlexMatch",
    "freematch": "finetuning.fixmatch:FreeMatch",
    "softmatch": "finetuning.fixmatch:SoftMatch",
    "adamatch": "finetuning.adamatch:AdaMatch",
    "simmatch": "finetuning.simmatch:SimMatch",
    "comatch": "finetuning.comatch:CoMatch",
    "self-tuning": "finetuning.self_tuning:SelfTuning",
    "s4l-rotation": "finetuning.s4l:S4LRotation",
    "s4l-exemplar": "finetuning.s4l:S4LExemplar",
    "moam": "finetuning.moam:MOAM",
    "sscl": "finetuning.sscl:SsCL",
    "less": "finetuning.less:LESS",
    "cutmix": "finetuning.cutmix:CutMixSeg",
    "classmix": "finetuning.classmix:ClassMix",
    "clmb": "finetuning.clmb:CLMB",
    "unimatch": "finetuning.unimatch:UniMatch",
    "unimatch-v2": "finetuning.unimatch_v2:UniMatchV2",
}
FACTS = ("num_classes", "num_labeled", "num_images", "rule", "priors")  # keywords that a run fills in, not the user


class Method:
    """What a method says of itself; every Objective and every method on frozen features has these, all optional.

    name: where a class is not in the table: what it is called; "" makes a name of the class's own.
    verb: "pretrain" or "finetune". frozen: reads features of the network as it is, and trains nothing.
    paper: authors and title. year, arxiv: of the paper. needs: what it asks of a batch, beside labeled images.
    tasks: those it is for. `defaults` and `presets` (name -> settings) are settings of a run, see arguments.py, with
    its own hyperparameters under "method_args". Those of a finetuning method are its paper's, for `tasks[0]`: a run of
    another task has neither.
    prior: whether it "may" or "must" be given prior pseudo-labels (--prior), "" for a method without use for them.
    rule_class: the pseudo-label rule it is built with, of the FixMatch family.
    """

    name: ClassVar[str] = ""
    verb: ClassVar[str] = ""
    frozen: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    year: ClassVar[int] = 0
    arxiv: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    defaults: ClassVar[dict] = {}
    presets: ClassVar[dict[str, dict]] = {}
    prior: ClassVar[str] = ""
    rule_class: ClassVar[type[nn.Module] | None] = None

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """UserError for hyperparameters that do not go together, before data is read; settings: all of them."""


AnyMethod = str | type[Method] | None  # by its name or as a class; None: the task's own


def verb_of(name: str) -> str:
    """The verb of a method of the table, "pretrain" or "finetune"."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return {"pretraining": "pretrain", "finetuning": "finetune"}[METHODS[name].split(".")[0]]


def methods_for(verb: str) -> list[str]:
    """The names of all methods of a verb, in the order of the table."""
    return [name for name in METHODS if verb_of(name) == verb]


def find(name: str) -> type[Method]:
    """The class of a method. Raises UserError for a name that is not in the table."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return load(METHODS[name])


def load(path: str) -> type[Method]:
    """The class behind "module:Class" below hf_lowlabel."""
    module, cls = path.split(":")
    return getattr(importlib.import_module(f"hf_lowlabel.{module}"), cls)


def name_of(cls: type) -> str:
    """The name of a class in the table; of any other its `name`, or one made of the class's, "my-match" of MyMatch."""
    path = f"{cls.__module__.removeprefix('hf_lowlabel.')}:{cls.__name__}"
    own = vars(cls).get("name") or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()
    return next((name for name, known in METHODS.items() if known == path), own)


def hyperparameters(cls: type) -> dict[str, object]:
    """Parameters of a method and its rule by name with their defaults, without the facts that a run fills in."""
    known = keywords(cls) | keywords(getattr(cls, "rule_class", None))
    return {k: v for k, v in known.items() if k not in FACTS and v is not inspect.Parameter.empty}


def check_hyperparameters(cls: type[Method], arguments: dict) -> None:
    """Check those that a user gives a method, and the rule it is built with.

    Raises:
        UserError: for one that it does not have, a value that is not of its kind or out of its range, some that do not
            go together, or one without a default that is not given.
    """
    kinds, known = settings_of(cls.rule_class) | settings_of(cls), {**keywords(cls.rule_class), **keywords(cls)}
    check_arguments(name_of(cls), arguments, known, kinds)
    absent = [k for k, v in known.items() if v is inspect.Parameter.empty and k not in (*FACTS, *arguments)]
    if absent:
        raise UserError(f"{name_of(cls)} needs {series(absent)}. Give it by method_args, or a default in __init__.")
    cls.check({**hyperparameters(cls), **arguments})


def check_arguments(name: str, arguments: dict, known: dict[str, object], kinds: Mapping[str, Setting]) -> None:
    """Check arguments by name, kind and range.

    Args:
        name: of what takes them, for the message.
        arguments: what the user gives, name -> value.
        known: what there is, name -> default.
        kinds: what is asked of their values, where that is known.

    Raises:
        UserError: for one that there is not, or a value that is not of its kind or out of its range.
    """
    offered = {k for k in known if k not in FACTS}
    for key, value in arguments.items():
        if key not in offered:
            raise unknown(f"hyperparameter of {name}", key, offered)
        number = isinstance(value, (int, float)) and math.isfinite(value)
        if isinstance(known[key], (int, float)) and not number:
            raise UserError(f"{key} of {name} is {value!r}. Use a number such as {known[key]!r}.")
        if key in kinds:
            check_value(name, kinds[key], value)


def keywords(cls: type | None) -> dict[str, object]:
    """The parameters of a class that are told by name, name -> default, or Parameter.empty for none."""
    return {name: p.default for name, (p, _) in parameters_of(cls).items()}
