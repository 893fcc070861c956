"""Self-Tuning (Wang et al. 2021, arXiv 2102.12903, Eq. 3-6): contrast with the group of a (pseudo-)label.

    L = H(y, p(x_l)) + lambda_l L_PGC(x_l, y) + lambda_u L_PGC(x_u, argmax p(x_u))
    L_PGC(x, c) = - 1 / (D + 1) sum_{k in P} log [exp(q . k / T) / (exp(q . k_0 / T) + sum_{all groups} exp(q . k / T))]

q = z(x), k_0 = z'(x') of another view by the averaged encoder, P: k_0 and the keys of group c; a group is the last D
keys whose image had that (pseudo-)label. A wrong pseudo-label costs little, as all groups share the denominator. As in
the authors' code unlabeled images meet groups that hold the labeled keys of their step already.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import EMA, FinetuneObjective
from ..ranges import Average, Count, Positive, Weight
from .functional import embed, products
from .memory import ClassQueue, left_out


class SelfTuning(FinetuneObjective):
    """Cross-entropy on labels, pseudo group contrast on everything.

    lambda_l, lambda_u: weights of the contrast of labeled and unlabeled images. queue: D, keys per class. temperature:
    T. width: of the embeddings, one linear layer above the features. ema_decay: share of the key encoder kept per step;
    it is the averaged network that is evaluated.
    """

    paper = "Wang et al., Self-tuning"
    year, arxiv = 2021, "2102.12903"
    needs = "two strong views of all images"
    defaults = dict(unlabeled_ratio=1)
    # the authors' src/main.py
    presets = {
        "pretrained": dict(
            learning_rate=0.001,
            head_lr=10.0,
            batch_size=64,
            unlabeled_ratio=1,
            weight_decay=1e-4,
            lr_scheduler_type="steps-tuning",
            max_steps=27_000,
        )
    }

    labeled_views = {"image": "strong", "strong2": "strong"}
    unlabeled_views = {"strong": "strong", "strong2": "strong"}

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_l: Weight = 1.0,
        lambda_u: Weight = 1.0,
        queue: Count = 32,
        temperature: Positive = 0.07,
        width: Count = 1024,
        ema_decay: Average = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_l, self.lambda_u, self.temperature = lambda_l, lambda_u, temperature
        self.projector = nn.Linear(model.num_features, width)
        self.key_projector = EMA(self.projector)
        self.groups = ClassQueue(num_classes, queue, width)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        (logits_l, q_l), (logits_u, q_u) = embed(self.model, self.projector, labeled["image"], u["strong"])
        with torch.no_grad():
            (_, k_l), (_, k_u) = embed(self.ema.module, self.key_projector.module, labeled["strong2"], u["strong2"])
        y, pseudo = labeled["target"], logits_u.argmax(1)
        supervised = F.cross_entropy(logits_l, y)
        pgc_l = self.contrast(q_l, k_l, y, self.groups.z, self.groups.filled)
        known = self.groups.so_far(t, k_l, y, k_u, pseudo)
        self.groups.later(parts=[known[:2], known[2:]])
        keys, pushed = self.groups.joined(*known[:2])
        pgc_u = self.contrast(q_u, k_u, pseudo, keys, self.groups.places(pushed))
        return {
            "loss": supervised + self.lambda_l * pgc_l + self.lambda_u * pgc_u,
            "supervised": supervised.detach(),
            "contrast_labeled": pgc_l.detach(),
            "consistency": pgc_u.detach(),
        }

    def contrast(self, q: Tensor, k: Tensor, label: Tensor, keys: Tensor, filled: Tensor) -> Tensor:
        """L_PGC, the mean over images: q, k [M, E], label [M], keys [K, D, E], filled bool [K, D]."""
        own = (q * k).sum(1, keepdim=True) / self.temperature  # [M, 1]
        all_ = products(q, keys.flatten(0, 1)) / self.temperature + left_out(filled.flatten())  # [M, K D]
        log_p = torch.cat([own, all_], 1).log_softmax(1)  # [M, 1 + K D]
        group = torch.zeros_like(filled, dtype=q.dtype)[None].repeat(len(q), 1, 1)  # [M, K, D]
        group[torch.arange(len(q), device=q.device), label] = filled.to(q)[label]
        positive = F.pad(group.flatten(1), (1, 0), value=1.0)  # k_0 belongs to every group
        return -((positive * log_p).sum(1) / positive.sum(1)).mean()

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """The projector learns at the body's rate; the head is the classifier alone, as in the authors' code."""
        groups, moved = super().param_groups(), {id(p) for p in self.projector.parameters()}
        return {
            "base": groups["base"] + [p for p in groups["head"] if id(p) in moved],
            "head": [p for p in groups["head"] if id(p) not in moved],
        }

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.key_projector.update(self.projector, self.momentum)
