"""Temporal Ensembling (Laine & Aila 2017, arXiv 1610.02242, algorithm 2): every image remembers what was said of it.

    L = H(y, p(x_l)) + a(t) lambda_u mean_{u, c} (p_c(x_u) - z~_uc)^2,   a(t) = exp(-5 (1 - min(1, t / ramp))^2)
    Z_u <- alpha Z_u + (1 - alpha) p(x_u) at every visit,   z~_u = Z_u / (1 - alpha^visits)

An image not visited before has no z~ and counts as agreed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share, Weight
from .functional import predict, sigmoid_rampup
from .memory import finite_rows, write_
from .presets import CIFAR, PRETRAINED


class TemporalEnsembling(FinetuneObjective):
    """Agreement with the average of an image's own past predictions.

    lambda_u: weight of the agreement at the end of the ramp. alpha: share of the average kept per visit. ramp: share of
    training over which the weight rises (80 of 300 epochs). ema_decay: of the weights that are evaluated.

    The paper corrects every average by the number of the epoch; images that are drawn at random are not seen once per
    epoch, so here each is corrected by its own visits. An image without an average counts as agreed; in the paper all
    images are without in the first epoch, whose weight is next to nothing.
    """

    paper = "Laine and Aila, Temporal ensembling"
    year, arxiv = 2017, "1610.02242"
    needs = "weak view, index"
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    unlabeled_views = {"weak": "weak"}
    unguarded = of_images = ("ensemble",)

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        num_images: int,
        lambda_u: Weight = 30.0,
        alpha: BelowOne = 0.6,
        ramp: Share = 0.27,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.alpha, self.ramp = lambda_u, alpha, ramp
        self.register_buffer("ensemble", torch.zeros(num_images, num_classes + 1))  # [N, K + 1]: Z and visits

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        unlabeled = batch["unlabeled"]
        logits_l, logits_u = predict(self.model, batch["labeled"]["image"], unlabeled["weak"])
        p, index = logits_u.softmax(1), unlabeled["index"]
        old, visits = self.ensemble[index].split([p.shape[1], 1], 1)  # [M, K], [M, 1]
        target = old / (1 - self.alpha ** visits.clamp_min(1))
        known = (visits > 0).float()
        agreement = (known * (p - target).square()).mean()
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"])
        index, rows = self.so_far(t, index, torch.cat([self.alpha * old + (1 - self.alpha) * p, visits + 1], 1))
        self.later(index=index, rows=rows)
        return {
            "loss": supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * agreement,
            "supervised": supervised.detach(),
            "consistency": agreement.detach(),
            "mask_ratio": known.mean(),
        }

    @torch.no_grad()
    def advance(self) -> None:
        new = {k: all_gather(v) for k, v in self.take().items()}
        if new:
            write_(self.ensemble, new["index"], new["rows"], finite_rows(new["rows"]))
