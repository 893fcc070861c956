"""LeJEPA (Balestriero and LeCun 2025, arXiv 2511.08544, algorithms 1 and 2).

    L = (1 - lambda) L_pred + lambda mean_v SIGReg(Z_v)
    L_pred = mean_{v, b, d} (mu_bd - Z_vbd)^2,    mu = mean of Z over the global views
    SIGReg(Z) = mean_a B int |phi_a(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,    phi_a(t) = mean_b exp(i t a.Z_b)

Z_v are the embeddings [B, D] of view v. a are random unit directions, drawn anew at every step; the integral, by the
trapezoidal rule over -5..5, is the statistic of Epps and Pulley (1983) of one direction against N(0, 1).
No gradient is stopped and nobody teaches: embeddings that follow an isotropic Gaussian cannot collapse.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from ..distributed import all_gather
from ..objective import PretrainObjective, feature_std, mlp
from ..ranges import Count, CountOrNone, Limits
from ..views.counter_rng import keyed
from .contrast import full_precision
from .dino import by_size

LIMIT, POINTS = 5.0, 17  # of the integral


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """SIGReg of embeddings [B, D] along unit directions [D, M].

    The integrand is even, so the points from 0 on are enough: each counts twice, and the one at 0 once.
    """
    t = torch.linspace(0, LIMIT, POINTS // 2 + 1, device=z.device, dtype=z.dtype)  # [P]
    step = LIMIT / (POINTS // 2)
    weight = step * (2 - ((t == 0) | (t == LIMIT)).to(t))  # once the middle of -5..5, and both of its ends
    gauss = torch.exp(-t.square() / 2)
    angle = (z @ directions)[..., None] * t  # [B, M, P]
    distance = (angle.cos().mean(0) - gauss).square() + angle.sin().mean(0).square()  # [M, P]
    return len(z) * (distance * gauss * weight).sum(1).mean()


class LeJEPA(PretrainObjective):
    """LeJEPA on the pooled features.

    hidden, out: widths of the 3-layer projector and of the embedding. lamb: lambda, the one trade-off, as in the
    authors' example. slices: directions a step. local_crops: small views of each image that predict the global ones,
    96 px beside 224, a multiple of a transformer's patch (the authors: 6 of 5 to 30 % of the image; here 5 to 40 %, as
    for DINO); networks of a fixed image size need timm's dynamic_img_size for them.
    """

    paper = "Balestriero and LeCun, LeJEPA"
    year, arxiv = 2025, "2511.08544"
    needs = "two views, and local crops where asked for"
    # the authors' code: 5e-4 and 5e-2 for transformers (5e-4 for ResNets), crops of 30 % and more, 2 + 6 views
    defaults = dict(batch_size=256, learning_rate=5e-4, weight_decay=0.05, optimizer="adamw", min_scale=0.3)
    presets = {
        # a tenth of the rate from scratch, as Xu et al. section 4.1
        "target": dict(learning_rate=5e-5, epochs=300, l2_sp=1e-2),
        "imagenet": dict(epochs=100, warmup_ratio=0.1, l2_sp=0.0, method_args=dict(local_crops=6)),
    }

    compares = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: Count = 2048,
        out: Count = 128,
        lamb: Annotated[float, Limits(above=0, below=1)] = 0.02,
        slices: Count = 1024,
        local_crops: CountOrNone = 0,
    ):
        super().__init__(encoder)
        self.views = ("byol1", "byol2") + ("dino-local",) * local_crops
        self.lamb, self.slices, self.out = lamb, slices, out
        self.projector = mlp(encoder.num_features, hidden, out, depth=3)
        self.updates = 0  # seeds the directions, which are the same on every rank

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        z = torch.stack([v.float() for v in by_size(lambda x: self.projector(self.encoder.pooled(x)), batch["views"])])
        predicted = (z[:2].mean(0) - z).square().mean()  # [V, B, out]
        a = self.directions(z.device)
        with full_precision(z):
            gaussian = torch.stack([sigreg(all_gather(v.contiguous(), grad=True), a) for v in z]).mean()
        return {
            "loss": (1 - self.lamb) * predicted + self.lamb * gaussian,
            "prediction": predicted.detach(),
            "sigreg": gaussian.detach(),
            "z_std": feature_std(z[0]),
        }

    def directions(self, device: torch.device) -> Tensor:
        """Unit vectors [out, slices] of this step."""
        key = torch.arange(self.slices, device=device) + self.updates * self.slices  # the same on every rank
        u, v = keyed(key, "direction", 2 * self.out).float().chunk(2, 1)
        a = ((-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()).T  # Box and Muller
        return a / a.norm(dim=0)

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.updates += 1

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)
