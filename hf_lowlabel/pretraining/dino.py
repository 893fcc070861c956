"""DINO (Caron et al. 2021, arXiv 2104.14294, Eq. 1-4).

    L = mean over teacher views i, student views j != i of  -sum_k P_t(x_i)_k log P_s(x_j)_k
    P_s = softmax(g(f(x)) / tau_s),    P_t = softmax((g'(f'(x)) - c) / tau_t)
    c <- m_c c + (1 - m_c) mean over the global batch of g'(f'(x))

The teacher f', g' follows f, g by a momentum that rises from m0 to 1; it sees the two global views, the student these
and the local crops (section 3.1). Centering and a sharp teacher keep each other from collapse. Views of one size go
through a network together, as in the authors' code: BatchNorm sees them as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_mean, rank, world
from ..objective import EMA, PretrainObjective, cosine_momentum
from ..ranges import BelowOne, Count, CountOrNone, Positive, Share, Weight
from .contrast import full_precision, unit
from .ibot import check_tokens, masked_entropy, masks, patch_channels, tokens


def cross_view_entropy(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    """L from the teacher's probabilities and the student's log-probabilities of each view, all [B, K]."""
    pairs = [(p, q) for i, p in enumerate(teacher) for j, q in enumerate(student) if i != j]
    return torch.stack([-(p * q).sum(1).mean() for p, q in pairs]).mean()


def by_size(f: Callable[[Tensor], Tensor], views: list[Tensor]) -> list[Tensor]:
    """f of every view, with one call for all views of the same height and width."""
    out: list[Tensor] = list(views)
    for size in dict.fromkeys(x.shape[-2:] for x in views):
        at = [i for i, x in enumerate(views) if x.shape[-2:] == size]
        for i, y in zip(at, f(torch.cat([views[i] for i in at])).chunk(len(at)), strict=True):
            out[i] = y
    return out


def entropy_of(p: Tensor) -> Tensor:
    """Mean entropy of probabilities [B, K]."""
    return -(p * p.clamp_min(1e-12).log()).sum(1).mean()


class Head(nn.Module):
    """3 linear layers with GELU, a unit vector, then cosines to `out` prototypes (a weight-normalised linear layer)."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, out: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(out, bottleneck), dim=1))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        # frozen: a gradient of zeros, where none at all would stall DDP
        w = self.prototypes.detach() + 0 * self.prototypes if frozen else self.prototypes
        z = unit(self.mlp(x))
        with full_precision(z):
            return F.linear(z, unit(w))


class DINO(PretrainObjective):
    """DINO on the pooled features.

    out: number of prototypes K. hidden, bottleneck: widths of the head. tau_s: the student's temperature. tau_t0,
    tau_t, tau_warmup: the teacher's rises from the first to the second, linearly, over this share of training (30
    epochs of 300). decay_end: the weight decay at the end as a multiple of that at the start, by a cosine (the authors:
    0.4 / 0.04). center_m: m_c. m0: the teacher's momentum at the start. freeze_last: share of training in which the
    prototypes stay as they are (the authors: the first epoch). local_crops: views of 5 to 40 % of the image for the
    student, 96 px beside global ones of 224, a multiple of a transformer's patch; the paper has 8 of them with
    min_scale 0.4. Networks of a fixed image size need timm's dynamic_img_size for them. patch_loss: weight of iBOT's
    loss of masked patches (`ibot.py`) on a vision transformer; DINOv2 and v3 were trained with 1, 0 is none. Gradients
    are clipped tensor by tensor.

    Not as in the authors' code: the student is evaluated and saved, not the teacher, which a run of some hundred steps
    leaves near its start (m0). Temperature and learning rate change with every step, not with every epoch, since a run
    may be shorter than one; they differ by one epoch's change at most. And the rate falls to 0 instead of to 1e-6.
    """

    paper = "Caron et al., Emerging properties in self-supervised ViTs"
    year, arxiv = 2021, "2104.14294"
    needs = "two views, and local crops where asked for"
    defaults = dict(
        batch_size=256, learning_rate=5e-4, weight_decay=0.04, optimizer="adamw", max_grad_norm=3.0, min_scale=0.14
    )
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=5e-5, epochs=300, l2_sp=1e-2),
        # section 3.1, and the authors' code
        "imagenet": dict(
            batch_size=1024,
            epochs=300,
            warmup_ratio=0.0333,
            l2_sp=0.0,
            min_scale=0.4,
            # the highest temperature from epoch 29 on, the prototypes still for one epoch
            method_args=dict(local_crops=8, decay_end=10.0, tau_warmup=29 / 300, freeze_last=1 / 300),
        ),
    }

    clips_each = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        out: Count = 65536,
        hidden: Count = 2048,
        bottleneck: Count = 256,
        tau_s: Positive = 0.1,
        tau_t0: Positive = 0.04,
        tau_t: Positive = 0.07,
        tau_warmup: Share = 0.1,
        decay_end: Weight = 1.0,
        center_m: BelowOne = 0.9,
        m0: Share = 0.996,
        freeze_last: Share = 0.01,
        local_crops: CountOrNone = 0,
        patch_loss: Weight = 0.0,
    ):
        super().__init__(encoder)
        if patch_loss:
            check_tokens(encoder)
        self.views = ("byol1", "byol2") + ("dino-local",) * local_crops
        self.tau_s, self.tau_t0, self.tau_t, self.tau_warmup = tau_s, tau_t0, tau_t, tau_warmup
        self.center_m, self.m0, self.freeze_last, self.decay_end = center_m, m0, freeze_last, decay_end
        self.head = Head(encoder.num_features, hidden, bottleneck, out)
        self.teacher_encoder, self.teacher_head = EMA(encoder, "own"), EMA(self.head, "own")
        self.register_buffer("center", torch.zeros(out))
        self.patch_loss, self.updates = patch_loss, 0  # updates: seeds the masks
        if patch_loss:
            self.mask_token = nn.Parameter(torch.zeros(patch_channels(encoder)))
            self.register_buffer("patch_center", torch.zeros(out))

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        views, frozen = batch["views"], t < self.freeze_last
        if self.patch_loss:
            return self.with_patches(views, t, frozen)
        with torch.no_grad():
            out = by_size(lambda x: self.teacher_head(self.teacher_encoder.module.pooled(x)), views[:2])  # [B, out]
            teacher = [((o - self.center) / self.teacher_temperature(t)).softmax(1) for o in out]
        seen = by_size(lambda x: self.head(self.encoder.pooled(x), frozen), views)
        student = [(o / self.tau_s).log_softmax(1) for o in seen]
        (means,) = self.so_far(t, torch.cat(out).mean(0)[None])  # one row for each micro-batch
        self.later(center=self.moved_center(self.center, all_mean(means.mean(0))))
        return {"loss": cross_view_entropy(teacher, student), "teacher_entropy": entropy_of(teacher[0])}

    def moved_center(self, center: Tensor, mean: Tensor) -> Tensor:
        return center.lerp(torch.where(mean.isfinite(), mean, center), 1 - self.center_m)

    def with_patches(self, views: list[Tensor], t: float, frozen: bool) -> dict[str, Tensor]:
        """The same, and L_MIM on the global views; the student's are masked."""
        x, tau_t = torch.cat(views[:2]), self.teacher_temperature(t)
        part = len(self._parts) if t == self._step else 0  # micro-batches of a step have masks of their own
        grid = (x.shape[-2] // self.encoder.patch, x.shape[-1] // self.encoder.patch)
        first = (part * world() + rank()) * len(views[0])  # of this process's images in the step
        numbers = [2 * (first + i) + view for view in (0, 1) for i in range(len(views[0]))]
        mask = torch.from_numpy(masks(grid, numbers, self.updates)).to(x.device)  # [2 B, n]
        with torch.no_grad():
            pooled, patches = tokens(self.teacher_encoder.module, x)
            out, at_patches = self.teacher_head(pooled).chunk(2), self.teacher_head(patches[mask])
            teacher = [((o - self.center) / tau_t).softmax(1) for o in out]
            targets = ((at_patches - self.patch_center) / tau_t).softmax(1)
        pooled, patches = tokens(self.encoder, x, mask, self.mask_token)
        seen = [*self.head(pooled, frozen).chunk(2)]
        seen += by_size(lambda v: self.head(self.encoder.pooled(v), frozen), views[2:])
        student = [(o / self.tau_s).log_softmax(1) for o in seen]
        guesses = (self.head(patches[mask], frozen) / self.tau_s).log_softmax(1)
        total = torch.cat([at_patches.sum(0), at_patches.new_tensor([len(at_patches)])])
        means, totals = self.so_far(t, torch.cat(out).mean(0)[None], total[None])
        total = all_mean(totals.mean(0))  # no masked patch: 0 / 0, which leaves the center as it is
        self.later(
            center=self.moved_center(self.center, all_mean(means.mean(0))),
            patch_center=self.moved_center(self.patch_center, total[:-1] / total[-1]),
        )
        of_class, of_patches = cross_view_entropy(teacher, student), masked_entropy(targets, guesses, mask)
        parts = {"class": of_class.detach(), "patch": of_patches.detach(), "teacher_entropy": entropy_of(teacher[0])}
        return {"loss": of_class + self.patch_loss * of_patches, **parts}

    def decay(self, t: float) -> float:
        """decay_end + (1 - decay_end) (1 + cos(pi t)) / 2."""
        return self.decay_end + (1 - self.decay_end) * (1 + math.cos(math.pi * t)) / 2

    def teacher_temperature(self, t: float) -> float:
        """tau_t0 + (tau_t - tau_t0) min(1, t / tau_warmup)."""
        rise = min(1.0, t / self.tau_warmup) if self.tau_warmup else 1.0
        return self.tau_t0 + (self.tau_t - self.tau_t0) * rise

    @torch.no_grad()
    def after_step(self, t: float) -> None:
        super().after_step(t)
        m = cosine_momentum(self.m0, t)
        self.teacher_encoder.update(self.encoder, m)
        self.teacher_head.update(self.head, m)
        self.updates += 1

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)
