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
from .pixels import cross_entropy, masked_mean


class Supervised(FinetuneObjective):
    """Cross-entropy on weak and strong views of the labeled images.

    strong: whether it sees strong views too. label_smoothing: share of each target spread evenly. ema_decay: of the
    weights that are evaluated.
    """

    labeled_views = {"image": "weak", "strong": "strong"}
    unlabeled_views: dict[str, str] = {}

    def __init__(
        self, model: nn.Module, *, strong: bool = True, label_smoothing: float = 0.0, ema_decay: float = 0.999
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.label_smoothing = label_smoothing
        if not strong:
            self.labeled_views = {"image": "weak"}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled = batch["labeled"]
        views = [labeled[key] for key in self.labeled_views]
        logits = self.model(torch.cat(views)).logits.float()  # [B or 2B, K, ...]
        target = torch.cat([labeled["target"]] * len(views))
        loss = cross_entropy(logits, target, self.label_smoothing)
        right = (logits.argmax(1) == target).float()
        return {"loss": loss, "train_accuracy": masked_mean(right, None if target.dim() == 1 else target >= 0)}
