"""ClassMix (Olsson et al. 2021, arXiv 2007.07936, sections 3.1 and 3.2).

    L = H(y, p(x_l)) + lambda_u r mean over pixels of  H(y_m, p(x_m))
    x_m = M x_a + (1 - M) x_b,   y_m = M y'(x_a) + (1 - M) y'(x_b),   y' = argmax p'
    r = share of pixels with max p'_m >= tau

M selects the pixels of x_a that the teacher p' gives to half of its predicted classes, floor(n / 2) of n. The teacher
labels the weak views, the student sees the strong ones (colour and blur), mixed. As in the authors' code labeled and
mixed images are two batches to BatchNorm. Where a batch is cut into micro-batches, each has its own r.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_mean
from ..objective import FinetuneObjective
from ..ranges import Average, Share, Weight
from .functional import predict
from .pixels import check_pairs, cross_entropy, half_classes, partner, paste


class ClassMix(FinetuneObjective):
    """Hard labels of the averaged network on images mixed by classes.

    lambda_u: weight of the unlabeled loss. tau: confidence above which a pixel counts towards r. colors: whether colour
    and blur change in what is mixed (on VOC they do not). ema_decay: of the teacher, whose BatchNorm has statistics of
    its own. As in the authors' code the student is evaluated.

    Not as in the authors' code, which draws colours and blur once for a batch: here for each image, so that a step is
    the same however many processes share it. What an image sees is distributed alike; the effect was not measured.
    """

    paper = "Olsson et al., ClassMix"
    year, arxiv = 2021, "2007.07936"
    needs = "weak and strong view of at least two images"
    tasks = ("segmentation",)
    # section 4 and the authors' configs/; there whole images of Cityscapes, neither scaled nor mirrored
    defaults = dict(
        optimizer="momentum",
        learning_rate=2.5e-4,
        head_lr=10.0,
        batch_size=10,
        unlabeled_ratio=1,
        weight_decay=5e-4,
        lr_scheduler_type="poly",
    )
    presets = {
        "voc": dict(batch_size=10, image_size=321, max_steps=40_000, method_args=dict(colors=False)),
        "cityscapes": dict(
            batch_size=2,
            stored_size=1024,
            image_size=1024,
            image_height=512,
            scale=[1.0, 1.0],
            flip=False,
            max_steps=40_000,
        ),
    }

    unlabeled_views = {"weak": "weak", "strong": "classmix"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 1.0,
        tau: Share = 0.968,
        colors: bool = True,
        ema_decay: Average = 0.99,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="own")
        self.lambda_u, self.tau = lambda_u, tau
        if not colors:
            self.unlabeled_views = {"weak": "weak", "strong": "weak"}

    @property
    def evaluated(self) -> nn.Module:
        return self.model

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x, valid = unlabeled["strong"], unlabeled["valid"]
        check_pairs(x, "ClassMix")
        with torch.no_grad():
            p = self.ema(unlabeled["weak"]).logits.float().softmax(1)  # [M, K, H, W]
            confidence, labels = p.max(1)  # [M, H, W]
            mask = half_classes(unlabeled["key"], labels, p.shape[1], valid)
            target, counted, sure = (paste(mask, v, partner(v)) for v in (labels, valid, confidence))
            r = all_mean((sure >= self.tau).float().mean())
        (logits_l,), (logits_m,) = (predict(self.model, v) for v in (labeled["image"], paste(mask, x, partner(x))))
        supervised = cross_entropy(logits_l, labeled["target"], counted=labeled.get("counted"))
        consistency = r * (F.cross_entropy(logits_m, target, reduction="none") * counted).mean()
        return {
            "loss": supervised + self.lambda_u * consistency,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": r,
        }
