"""From a name to a model, with a report of what was loaded into it."""

from __future__ import annotations

import logging
import numbers
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TimmWrapperConfig

from ..errors import UserError
from ..files import is_json, verify
from ..text import brief, warn
from .backbone import LowLabelBackbone
from .checkpoint_resolver import Checkpoint, locate
from .classifier import LowLabelForImageClassification
from .saved_models import refuse_spoiled
from .timm_checkpoint import head_names, head_shapes, saved_cfg, timm_names
from .transformers_layout import read_encoder
from .translation_own import own_names
from .wrapping import KEEPS, check_same, checkpoint_of, timm_module

log = logging.getLogger(__name__)
NAMED_BY = 'pretrained_cfg["label_names"] of the module'


@dataclass
class LoadReport:
    """What went from a checkpoint into a model: names of tensors in timm's naming."""

    source: str  # a timm name with tag, Hub id or folder; "random weights (...)" without a checkpoint
    revision: str | None = None  # commit of the Hub repository the weights came from
    license: str | None = None  # of the weights, as their pretrained_cfg states it
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # kept their fresh initialisation
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, not used
    head: str = "none"  # "kept", "fresh" or "none"

    def __str__(self) -> str:
        head = {"kept": ", with their head", "fresh": ", and a new head", "none": ""}[self.head]
        return f"weights of {self.source}{head}" if self.matched else self.source

    def tell(self) -> None:
        """Log where the weights are from, and for who asks for it (logging.DEBUG) which tensors."""
        log.info("%s", self)
        for what, names in (("loaded", self.matched), ("new", self.missing), ("not used", self.unexpected)):
            log.debug("%d tensors of %s %s: %s", len(names), self.source, what, ", ".join(names))


def create_classifier(
    name: str | os.PathLike[str] | nn.Module,
    num_labels: int,
    *,
    pretrained: bool = True,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    drop_rate: float | None = None,
    revision: str | None = None,
    model_args: dict | None = None,
) -> LowLabelForImageClassification:
    """A float32 classifier of `num_labels` classes; `model.load_report` says what was loaded.

    name: a timm name (`resnet18`, `resnet18.a1_in1k`), a Hub id (`org/name`, `hf_hub:org/name`), a local folder, ours
    or in timm's layout, a finished run, or a module of timm or a model of ours, whose tensors are copied. The body is
    loaded; the head too when the checkpoint has one of the same size and, where `class_names` are given, the same names
    in the same order; otherwise it is fresh. A module of timm says its names by `module.pretrained_cfg["label_names"]`,
    if at all: without them its head may be a random one, or of other classes. `image_size` (px), `mean`, `std`,
    `crop_pct` (share of the short side that evaluation keeps) and `interpolation` replace the checkpoint's own values.
    pretrained=False: `name` is an architecture and the weights are random. revision: commit, tag or branch of a Hub id.
    drop_rate: dropout before the last layer (None: the checkpoint's own); model_args: further arguments of the
    architecture, saved with the model.
    """
    names = _check_classes(num_labels, class_names)
    found = _find(name, pretrained, revision)
    if found.filled and found.module is not None and not found.num_classes and head_names(timm_module(found.module)):
        warn(
            f"The head of {found.source} is not kept, since its layers are not those of {found.architecture} in timm: "
            f"that of the {num_labels} classes is fresh."
        )
    kept = found.filled and found.num_classes == num_labels and names in (None, found.label_names)
    if (
        found.filled
        and found.module is not None
        and found.num_classes == num_labels
        and not (kept or found.label_names)
    ):
        log.info(
            "the head of %s is not kept: it does not say which class each of its outputs is. Where it was trained on "
            "these classes in this order, put their names into %s first",
            found.source,
            NAMED_BY if timm_module(found.module) is found.module else "config.id2label of the model",
        )
    # a kept head without names: None lets transformers recognise ImageNet's classes
    names = names or (found.label_names if kept else [f"LABEL_{i}" for i in range(num_labels)])
    args = {**(model_args or {}), **({} if drop_rate is None else {"drop_rate": drop_rate})}
    config = _config(
        found, num_labels, names, args, image_size, mean=mean, std=std, crop_pct=crop_pct, interpolation=interpolation
    )
    return _told(_fill(_construct(LowLabelForImageClassification, config, found.source), found, keep_head=kept))


def create_backbone(
    name: str | os.PathLike[str] | nn.Module,
    *,
    pretrained: bool = True,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    output_stride: int | None = None,
    any_size: bool = False,
    trained_size: bool = False,
    revision: str | None = None,
    model_args: dict | None = None,
) -> LowLabelBackbone:
    """A float32 encoder without classes; `model.load_report` says what was loaded.

    name, pretrained, image_size, mean, std, crop_pct, interpolation, revision, model_args: as in `create_classifier`.
    output_stride: px of the image per cell of the last map (8, 16 or 32), for convolutional networks that timm can
    dilate. It is saved with the model; smp, which dilates by itself, takes only a folder of stride 32 as encoder.
    any_size: it takes images of other sizes than image_size too; a transformer interpolates its positions for them.
    trained_size: where no image_size is given, positions stay those that were trained, whatever size the repository's
    processor makes of an image: for dense tasks at sizes of their own.
    """
    found = _find(name, pretrained, revision)
    if trained_size and image_size is None and found.translation is not None and found.translation.positions:
        image_size = found.translation.image_size
    args = {**(model_args or {}), **({"output_stride": output_stride} if output_stride else {})}
    if any_size and found.cfg.get("fixed_input_size"):
        side = image_size or found.cfg["input_size"][-1]
        args = {"img_size": [side, side], **args, "dynamic_img_size": True}
    config = _config(found, 0, [], args, image_size, mean=mean, std=std, crop_pct=crop_pct, interpolation=interpolation)
    return _told(_fill(_construct(LowLabelBackbone, config, found.source), found, keep_head=False))


def _find(name: str | os.PathLike[str] | nn.Module, pretrained: bool, revision: str | None) -> Checkpoint:
    if isinstance(name, (str, os.PathLike)):
        return locate(os.fspath(name), pretrained, revision)  # of a finished run its folder
    found = checkpoint_of(name)
    count = found.num_classes
    config = _config(found, count, [f"LABEL_{i}" for i in range(count)], {}, None)
    made = LowLabelForImageClassification if count else LowLabelBackbone
    twin = _fill(_construct(made, config, found.source), found, keep_head=False)
    check_same(name, twin.timm_model, twin.preprocessing["input_size"][1:], found.source)
    if head_shapes(twin.timm_model) != head_shapes(timm_module(name)):  # somebody's own head
        found = replace(found, num_classes=0)
    return found if pretrained else replace(found, state=None, source=f"random weights ({found.architecture})")


def _told(model):
    if model.load_report.matched:
        model.load_report.tell()
    return model


def check_count(num_labels: int) -> None:
    """UserError for what is no number of classes, such as their names."""
    if not isinstance(num_labels, numbers.Integral) or num_labels < 1:
        raise UserError(
            f"num_labels={brief(num_labels)} is no number of classes. Give 1 or more, and their names as class_names."
        )


def _check_classes(num_labels: int, class_names: Sequence[str] | None) -> list[str] | None:
    check_count(num_labels)
    if class_names is None:
        return None
    names = [str(n) for n in class_names]
    if len(names) != num_labels:
        raise UserError(
            f"There are {len(names)} class names for {num_labels} classes. Give as many names as num_labels."
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"Class names occur twice ({', '.join(twice[:5])}). Give every class a name of its own.")
    return names


def _config(
    found: Checkpoint, num_labels: int, names: list[str] | None, args: dict, image_size: int | None, **preprocessing
) -> TimmWrapperConfig:
    cfg = saved_cfg(found.cfg, weights=found.filled)
    if image_size is not None:
        if image_size < 1:
            raise UserError(f"image_size={image_size} is no size in px. Give a positive number.")
        cfg["input_size"] = [3, image_size, image_size]
        cfg.pop("pool_size", None)
    for key, value in preprocessing.items():
        if value is None:
            continue
        if key in ("mean", "std"):
            value = [float(v) for v in value]
            if len(value) != 3:
                raise UserError(f"There are {len(value)} numbers for {key}. Give three: red, green, blue.")
        cfg[key] = value
    if cfg.get("crop_mode") not in (None, "center", "squash"):
        raise UserError(
            f"The preprocessing of {found.source} keeps photos whole inside a {cfg['crop_mode']}, which is not known "
            "here. Take another model."
        )
    args = {**found.model_args, **args}
    for channels in (args.get("in_chans", 3), (found.cfg.get("input_size") or [3])[0]):
        if channels != 3:
            raise UserError(f"The network of {found.source} sees {channels} channels. Take one of red, green and blue.")
    args = {k: v for k, v in args.items() if k not in ("num_classes", "features_only", "out_indices")}
    if cfg.get("fixed_input_size") and not args.get("dynamic_img_size"):
        args["img_size"] = cfg["input_size"][1:]  # AutoModel builds from the name and these arguments alone
    if cfg.get("global_pool"):
        args.setdefault("global_pool", cfg["global_pool"])
    if odd := [key for key, value in args.items() if not is_json(value)]:
        raise UserError(
            f"The argument {odd[0]} of the network is {args[odd[0]]!r}, which is no JSON. Give its name in "
            'timm, such as "relu", or numbers and texts.'
        )
    saved = {"architecture": found.architecture, "num_classes": num_labels, "model_args": args, "pretrained_cfg": cfg}
    return TimmWrapperConfig.from_dict({**saved, "label_names": names} if names is not None else saved)


def _construct(cls, config: TimmWrapperConfig, source: str):
    try:
        return cls(config)
    except UserError:
        raise
    except Exception as error:  # whatever timm raises for arguments an architecture does not take
        raise UserError(
            f"timm cannot build {config.architecture!r} from {source} with the arguments {config.model_args} "
            f"({type(error).__name__}: {error}). Drop those that the architecture does not take, or take another image "
            "size or output stride."
        ) from error


def _fill(model, found: Checkpoint, *, keep_head: bool):
    """The model with the checkpoint's tensors in its network, and the report; everything but the head has to fit."""
    net = model.timm_model
    head, target = head_names(net), net.state_dict()
    if not found.filled:
        model.load_report = LoadReport(found.source, missing=list(target), head="fresh" if head else "none")
        return model
    source = _source_network(found, model.config.model_args, keep_head)
    state, dropped = source.state_dict(), set() if keep_head else head_names(source)
    used = {k: v for k, v in state.items() if k not in dropped and k in target and target[k].shape == v.shape}
    missing = [k for k in target if k not in used]
    strange = [k for k in missing if k not in head]
    if strange:
        raise UserError(
            f"{found.source} has no weights for {', '.join(strange[:4])} of {found.architecture}. Check that its "
            "config.json and model.safetensors belong together."
        )
    net.load_state_dict(used, strict=False)
    # the Hub's cache has one folder per commit
    commit = re.fullmatch("[0-9a-f]{40}", found.weights.parent.name) if found.weights else None
    model.load_report = LoadReport(
        found.source,
        commit and commit[0],
        found.cfg.get("license") if found.weights else None,
        list(used),
        missing,
        unexpected=[k for k in found.state or state if k not in used],
        head=("fresh" if missing else "kept") if head else "none",
    )
    return model


def _source_network(found: Checkpoint, args: dict, keep_head: bool) -> nn.Module:
    """The checkpoint with its own classes, loaded strictly by timm, which adapts positions to the image size; without
    them where it is a module, whose head may be any."""
    state = found.state if found.state is not None else _read(found, args)
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    refuse_spoiled(state, found.source)
    _refuse_whole_numbers(state, found.source)
    if found.translation is not None:
        try:
            state = found.translation.apply(state, found.source, args.get("img_size"))
        except (RuntimeError, IndexError) as error:  # tensors of other shapes
            raise _unfit(found, error) from error
    classes = found.num_classes if _has_head(found, state) else 0
    if found.module is not None and not keep_head:
        classes, dropped = 0, head_names(timm_module(found.module))
        state = {k: v for k, v in state.items() if k not in dropped}
    args = {k: v for k, v in args.items() if k != "drop_rate"}
    cfg = {k: v for k, v in found.cfg.items() if not k.startswith(("url", "file", "hf_hub", "source", "custom_load"))}
    cfg.update(architecture=found.architecture, num_classes=classes, state_dict=state)
    try:
        return timm.create_model(found.architecture, pretrained=True, pretrained_cfg=cfg, num_classes=classes, **args)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise _unfit(found, error) from error


def _unfit(found: Checkpoint, error: Exception) -> UserError:
    detail = " ".join(str(error).split())[:300]
    advice = (
        "Check that config.json and model.safetensors belong together, or keep the image size."
        if found.module is None
        else f"Give it as timm.create_model makes it without further arguments, or {KEEPS}."
    )
    return UserError(f"The weights in {found.source} do not fit {found.architecture} ({detail}). {advice}")


def _refuse_whole_numbers(state: dict[str, Tensor], source: str) -> None:
    """Raises UserError for weights in whole numbers, which mean nothing without the scales of whoever made them."""
    whole = [
        k
        for k, v in state.items()
        if v.dtype in (torch.int8, torch.uint8) or not v.is_floating_point() and k.endswith(("weight", "bias"))
    ]
    if whole:
        raise UserError(
            f"The weights in {source} are whole numbers ({state[whole[0]].dtype}: {', '.join(whole[:3])}), as "
            "quantised networks have them. Take the model in floating point."
        )


def _read(found: Checkpoint, args: dict) -> dict[str, Tensor]:
    """The tensors of a file: under timm's names, or those of a repository whose translation is known."""
    try:
        verify(found.weights)
        if found.translation is not None:
            return read_encoder(found.weights, found.translation, found.source)
        state = timm_names(load_file(found.weights))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"There is a damaged model.safetensors in {found.source} ({error}). Copy or download it again."
        ) from error
    return own_names(state, args["encoder_config"], found.source) if "encoder_config" in args else state


def _has_head(found: Checkpoint, state: dict[str, Tensor]) -> bool:
    names = found.cfg.get("classifier")
    if not found.num_classes or not names:
        return bool(found.num_classes)
    names = (names,) if isinstance(names, str) else tuple(names)
    return any(k.startswith(f"{n}.") for k in state for n in names)
