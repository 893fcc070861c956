"""Pseudo-Label (Lee 2013, Eq. 15-16), online: the network's own confident guesses become labels.

    L = H(y, p(x_l)) + a(t) lambda_u mean 1[max p_u >= tau] H(argmax p_u, p_u),   a(t) = min(1, t / ramp)

The guess and the loss see the same view. The two-stage form (S4L section 3.2) labels everything once and trains anew.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share, Weight
from .functional import linear_rampup, predict
from .presets import CIFAR, PRETRAINED


class PseudoLabel(FinetuneObjective):
    """Self-training on confident predictions.

    lambda_u: weight of the unlabeled loss at the end of the ramp. tau: confidence from which a guess counts (Lee: 0).
    ramp: share of training over which the weight rises. ema_decay: of the weights that are evaluated.

    The paper has neither threshold nor average, and ramps by epochs of its MNIST runs; tau, ramp and average here are
    those of later comparisons (Oliver et al. 2018, FixMatch's authors). tau=0 and ema_decay=0 are the paper's.
    """

    paper = "Lee, Pseudo-Label"
    year, arxiv = 2013, ""
    needs = "weak view"
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    unlabeled_views = {"weak": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 1.0,
        tau: Share = 0.95,
        ramp: Share = 0.4,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.tau, self.ramp = lambda_u, tau, ramp

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        logits_l, logits_u = predict(self.model, batch["labeled"]["image"], batch["unlabeled"]["weak"])
        confidence, label = logits_u.detach().softmax(1).max(1)
        w = (confidence >= self.tau).float()
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"])
        pseudo = (w * F.cross_entropy(logits_u, label, reduction="none")).mean()
        return {
            "loss": supervised + linear_rampup(t, self.ramp) * self.lambda_u * pseudo,
            "supervised": supervised.detach(),
            "consistency": pseudo.detach(),
            "mask_ratio": w.mean(),
        }
