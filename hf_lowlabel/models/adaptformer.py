"""AdaptFormer (Chen et al. 2022, arXiv 2205.13535, Eq. 3-4): a narrow branch beside every MLP of a transformer.

    x <- x + MLP(LN(x)) + s act(LN(x) W_down) W_up,    s = 0.1, W_up = 0 at the start; all else but the head frozen

The paper's act is ReLU. Here it is the MLP's own, so that the branch is a few more units of its hidden layer:

    fc1' = [fc1; W_down],   fc2' = [fc2, s W_up]

and the model that is saved is an ordinary one with a larger `mlp_ratio`.
"""

from __future__ import annotations

import logging
import math

import timm
import torch
from timm.layers import Mlp
from torch import Tensor, nn

from ..errors import UserError
from .timm_checkpoint import classifier_modules

log = logging.getLogger(__name__)
SCALE = 0.1  # s


class AdaptedMlp(nn.Module):
    """`mlp` and its branch of `width` units."""

    def __init__(self, mlp: Mlp, width: int):
        super().__init__()
        self.mlp = mlp
        self.down = nn.Linear(mlp.fc1.in_features, width)
        self.up = nn.Linear(width, mlp.fc2.out_features)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + SCALE * self.up(self.mlp.act(self.down(x)))

    @torch.no_grad()
    def widened(self) -> Mlp:
        """The MLP with the branch among its hidden units."""
        mlp, fc1, fc2 = self.mlp, self.mlp.fc1, self.mlp.fc2
        bias1, bias2 = (fc.weight.new_zeros(len(fc.weight)) if fc.bias is None else fc.bias for fc in (fc1, fc2))
        weights = torch.cat([fc1.weight, self.down.weight]), torch.cat([fc2.weight, SCALE * self.up.weight], 1)
        biases = torch.cat([bias1, self.down.bias]), bias2 + SCALE * self.up.bias
        mlp.fc1, mlp.fc2 = (nn.Linear(w.shape[1], w.shape[0]).to(w) for w in weights)
        for fc, weight, bias in zip((mlp.fc1, mlp.fc2), weights, biases, strict=True):
            fc.weight.copy_(weight)
            fc.bias.copy_(bias)
        return mlp


def plain_mlps(model: nn.Module) -> list[str]:
    """Names of the MLPs that can be widened."""
    net = model.timm_model
    names = [name for name, m in net.named_modules() if type(m) is Mlp and type(m.fc1) is nn.Linear]
    return [name for name in names if isinstance(net.get_submodule(name).norm, nn.Identity)]


def takes_branches(model: nn.Module, width: int = 1) -> bool:
    """Whether all blocks of the network can be widened alike."""
    names = plain_mlps(model)
    ratios = {(m.fc1.out_features + width) / m.fc1.in_features for m in map(model.timm_model.get_submodule, names)}
    return len(ratios) == 1 and _can_be_wider(model, ratios.pop(), names, width)


def add_adaptformer(model: nn.Module, width: int) -> nn.Module:
    """The classifier itself with a branch of `width` units beside each MLP; only they and the head take gradients.

    Raises UserError where the network has no plain MLP, or timm cannot build it with wider ones.
    """
    net, names = model.timm_model, plain_mlps(model)
    if not takes_branches(model, width):
        raise UserError(
            f"The blocks of {model.config.architecture!r} cannot all be widened alike ({len(names)} plain MLPs): this "
            "takes a vision transformer of one width (ViT, DeiT, DINOv2 with a plain MLP, CLIP, BEiT). Use --lora-rank "
            "instead of --adapter-width, or another --model."
        )
    model.requires_grad_(False)
    for name in names:
        mlp = net.get_submodule(name)
        replace(net, name, AdaptedMlp(mlp, width).to(mlp.fc1.weight))
    for head in classifier_modules(net):
        head.requires_grad_(True)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "branches of %d units beside %d MLPs: %d of %d weights train",
        width,
        len(names),
        trained,
        sum(p.numel() for p in model.parameters()),
    )
    return model


def adapted_mlps(net: nn.Module) -> list[str]:
    """Names of the MLPs that have a branch."""
    return [name for name, m in net.named_modules() if isinstance(m, AdaptedMlp)]


def widen(model: nn.Module) -> None:
    """Every branch becomes part of its MLP, and the configuration says how wide that is."""
    net, names = model.timm_model, adapted_mlps(model.timm_model)
    for name in names:
        replace(net, name, net.get_submodule(name).widened())
    if names:
        fc1 = net.get_submodule(names[0]).fc1
        model.config.model_args = {**(model.config.model_args or {}), "mlp_ratio": fc1.out_features / fc1.in_features}


def _can_be_wider(model: nn.Module, ratio: float, names: list[str], width: int) -> bool:
    """Whether timm builds the architecture with MLPs of that ratio, and all else stays the same."""
    args = {k: v for k, v in (model.config.model_args or {}).items() if k != "num_classes"}
    net = model.timm_model
    try:
        with torch.device("meta"):
            wide = timm.create_model(
                model.config.architecture, num_classes=net.num_classes, **{**args, "mlp_ratio": ratio}
            )
    except TypeError:  # the architecture has no such argument
        return False
    expected = {k: v.shape for k, v in net.state_dict().items()}
    for name in names:
        hidden, dim = expected[f"{name}.fc1.weight"]
        hidden += width
        expected[f"{name}.fc1.weight"], expected[f"{name}.fc1.bias"] = torch.Size([hidden, dim]), torch.Size([hidden])
        expected[f"{name}.fc2.weight"] = torch.Size([len(net.get_submodule(name).fc2.weight), hidden])
        expected[f"{name}.fc2.bias"] = expected[f"{name}.fc2.weight"][:1]
    return {k: v.shape for k, v in wide.state_dict().items()} == expected


def replace(net: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, layer)
