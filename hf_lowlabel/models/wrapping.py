"""A timm module (or one of our models) that somebody made in Python, as the start of a run."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import UserError
from .backbone import LowLabelBackbone
from .loading import LoadReport, create_backbone
from .timm_checkpoint import head_names


def timm_module(module: nn.Module) -> nn.Module:
    """The timm network inside: of a model of ours, of transformers' TimmWrapper, or the module itself."""
    return getattr(module, "timm_model", module)


def name_of_module(module: nn.Module) -> str:
    """The timm architecture that a module is of.

    Raises:
        UserError: it was not made by timm.
    """
    cfg = getattr(timm_module(module), "pretrained_cfg", None) or {}
    name = cfg.get("architecture") if isinstance(cfg, dict) else getattr(cfg, "architecture", None)
    if not name:
        raise UserError(
            f"An object of {type(module).__name__} cannot be the model of a run. Give a timm name, a folder, a Hub id, "
            "a module that timm.create_model made, or a model that create_classifier or create_backbone made."
        )
    return str(name)


def encoder_of_module(module: nn.Module) -> LowLabelBackbone:
    """A backbone of the same architecture with the weights of a timm module.

    Raises:
        UserError: it was not made by timm.
    """
    backbone = create_backbone(name_of_module(module), pretrained=False)
    fill_from_module(backbone, module)
    return backbone


def fill_from_module(model: Any, module: nn.Module) -> None:
    """Copy the tensors of a timm module into a model of the same architecture; a head of another size stays fresh.

    Raises:
        UserError: more than the head does not fit.
    """
    net, state = model.timm_model, timm_module(module).state_dict()
    target = net.state_dict()
    used = {k: v for k, v in state.items() if k in target and target[k].shape == v.shape}
    missing = [k for k in target if k not in used]
    strange = [k for k in missing if k not in head_names(net)]
    if strange:
        raise UserError(
            f"The {type(module).__name__} does not fit {model.config.architecture!r} as timm builds it by name: it has "
            f"no {', '.join(strange[:4])}. Give it to timm.create_model without further arguments, or save it and "
            "give the folder."
        )
    net.load_state_dict(used, strict=False)
    model.load_report = LoadReport(
        f"a {type(module).__name__} in memory",
        matched=list(used),
        missing=missing,
        unexpected=[k for k in state if k not in used],
        head="none" if not head_names(net) else "fresh" if missing else "kept",
    )
