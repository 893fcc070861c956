"""FixMatch (Sohn et al. 2020, arXiv 2001.07685, Eq. 3-4; Xu et al. Eq. 4) and the family that reweights it.

    L = H(y, p(x_l)) + lambda_u * mean over ALL unlabeled images of  w(p_w) H(target(p_w), p(x_strong))

with p_w = p(x_weak) without gradient. FixMatch itself: target = argmax p_w, w = 1[max p_w >= tau]; what the others do
instead is a rule in weights.py. An image whose weight is 0 still counts in the mean. The class axis is 1, so the same
lines train a classifier ([B, K]) and a segmenter ([B, K, H, W]); there weak and strong views share their geometry.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from .functional import has_batchnorm, label_weak, predict
from .pixels import cross_entropy, masked_mean
from .weights import Fixed, Rule


class FixMatch(FinetuneObjective):
    """Pseudo-labels from weak views train the strong ones.

    rule: which pseudo-labels count (weights.py). lambda_u: weight of the unlabeled loss. ema_decay: of the weights that
    are evaluated. joint: whether the weak views go through the network together with the others, and so through its
    backward pass, instead of before them and without gradient, which saves a third of a step at seven unlabeled images
    per labeled one. None: together where BatchNorm makes a difference (one pseudo-label in ten), apart where both are
    the same.
    """

    ema_buffers = "copy"

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: Rule | None = None,
        lambda_u: float = 1.0,
        ema_decay: float = 0.999,
        joint: bool | None = None,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers=self.ema_buffers)
        self.rule, self.lambda_u = rule if rule is not None else Fixed(), lambda_u
        self.joint = has_batchnorm(model) if joint is None else joint

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x = labeled["image"], unlabeled["weak"], unlabeled["strong"]
        logits_l, logits_w, logits_s = self.predict(*x)  # [B or M, K, ...]
        with torch.no_grad():
            target, w = self.rule(logits_w.softmax(1), unlabeled["index"], logits_l.softmax(1), t)
        supervised = self.supervised(logits_l, labeled["target"], t)
        valid = unlabeled.get("valid")  # pixels inside the image
        consistency = masked_mean(w * F.cross_entropy(logits_s, target, reduction="none"), valid)
        return {
            "loss": supervised + self.lambda_u * consistency + self.rule.penalty(logits_s, w),
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "used": masked_mean(w, valid),
        }

    def predict(self, x_l: Tensor, x_w: Tensor, x_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the labeled, weak and strong views."""
        return label_weak(partial(predict, self.model), self.model, self.joint, x_l, x_w, x_s)

    def supervised(self, logits: Tensor, target: Tensor, t: float) -> Tensor:
        """The loss of the labeled images."""
        return cross_entropy(logits, target)
