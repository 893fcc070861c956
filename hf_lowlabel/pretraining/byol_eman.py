"""BYOL-EMAN (Cai et al. 2021, arXiv 2101.08482, section 3): BYOL whose teacher normalises with averaged statistics.

    mu', sigma'^2 <- m (mu', sigma'^2) + (1 - m) (mu, sigma^2),    teacher's BN: (x - mu') / sqrt(sigma'^2 + eps)

mu, sigma^2: the running statistics of the student's BatchNorm. The teacher always runs in eval mode, so its output for
one image does not depend on the rest of the batch. The loss and everything else is BYOL's.
"""

from __future__ import annotations

from .byol import BYOL


class BYOLEMAN(BYOL):
    """BYOL with exponential moving average normalisation; hidden, out and m0 as in BYOL."""

    paper = "Cai et al., Exponential moving average normalization"
    year, arxiv = 2021, "2101.08482"
    presets = {
        "target": dict(batch_size=256, learning_rate=0.3, epochs=300, l2_sp=1e-2),  # as BYOL in Xu et al.
        # the command in their README, at a rate of 1.8 for 512 images; 5 of 200 epochs of warm-up
        "imagenet": dict(
            batch_size=512,
            learning_rate=0.9,
            weight_decay=1e-6,
            epochs=200,
            warmup_ratio=0.025,
            l2_sp=0.0,
            method_args=dict(m0=0.98),
        ),
    }

    teacher_buffers = "ema"
