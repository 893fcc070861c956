"""UniMatch V2 (Yang et al. 2024, arXiv 2410.10777, sections 3.2 and 3.3).

    L = 1/2 H(y, p(x_l)) + 1/4 (L_s1 + L_s2)
    L_si = mean over valid pixels of  1[max p' >= tau] H(argmax p', p(x_si)),   p' = averaged network on x_w

Each strong view is perturbed in its features as well: the two views of an image drop complementary halves of the
channels of every encoder map, and half of the images in a batch drop none: one of each pair. Maps of one width, those
of a vision transformer, drop the same channels: a channel that is gone cannot be read from another layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..ranges import Average, CountOrNone, Share
from ..views.counter_rng import keyed
from .functional import predict
from .pixels import check_pairs, masked_mean, partner, paste
from .unimatch import random_boxes, supervised_loss, sure_loss


class UniMatchV2(FinetuneObjective):
    """Two strong views with complementary dropout learn from the averaged network.

    tau: confidence from which a pixel's label counts. box, hard: as in UniMatch. ema_decay: of the teacher, BatchNorm
    statistics included; it is evaluated. At update n the teacher keeps min(ema_decay, 1 - 1 / n), as in the authors'
    code. BatchNorm, where there is any, sees labeled and strong views as two batches.
    """

    paper = "Yang et al., UniMatch V2"
    year, arxiv = 2024, "2410.10777"
    needs = "weak and two strong views of at least two images"
    tasks = ("segmentation",)
    # section 4.1; the decoder starts from nothing
    defaults = dict(
        optimizer="adamw",
        learning_rate=5e-6,
        head_lr=40.0,
        batch_size=16,
        unlabeled_ratio=1,
        weight_decay=0.01,
        lr_scheduler_type="poly",
        scale=[0.5, 2.0],
    )

    # their configs/; VOC by crops of 518 px
    presets = {
        "voc": dict(image_size=518, epochs=60),
        "cityscapes": dict(batch_size=8, image_size=798, window=798, epochs=180, method_args=dict(hard=200_000)),
    }

    unlabeled_views = {"weak": "weak", "strong": "strong", "strong2": "strong"}

    def __init__(
        self,
        model: nn.Module,
        *,
        tau: Share = 0.95,
        box: Share = 0.5,
        hard: CountOrNone = 0,
        ema_decay: Average = 0.996,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="ema")
        self.tau, self.box, self.hard = tau, box, hard

    @property
    def momentum(self) -> float:
        return min(self.ema_decay, 1 - 1 / max(self.updates, 1))

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x_l, (x_w, valid, key) = labeled["image"], (unlabeled[k] for k in ("weak", "valid", "key"))
        check_pairs(x_w, "UniMatch")
        size = tuple(x_w.shape[-2:])
        with torch.no_grad():
            confidence, label = self.ema(x_w).logits.float().softmax(1).max(1)  # [M, H, W]
        boxes = [random_boxes(key, size, self.box, f"box {k}") for k in range(2)]
        strong = [paste(box, partner(x), x) for box, x in zip(boxes, (unlabeled["strong"], unlabeled["strong2"]))]
        (logits_l,) = predict(self.model, x_l)
        whole = one_of_each_pair(key)  # images that drop nothing
        maps = [complementary_dropout(f, whole, key) for f in self.model.encode(torch.cat(strong))]
        logits_1, logits_2 = self.model.classify(self.model.decode(maps), size).float().chunk(2)

        counted = unlabeled.get("counted")
        first, second = (
            sure_loss(z, *(paste(box, partner(v), v) for v in (label, confidence, valid)), self.tau, counted)
            for box, z in zip(boxes, (logits_1, logits_2))
        )
        supervised = supervised_loss(logits_l, labeled, self.hard)
        consistency = (first + second) / 2
        return {
            "loss": (supervised + consistency) / 2,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": masked_mean((confidence >= self.tau).float(), valid, counted),
        }


def one_of_each_pair(key: Tensor) -> Tensor:
    """bool [M], true for one image of each two neighbours, at random; the last of an odd number is left to chance."""
    i = torch.arange(len(key), device=key.device)
    return (keyed(key, "whole", 1)[i - i % 2, 0] < 0.5) ^ (i % 2 == 1)


def complementary_dropout(x: Tensor, whole: Tensor, key: Tensor) -> Tensor:
    """x [2 M, C, ...], two views of M images one after the other: view 1 keeps a random half of the channels, doubled,
    view 2 the others; images where `whole` [M] keep all as they are. Prefix tokens [2 M, n, D] drop features."""
    if not x.shape[1]:
        return x
    axis = 1 if x.dim() == 4 else 2
    keep = 2.0 * (keyed(key, "map", x.shape[axis]) < 0.5)  # [M, C]
    keep = torch.where(whole[:, None], 1.0, torch.stack([keep, 2 - keep])).flatten(0, 1)  # [2 M, C]
    return x * (keep[:, :, None, None] if axis == 1 else keep[:, None, :]).to(x)
