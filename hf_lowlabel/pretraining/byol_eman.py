"""BYOL-EMAN (Cai et al. 2021, arXiv 2101.08482, section 3): BYOL whose teacher normalises with averaged statistics.

    mu', sigma'^2 <- m (mu', sigma'^2) + (1 - m) (mu, sigma^2),    teacher's BN: (x - mu') / sqrt(sigma'^2 + eps)

mu, sigma^2: the running statistics of the student's BatchNorm. The teacher always runs in eval mode, so its output for
one image does not depend on the rest of the batch. The loss and everything else is BYOL's.
"""

from __future__ import annotations

from torch import nn

from .byol import BYOL


class BYOLEMAN(BYOL):
    """BYOL with exponential moving average normalisation; hidden, out and m0 as in BYOL."""

    teacher_buffers = "ema"

    def __init__(self, encoder: nn.Module, *, hidden: int = 4096, out: int = 256, m0: float = 0.99):
        super().__init__(encoder, hidden=hidden, out=out, m0=m0)
