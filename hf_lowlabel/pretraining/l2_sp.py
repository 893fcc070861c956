"""The pull to the starting weights (Xu et al. 2022, arXiv 2205.03001, Eq. 3, Algorithm 1).

    L = 1/B (sum over the images of L_self + lambda ||Phi - Phi_start||_2^2)      Phi: the backbone's weights alone

with lambda = 1e-2. The paper sums the loss over the B images of a step; the losses here are means, so the pull is
divided by B. Beside a mean, an undivided pull holds the weights of a ResNet-18 within 0.3 % of their start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import PretrainObjective


def l2_distance(params: list[Tensor], start: list[Tensor]) -> Tensor:
    """Sum over all tensors of the squared differences: a scalar with gradient 2 (Phi - Phi_start)."""
    return torch.stack([(p.float() - s).square().sum() for p, s in zip(params, start, strict=True)]).sum()


def trained(encoder: nn.Module) -> list[nn.Parameter]:
    """Its weights but for frozen ones: with low-rank adapters these alone."""
    return [p for p in encoder.parameters() if p.requires_grad]


class L2SP(PretrainObjective):
    """Any self-supervised objective plus `weight` (lambda / B) times the squared distance to its first weights.

    Buffers (BatchNorm statistics), projectors and predictors are free. The start travels in the checkpoint.

    The paper does not say whether lambda stands beside the sum of a step's losses, as Algorithm 1 has it, or beside
    their mean; here the sum. The other reading is B times as strong.
    """

    unguarded = ("start",)  # constant: nothing to restore after a step with a bad loss

    def __init__(self, objective: PretrainObjective, weight: float):
        super().__init__(objective.encoder)
        self.objective, self.weight = objective, weight
        self.views, self.geometry = objective.views, objective.geometry
        del self.encoder  # one name per tensor: it lives in the objective
        self.begin()

    def begin(self) -> None:
        """The weights as they are now are the start; those of a checkpoint that a run only begins with have another."""
        for i, p in enumerate(trained(self.objective.encoder)):
            self.register_buffer(f"start{i}", p.detach().float().clone())

    @property
    def evaluated(self):
        return self.objective.evaluated

    @property
    def pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """The backbone's weights that are trained, as they are and as they were at the start."""
        params = trained(self.objective.encoder)
        return params, [getattr(self, f"start{i}") for i in range(len(params))]

    @torch.no_grad()
    def moved(self) -> float:
        """|Phi - Phi_start| / |Phi_start|: how far the weights are from their start, a share of their length."""
        now, start = self.pairs
        return float((l2_distance(now, start) / sum(s.square().sum() for s in start)).sqrt())

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        out = self.objective(batch, t)
        pull = l2_distance(*self.pairs)
        own = out["loss"]
        return {**out, "loss": own + self.weight * pull, "self": own.detach(), "distance": pull.detach()}

    def after_step(self, t: float) -> None:
        self.objective.after_step(t)

    @property
    def clips_each(self) -> bool:
        return self.objective.clips_each

    def decay(self, t: float) -> float:
        return self.objective.decay(t)

    def param_groups(self) -> dict:
        return self.objective.param_groups()
