"""From a name to a model: timm names, Hub ids and local folders, safetensors only, with a report of what was loaded."""
from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TimmWrapperConfig

from ..errors import UserError, unknown
from .backbone import LowLabelBackbone
from .classifier import LowLabelForImageClassification
from .timm_checkpoint import find_weights, head_names, saved_cfg, timm_names

log = logging.getLogger(__name__)
HUB_PREFIXES = ("hf_hub:", "hf-hub:")


@dataclass
class LoadReport:
    """What went from a checkpoint into a model: names of tensors in timm's naming."""

    source: str  # a timm name with tag, Hub id or folder; "random weights (...)" without a checkpoint
    license: str | None = None  # of the weights, as their pretrained_cfg states it
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # kept their fresh initialisation
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, not used
    head: str = "none"  # "kept", "fresh" or "none"

    def __str__(self) -> str:
        def names(items: list[str]) -> str:
            return f" ({', '.join(items[:4])}{', ...' if len(items) > 4 else ''})" if items else ""
        return (f"{self.source}: {len(self.matched)} tensors loaded, {len(self.missing)} fresh{names(self.missing)}, "
                f"{len(self.unexpected)} not used{names(self.unexpected)}; head: {self.head}")


@dataclass
class Checkpoint:
    """Where a name leads: an architecture, how it was built, and its weights if there are any."""

    source: str
    architecture: str
    cfg: dict  # timm's pretrained_cfg
    model_args: dict
    num_classes: int  # of the checkpoint; 0 without a head
    label_names: list[str] | None
    weights: Path | None


def create_classifier(name: str, num_labels: int, *, pretrained: bool = True, class_names: Sequence[str] | None = None,
                      image_size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                      crop_pct: float | None = None, interpolation: str | None = None, drop_rate: float = 0.0,
                      revision: str | None = None, model_args: dict | None = None) -> LowLabelForImageClassification:
    """A float32 classifier of `num_labels` classes; `model.load_report` says what was loaded.

    name: a timm name (`resnet18`, `resnet18.a1_in1k`), a Hub id (`org/name`, `hf_hub:org/name`) or a local folder, ours or
    in timm's layout. The body is loaded; the head too when the checkpoint has one of the same size and, where both are
    known, the same class names in the same order; otherwise it is fresh. `image_size` (px), `mean`, `std`, `crop_pct`
    (share of the short side that evaluation keeps) and `interpolation` replace the checkpoint's preprocessing.
    drop_rate: dropout before the last layer; model_args: further arguments of the architecture, saved with the model.
    """
    names = _check_classes(num_labels, class_names)
    found = _locate(name, pretrained, revision)
    kept = found.weights is not None and found.num_classes == num_labels and (
        names is None or found.label_names is None or names == found.label_names)
    # a kept head without names: None lets transformers recognise ImageNet's classes
    names = names or (found.label_names if kept else [f"LABEL_{i}" for i in range(num_labels)])
    args = {**(model_args or {}), **({"drop_rate": drop_rate} if drop_rate else {})}
    config = _config(found, num_labels, names, args, image_size, mean, std, crop_pct, interpolation)
    model = _construct(LowLabelForImageClassification, config, found.source)
    model.load_report = _fill(model, found, keep_head=kept)
    return model


def create_backbone(name: str, *, pretrained: bool = True, image_size: int | None = None, mean: Sequence[float] | None = None,
                    std: Sequence[float] | None = None, crop_pct: float | None = None, interpolation: str | None = None,
                    output_stride: int | None = None, revision: str | None = None,
                    model_args: dict | None = None) -> LowLabelBackbone:
    """A float32 encoder without classes; names and preprocessing as in `create_classifier`.

    output_stride: px of the image per cell of the last map (8, 16 or 32), for convolutional networks that timm can dilate.
    """
    found = _locate(name, pretrained, revision)
    args = {**(model_args or {}), **({"output_stride": output_stride} if output_stride else {})}
    config = _config(found, 0, [], args, image_size, mean, std, crop_pct, interpolation)
    model = _construct(LowLabelBackbone, config, found.source)
    model.load_report = _fill(model, found, keep_head=False)
    return model


def _check_classes(num_labels: int, class_names: Sequence[str] | None) -> list[str] | None:
    if num_labels < 1:
        raise UserError(f"found num_labels={num_labels}; expected at least 1; fix: give the number of classes")
    if class_names is None:
        return None
    names = [str(n) for n in class_names]
    if len(names) != num_labels:
        raise UserError(f"found {len(names)} class names for {num_labels} classes; expected one name per class; "
                        "fix: give as many names as num_labels")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"found class names that occur twice: {', '.join(twice[:5])}; expected unique names; fix: rename them")
    return names


# ---- where a name leads ---------------------------------------------------------------------------------------------

def _locate(name: str, pretrained: bool, revision: str | None) -> Checkpoint:
    name = str(name)
    local = name.removeprefix("local-dir:")
    if os.path.isdir(local):
        config = _read_config(Path(local, "config.json"), local)
        return _from_config(config, local, find_weights(local) if pretrained else None)
    if local != name or local.startswith((".", "~", os.sep)) or os.path.exists(local):
        raise UserError(f"found no folder {local!r}; expected one with config.json and model.safetensors; fix: check the path")
    if name.startswith(HUB_PREFIXES) or "/" in name:
        repo = next((name.removeprefix(p) for p in HUB_PREFIXES if name.startswith(p)), name)
        repo, _, at = repo.partition("@")  # timm writes hf_hub:org/name@revision
        revision = revision or at or None
        config = _read_config(Path(_download(repo, ["config.json"], revision)), repo)
        return _from_config(config, repo, Path(_download(repo, ["model.safetensors"], revision)) if pretrained else None)
    return _from_timm(name, pretrained)


def _from_timm(name: str, pretrained: bool) -> Checkpoint:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown("model", name, timm.list_models())
    tagged = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tagged:
        raise unknown(f"weights of {architecture}", tag, tagged)
    cfg = timm.get_pretrained_cfg(name).to_dict()
    weights, source = None, f"random weights ({architecture})"
    if pretrained:
        if not cfg.get("hf_hub_id"):
            raise UserError(f"found no safetensors weights of {name!r} on the Hub; expected a pretrained timm model; "
                            "fix: start from scratch (pretrained=False, --from-scratch) or give another model or a folder")
        other = cfg.get("hf_hub_filename")  # open_clip repositories have their own name for it
        wanted = [str(Path(other).with_suffix(".safetensors")), other.replace("pytorch_model.bin", "model.safetensors")] if other else []
        weights = Path(_download(cfg["hf_hub_id"], [*wanted, "model.safetensors"], None))
        source = ".".join(filter(None, [architecture, cfg.get("tag")]))
    return Checkpoint(source, architecture, cfg, {}, cfg.get("num_classes", 0), None, weights)


def _from_config(config: dict, source: str, weights: Path | None) -> Checkpoint:
    if "architecture" not in config:
        kind = config.get("model_type", "unknown")
        raise UserError(f"found a checkpoint of type {kind!r} in {source}; expected timm's layout ('architecture' in config.json); "
                        "fix: take a timm model, for example timm/resnet18.a1_in1k")
    if not timm.is_model(config["architecture"]):
        raise unknown(f"architecture in {source}", config["architecture"], timm.list_models())
    cfg = dict(config.get("pretrained_cfg") or config)
    if "pretrained_cfg" not in config:  # timm's early layout has one level
        known = timm.models.PretrainedCfg.__dataclass_fields__
        cfg = {k: v for k, v in cfg.items() if k in known}
    names = config.get("label_names") or cfg.get("label_names")
    names = list(names.values()) if isinstance(names, dict) else names
    classes = config.get("num_classes", cfg.get("num_classes", 0))
    origin = source if weights else f"random weights ({config['architecture']})"
    return Checkpoint(origin, config["architecture"], cfg, dict(config.get("model_args") or {}), classes, names or None, weights)


def _read_config(path: Path, source: str) -> dict:
    if not path.is_file():
        raise UserError(f"found no config.json in {source}; expected a saved model; fix: give the folder save_pretrained wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"found a damaged config.json in {source} ({error}); expected JSON; fix: save the model again") from error
    if not isinstance(config, dict):
        raise UserError(f"found a config.json in {source} that is no mapping; expected one; fix: save the model again")
    return config


def _download(repo: str, candidates: list[str], revision: str | None) -> str:
    """The first of the files that the Hub repository has; all are JSON or safetensors."""
    for filename in candidates:
        try:
            return hf_hub_download(repo, filename, revision=revision)
        except LocalEntryNotFoundError as error:
            raise UserError(f"found no cached {filename} of {repo}, and the Hub cannot be reached; expected either; fix: connect, "
                            "or give a local folder, or start from scratch (pretrained=False, --from-scratch)") from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"found no model {repo!r} on the Hub ({first}); expected a public id or one you have access to; "
                            "fix: check the spelling, log in with `hf auth login`, or give a timm name or a folder") from error
    raise UserError(f"found no {candidates[-1]} in {repo}; expected safetensors weights and timm's config.json; pickled weights are "
                    "never opened; fix: take a repository with safetensors, or convert it at https://huggingface.co/spaces/safetensors/convert")


# ---- the model ------------------------------------------------------------------------------------------------------

def _config(found: Checkpoint, num_labels: int, names: list[str] | None, args: dict, image_size: int | None,
            mean: Sequence[float] | None, std: Sequence[float] | None, crop_pct: float | None,
            interpolation: str | None) -> TimmWrapperConfig:
    cfg = saved_cfg(found.cfg)
    if image_size is not None:
        if image_size < 1:
            raise UserError(f"found image_size={image_size}; expected a size in px; fix: give a positive number")
        cfg["input_size"] = [3, image_size, image_size]
        cfg.pop("pool_size", None)
    for key, value in (("mean", mean), ("std", std)):
        if value is not None:
            if len(value) != 3:
                raise UserError(f"found {len(value)} numbers for {key}; expected 3, for red, green and blue; fix: give three")
            cfg[key] = [float(v) for v in value]
    cfg.update({k: v for k, v in (("crop_pct", crop_pct), ("interpolation", interpolation)) if v is not None})
    args = {k: v for k, v in {**found.model_args, **args}.items() if k not in ("num_classes", "features_only", "out_indices")}
    if cfg.get("fixed_input_size") and not args.get("dynamic_img_size"):
        args["img_size"] = cfg["input_size"][1:]  # AutoModel builds from the name and these arguments alone
    if cfg.get("global_pool"):
        args.setdefault("global_pool", cfg["global_pool"])
    saved = {"architecture": found.architecture, "num_classes": num_labels, "model_args": args, "pretrained_cfg": cfg}
    return TimmWrapperConfig.from_dict({**saved, "label_names": names} if names is not None else saved)


def _construct(cls, config: TimmWrapperConfig, source: str):
    try:
        return cls(config)
    except UserError:
        raise
    except Exception as error:  # whatever timm raises for arguments an architecture does not take
        raise UserError(f"found arguments {config.model_args} for {config.architecture!r} ({source}), with which timm cannot build it "
                        f"({type(error).__name__}: {error}); expected arguments of that architecture; fix: another image size or "
                        "output stride") from error


def _fill(model, found: Checkpoint, *, keep_head: bool) -> LoadReport:
    """Copies the checkpoint's tensors into the model's network; everything but the head has to fit."""
    net = model.timm_model
    head = head_names(net)
    if found.weights is None:
        return LoadReport(found.source, missing=list(net.state_dict()), head="fresh" if head else "none")
    source = _source_network(found, model.config.model_args)
    state, dropped = source.state_dict(), set() if keep_head else head_names(source)
    target = net.state_dict()
    used = {k: v for k, v in state.items() if k not in dropped and k in target and target[k].shape == v.shape}
    missing = [k for k in target if k not in used]
    strange = [k for k in missing if k not in head]
    if strange:
        raise UserError(f"found no weights for {', '.join(strange[:5])} in {found.source}; expected all of {found.architecture} but "
                        "its head; fix: check that config.json and model.safetensors belong together")
    net.load_state_dict(used, strict=False)
    kind = "none" if not head else "kept" if not head & set(missing) else "fresh"
    report = LoadReport(found.source, found.cfg.get("license"), list(used), missing, [k for k in state if k not in used], kind)
    log.info("%s", report)
    return report


def _source_network(found: Checkpoint, args: dict) -> nn.Module:
    """The checkpoint in its own number of classes, loaded strictly by timm, which also adapts positions to the image size."""
    state = timm_names(load_file(found.weights))
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    classes = found.num_classes if _has_head(found, floats) else 0
    args = {k: v for k, v in args.items() if k != "drop_rate"}
    cfg = {k: v for k, v in found.cfg.items() if k not in ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "custom_load")}
    cfg.update(architecture=found.architecture, num_classes=classes, state_dict=floats)
    try:
        return timm.create_model(found.architecture, pretrained=True, pretrained_cfg=cfg, num_classes=classes, **args)
    except (RuntimeError, KeyError) as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(f"found weights in {found.source} that do not fit {found.architecture} ({detail}); expected every tensor; "
                        "fix: check that config.json and model.safetensors belong together") from error


def _has_head(found: Checkpoint, state: dict[str, Tensor]) -> bool:
    names = found.cfg.get("classifier")
    if not found.num_classes or not names:
        return bool(found.num_classes)
    names = (names,) if isinstance(names, str) else tuple(names)
    return any(k.startswith(f"{n}.") for k in state for n in names)
