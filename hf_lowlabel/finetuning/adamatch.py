"""AdaMatch (Berthelot et al. 2022, arXiv 2106.04732, section 3), for labeled and unlabeled images of one domain.

    z_l = lambda z'_l + (1 - lambda) z''_l,   lambda ~ U(0, 1) for every logit
    L = 1/2 H(y, z_weak) + 1/2 H(y, z_strong) + mu(t) lambda_u mean w H(argmax p'_w, p(u_strong))
    mu(t) = 1/2 - cos(min(pi, 2 pi t)) / 2

z' logits of the labeled images in one batch with the unlabeled ones, z'' in a batch of their own (random logit
interpolation: BatchNorm's view of the two makes the difference); p'_w and w from weights.Ada. The authors' code
decides the factors 1/2 and the hard target, where the paper's Eq. 7-8 differ.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import drawn
from ..ranges import BelowOne, Weight
from .fixmatch import FixMatch
from .functional import frozen_statistics, predict
from .presets import CIFAR, PRETRAINED
from .weights import Ada, Rule

# the flags of their semi_supervised/adamatch.py; 2^23 images in batches of 64
AUTHORS = dict(
    optimizer="momentum", unlabeled_ratio=3, weight_decay=1e-3, lr_scheduler_type="adamatch", max_steps=2**17
)


class AdaMatch(FixMatch):
    """FixMatch with alignment to the labeled images, a relative threshold and random logit interpolation.

    rule: Ada. lambda_u: weight of the unlabeled loss at the end of its warm-up. ema_decay: of the weights that are
    evaluated. Running statistics of BatchNorm come from the batch of all views alone.
    """

    paper = "Berthelot et al., AdaMatch"
    year, arxiv = 2022, "2106.04732"
    needs = "weak and strong view of all images"
    tasks = ("classification",)
    rule_class = Ada
    defaults = {}
    presets = {"cifar": {**CIFAR, **AUTHORS}, "pretrained": PRETRAINED}

    labeled_views = {"image": "weak", "strong": "strong"}

    def __init__(self, model: nn.Module, *, rule: Rule, lambda_u: Weight = 1.0, ema_decay: BelowOne = 0.999):
        super().__init__(model, rule=rule, lambda_u=lambda_u, ema_decay=ema_decay)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x_l, y = torch.cat([labeled["image"], labeled["strong"]]), labeled["target"].repeat(2)
        together, logits_w, logits_s = self.predict(x_l, unlabeled["weak"], unlabeled["strong"])
        with frozen_statistics(self.model):
            (alone,) = predict(self.model, x_l)
        share = drawn(lambda n: torch.rand(n, 2, together.shape[1], device=x_l.device), len(labeled["target"]))
        logits_l = torch.lerp(alone, together, share.transpose(0, 1).flatten(0, 1).to(together))  # [2B, K]

        with torch.no_grad():
            p_labeled = logits_l[: len(y) // 2].softmax(1)
            target, w = self.rule(logits_w.softmax(1), unlabeled["index"], p_labeled, t)
        supervised = F.cross_entropy(logits_l, y)  # both halves at once
        consistency = (w * F.cross_entropy(logits_s, target, reduction="none")).mean()
        warmup = 0.5 - math.cos(min(math.pi, 2 * math.pi * t)) / 2
        return {
            "loss": supervised + warmup * self.lambda_u * consistency + self.rule.penalty(logits_s, w),
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": w.mean(),
        }
