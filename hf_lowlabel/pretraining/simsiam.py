"""SimSiam (Chen & He 2021, arXiv 2011.10566, Eq. 1-4).

    L = 1/2 D(p1, sg(z2)) + 1/2 D(p2, sg(z1)),    D(p, z) = -cos(p, z),    z = g(f(x)),    p = h(z)

f encoder, g projector, h predictor, sg stop-gradient: neither negatives nor a slow teacher.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import PretrainObjective, feature_std, mlp
from ..ranges import Count


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, sg(z)) = -cos(p, sg(z)) for every row: [B, D], [B, D] -> [B]."""
    return -F.cosine_similarity(p.float(), z.detach().float(), dim=1)


class SimSiam(PretrainObjective):
    """SimSiam: 3-layer projector with BatchNorm (no scale, no shift) after its last layer, 2-layer predictor.

    out: width of the embedding. hidden: width of the predictor's bottleneck. The predictor's learning rate is not
    decayed (section 4.2): its parameters form the group "fixed".
    """

    paper = "Chen and He, Exploring simple Siamese representations"
    year, arxiv = 2021, "2011.10566"
    needs = "two views"
    defaults = dict(batch_size=256, learning_rate=0.05, weight_decay=1e-4, optimizer="momentum", min_scale=0.2)
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=0.005, epochs=300, l2_sp=1e-2),
        "imagenet": dict(batch_size=512, epochs=100, l2_sp=0.0),  # section 4
        "cifar": dict(batch_size=512, learning_rate=0.03, weight_decay=5e-4, epochs=800, l2_sp=0.0),  # appendix D
    }

    views = ("simsiam", "simsiam")

    def __init__(self, encoder: nn.Module, *, out: Count = 2048, hidden: Count = 512):
        super().__init__(encoder)
        self.projector = nn.Sequential(
            mlp(encoder.num_features, out, out, depth=3, bias=False), nn.BatchNorm1d(out, affine=False)
        )
        self.predictor = mlp(out, hidden, out)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x1, x2 = batch["views"]  # [B, 3, H, W]
        z1, z2 = (self.projector(self.encoder.pooled(x)) for x in (x1, x2))  # [B, out], BN per view
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)).mean()
        return {"loss": loss, "z_std": feature_std(z1)}

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        fixed = list(self.predictor.parameters())
        known = {id(p) for p in fixed}
        return {"base": [p for p in self.parameters() if p.requires_grad and id(p) not in known], "fixed": fixed}
