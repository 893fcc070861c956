"""UDA (Xie et al. 2020, arXiv 1904.12848, Eq. 1 and section 2.3), with training signal annealing (section 2.4 of v1).

    L = H_TSA(y, p(x_l)) + lambda_u mean 1[max p_w >= tau] H(sharpen(p_w, T), p(x_strong)),   p_w = sg p(x_weak)
    H_TSA = sum_b 1[p(y_b) < eta_t] (- log p(y_b)) / #{p(y_b) < eta_t},   eta_t = a_t (1 - 1/K) + 1/K
    a_t = t (linear),  1 - exp(-5 t) (log),  exp(5 (t - 1)) (exp)

The paper's KL(sharpen(p_w) || p) differs from this cross-entropy by a constant without gradient.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from ..ranges import BelowOne, Limits, Weight
from .fixmatch import FixMatch
from .pixels import masked_mean
from .presets import CIFAR, PRETRAINED
from .weights import Rule, Uda

SCHEDULES = {
    "linear": lambda t: t,
    "log": lambda t: 1 - math.exp(-5 * t),
    "exp": lambda t: math.exp(5 * (t - 1)),
}


class UDA(FixMatch):
    """Soft, sharpened targets; labeled images that are already learned wait.

    rule: Uda. lambda_u: weight of the unlabeled loss. tsa: how the threshold eta_t rises, "linear", "log" or "exp";
    None (the paper's choice for CIFAR) uses every labeled image; with gradient_accumulation_steps the mean is over
    those that count in each micro-batch. ema_decay: of the weights that are evaluated.
    concat_weak: as in FixMatch.
    """

    paper = "Xie et al., Unsupervised data augmentation"
    year, arxiv = 2020, "1904.12848"
    tasks = ("classification",)
    rule_class = Uda
    defaults = {}
    presets = {"cifar": dict(CIFAR, max_steps=500_000), "pretrained": PRETRAINED}

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: Rule | None = None,
        lambda_u: Weight = 1.0,
        tsa: Annotated[str, Limits(choices=tuple(SCHEDULES))] | None = None,
        ema_decay: BelowOne = 0.999,
        concat_weak: bool | None = None,
    ):
        super().__init__(model, rule=rule, lambda_u=lambda_u, ema_decay=ema_decay, concat_weak=concat_weak)
        self.tsa = tsa

    def supervised(self, logits: Tensor, labeled: dict[str, Tensor], t: float) -> Tensor:
        target = labeled["target"]
        if self.tsa is None:
            return F.cross_entropy(logits, target)
        eta = SCHEDULES[self.tsa](t) * (1 - 1 / logits.shape[1]) + 1 / logits.shape[1]
        loss = F.cross_entropy(logits, target, reduction="none")  # [B, ...]
        return masked_mean(loss, loss.detach() > -math.log(eta))  # p(y) < eta
