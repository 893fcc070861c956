"""Multi-label losses: every class k has its own probability sigma(z_k) and loss.

    BCE(y, z) = - mean over images and classes of  y log sigma(z) + (1 - y) log(1 - sigma(z))

Supervised, Mean Teacher and FixMatch as in their papers, with BCE in place of the cross-entropy and sigma of softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ..errors import UserError
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share, Weight
from .fixmatch import FixMatch
from .functional import predict, sigmoid_rampup
from .mean_teacher import MeanTeacher
from .probes import Probe, probe_head
from .supervised import Supervised

FIXED = 10.0  # logit of a class that all labeled images have; its negative: that none has


class MultiLabelSupervised(Supervised):
    """L = 1/2 BCE(y, z(x_weak)) + 1/2 BCE(y, z(x_strong)); arguments as in Supervised."""

    name, tasks, presets = "supervised", ("multilabel",), {}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        views = [batch["labeled"][key] for key in self.labeled_views]
        logits = self.model(torch.cat(views)).logits.float()  # [B or 2B, K]
        target = torch.cat([batch["labeled"]["target"]] * len(views))
        smoothed = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return {"loss": bce(logits, smoothed), "train_accuracy": ((logits > 0) == (target > 0.5)).float().mean()}


class MultiLabelMeanTeacher(MeanTeacher):
    """L = BCE(y, z(x_l)) + a(t) lambda_u mean_{u, c} (sigma(z_c(x_u)) - sigma(z'_c(x'_u)))^2; as MeanTeacher."""

    name, tasks, presets = "mean-teacher", ("multilabel",), {}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits_l, logits_u = predict(self.model, labeled["image"], unlabeled["weak"])
        with torch.no_grad():
            _, teacher = predict(self.ema, labeled["image"], unlabeled["weak2"])
        supervised = bce(logits_l, labeled["target"])
        agreement = (logits_u.sigmoid() - teacher.sigmoid()).square().mean()
        loss = supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * agreement
        return {"loss": loss, "supervised": supervised.detach(), "consistency": agreement.detach()}


class MultiLabelFixMatch(FinetuneObjective):
    """L = BCE(y, z(x_l)) + lambda_u mean_{u, c} w_uc BCE(1[p_uc >= tau], z_c(x_strong)),   p = sigma(z(x_weak))

        w_uc = 1[p_uc >= tau or p_uc <= tau_absent]

    tau: probability from which a class counts as there. tau_absent: up to which it counts as absent; the paper has
    none, its classes exclude each other. lambda_u: weight of the unlabeled loss. ema_decay: of the evaluated weights.
    """

    paper, year, arxiv, needs = FixMatch.paper, FixMatch.year, FixMatch.arxiv, FixMatch.needs
    name, tasks = "fixmatch", ("multilabel",)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        tau, absent = settings["tau"], settings["tau_absent"]
        if absent >= tau:
            raise UserError(f"tau is {tau} and tau_absent {absent}. Give a tau_absent below tau.")

    def __init__(
        self,
        model: nn.Module,
        *,
        tau: Share = 0.9,
        tau_absent: Share = 0.05,
        lambda_u: Weight = 1.0,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.tau, self.tau_absent, self.lambda_u = tau, tau_absent, lambda_u

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits_l, logits_w, logits_s = predict(self.model, labeled["image"], unlabeled["weak"], unlabeled["strong"])
        p = logits_w.detach().sigmoid()  # [M, K]
        there = (p >= self.tau).float()
        w = there + (p <= self.tau_absent)
        supervised, apart = bce(logits_l, labeled["target"]), bce(logits_s, there, reduction="none")
        consistency = (w * apart).mean()
        scalars = {"supervised": supervised.detach(), "consistency": consistency.detach(), "mask_ratio": w.mean()}
        return {"loss": supervised + self.lambda_u * consistency, **scalars}


class MultiLabelProbe(Probe):
    """One logistic regression a class on frozen features; arguments as in Probe. Labels [N, K], -1: unknown."""

    name, tasks, prior = "probe", ("multilabel",), ""

    def head(
        self, features: np.ndarray, labels: np.ndarray, *, num_classes: int, copies: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        own = dict(l2=self.l2, max_iter=self.max_iter, copies=copies)
        weight, bias = np.zeros((num_classes, features.shape[1]), np.float32), np.zeros(num_classes, np.float32)
        for k, column in enumerate(labels.T):
            values = np.unique(column[column >= 0])
            if len(values) < 2:  # nothing to tell apart
                bias[k] = FIXED if values.tolist() == [1] else -FIXED
                continue
            two, offset = probe_head(features, column, num_classes=2, **own)
            weight[k], bias[k] = two[1] - two[0], offset[1] - offset[0]
        return weight, bias

    def fit_predict(self, features, labels, query, *, num_classes):
        weight, bias = self.head(features, labels, num_classes=num_classes)
        return (1 / (1 + np.exp(-(query @ weight.T + bias)))).astype(np.float32)
