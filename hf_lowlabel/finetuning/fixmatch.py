"""FixMatch (Sohn et al. 2020, arXiv 2001.07685, Eq. 3-4; Xu et al. Eq. 4) and the family that reweights it.

    L = H(y, p(x_l)) + lambda_u * mean over ALL unlabeled images of  w(p_w) H(argmax p_w, p(x_strong)),   p_w = sg p(x_weak)

An image whose weight is 0 still counts in the mean. The class axis is 1, so the same lines train a classifier
([B, K]) and a segmenter ([B, K, H, W]); there weak and strong views share their geometry.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from .weights import Fixed


class FixMatch(FinetuneObjective):
    """Pseudo-labels from weak views train the strong ones.

    rule: which pseudo-labels count (weights.py). lambda_u: weight of the unlabeled loss. ema_decay: of the weights that
    are evaluated. One concatenated forward: a weak branch in eval mode or of its own changes up to half the
    pseudo-labels through BatchNorm.
    """

    def __init__(self, model: nn.Module, *, rule: nn.Module | None = None, lambda_u: float = 1.0, ema_decay: float = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.rule, self.lambda_u = rule if rule is not None else Fixed(), lambda_u

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x = torch.cat([labeled["image"], unlabeled["weak"], unlabeled["strong"]])
        sizes = [len(labeled["image"]), len(unlabeled["weak"]), len(unlabeled["strong"])]
        logits_l, logits_w, logits_s = self.model(x).logits.float().split(sizes)         # [B, K, ...]

        with torch.no_grad():
            p, w = self.rule(logits_w.softmax(1), unlabeled["index"], logits_l.softmax(1))
        supervised = F.cross_entropy(logits_l, labeled["target"])
        consistency = (w * F.cross_entropy(logits_s, p.argmax(1), reduction="none")).mean()
        return {
            "loss": supervised + self.lambda_u * consistency,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "used": w.mean(),
        }
