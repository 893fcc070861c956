"""SimMatch (Zheng et al. 2022, arXiv 2203.06915, Eq. 4-13): classes and similarities to labeled images agree.

p^w = norm(p(u_weak) / p~),   q^w_i = softmax_i(z(u_weak) . v_i / T)     p~: recent mean, (v_i, y_i): labeled images
unfold     q'_i  propto  q^w_i p^w_{y_i}
aggregate  p'_c = alpha p^w_c + (1 - alpha) sum_{i: y_i = c} q^w_i
L = H(y, p(x_l)) + lambda_u mean 1[max p' >= tau] H(p', p(u_strong)) + lambda_in mean H(q', q(u_strong))

The bank is the one before the step. While it is empty, p' = p^w and q' takes no part; the authors' code waits for the
first pass over the unlabeled images to end, and has random vectors for labeled images that were not seen by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather
from ..objective import EMA, FinetuneObjective
from ..ranges import BelowOne, Count, Positive, Share, Weight
from .functional import align, check_average, embed, has_batchnorm, label_weak, products, projection
from .memory import RunningMean, finite_rows, left_out, write_
from .presets import CIFAR, EMAN_IMAGENET, PRETRAINED


class SimMatch(FinetuneObjective):
    """Pseudo-labels from classes and instances that correct each other.

    lambda_u, lambda_in: weights of classes and instances (ImageNet: 10 and 5). tau: confidence from which a target
    counts (ImageNet 0.7). alpha: share of the class probabilities in the target. temperature: T of the similarities.
    width: of the embeddings. bank_m: share of a labeled image's embedding kept when it is seen again (ImageNet 0: a
    teacher's need no smoothing). teacher: weak views and bank come from the averaged network, BatchNorm statistics
    included (ImageNet), else from the network itself. memory: batches of which p~ is the mean. ema_decay: of the
    weights that are evaluated.
    """

    paper = "Zheng et al., SimMatch"
    year, arxiv = 2022, "2203.06915"
    needs = "weak and strong view"
    presets = {
        "cifar": CIFAR,
        "pretrained": PRETRAINED,
        # their script/train.sh, which is EMAN's with other steps
        "imagenet": dict(
            EMAN_IMAGENET,
            optimizer="sgd",
            lr_scheduler_type="cosine",
            warmup_ratio=0.0125,
            epochs=400,
            method_args=dict(tau=0.7, lambda_u=10.0, lambda_in=5.0, teacher=1, bank_m=0.0),
        ),
    }

    unguarded = of_images = ("bank", "label")

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        if settings["teacher"]:
            check_average(settings["ema_decay"], "is the teacher")

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        num_labeled: int,
        lambda_u: Weight = 1.0,
        lambda_in: Weight = 1.0,
        tau: Share = 0.95,
        alpha: Share = 0.9,
        temperature: Positive = 0.1,
        width: Count = 128,
        bank_m: BelowOne = 0.7,
        teacher: bool = False,
        memory: Count = 256,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="ema" if teacher else "copy")
        self.lambda_u, self.lambda_in, self.tau, self.alpha = lambda_u, lambda_in, tau, alpha
        self.temperature, self.bank_m, self.num_classes = temperature, bank_m, num_classes
        self.concat_weak = has_batchnorm(model)
        self.projector = projection(model.num_features, width)
        self.teacher_projector = EMA(self.projector) if teacher else None
        self.mean = RunningMean(memory, num_classes)
        self.register_buffer("bank", torch.zeros(num_labeled, width))  # [L, E] embeddings
        self.register_buffer("label", torch.full((num_labeled,), -1))  # [L], -1: none stored yet

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        if self.teacher_projector is None:
            f, views = partial(embed, self.model, self.projector), (labeled["image"], u["weak"], u["strong"])
            (logits_l, z_l), (logits_w, z_w), (logits_s, z_s) = label_weak(f, self.model, self.concat_weak, *views)
        else:
            (logits_l, _), (logits_s, z_s) = embed(self.model, self.projector, labeled["image"], u["strong"])
            with torch.no_grad():
                (_, z_l), (logits_w, z_w) = embed(
                    self.ema.module, self.teacher_projector.module, labeled["image"], u["weak"]
                )
        with torch.no_grad():
            bank, label, void = self.bank, self.label, left_out(self.label >= 0)
            known = (label >= 0).any()
            self.remember(labeled["index"], z_l, labeled["target"], t)
            p = logits_w.softmax(1)
            p = align(p, self.mean.update(p, t))  # [M, K]
            q = (products(z_w, bank) / self.temperature + void).softmax(1)  # [M, L]
            slot = label.clamp_min(0)
            unfolded = F.normalize(q * p[:, slot], p=1, dim=1)
            aggregated = torch.zeros_like(p).index_add_(1, slot, q)  # missing ones have q = 0
            target = torch.where(known, self.alpha * p + (1 - self.alpha) * aggregated, p)
            w = (target.amax(1) >= self.tau).float()
        supervised = F.cross_entropy(logits_l, labeled["target"])
        consistency = (w * F.cross_entropy(logits_s, target, reduction="none")).mean()
        instance = torch.where(known, F.cross_entropy(products(z_s, bank) / self.temperature + void, unfolded), 0.0)
        return {
            "loss": supervised + self.lambda_u * consistency + self.lambda_in * instance,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "instance": instance.detach(),
            "mask_ratio": w.mean(),
        }

    def remember(self, index: Tensor, z: Tensor, target: Tensor, t: float) -> None:
        """v <- norm(m v + (1 - m) z) for the step's labeled images; an image's first embedding is stored as it is."""
        index, z, target = (all_gather(v) for v in self.so_far(t, index, z, target))
        fine, kept = finite_rows(z), self.bank_m * (self.label[index] >= 0).float()
        bank, label = self.bank.clone(), self.label.clone()
        write_(bank, index, F.normalize(torch.lerp(z, self.bank[index], kept[:, None]), dim=1), fine)
        write_(label, index, target, fine)
        self.later(bank=bank, label=label)

    def after_step(self, t: float) -> None:
        super().after_step(t)
        if self.teacher_projector is not None:
            self.teacher_projector.update(self.projector, self.momentum)
