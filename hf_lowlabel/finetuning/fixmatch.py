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
from ..ranges import BelowOne, Weight
from .functional import has_batchnorm, label_weak, predict
from .pixels import cross_entropy, masked_mean
from .presets import CIFAR, FLEXMATCH_IMAGENET, PRETRAINED, USB_IMAGENET
from .weights import Fixed, Flex, Free, Rule, Soft


class FixMatch(FinetuneObjective):
    """Pseudo-labels from weak views train the strong ones.

    rule: which pseudo-labels count (weights.py); None: `rule_class` with its defaults. lambda_u: weight of the
    unlabeled loss. ema_decay: of the weights that are evaluated. concat_weak: whether the weak views go through the
    network together with the others, and so through its backward pass, instead of before them and without gradient,
    which saves a third of a step at seven unlabeled images per labeled one. None: together where BatchNorm makes a
    difference (one pseudo-label in ten), apart where both are the same.

    The paper does not say whether weak and strong views share a batch; in its authors' code they do. Apart, BatchNorm
    normalises each by its own statistics.
    """

    paper = "Sohn et al., FixMatch"
    year, arxiv = 2020, "2001.07685"
    needs = "weak and strong view"
    tasks = ("classification", "segmentation")
    prior, rule_class = "may", Fixed
    defaults = dict(learning_rate=0.03, batch_size=64, unlabeled_ratio=7)
    presets = {
        "cifar": CIFAR,
        "pretrained": PRETRAINED,
        # the authors' code for 10 %: rate 0.1 for each 256 labeled images, decay 3e-4 of the square without the half,
        # 3,000 passes over 128,116 labels
        "imagenet": dict(
            learning_rate=0.4,
            batch_size=1024,
            unlabeled_ratio=5,
            weight_decay=6e-4,
            warmup_ratio=1 / 60,
            lr_scheduler_type="steps-even",
            max_steps=375_000,
            method_args=dict(tau=0.7, lambda_u=10.0),
        ),
    }

    ema_buffers = "copy"

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: Rule | None = None,
        lambda_u: Weight = 1.0,
        ema_decay: BelowOne = 0.999,
        concat_weak: bool | None = None,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers=self.ema_buffers)
        self.rule, self.lambda_u = rule if rule is not None else self.rule_class(), lambda_u
        self.concat_weak = has_batchnorm(model) if concat_weak is None else concat_weak

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x = labeled["image"], unlabeled["weak"], unlabeled["strong"]
        logits_l, logits_w, logits_s = self.predict(*x)  # [B or M, K, ...]
        with torch.no_grad():
            target, w = self.rule(logits_w.softmax(1), unlabeled["index"], logits_l.softmax(1), t)
        supervised = self.supervised(logits_l, labeled, t)
        inside = unlabeled.get("valid"), unlabeled.get("counted")  # pixels inside the image
        consistency = masked_mean(w * F.cross_entropy(logits_s, target, reduction="none"), *inside)
        return {
            "loss": supervised + self.lambda_u * consistency + self.rule.penalty(logits_s, w),
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": masked_mean(w, *inside),
        }

    def predict(self, x_l: Tensor, x_w: Tensor, x_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the labeled, weak and strong views."""
        return label_weak(partial(predict, self.model), self.model, self.concat_weak, x_l, x_w, x_s)

    def supervised(self, logits: Tensor, labeled: dict[str, Tensor], t: float) -> Tensor:
        """The loss of the labeled images."""
        return cross_entropy(logits, labeled["target"], counted=labeled.get("counted"))


class FlexMatch(FixMatch):
    """FixMatch with a threshold per class that follows what has been learned of it (rule: Flex); arguments as there."""

    paper = "Zhang et al., FlexMatch"
    year, arxiv = 2021, "2110.08263"
    needs = "weak and strong view, index"
    tasks = ("classification",)
    rule_class = Flex
    defaults = {}
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED, "imagenet": FLEXMATCH_IMAGENET}


class FreeMatch(FixMatch):
    """FixMatch with thresholds that follow the model's confidence, and fairness (rule: Free); arguments as there."""

    paper = "Wang et al., FreeMatch"
    year, arxiv = 2023, "2205.07246"
    tasks = ("classification",)
    rule_class = Free
    defaults = {}
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED, "imagenet": USB_IMAGENET}


class SoftMatch(FixMatch):
    """FixMatch whose images weigh by a truncated Gaussian of their confidence (rule: Soft); arguments as there."""

    paper = "Chen et al., SoftMatch"
    year, arxiv = 2023, "2301.10921"
    tasks = ("classification",)
    rule_class = Soft
    defaults = {}
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED, "imagenet": USB_IMAGENET}
