"""A tiny encoder, tiny heads and fixed batches for the tests of the self-supervised objectives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hf_lowlabel.methods import find, methods_for
from hf_lowlabel.objective import PretrainObjective

PRETRAIN = methods_for("pretrain")
SMALL = {  # heads small enough for a CPU second
    "byol": dict(hidden=16, out=8),
    "byol-eman": dict(hidden=16, out=8),
    "moco": dict(out=8, queue=32),
    "simsiam": dict(out=16, hidden=8),
    "simclr": dict(out=8),
    "vicreg": dict(hidden=16),
    "dino": dict(out=12, hidden=16, bottleneck=8),
    "lejepa": dict(out=8, hidden=16, slices=16),
    "rotnet": {},
    "exemplar": dict(out=8),
    "densecl": dict(hidden=16, out=8, queue=32),
    "pixpro": dict(hidden=16, out=8),
    "pixpro-affine": dict(hidden=16, out=8),
}


class TinyEncoder(nn.Module):
    """float [B, 3, H, W] -> map [B, 8, H / 2, W / 2]; with or without BatchNorm."""

    num_features = num_map_features = 8

    def __init__(self, norm: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()

    def feature_map(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).tanh()

    def pooled(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean((2, 3))


def make(name: str, norm: bool = False, seed: int = 0, encoder: nn.Module | None = None, **kwargs) -> PretrainObjective:
    """The objective called `name` over `encoder` or a tiny one, in train mode."""
    torch.manual_seed(seed)
    return find(name)(encoder or TinyEncoder(norm), **{**SMALL[name], **kwargs}).train()


def batch_for(objective: PretrainObjective, n: int = 4, seed: int = 0, size: int = 8) -> dict:
    """A fixed batch of n images as the trainer would hand it over; boxes overlap, some views are mirrored."""
    g = torch.Generator().manual_seed(1000 + seed)
    image = torch.randn(n, 3, size, size, generator=g)
    views = [image + 0.5 * torch.randn(n, 3, size, size, generator=g) for _ in objective.views]
    low, side = torch.rand(len(views), n, 2, generator=g) * 4, 8 + torch.rand(len(views), n, 2, generator=g) * 8
    return {
        "views": views,
        "index": n * seed + torch.arange(n),
        "boxes": list(torch.cat([low, low + side], dim=2)),
        "flips": list(torch.rand(len(views), n, generator=g) < 0.5),
    }


def train(
    objective: PretrainObjective, ts: tuple[float, ...] = (0.0, 0.3, 0.6), lr: float = 0.2, n: int = 4, first: int = 0
) -> list[float]:
    """A few steps as the trainer takes them; the loss of each."""
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step, t in enumerate(ts, start=first):
        torch.manual_seed(step)
        loss = objective(batch_for(objective, n, seed=step), t)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(t)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def unit(x: np.ndarray, axis: int = 1) -> np.ndarray:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)
