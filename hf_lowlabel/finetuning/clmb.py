"""CLMB (Alonso et al. 2021, arXiv 2104.13415, section 3).

    L = H(y, p(x_l)) + a(t) mean w H(y', p(x_s)) + lambda_e H(p(x_s)) / log K + lambda_c (C(x_l) + C(x_s))
    y' = argmax p'(x_w), w = (max p'(x_w))^6, p' averaged network; x_s two strong views, most of them mixed by ClassMix
    C = 1/K sum_c mean over pixels z of class c and memory q of class c of  S_c(z) S'_c(q) (1 - cos(z, q))

The memory holds projected features of labeled pixels that the teacher gets right with confidence above tau, those with
the largest S'_c first. S_c, S'_c in (0, 1) are small networks of each class, and each is divided by its mean over the
pixels, or the memory, of that class, so that C can be written with two weighted means: 1 - <mean S z, mean S' q>.

Two faults of the authors' code are not repeated: there the memory's weights are divided by themselves, which makes them
all 1, and the features with the SMALLEST S'_c are kept.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, world
from ..objective import EMA, IGNORE_INDEX, FinetuneObjective, Objective, cosine_momentum, mlp
from ..ranges import Average, Count, Share, Weight
from ..views.counter_rng import keyed
from .functional import entropy, sigmoid_rampup
from .pixels import check_pairs, cross_entropy, half_classes, masked_mean, partner, paste


class ClassAttention(nn.Module):
    """K networks Linear - BatchNorm - LeakyReLU - Linear - sigmoid: features [K, S, D] -> scores [K, S] in (0, 1)."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.hidden = nn.Parameter(torch.empty(classes, width, width).uniform_(-bound, bound))
        self.out = nn.Parameter(torch.empty(classes, width, 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(classes, 1, 1))

    def forward(self, z: Tensor, used: Tensor) -> Tensor:
        """used bool [K, S]: rows that take part, also in the statistics of the normalisation."""
        w = used[..., None].float()
        count = w.sum(1, keepdim=True).clamp(min=1)
        h = z @ self.hidden  # [K, S, D]
        h = h - (h * w).sum(1, keepdim=True) / count
        h = h * ((h.square() * w).sum(1, keepdim=True) / count + 1e-5).rsqrt()
        return (F.leaky_relu(h, 0.2) @ self.out + self.bias).sigmoid()[..., 0] * used


class CLMB(FinetuneObjective):
    """Pseudo-labels, entropy, and a contrast with a memory of labeled features for each class.

    lambda_c, lambda_e: weights of contrast and entropy. power: of the confidence that weights a pseudo-label. memory:
    features kept for each class. fresh: of them, how many a step may replace. samples: pixels of a class that a step
    contrasts, drawn at random. width: of the projected features. tau: see above. ramp: share of training over which the
    pseudo-labels' weight rises; the contrast starts at its end. mix: chance that a strong view is mixed by ClassMix,
    after the ramp: by floor(n / 2) + 1 of its n classes. background: class 0 is not pasted where an image has others
    (VOC). ema_decay: of the teacher at the start; it rises to 1. As in the authors' code the student is
    evaluated.
    """

    paper = "Alonso et al., Pixel-level contrastive learning from a class-wise memory bank"
    year, arxiv = 2021, "2104.13415"
    needs = "weak and two strong views of at least two images"
    tasks = ("segmentation",)
    # the authors' configs/
    defaults = dict(
        optimizer="momentum",
        learning_rate=2e-4,
        head_lr=1.0,
        batch_size=10,
        unlabeled_ratio=1,
        weight_decay=5e-4,
        lr_scheduler_type="poly",
    )

    presets = {
        "voc": dict(batch_size=14, image_size=321, max_steps=150_000, method_args=dict(background=True)),
        "cityscapes": dict(batch_size=5, image_size=512, max_steps=150_000),
    }

    unlabeled_views = {"weak": "weak", "strong": "clmb", "strong2": "clmb"}

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_c: Weight = 0.1,
        lambda_e: Weight = 0.01,
        power: Weight = 6.0,
        memory: Count = 256,
        fresh: Count = 16,
        samples: Count = 256,
        width: Count = 256,
        tau: Share = 0.95,
        ramp: Share = 0.02,
        mix: Share = 0.75,
        background: bool = False,
        ema_decay: Average = 0.995,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="own")
        self.background = background
        self.lambda_c, self.lambda_e, self.power, self.tau = lambda_c, lambda_e, power, tau
        self.classes, self.fresh, self.samples, self.ramp, self.mix = num_classes, fresh, samples, ramp, mix
        self.projector, self.predictor = mlp(model.num_features, width, width), mlp(width, width, width)
        self.teacher_projector = EMA(self.projector, "own")
        self.attention, self.memory_attention = ClassAttention(num_classes, width), ClassAttention(num_classes, width)
        self.register_buffer("memory", torch.zeros(num_classes, memory, width))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.long))

    @property
    def evaluated(self) -> nn.Module:
        return self.model

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x_l, y_l, x_w = labeled["image"], labeled["target"], unlabeled["weak"]
        keys = unlabeled["key"], ~unlabeled["key"]  # of two strong views
        check_pairs(x_w, "CLMB")
        n, size = len(x_l), tuple(x_w.shape[-2:])
        with torch.no_grad():
            teacher = self.ema.module
            features = teacher.features(torch.cat([x_l, x_w]))
            p = teacher.classify(features, size).float().softmax(1)
            memory = self.memory, self.filled
            if t >= self.ramp / 2:
                memory = self.remember(features[:n], p[:n], y_l, labeled["key"], t)
            confidence, label = p[n:].max(1)  # [M, H, W]
            label = label.masked_fill(~unlabeled["valid"], IGNORE_INDEX)
        views = [self.mixed(unlabeled[k], label, confidence, key, t) for k, key in zip(("strong", "strong2"), keys)]
        x_s, y_s, sure = (torch.cat(v) for v in zip(*views))

        features_l, features_s = self.model.features(x_l), self.model.features(x_s)  # two batches to BatchNorm
        logits_l, logits_s = (self.model.classify(f, size).float() for f in (features_l, features_s))
        known = y_s != IGNORE_INDEX
        counted = torch.cat([unlabeled["counted"]] * 2) if "counted" in unlabeled else None  # of both strong views
        pseudo = masked_mean(F.cross_entropy(logits_s, y_s, reduction="none") * sure**self.power, known, counted)
        uncertainty = masked_mean(entropy(logits_s), known, counted) / math.log(self.classes)
        both = (features_l, y_l, labeled["key"]), (features_s, y_s, torch.cat(keys))
        contrast = sum(self.contrast(*part, *memory) for part in both)
        supervised = cross_entropy(logits_l, y_l, counted=labeled.get("counted"))
        unsupervised = sigmoid_rampup(t, self.ramp) * pseudo + self.lambda_e * uncertainty
        return {
            "loss": supervised + unsupervised + self.lambda_c * (t >= self.ramp) * contrast,
            "supervised": supervised.detach(),
            "consistency": pseudo.detach(),
            "contrast": contrast.detach(),
            "memory": self.filled.float().mean(),
        }

    def after_step(self, t: float) -> None:
        Objective.after_step(self, t)
        self.updates += 1
        m = min(cosine_momentum(self.ema_decay, t), (1 + self.updates) / (10 + self.updates))  # as in BYOL
        self.ema.update(self.model, m)
        self.teacher_projector.update(self.projector, m)

    def mixed(
        self, x: Tensor, label: Tensor, confidence: Tensor, key: Tensor, t: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A strong view, its labels and their confidence; mixed by half of an image's classes with chance `mix`."""
        chance = self.mix * (t >= self.ramp)
        known = label != IGNORE_INDEX
        mask = half_classes(key, label.clamp(min=0), self.classes, known, more=1, background=self.background)
        whole = keyed(key, "mix", 1)[:, 0] >= chance
        mask = mask | whole[:, None, None]
        return tuple(paste(mask, v, partner(v)) for v in (x, label, confidence))

    def contrast(self, features: Tensor, labels: Tensor, key: Tensor, memory: Tensor, filled: Tensor) -> Tensor:
        """C: features [n, D, h, w], labels [n, H, W], memory [K, Q, width] whose first `filled` [K] rows are there."""
        z, used = self.sample(features, to_grid(labels, features, self.model.divisor), key)  # [K, S, D], [K, S]
        z = F.normalize(self.predictor(self.projector(z.flatten(0, 1))).float(), dim=1).view(*used.shape, -1)
        held = torch.arange(memory.shape[1], device=z.device) < filled[:, None]
        means = [
            weighted_mean(a, f(a.detach(), u), u)
            for f, a, u in ((self.attention, z, used), (self.memory_attention, F.normalize(memory, dim=2), held))
        ]
        counted = (used.sum(1) > 1) & (held.sum(1) > 1)  # [K]
        return torch.where(counted, 1 - (means[0] * means[1]).sum(1), 0.0).sum() / self.classes

    def sample(self, features: Tensor, labels: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Up to `samples` pixels of each class on all ranks, at random: (features [K, S, D], which exist [K, S])."""
        flat = labels.flatten()  # [n h w]
        of_class = flat == torch.arange(self.classes, device=flat.device)[:, None]  # [K, n h w]
        chance = keyed(key, "pixels", labels[0].numel()).flatten() - 1.0 * ~of_class  # others stand in for a batch
        chance, index = chance.topk(min(self.samples, len(flat)), dim=1)
        z = features.movedim(1, 3).flatten(0, 2)[index]  # [K, S, D]
        if world() > 1:  # of every rank's chosen pixels, those that one rank would have chosen
            z, chance = (all_gather(v.movedim(1, 0), grad=True).movedim(0, 1) for v in (z, chance))
            chance, index = chance.topk(min(self.samples, world() * len(flat)), dim=1)
            z = z.gather(1, index[..., None].expand(-1, -1, z.shape[2]))
        return z, chance >= 0

    def remember(self, features: Tensor, p: Tensor, labels: Tensor, key: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The memory takes in, of the labeled pixels the teacher is sure and right about, those of largest S'_c.

        Returns it, and how many features of each class it has, with those of the step at progress t.
        """
        confidence, predicted = p.max(1)
        right = (predicted == labels) & (confidence > self.tau)
        labels = to_grid(labels.masked_fill(~right, IGNORE_INDEX), features, self.model.divisor)
        features, labels, key = self.so_far(t, features, labels, key)
        z, used = self.sample(features, labels, key)
        z = self.teacher_projector(z.flatten(0, 1)).float().view(*used.shape, -1)  # [K, S, width]
        score = self.memory_attention(F.normalize(z, dim=2), used).masked_fill(~used, -1.0)
        score, best = score.topk(min(self.fresh, score.shape[1]), dim=1)
        new, is_new = z.gather(1, best[..., None].expand(-1, -1, z.shape[2])), score >= 0
        held = torch.arange(self.memory.shape[1], device=z.device) < self.filled[:, None]
        rows = torch.cat([new, self.memory], 1)  # newest first
        order = torch.cat([~is_new, ~held], 1).byte().argsort(dim=1, stable=True)[:, : self.memory.shape[1]]
        memory = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[2]))
        filled = (self.filled + is_new.sum(1).long()).clamp(max=self.memory.shape[1])
        self.later(memory=memory, filled=filled)
        return memory, filled


def weighted_mean(z: Tensor, score: Tensor, used: Tensor) -> Tensor:
    """sum s z / sum s over the rows in use, which is the mean of (s / mean s) z: [K, S, D], [K, S] -> [K, D]."""
    score = score * used
    return (score[..., None] * z).sum(1) / score.sum(1, keepdim=True).clamp(min=1e-6)


def to_grid(labels: Tensor, features: Tensor, divisor: int) -> Tensor:
    """Labels [n, H, W] at the centres of the cells of features [n, D, h, w] of the padded image; outside is ignored."""
    below, right = (-side % divisor for side in labels.shape[-2:])
    labels = F.pad(labels, (0, right, 0, below), value=IGNORE_INDEX)
    rows, columns = (
        ((torch.arange(cells, device=labels.device) + 0.5) * (side / cells)).long()
        for side, cells in zip(labels.shape[-2:], features.shape[-2:], strict=True)
    )
    return labels[:, rows[:, None], columns]
