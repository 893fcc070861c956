"""BYOL (Grill et al. 2020, arXiv 2006.07733, Eq. 2; Xu et al. Eq. 2).

    L = 2 - 2 cos(q(g(f(x1))), sg(g'(f'(x2))))  +  the same with x1 and x2 exchanged
    f', g' follow f, g by an average whose momentum rises from m0 to 1:  m(t) = 1 - (1 - m0)(cos(pi t) + 1) / 2

f encoder, g projector, q predictor, sg stop-gradient. No negatives: predictor and slow teacher prevent collapse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import EMA, PretrainObjective, cosine_momentum, feature_std, mlp
from ..ranges import Count, Share


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(prediction, sg(target)) for every row: [B, D], [B, D] -> [B], each in [0, 4]."""
    return 2 - 2 * F.cosine_similarity(prediction.float(), target.detach().float(), dim=1)


class BYOL(PretrainObjective):
    """BYOL on the pooled features of an encoder.

    hidden, out: widths of projector and predictor. m0: the teacher's momentum at the start (0.99 up to 300 epochs,
    0.996 at 1000). The loss is the SUM of both directions; the teacher's BatchNorm stays in train mode; the online
    encoder is the one that is saved.
    """

    paper = "Grill et al., Bootstrap your own latent"
    year, arxiv = 2020, "2006.07733"
    needs = "two views"
    defaults = dict(batch_size=256, learning_rate=0.3, weight_decay=1e-6, optimizer="lars")
    presets = {
        "target": dict(batch_size=256, learning_rate=0.3, epochs=300, l2_sp=1e-2),  # Xu et al., section 4.1
        # Grill et al., section 3.3
        "imagenet": dict(
            batch_size=4096,
            learning_rate=0.2,
            weight_decay=1.5e-6,
            epochs=1000,
            warmup_ratio=0.01,
            l2_sp=0.0,
            method_args=dict(m0=0.996),
        ),
    }

    views = ("byol1", "byol2")
    teacher_buffers = "own"  # what the teacher's BatchNorm normalises with, see EMA

    def __init__(self, encoder: nn.Module, *, hidden: Count = 4096, out: Count = 256, m0: Share = 0.99):
        super().__init__(encoder)
        self.m0 = m0
        self.projector, self.predictor = mlp(encoder.num_features, hidden, out), mlp(out, hidden, out)
        self.teacher_encoder, self.teacher_projector = (
            EMA(network, self.teacher_buffers) for network in (encoder, self.projector)
        )

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x1, x2 = batch["views"]  # [B, 3, H, W]
        z1, z2 = (self.projector(self.encoder.pooled(x)) for x in (x1, x2))  # [B, out], BN per view
        with torch.no_grad():
            k1, k2 = (self.teacher_projector(self.teacher_encoder.module.pooled(x)) for x in (x1, x2))
        loss = (byol_loss(self.predictor(z1), k2) + byol_loss(self.predictor(z2), k1)).mean()
        return {"loss": loss, "z_std": feature_std(z1)}

    def after_step(self, t: float) -> None:
        super().after_step(t)
        m = cosine_momentum(self.m0, t)
        self.teacher_encoder.update(self.encoder, m)
        self.teacher_projector.update(self.projector, m)
