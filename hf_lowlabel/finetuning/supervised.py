"""Labels only: the baseline every table needs.

    L = 1/2 H(y, p(x_weak)) + 1/2 H(y, p(x_strong))

It sees the same weak and strong augmentation as the semi-supervised methods, so that their gain is the unlabeled
images' and not the augmentation's. Beside a method without strong views, such as CutMix, it is fair with strong=False:

    L = H(y, p(x_weak))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share
from .pixels import cross_entropy, masked_mean
from .presets import S4L_STEPS


class Supervised(FinetuneObjective):
    """Cross-entropy on weak and strong views of the labeled images.

    strong: whether it sees strong views too. label_smoothing: share of each target spread evenly. ema_decay: of the
    weights that are evaluated.
    """

    paper = "labels only, the baseline of every table"
    year, arxiv = 2012, ""
    needs = "nothing"
    tasks = ("classification", "segmentation")
    defaults = dict(learning_rate=0.03, batch_size=64)
    # S4L section 4.1: crops and mirrored images at 10 %; at 1 % its colours change too, which is the strong view's part
    presets = {
        "imagenet-10": dict(
            S4L_STEPS,
            learning_rate=0.1,
            weight_decay=1e-3,
            warmup_ratio=0.025,
            max_steps=100_000,
            method_args=dict(strong=False),
        ),
        "imagenet-1": dict(S4L_STEPS, learning_rate=0.01, weight_decay=1e-2, warmup_ratio=0.01, max_steps=50_000),
    }

    labeled_views = {"image": "weak", "strong": "strong"}
    unlabeled_views: dict[str, str] = {}

    def __init__(
        self, model: nn.Module, *, strong: bool = True, label_smoothing: Share = 0.0, ema_decay: BelowOne = 0.999
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.label_smoothing = label_smoothing
        if not strong:
            self.labeled_views = {"image": "weak"}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled = batch["labeled"]
        views = [labeled[key] for key in self.labeled_views]
        logits = self.model(torch.cat(views)).logits.float()  # [B or 2B, K, ...]
        target, counted = torch.cat([labeled["target"]] * len(views)), labeled.get("counted")
        counted = None if counted is None else torch.cat([counted] * len(views))
        loss = cross_entropy(logits, target, self.label_smoothing, counted)
        right = (logits.argmax(1) == target).float()
        return {"loss": loss, "train_accuracy": masked_mean(right, None if target.dim() == 1 else target >= 0)}
