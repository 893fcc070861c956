"""RotNet (Gidaris et al. 2018, arXiv 1803.07728, Eq. 1-3; Zhai et al., S4L, Eq. 2): by how much was the image turned?

L = 1/4 sum_{r in 0, 90, 180, 270 degrees} CE(h(f(x^r)), r),    all four rotations of every image in one step
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import PretrainObjective


def four_rotations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Square images [B, C, S, S] -> [4B, C, S, S], turned by 0, 90, 180, 270 degrees, and which: int64 [4B]."""
    turned = torch.cat([x.rot90(r, dims=(2, 3)) for r in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))


class RotNet(PretrainObjective):
    """RotNet: a linear layer on the pooled features tells the rotation. It has no hyperparameters."""

    paper = "Gidaris et al., Predicting image rotations"
    year, arxiv = 2018, "1803.07728"
    needs = "one view, turned four ways"
    # 0.1 at batch 128, divided by 5 after 60, 120 and 160 of 200 epochs
    defaults = dict(
        batch_size=128, learning_rate=0.2, weight_decay=5e-4, optimizer="sgd", lr_scheduler_type="steps-rotnet"
    )
    # Rebuffi et al., section 4.6
    presets = {"cifar": dict(epochs=200, l2_sp=0.0)}

    views = ("weak",)

    def __init__(self, encoder: nn.Module):
        super().__init__(encoder)
        self.head = nn.Linear(encoder.num_features, 4)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x, target = four_rotations(batch["views"][0])  # [4B, 3, S, S], [4B]
        logits = self.head(self.encoder.pooled(x)).float()  # [4B, 4]
        return {"loss": F.cross_entropy(logits, target), "accuracy": (logits.argmax(1) == target).float().mean()}
