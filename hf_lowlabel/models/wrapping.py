"""A timm module (or one of our models) that somebody made in Python, as a checkpoint."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..text import in_memory
from .checkpoint_resolver import Checkpoint, check_architecture
from .timm_checkpoint import check_interface, classifier_modules, head_names, timm_names

SAME = 1e-5  # of the largest feature: rounding of one network on one processor
KEEPS = "make it by create_classifier or create_backbone with model_args={...}, which keeps its arguments"


def timm_module(module: nn.Module) -> nn.Module:
    """The timm network inside: of a model of ours, of transformers' TimmWrapper, of torch.compile, or the module
    itself."""
    net = getattr(module, "timm_model", module)
    return getattr(net, "_orig_mod", net)


def checkpoint_of(module: nn.Module) -> Checkpoint:
    """What a module says of itself, with its tensors.

    Args:
        module: of timm, a model of ours, or a TimmWrapper of transformers.

    Raises:
        UserError: it was not made by timm, gives maps of features alone, or does not see red, green and blue.
    """
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    net, source = timm_module(module), in_memory(module)
    config: Any = getattr(module, "config", None) if net is not module else None
    cfg = getattr(config, "pretrained_cfg", None) or getattr(net, "pretrained_cfg", None) or {}
    cfg = dict(cfg) if isinstance(cfg, dict) else cfg.to_dict()
    name = getattr(config, "architecture", None) or cfg.get("architecture")
    if not name:
        raise UserError(
            f"An object of {type(module).__name__} cannot be the model of a run. Give a timm name, a folder, a Hub id, "
            "or what timm.create_model, create_classifier or create_backbone made. Register your own network with "
            "timm: the README shows how under In Python."
        )
    if not (hasattr(net, "num_classes") and hasattr(net, "forward_head")):  # timm's FeatureListNet and the like
        raise UserError(
            f"{source[0].upper()}{source[1:]} has no head, as timm makes it for maps of features. Give it as "
            "timm.create_model makes it without features_only."
        )
    check_interface(net, source)
    if (channels := getattr(net, "in_chans", 3)) != 3:
        raise UserError(f"The network of {source} sees {channels} channels. Take one of red, green and blue.")
    args = dict(getattr(config, "model_args", None) or {})
    check_architecture(name, args, source)
    side = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if side is not None and config is None:
        cfg["input_size"] = [3, *side]  # of which its positions are
    state = {k: v.detach().cpu() for k, v in timm_names(net.state_dict()).items()}
    classes = {state[k].shape[0] for k in head_names(net) if state[k].dim() > 1}
    given = cfg.get("label_names") or () if config is None else getattr(config, "id2label", None) or {}
    named = [given[k] for k in (given if config is None else sorted(given))] if isinstance(given, dict) else [*given]
    names = [str(name) for name in named] if {len(named)} == classes else None
    if names == [f"LABEL_{i}" for i in range(len(named))]:
        names = None
    count = classes.pop() if len(classes) == 1 else 0
    return Checkpoint(source, name, cfg, args, count, names, None, module=module, state=state)


@torch.no_grad()
def check_same(module: nn.Module, twin: nn.Module, side: list[int], source: str) -> None:
    """Whether a network built again from what `checkpoint_of` knows computes what the module does.

    Args:
        module: as it was given.
        twin: the timm network built again, with the module's tensors.
        side: (height, width) in px of the images both see.
        source: what to call the module, for errors.

    Raises:
        UserError: features differ, or the module has dropout that its twin has not. timm keeps no arguments.
    """
    lost = sorted(k for k, p in _dropped(timm_module(module)).items() if _dropped(twin).get(k) != p)
    if lost:
        raise UserError(
            f"{source[0].upper()}{source[1:]} has dropout at {', '.join(lost[:3])} that timm does not give it by its "
            f"name, and that a run would lose. Leave it out, or {KEEPS}."
        )
    x = torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(0))
    try:
        given = copy.deepcopy(timm_module(module)).float().cpu().to(memory_format=torch.contiguous_format).eval()
        theirs = _pooled(_stirred(given), x)
    except Exception as error:  # whatever a network that somebody has changed raises
        raise UserError(
            f"{source[0].upper()}{source[1:]} gives no features ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Give it as timm.create_model makes it."
        ) from error
    ours = _pooled(_stirred(twin.eval()), x)
    near = SAME * float(ours.nan_to_num().abs().max())
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=0, atol=near, equal_nan=True):
        raise UserError(
            f"The features of {source} are not those of the network that timm builds by its name, so that a run would "
            f"train another network: it was made with arguments of its own, or was changed. Give it as "
            f"timm.create_model makes it without further arguments, or {KEEPS}."
        )


def _stirred(net: nn.Module) -> nn.Module:
    """With the same noise on gains and biases: those that begin at zero hide the layers before them."""
    noise, head = torch.Generator().manual_seed(0), head_names(net)
    for name, p in sorted(net.named_parameters()):
        if name not in head and p.numel() == max(p.shape, default=1):
            p.add_(torch.randn(p.shape, generator=noise), alpha=0.1)
    return net


def _pooled(net: Any, x: Tensor) -> Tensor:
    return net.forward_head(net.forward_features(x), pre_logits=True)


def _dropped(net: nn.Module) -> dict[str, float]:
    """Place of every dropout and drop path before the classifier -> its rate, where it has one."""
    found, heads = {}, {id(m) for head in classifier_modules(net) for m in head.modules()}
    for name, module in net.named_modules():
        if id(module) in heads:
            continue
        for key in ("p", "drop_prob", "drop_rate"):
            rate = getattr(module, key, None)
            if (
                isinstance(rate, float)
                and rate > 0
                and (key != "p" or isinstance(module, nn.modules.dropout._DropoutNd))
            ):
                found[f"{name}.{key}" if name else key] = rate
    return found
