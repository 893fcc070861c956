"""DenseCL (Wang et al. 2021, arXiv 2011.09157, Eq. 1-4): MoCo v2 for the image and, at the same time, for every cell.

L = (1 - lambda) L_q + lambda L_r,    both InfoNCE with temperature tau
L_q: pooled query and key, a queue of pooled keys
L_r: the query of each cell i and the key of cell c_i = argmax_j cos(F1_i, F2_j) of the other view's feature map;
     the negatives are a queue of one pooled dense key per image
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import EMA, PretrainObjective
from ..ranges import BelowOne, Count, Positive, Share
from .contrast import KeyQueue, full_precision, info_nce, unit


def matches(f1: Tensor, f2: Tensor) -> Tensor:
    """c_i = argmax_j cos(f1_i, f2_j): feature maps [B, D, P] of two views -> int64 [B, P]."""
    with full_precision(f1):
        return (unit(f1).transpose(1, 2) @ unit(f2)).argmax(2)


class Heads(nn.Module):
    """Two 2-layer projections of a feature map [B, D, h, w]: of its mean, and of every cell."""

    def __init__(self, dim: int, hidden: int, out: int):
        super().__init__()
        self.whole = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))
        self.dense = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, out, 1))

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        return self.whole(f.mean((2, 3))), self.dense(f).flatten(2)  # [B, out], [B, out, P]


class DenseCL(PretrainObjective):
    """DenseCL on the feature map.

    hidden, out: widths of both heads. queue: number of keys in each of the two queues. m: share of the key encoder kept
    in a step. tau: temperature. dense: lambda, the share of the dense loss. As in MoCo nothing is shuffled: the trainer
    synchronises BatchNorm; and keys of the query's own image in a queue are no negatives, as far as there.
    """

    paper = "Wang et al., Dense contrastive learning"
    year, arxiv = 2021, "2011.09157"
    needs = "two views, feature maps"
    tasks = ("segmentation", "classification")
    defaults = dict(batch_size=256, learning_rate=0.03, weight_decay=1e-4, optimizer="momentum", min_scale=0.2)
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=0.003, epochs=300, l2_sp=1e-2),
        "imagenet": dict(epochs=200, l2_sp=0.0),
        "coco": dict(learning_rate=0.3, epochs=800, l2_sp=0.0),
    }

    views = ("moco", "moco")
    compares = True
    maps = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: Count = 2048,
        out: Count = 128,
        queue: Count = 65536,
        m: BelowOne = 0.999,
        tau: Positive = 0.2,
        dense: Share = 0.5,
    ):
        super().__init__(encoder)
        self.m, self.tau, self.dense = m, tau, dense
        self.heads = Heads(encoder.num_map_features, hidden, out)
        self.teacher_encoder, self.teacher_heads = EMA(encoder, "own"), EMA(self.heads, "own")
        self.queue, self.dense_queue = KeyQueue(queue, out), KeyQueue(queue, out)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_q, x_k = batch["views"]  # [B, 3, H, W]
        f_q = self.encoder.feature_map(x_q)  # [B, D, h, w]
        q, r = (unit(o) for o in self.heads(f_q))  # [B, out], [B, out, P]
        with torch.no_grad():
            f_k = self.teacher_encoder.module.feature_map(x_k)
            k, cells = self.teacher_heads(f_k)
            key, dense_key, cells = unit(k), unit(cells.mean(2)), unit(cells)  # the mean, then its length
            c = matches(f_q.detach().flatten(2), f_k.flatten(2))  # [B, P]
            positive = cells.gather(2, c[:, None].expand_as(r))  # [B, out, P]
        whole = info_nce(q, key, self.queue.keys, self.tau, self.queue.of(batch["index"]))
        r, positive = (o.transpose(1, 2).flatten(0, 1) for o in (r, positive))  # [B * P, out]
        dense = info_nce(r, positive, self.dense_queue.keys, self.tau, self.dense_queue.of(batch["index"]))
        self.queue.wait(key, batch["index"], t)
        self.dense_queue.wait(dense_key, batch["index"], t)
        loss = (1 - self.dense) * whole + self.dense * dense
        return {"loss": loss, "whole": whole.detach(), "dense": dense.detach()}

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.teacher_encoder.update(self.encoder, self.m)
        self.teacher_heads.update(self.heads, self.m)
