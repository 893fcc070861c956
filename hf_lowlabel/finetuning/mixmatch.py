"""MixMatch (Berthelot et al. 2019, arXiv 1905.02249, algorithm 1, Eq. 3-5).

q = sharpen(1/2 (p(u_1) + p(u_2)), T) for both views
X', U' = MixUp of the union of (x, y) and (u_k, q) with itself shuffled
L = mean H(y', p(x')) + min(1, t / ramp) lambda_u mean_{u', c} (q'_c - p_c(u'))^2
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import BelowOne, Positive, Share, Weight
from .functional import frozen_statistics, linear_rampup, mixup, predict, sharpen
from .presets import MIXMATCH


class MixMatch(FinetuneObjective):
    """Guessed labels, sharpened, and everything mixed with everything.

    lambda_u: weight of the unlabeled loss at the end of the ramp (75 CIFAR-10, 150 CIFAR-100, 250 SVHN). temperature:
    T, below 1 sharpens. alpha: of the Beta distribution of MixUp, drawn for every image. ramp: share of training over
    which the weight rises (2^20 of 2^26 images). ema_decay: of the weights that are evaluated. BatchNorm's running
    statistics come from the mixed images, not from the guesses.

    The paper does not say what BatchNorm sees; here all mixed images in one batch, where the authors' code interleaves
    them into batches of the size of the labeled one, at the price of a forward pass for each. Smaller batches have
    noisier statistics.
    """

    paper = "Berthelot et al., MixMatch"
    year, arxiv = 2019, "1905.02249"
    needs = "two weak views"
    # the paper's 1/64 is too short below 10^5 steps
    defaults = dict(unlabeled_ratio=1, method_args=dict(ramp=0.4))
    presets = {"cifar": MIXMATCH}

    unlabeled_views = {"weak": "weak", "weak2": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 75.0,
        temperature: Positive = 0.5,
        alpha: Positive = 0.75,
        ramp: Share = 0.0156,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.temperature, self.alpha, self.ramp = lambda_u, temperature, alpha, ramp

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_l, u_1, u_2 = batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["weak2"]
        with torch.no_grad(), frozen_statistics(self.model):
            guess_1, guess_2 = predict(self.model, u_1, u_2)
            q = sharpen((guess_1.softmax(1) + guess_2.softmax(1)) / 2, self.temperature)  # [M, K]
        y = F.one_hot(batch["labeled"]["target"], q.shape[1]).to(q)  # [B, K]
        x, y = mixup(torch.cat([x_l, u_1, u_2]), torch.cat([y, q, q]), self.alpha, [len(x_l), len(u_1), len(u_2)])
        logits_l, logits_u = self.model(x).logits.float().split([len(x_l), len(x) - len(x_l)])
        supervised = F.cross_entropy(logits_l, y[: len(x_l)])
        consistency = F.mse_loss(logits_u.softmax(1), y[len(x_l) :])
        return {
            "loss": supervised + linear_rampup(t, self.ramp) * self.lambda_u * consistency,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
        }
