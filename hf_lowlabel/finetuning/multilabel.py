"""Several classes of one image: every class k has a probability of its own, sigma(z_k), and a loss of its own.

    BCE(y, z) = - mean over images and classes of  y log sigma(z) + (1 - y) log(1 - sigma(z))

Supervised, Mean Teacher and FixMatch as in their papers, with BCE in the place of the cross-entropy and sigma in that of
softmax; features with one logistic regression a class.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..objective import FinetuneObjective
from .fixmatch import FixMatch
from .functional import label_weak, predict, sigmoid_rampup
from .mean_teacher import MeanTeacher
from .probes import Probe, probe_head
from .supervised import Supervised

FIXED = 10.0  # logit of a class that all labeled images have, or none


class MultiLabelSupervised(Supervised):
    """L = 1/2 BCE(y, z(x_weak)) + 1/2 BCE(y, z(x_strong)); arguments as in Supervised."""

    name = "supervised"
    tasks = ("multilabel",)
    presets = {}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled = batch["labeled"]
        views = [labeled[key] for key in self.labeled_views]
        logits = self.model(torch.cat(views)).logits.float()  # [B or 2B, K]
        target = torch.cat([labeled["target"]] * len(views))
        smoothed = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        right = ((logits > 0) == (target > 0.5)).float().mean()
        return {"loss": F.binary_cross_entropy_with_logits(logits, smoothed), "train_accuracy": right}


class MultiLabelMeanTeacher(MeanTeacher):
    """L = BCE(y, z(x_l)) + a(t) lambda_u mean_{u, c} (sigma(z_c(x_u)) - sigma(z'_c(x'_u)))^2; arguments as in MeanTeacher."""

    name = "mean-teacher"
    tasks = ("multilabel",)
    presets = {}

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits_l, logits_u = predict(self.model, labeled["image"], unlabeled["weak"])
        with torch.no_grad():
            _, teacher = predict(self.ema, labeled["image"], unlabeled["weak2"])
        supervised = F.binary_cross_entropy_with_logits(logits_l, labeled["target"])
        agreement = (logits_u.sigmoid() - teacher.sigmoid()).square().mean()
        return {
            "loss": supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * agreement,
            "supervised": supervised.detach(),
            "consistency": agreement.detach(),
        }


class MultiLabelFixMatch(FinetuneObjective):
    """L = BCE(y, z(x_l)) + lambda_u mean_{u, c} w_uc BCE(1[p_uc >= tau], z_c(x_strong)),   p = sigma(z(x_weak))

        w_uc = 1[p_uc >= tau or p_uc <= tau_absent]

    tau: probability from which a class counts as there. tau_absent: probability up to which it counts as absent. lambda_u:
    weight of the unlabeled loss. ema_decay: of the weights that are evaluated. The paper knows the upper threshold alone:
    where classes do not exclude each other, an absent class has to be learned as well.
    """

    paper, year, arxiv, needs = FixMatch.paper, FixMatch.year, FixMatch.arxiv, FixMatch.needs
    name = "fixmatch"
    tasks = ("multilabel",)

    def __init__(
        self,
        model: nn.Module,
        *,
        tau: float = 0.9,
        tau_absent: float = 0.05,
        lambda_u: float = 1.0,
        ema_decay: float = 0.999,
    ):
        if not 0 <= tau_absent < tau <= 1:
            raise UserError(f"tau is {tau} and tau_absent {tau_absent}. Give 0 <= tau_absent < tau <= 1.")
        super().__init__(model, ema_decay=ema_decay)
        self.tau, self.tau_absent, self.lambda_u = tau, tau_absent, lambda_u

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x = labeled["image"], unlabeled["weak"], unlabeled["strong"]
        logits_l, logits_w, logits_s = label_weak(partial(predict, self.model), self.model, True, *x)
        p = logits_w.detach().sigmoid()  # [M, K]
        there, absent = p >= self.tau, p <= self.tau_absent
        w = (there | absent).float()
        supervised = F.binary_cross_entropy_with_logits(logits_l, labeled["target"])
        consistency = (w * F.binary_cross_entropy_with_logits(logits_s, there.float(), reduction="none")).mean()
        return {
            "loss": supervised + self.lambda_u * consistency,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": w.mean(),
        }


class MultiLabelProbe(Probe):
    """One logistic regression a class on frozen features; arguments as in Probe. Labels are [N, K], rows of -1 unknown."""

    name = "probe"
    tasks = ("multilabel",)
    prior = ""

    def head(self, features: np.ndarray, labels: np.ndarray, *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        known = (labels >= 0).all(1)
        weight, bias = np.zeros((num_classes, features.shape[1]), np.float32), np.zeros(num_classes, np.float32)
        for k in range(num_classes):
            values = np.unique(labels[known, k])
            if len(values) < 2:
                bias[k] = FIXED if values.tolist() == [1] else -FIXED
                continue
            two, offset = probe_head(features, labels[:, k], num_classes=2, l2=self.l2, max_iter=self.max_iter)
            weight[k], bias[k] = two[1] - two[0], offset[1] - offset[0]
        return weight, bias

    def fit_predict(self, features, labels, query, *, num_classes):
        weight, bias = self.head(features, labels, num_classes=num_classes)
        return (1 / (1 + np.exp(-(query @ weight.T + bias)))).astype(np.float32)
