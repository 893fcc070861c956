"""Mean Teacher (Tarvainen & Valpola 2017, arXiv 1703.01780, Eq. 1 and section 3).

    L = H(y, p(x_l)) + a(t) lambda_u mean_{u, c} (p_c(x_u; theta) - p_c(x'_u; theta'))^2
    theta' <- m theta' + (1 - m) theta,   a(t) = exp(-5 (1 - min(1, t / ramp))^2)

x_u and x'_u are two weak views. The teacher sees the labeled images in its batch too, as the student does, so that
BatchNorm makes no difference between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import Average, Share, Weight
from .functional import predict, sigmoid_rampup
from .pixels import cross_entropy, masked_mean
from .presets import CIFAR, PRETRAINED


class MeanTeacher(FinetuneObjective):
    """Agreement with the averaged network, which is also the one that is evaluated.

    lambda_u: weight of the agreement at the end of the ramp. ramp: share of training over which it rises. ema_decay:
    m, the share of the teacher kept per step.

    The paper does not say whether the teacher sees the labeled images; here it does. Without them its BatchNorm
    normalises by other statistics than the student's.
    """

    paper = "Tarvainen and Valpola, Mean teachers"
    year, arxiv = 2017, "1703.01780"
    needs = "two weak views"
    tasks = ("classification", "segmentation")
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    unlabeled_views = {"weak": "weak", "weak2": "weak"}
    dense_views = {"weak": "strong", "weak2": "weak"}  # views of a pixel share their geometry: colours make the noise

    def __init__(self, model: nn.Module, *, lambda_u: Weight = 50.0, ramp: Share = 0.4, ema_decay: Average = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.ramp = lambda_u, ramp

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits_l, logits_u = predict(self.model, labeled["image"], unlabeled["weak"])
        with torch.no_grad():
            _, teacher = predict(self.ema, labeled["image"], unlabeled["weak2"])
        supervised = cross_entropy(logits_l, labeled["target"], counted=labeled.get("counted"))
        difference = (logits_u.softmax(1) - teacher.softmax(1)).square().mean(1)
        agreement = masked_mean(difference, unlabeled.get("valid"), unlabeled.get("counted"))
        return {
            "loss": supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * agreement,
            "supervised": supervised.detach(),
            "consistency": agreement.detach(),
        }
