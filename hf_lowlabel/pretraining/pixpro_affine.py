"""PixPro with affine views (Xu et al. 2022, arXiv 2205.03001, section 3.1).

    Z = t^-1(f(t(X)))    for the online and the momentum network; then PixPro's loss on Z
    t: scaling, rotation, shearing and translation, each with probability 1/2, composed into one bilinear warp

t comes after all other augmentations. The map that is warped back is the projected one, so that BatchNorm sees real
cells only; it is then propagated and compared. Cells that the inverse would fetch from outside the frame are invalid.
The share of cells lost grows with the ranges, which the paper does not state: those below are ours.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import drawn
from ..ranges import Count, Limits, Positive, Share, Weight
from .pixpro import PixPro


def random_affine(
    n: int, device: torch.device, scale: float, rotation: float, shear: float, translation: float, p: float = 0.5
) -> tuple[Tensor, Tensor]:
    """n maps u -> A u + b with A = R(angle) Shear(k) / s, the same on any number of processes: A [n, 2, 2], b [n, 2].

    u: a position of the warped image, -1 to 1 from edge to edge; A u + b: the position it shows. Each of s in
    [1 / scale, scale] (log-uniform), the angle, k and b stays neutral with probability 1 - p.
    """
    r = drawn(lambda m: torch.rand(m, 5, device=device), n)
    chosen = drawn(lambda m: torch.rand(m, 4, device=device), n)
    r, chosen = r * 2 - 1, chosen < p
    r = r * torch.cat([chosen, chosen[:, 3:]], 1)
    s, angle, k = scale ** r[:, 0], math.radians(rotation) * r[:, 1], shear * r[:, 2]
    cos, sin = angle.cos(), angle.sin()
    a = torch.stack([cos, cos * k - sin, sin, sin * k + cos], dim=1).view(n, 2, 2)  # R Shear, determinant 1
    return a / s[:, None, None], 2 * translation * r[:, 3:]


def inverse(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """u -> A^-1 u - A^-1 b, by the adjugate over the determinant."""
    det = a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0]
    adjugate = torch.stack([a[:, 1, 1], -a[:, 0, 1], -a[:, 1, 0], a[:, 0, 0]], dim=1).view(-1, 2, 2)
    back = adjugate / det[:, None, None]
    return back, -(back * b[:, None]).sum(2)


def warp(x: Tensor, a: Tensor, b: Tensor, padding: str = "zeros") -> tuple[Tensor, Tensor]:
    """One bilinear resampling, out(u) = x(A u + b), and where x has that: float32 [B, C, H, W], bool [B, H * W]."""
    (h, w), device = x.shape[2:], x.device
    v, u = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (h, w))  # centres, -1 to 1
    at = torch.stack([u.expand(h, w), v[:, None].expand(h, w)], dim=-1)  # [H, W, 2]
    grid = (a[:, None, None] * at[..., None, :]).sum(-1) + b[:, None, None]  # [B, H, W, 2]
    out = F.grid_sample(x.float(), grid, padding_mode=padding, align_corners=False)
    return out, (grid.abs() <= 1).all(3).flatten(1)


class PixProAffine(PixPro):
    """PixPro on affinely warped views, compared after the inverse warp of the feature maps; views are square.

    scale: largest zoom (and shrinking) factor. rotation: largest angle in degrees. shear: largest shift in x per unit
    of y. translation: largest shift as a fraction of the side. Everything else as in PixPro. In the default
    ranges 90 % of the cells stay valid on average and half in the worst draw, on maps of 7 x 7 to 28 x 28.

    The paper does not say how far it scales, turns, shears and moves; here as above. Wider ranges leave fewer cells.
    """

    paper = "Xu et al., Revisiting pretraining, section 3.1"
    year, arxiv = 2022, "2205.03001"
    presets = {"target": PixPro.presets["target"]}

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: Count = 4096,
        out: Count = 256,
        gamma: Weight = 2.0,
        tau: Positive = 0.7,
        m0: Share = 0.99,
        scale: Annotated[float, Limits(min=1)] = 1.25,
        rotation: Annotated[float, Limits(min=0, max=180)] = 30.0,
        shear: Weight = 0.25,
        translation: Share = 0.1,
    ):
        super().__init__(encoder, hidden=hidden, out=out, gamma=gamma, tau=tau, m0=m0)
        self.ranges = dict(scale=scale, rotation=rotation, shear=shear, translation=translation)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        online, target, valid = [], [], []
        for x in batch["views"]:  # [B, 3, S, S]
            a, b = random_affine(len(x), x.device, **self.ranges)
            turned = warp(x, a, b)[0].to(x.dtype)  # t(X)
            back = inverse(a, b)
            z, inside = warp(self.projector(self.encoder.feature_map(turned)), *back, padding="border")  # t^-1
            online.append(z)
            target.append(warp(self.teach(turned), *back, padding="border")[0])
            valid.append(inside)  # [B, P]
        out = self.consistency(online, target, batch, tuple(valid))
        return {**out, "valid": torch.stack([v.float().mean() for v in valid]).mean()}
