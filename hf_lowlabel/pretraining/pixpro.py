"""PixPro (Xie et al. 2021, arXiv 2011.10043, Eq. 1, 3-5): a propagated pixel agrees with its copy in the other view.

    y_i = sum_j max(cos(x_i, x_j), 0)^gamma  g(x_j)                                      pixel propagation, online only
    L = mean over pairs (i, j) of [-cos(y_i, x'_j)]  +  the same with the views exchanged
    a pair is positive when the centres of its cells lie closer in the image than tau times the larger cell diagonal

x projected cells of the online network, x' of the momentum network; g is one 1x1 convolution whose output is scaled to
length 1 (as in the authors' code). An image without a positive pair counts as 0. The authors' code doubles this loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..objective import EMA, PretrainObjective, cosine_momentum
from ..ranges import Count, Positive, Share, Weight
from .contrast import full_precision, unit


def cell_centres(box: Tensor, flip: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Where the cells of an h x w map lie in the image, and how long their diagonal is, in the units of the boxes.

    box [B, 4] as (x0, y0, x1, y1); flip [B]: the view is mirrored left to right. -> centres [B, h * w, 2], [B].
    """
    x0, y0, x1, y1 = box.float().unbind(1)  # [B]
    u = (torch.arange(w, device=box.device) + 0.5).div(w).expand(len(box), w)  # [B, w]
    v = (torch.arange(h, device=box.device) + 0.5).div(h)  # [h]
    x = x0[:, None] + (x1 - x0)[:, None] * torch.where(flip[:, None], 1 - u, u)  # [B, w]
    y = y0[:, None] + (y1 - y0)[:, None] * v  # [B, h]
    centres = torch.stack([x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], dim=-1)
    return centres.flatten(1, 2), torch.hypot((x1 - x0) / w, (y1 - y0) / h)


def positive_pairs(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], tau: float) -> Tensor:
    """|c_i - c_j| / max(diagonal, diagonal') < tau: (centres, diagonal) of two views -> bool [B, P, P']."""
    apart = torch.cdist(first[0], second[0], compute_mode="donot_use_mm_for_euclid_dist")
    return apart < tau * torch.maximum(first[1], second[1])[:, None, None]


def pair_cosine(y: Tensor, k: Tensor, pairs: Tensor) -> Tensor:
    """The mean of cos(y_i, k_j) over the positive pairs of each image, 0 without one: [B, D, P] twice -> [B]."""
    cosine = unit(y).transpose(1, 2) @ unit(k)  # [B, P, P]
    return (cosine * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)


class PixPro(PretrainObjective):
    """PixPro on the feature map of an encoder.

    hidden, out: widths of the projector. gamma: sharpness of the propagation. tau: largest distance of a positive pair
    in cell diagonals. m0: the momentum at the start, which rises to 1 by a cosine.
    """

    paper = "Xie et al., Propagate yourself"
    year, arxiv = 2021, "2011.10043"
    needs = "two views with their boxes, feature maps"
    tasks = ("segmentation", "classification")
    defaults = dict(batch_size=8, learning_rate=0.1, weight_decay=1e-5, optimizer="lars")
    presets = {
        "target": dict(batch_size=8, learning_rate=0.1, epochs=200, l2_sp=1e-2),  # Xu et al., section 4.1
        # Xie et al., section 4.1
        "imagenet": dict(batch_size=1024, learning_rate=1.0, epochs=100, warmup_ratio=0.05, l2_sp=0.0),
    }

    views = ("pixpro1", "pixpro2")
    geometry = True
    maps = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: Count = 4096,
        out: Count = 256,
        gamma: Weight = 2.0,
        tau: Positive = 0.7,
        m0: Share = 0.99,
    ):
        super().__init__(encoder)
        self.gamma, self.tau, self.m0 = gamma, tau, m0
        self.projector = nn.Sequential(
            nn.Conv2d(encoder.num_map_features, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out, 1),
        )
        self.value = nn.Conv2d(out, out, 1)
        self.teacher_encoder, self.teacher_projector = EMA(encoder, "own"), EMA(self.projector, "own")

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        online = [self.projector(self.encoder.feature_map(x)) for x in batch["views"]]  # [B, out, h, w]
        target = [self.teach(x) for x in batch["views"]]
        return self.consistency(online, target, batch)

    @torch.no_grad()
    def teach(self, x: Tensor) -> Tensor:
        """The momentum network: images [B, 3, H, W] -> cells [B, out, h, w]."""
        return self.teacher_projector(self.teacher_encoder.module.feature_map(x))

    def propagate(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """y of [B, out, h, w] -> [B, out, P]; cells that are not `valid` (bool [B, P]) pass nothing on."""
        cells = unit(x.flatten(2))  # [B, out, P]
        near = (cells.transpose(1, 2) @ cells).clamp_min(1e-6) ** self.gamma  # [B, P, P]; 0^0.5 has no slope
        if valid is not None:
            near = near * valid[:, None]
        return unit(self.value(x.float()).flatten(2)) @ near.transpose(1, 2)

    def consistency(
        self,
        online: list[Tensor],
        target: list[Tensor],
        batch: dict,
        valid: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> dict[str, Tensor]:
        """L of two views from their projected cells [B, out, h, w]; pairs with an invalid cell do not count."""
        shape = online[0].shape[2:]
        first, second = (cell_centres(*at, *shape) for at in zip(batch["boxes"], batch["flips"], strict=True))
        pairs = positive_pairs(first, second, self.tau)  # [B, P, P]
        if valid[0] is not None:
            pairs = pairs & valid[0][:, :, None] & valid[1][:, None]
        with full_precision(online[0]):
            y1, y2 = (self.propagate(x, v) for x, v in zip(online, valid, strict=True))  # [B, out, P]
            k1, k2 = (k.flatten(2) for k in target)
            loss = -(pair_cosine(y1, k2, pairs) + pair_cosine(y2, k1, pairs.transpose(1, 2))).mean()
        return {"loss": loss, "pairs": pairs.float().sum((1, 2)).mean()}

    def after_step(self, t: float) -> None:
        super().after_step(t)
        m = cosine_momentum(self.m0, t)
        self.teacher_encoder.update(self.encoder, m)
        self.teacher_projector.update(self.projector, m)
