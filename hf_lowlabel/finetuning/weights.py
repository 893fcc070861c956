"""Which pseudo-labels count, and how much: all in which the FixMatch family differs.

A rule maps (p, index, p_labeled) to (targets, weights): p [M, K, ...] class probabilities of the weak views, index [M]
the images' positions in the unlabeled pool, p_labeled [B, K, ...] probabilities of the labeled images; targets
[M, K, ...] probabilities, weights [M, ...] in [0, 1]. The class axis is 1, any spatial axes follow. A rule with a
memory keeps it in buffers, and all ranks keep the same one.
"""
from __future__ import annotations

from torch import Tensor, nn


class Fixed(nn.Module):
    """FixMatch (Sohn et al. 2020, Eq. 4): w = 1[max p >= tau].   tau: confidence from which a pseudo-label counts."""

    def __init__(self, *, tau: float = 0.95):
        super().__init__()
        self.tau = tau

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor) -> tuple[Tensor, Tensor]:
        return p, (p.amax(1) >= self.tau).float()
