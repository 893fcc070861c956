"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685) through peft: few weights to train, an ordinary model to save.

W x + (alpha / rank) B A x,    A [rank, in] random, B [out, rank] zero at the start; W and all else but the head frozen
"""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn

from ..errors import UserError
from ..evaluation.inference import evaluating
from .adaptformer import adapted_mlps, replace, widen
from .timm_checkpoint import classifier_modules

log = logging.getLogger(__name__)


def add_lora(model: nn.Module, rank: int, alpha: float | None = None) -> nn.Module:
    """The classifier or backbone itself with adapters in its body; only they and the head take gradients from then on.

    In every linear layer of the body or, where it has none (most CNNs), every convolution that is not grouped. Layers
    whose weight the architecture reads without calling them get none. alpha: None for `rank`, a factor of 1. Raises
    UserError where peft is missing or no layer is left.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            "--lora-rank needs the package peft, which is not installed. Run pip install 'hf_lowlabel[lora]'."
        ) from error
    net, heads = model.timm_model, classifier_modules(model.timm_model)
    head = {id(m) for h in heads for m in h.modules()}
    body = {name: m for name, m in net.named_modules() if id(m) not in head}
    names = [n for n, m in body.items() if isinstance(m, nn.Linear)] or [
        n for n, m in body.items() if isinstance(m, nn.Conv2d) and m.groups == 1
    ]
    if not names:
        raise UserError(
            f"No layer of {model.config.architecture!r} takes adapters: it has neither linear layers nor plain "
            "convolutions. Leave out --lora-rank."
        )
    scale = rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, net)
    for h in heads:
        h.requires_grad_(True)
    unused = _bypassed(model)
    if len(unused) == len(names):
        raise UserError(
            f"{model.config.architecture!r} calls none of the layers that could take adapters. Leave out --lora-rank."
        )
    for name in unused:
        replace(net, name, net.get_submodule(name).get_base_layer())
    if unused:
        log.info("no adapters in %d layers that the network does not call, such as %s", len(unused), unused[0])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "adapters of rank %d in %d layers: %d of %d weights train",
        rank,
        len(names) - len(unused),
        trained,
        sum(p.numel() for p in model.parameters()),
    )
    return model


def adapted_layers(net: nn.Module) -> list[str]:
    """Names of the layers that carry adapters."""
    return [name for name, m in net.named_modules() if hasattr(m, "lora_A") and hasattr(m, "get_base_layer")]


def merged(model: nn.Module) -> nn.Module:
    """A copy with W + (alpha / rank) B A in place of each adapted layer, and AdaptFormer's branches in their MLPs.

    The model itself where there are neither.
    """
    if not adapted_layers(model) and not adapted_mlps(model):
        return model
    out = copy.deepcopy(model)
    widen(out)
    for name in adapted_layers(out):
        layer = out.get_submodule(name)
        layer.merge()
        replace(out, name, layer.get_base_layer())
    return out


def _bypassed(model: nn.Module) -> list[str]:
    """Adapted layers that a forward pass gives no gradient: the architecture reads their weight itself (BEiT, EVA)."""
    with evaluating(model), torch.enable_grad():
        x = torch.zeros(1, *model.preprocessing["input_size"])
        (model.pooled(x) if hasattr(model, "pooled") else model(x).logits).sum().backward()
    net = model.timm_model
    names = [n for n in adapted_layers(net) if all(p.grad is None for p in net.get_submodule(n).lora_B.parameters())]
    model.zero_grad(set_to_none=True)
    return names
