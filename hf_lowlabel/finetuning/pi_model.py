"""Pi-model (Laine & Aila 2017, arXiv 1610.02242, algorithm 1): two noisy passes agree.

    L = H(y, p(x_l)) + a(t) lambda_u mean_{u, c} (p_c(x_u) - p_c(x'_u))^2,   a(t) = exp(-5 (1 - min(1, t / ramp))^2)

x_u and x'_u are two weak views in the same batch; gradients flow into both predictions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share, Weight
from .functional import predict, sigmoid_rampup
from .presets import CIFAR, PRETRAINED


class PiModel(FinetuneObjective):
    """Agreement of two views.

    lambda_u: weight of the agreement at the end of the ramp. ramp: share of training over which it rises. Both are
    those of FixMatch's authors for 40 labels and more; Laine & Aila have 100 and 0.27 (80 of 300 epochs) for 1,000,
    which lets one label per class collapse into one class. ema_decay: of the weights that are evaluated.
    """

    paper = "Laine and Aila, Temporal ensembling"
    year, arxiv = 2017, "1610.02242"
    needs = "two weak views"
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    unlabeled_views = {"weak": "weak", "weak2": "weak"}

    def __init__(self, model: nn.Module, *, lambda_u: Weight = 10.0, ramp: Share = 0.4, ema_decay: BelowOne = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.ramp = lambda_u, ramp

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x = batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["weak2"]
        logits_l, logits_1, logits_2 = predict(self.model, *x)
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"])
        agreement = F.mse_loss(logits_1.softmax(1), logits_2.softmax(1))
        return {
            "loss": supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * agreement,
            "supervised": supervised.detach(),
            "consistency": agreement.detach(),
        }
