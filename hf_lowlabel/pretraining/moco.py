"""MoCo v2 (He et al. 2020, arXiv 1911.05722, Eq. 1-2; Chen et al. 2020, arXiv 2003.04297).

    L = -log exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_{k in queue, of other images} exp(q.k / tau))
    q = g(f(x1)),  k+ = g'(f'(x2))  as unit vectors;  f', g' <- m (f', g') + (1 - m) (f, g)

The paper shuffles the key batch over GPUs so that BatchNorm does not tell which key belongs to which query. Here
nothing is shuffled: under several processes the trainer turns every BatchNorm into SyncBatchNorm, whose statistics are
those of the global batch for queries and keys alike. `teacher_buffers="ema"` closes the leak altogether: keys then use
averaged statistics (MoCo-EMAN, Cai et al. 2021).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from ..objective import EMA, PretrainObjective
from ..ranges import BelowOne, Count, Limits, Positive
from .contrast import KeyQueue, info_nce, unit


class MoCo(PretrainObjective):
    """MoCo v2: a queue of old keys as negatives, a slow encoder of keys, an MLP head without BatchNorm.

    out: width of the embedding. queue: number of negative keys K. m: share of the key encoder that is kept in a step
    (0.99 on small data). tau: temperature. teacher_buffers: BatchNorm of the key encoder, "own" batch statistics as in
    the paper or "ema" of the query encoder's.

    Not as in the authors' code: keys of the query's own image in the queue are no negatives. Of a set as large as
    theirs there are next to none; of 500 images the queue holds 131 of each, which would undo much of the positive's
    pull. With `--sharded` an image is told by its place in the stream, and squares of one photo count as images: their
    keys stay negatives.

    The paper does not say when in a step the key encoder moves; here at its end, in the authors' code at its start. The
    keys are the same: between the two nothing is computed.
    """

    paper = "Chen et al., Improved baselines with momentum contrastive learning"
    year, arxiv = 2020, "2003.04297"
    needs = "two views"
    defaults = dict(batch_size=256, learning_rate=0.03, weight_decay=1e-4, optimizer="momentum", min_scale=0.2)
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=0.003, epochs=300, l2_sp=1e-2),
        "imagenet": dict(epochs=200, l2_sp=0.0),
        "cifar": dict(
            batch_size=512,
            learning_rate=0.03,
            weight_decay=5e-4,
            epochs=200,
            l2_sp=0.0,  # the authors' notebook
            method_args=dict(queue=4096, m=0.99, tau=0.1),
        ),
    }

    views = ("moco", "moco")
    compares = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        out: Count = 128,
        queue: Count = 65536,
        m: BelowOne = 0.999,
        tau: Positive = 0.2,
        teacher_buffers: Annotated[str, Limits(choices=("own", "ema"))] = "own",
    ):
        super().__init__(encoder)
        self.m, self.tau, dim = m, tau, encoder.num_features
        self.projector = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, out))
        self.teacher_encoder = EMA(encoder, teacher_buffers)
        self.teacher_projector = EMA(self.projector, teacher_buffers)
        self.queue = KeyQueue(queue, out)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_q, x_k = batch["views"]  # [B, 3, H, W]
        q = unit(self.projector(self.encoder.pooled(x_q)))  # [B, out]
        with torch.no_grad():
            k = unit(self.teacher_projector(self.teacher_encoder.module.pooled(x_k)))  # [B, out]
        loss = info_nce(q, k, self.queue.keys, self.tau, self.queue.of(batch["index"]))
        self.queue.wait(k, batch["index"], t)
        return {"loss": loss, "positive": (q.detach() * k).sum(1).mean()}

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.teacher_encoder.update(self.encoder, self.m)
        self.teacher_projector.update(self.projector, self.m)
