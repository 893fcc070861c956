"""Temporal consistency (Rebuffi et al. 2020, arXiv 1905.08845, section 3.2); the alternation uses self_training.py.

    L_temp = mean_u KL(p^{t-1}(x_u) || p^t(x_u))          p^{t-1}: the same image's prediction when last seen

An image not seen before adds nothing to L_temp.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather
from ..objective import FinetuneObjective
from ..once_per_step import OncePerStep
from ..ranges import BelowOne, Share, Weight
from .functional import kl, linear_rampup, predict
from .memory import finite_rows, write_
from .presets import CIFAR, PRETRAINED


class Predictions(OncePerStep):
    """The last prediction of every image of the pool, [N, K]; all zeros where there is none."""

    unguarded = of_images = ("table",)

    def __init__(self, num_images: int, num_classes: int):
        super().__init__()
        self.register_buffer("table", torch.zeros(num_images, num_classes))

    def consistency(
        self, t: float, index: Tensor, logits: Tensor, weight: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """(L_temp, share of images that had a prediction); the new predictions take the old ones' places after the
        step at progress t.

        weight: of each image in the mean, [M].
        """
        before = self.table[index]
        known = (before.sum(1) > 0).float()
        loss = (weight * known * kl(before, logits)).mean()
        index, p = self.so_far(t, index, logits.softmax(1))
        self.later(index=index, p=p)
        return loss, known.mean()

    @torch.no_grad()
    def advance(self) -> None:
        new = {k: all_gather(v) for k, v in self.take().items()}
        if new:
            write_(self.table, new["index"], new["p"], finite_rows(new["p"]))


class TemporalConsistency(FinetuneObjective):
    """Labels and agreement with the previous epoch's prediction: L = H(y, p(x_l)) + min(1, t / ramp) lambda_u L_temp.

    lambda_u: weight of the agreement. ramp: share of training over which it rises. ema_decay: of the weights that are
    evaluated.

    The paper does not say what an image is compared with before it has a prediction; here with nothing. The other
    reading, a uniform prediction, pulls the first pass towards calling nothing.
    """

    paper = "Rebuffi et al., Semi-supervised learning with scarce annotations"
    year, arxiv = 2020, "1905.08845"
    needs = "weak view, index"
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    unlabeled_views = {"weak": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        num_images: int,
        lambda_u: Weight = 1.0,
        ramp: Share = 0.4,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.ramp, self.previous = lambda_u, ramp, Predictions(num_images, num_classes)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        logits_l, logits_u = predict(self.model, batch["labeled"]["image"], batch["unlabeled"]["weak"])
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"])
        agreement, known = self.previous.consistency(t, batch["unlabeled"]["index"], logits_u)
        return {
            "loss": supervised + linear_rampup(t, self.ramp) * self.lambda_u * agreement,
            "supervised": supervised.detach(),
            "consistency": agreement.detach(),
            "mask_ratio": known,
        }
