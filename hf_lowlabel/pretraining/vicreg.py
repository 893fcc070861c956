"""VICReg (Bardes et al. 2022, arXiv 2105.04906, Eq. 1-6 and algorithm 1).

    L = lambda s(Z, Z') + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z'))
    s = mean_{b, d} (Z_bd - Z'_bd)^2                         invariance
    v = mean_d max(0, 1 - sqrt(Var(Z_d) + eps))              variance
    c = sum_{i != j} Cov(Z)_ij^2 / D                         covariance

The mean over d in s and the 1/2 follow the authors' code, to which their weights 25, 25, 1 belong; the printed Eq. 5
and 6 sum over d and leave out the 1/2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather
from ..objective import PretrainObjective, feature_std, mlp, wide
from ..ranges import Count, Weight
from .contrast import full_precision


def variance(z: Tensor, eps: float = 1e-4) -> Tensor:
    """v: the mean hinge of the standard deviations of [B, D] below 1; the variance divides by B - 1."""
    return F.relu(1 - (wide(z).var(0) + eps).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """c: the sum of squares beside the diagonal of the covariance matrix of [B, D], over D."""
    z = wide(z) - wide(z).mean(0)
    cov = z.T @ z / (len(z) - 1)  # [D, D]
    return (cov.square().sum() - cov.diagonal().square().sum()) / z.shape[1]


class VICReg(PretrainObjective):
    """VICReg: neither negatives nor a teacher; variance and covariance are those of the global batch.

    hidden: width of the 3-layer expander and of the embedding. invariance, variance, covariance: lambda, mu and nu.
    """

    paper = "Bardes et al., VICReg"
    year, arxiv = 2022, "2105.04906"
    needs = "two views"
    defaults = dict(batch_size=256, learning_rate=0.2, weight_decay=1e-6, optimizer="lars")
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=0.02, epochs=300, l2_sp=1e-2),
        "imagenet": dict(batch_size=2048, epochs=1000, warmup_ratio=0.01, l2_sp=0.0),  # section 4.2
    }

    views = ("byol1", "byol2")
    compares = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: Count = 8192,
        invariance: Weight = 25.0,
        variance: Weight = 25.0,
        covariance: Weight = 1.0,
    ):
        super().__init__(encoder)
        self.weights = (invariance, variance, covariance)
        self.expander = mlp(encoder.num_features, hidden, hidden, depth=3, bias=False)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        z1, z2 = (self.expander(self.encoder.pooled(x)).float() for x in batch["views"])  # [B, hidden], BN per view
        s = F.mse_loss(z1, z2)
        a, b = all_gather(z1, grad=True), all_gather(z2, grad=True)  # [world * B, hidden]
        with full_precision(a):
            v, c = (variance(a) + variance(b)) / 2, covariance(a) + covariance(b)
        lam, mu, nu = self.weights
        return {
            "loss": lam * s + mu * v + nu * c,
            "invariance": s.detach(),
            "variance": v.detach(),
            "covariance": c.detach(),
            "z_std": feature_std(z1),
        }
