"""CutMix-Seg (French et al. 2020, arXiv 1906.01916, section 3), the semi-supervised segmentation of Xu et al.

    L = H(y, p(x_l)) + lambda_u r mean over pixels of  || p(x_m) - p'_m ||_2^2
    x_m = M x_a + (1 - M) x_b,   p'_m = M p'(x_a) + (1 - M) p'(x_b),   r = share of pixels with max p'_m >= tau

M is a rectangle of half the image, p' the averaged network; the squared difference is summed over the classes. r scales
the whole loss of a batch: no pixel is left out for being uncertain. Where a batch is cut into micro-batches, each has
its own r. Pixels outside an image add nothing to the sum, and still count in both means.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from ..distributed import all_mean
from ..objective import FinetuneObjective
from ..ranges import Average, Limits, Share, Weight
from .functional import predict
from .pixels import check_pairs, cross_entropy, half_box, partner, paste
from .presets import CUTMIX


class CutMixSeg(FinetuneObjective):
    """Agreement with the averaged network's predictions on images mixed by rectangles.

    lambda_u: weight of the agreement. tau: confidence from which a pixel counts towards r. area: share of the image
    that the rectangle covers. colors: whether the student sees changed colours and the teacher not, as in the authors'
    scripts for photos. ema_decay: m, the share of the teacher kept per step, BatchNorm statistics included; the
    teacher runs in eval mode and is evaluated.

    Not as in the authors' script for ISIC, which turns images by up to 45 degrees and mirrors them both ways: the
    preset turns them by any angle and mirrors them one way. All of their views are among these; a lesion has no upper
    side.
    """

    paper = "French et al., Semi-supervised semantic segmentation needs strong, varied perturbations"
    year, arxiv = 2020, "1906.01916"
    needs = "weak view of at least two images"
    tasks = ("segmentation",)
    defaults = dict(CUTMIX, batch_size=10, learning_rate=1e-4, max_steps=10_000)
    presets = {
        "voc": dict(
            CUTMIX, head_lr=1.0, freeze_norm=True, batch_size=20, image_size=321, method_args=dict(colors=True)
        ),
        "cityscapes": dict(
            CUTMIX,
            head_lr=1.0,
            freeze_norm=True,
            batch_size=8,
            stored_size=1024,
            image_size=512,
            image_height=256,
            scale=[1.0, 1.0],
            method_args=dict(colors=True),
        ),
        # French et al., section 4.3, and their script
        "isic": dict(
            optimizer="momentum",
            learning_rate=0.01,  # the script's 0.1 is that of new layers
            head_lr=10.0,
            weight_decay=5e-4,
            lr_scheduler_type="poly",
            unlabeled_ratio=1,
            batch_size=10,
            image_size=224,
            scale=[1 / 1.1, 1.1],
            rotation=180.0,
            method_args=dict(colors=True),
            max_steps=40_000,
        ),
    }

    unlabeled_views = {"weak": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 1.0,
        tau: Share = 0.97,
        area: Annotated[float, Limits(above=0, max=1)] = 0.5,
        colors: bool = False,
        ema_decay: Average = 0.99,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="ema")
        self.lambda_u, self.tau, self.area = lambda_u, tau, area
        self.student = "strong" if colors else "weak"  # view that is mixed for the student
        if colors:
            self.unlabeled_views = {"weak": "weak", "strong": "cutmix"}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, (x, valid, key) = batch["labeled"], (batch["unlabeled"][k] for k in ("weak", "valid", "key"))
        check_pairs(x, "CutMix")
        box = half_box(key, x.shape[-2:], self.area)  # [M, H, W]
        with torch.no_grad():
            p = self.ema(x).logits.float().softmax(1)  # [M, K, H, W]
            target, counted = paste(box, p, partner(p)), paste(box, valid, partner(valid))
            r = all_mean((target.amax(1) >= self.tau).float().mean())
        x = batch["unlabeled"][self.student]
        logits_l, logits_m = predict(self.model, labeled["image"], paste(box, x, partner(x)))
        supervised = cross_entropy(logits_l, labeled["target"], counted=labeled.get("counted"))
        difference = (logits_m.softmax(1) - target).square().sum(1)  # [M, H, W], sum over classes
        consistency = r * (difference * counted).mean()
        return {
            "loss": supervised + self.lambda_u * consistency,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": r,
        }
