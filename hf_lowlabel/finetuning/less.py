"""LESS (Lucas et al. 2022, Barely-Supervised Learning, arXiv 2112.12004): images without a pseudo-label learn clusters.

    L = H(y, p(x_l)) + lambda_u mean [ w H(argmax p_w, p(x_strong)) + lambda_c (1 - w) H(a_w, c(x_strong)) ]
    w = 1[max p_w >= tau]
    c(x) = softmax_j(z(x) . e_j / T)      unit embedding z, unit cluster vectors e_j
    a_w = Sinkhorn(z(x_weak) . e / epsilon), balanced over the batches of all ranks

FixMatch starves when nothing is confident; here the rest of the batch always gives a signal. The online clustering is
SwAV's (Caron et al. 2020, Eq. 2-5) with the weak view's assignment as the target.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Count, Positive, Weight
from .functional import embed, has_batchnorm, label_weak, products, projection, sinkhorn
from .presets import CIFAR, PRETRAINED
from .weights import Fixed, Rule


@torch.no_grad()
def assignments(scores: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Assignments [M, J] of this rank's rows, summing to 1, with clusters equally full over all ranks (SwAV Eq. 5)."""
    everyone = all_gather(scores) / epsilon
    q = sinkhorn((everyone - everyone.max()).exp(), rounds)  # [world M, J]
    return q[rank() * len(scores) : (rank() + 1) * len(scores)]


class LESS(FinetuneObjective):
    """FixMatch for confident images, clustering for the others.

    rule: which pseudo-labels count. lambda_u: weight of all unlabeled images. lambda_c: of those that learn clusters.
    clusters: number of cluster vectors. temperature: T. epsilon: softness of the assignments. rounds: of Sinkhorn's
    iteration. width: of the embeddings. ema_decay: of the weights that are evaluated.

    The paper does not say whether the cluster vectors learn from confident images too; here from the others alone, as
    the loss is written. The assignments are balanced over all images of the batch.
    """

    paper = "Lucas et al., Barely-supervised learning"
    year, arxiv = 2022, "2112.12004"
    needs = "weak and strong view"
    prior, rule_class = "may", Fixed
    presets = {"cifar": CIFAR, "pretrained": PRETRAINED}

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: Rule | None = None,
        lambda_u: Weight = 1.0,
        lambda_c: Weight = 1.0,
        clusters: Count = 256,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        rounds: Count = 3,
        width: Count = 128,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.rule, self.lambda_u, self.lambda_c = rule if rule is not None else self.rule_class(), lambda_u, lambda_c
        self.temperature, self.epsilon, self.rounds = temperature, epsilon, rounds
        self.concat_weak = has_batchnorm(model)
        self.projector, self.centres = projection(model.num_features, width), nn.Linear(width, clusters, bias=False)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        f, views = partial(embed, self.model, self.projector), (labeled["image"], u["weak"], u["strong"])
        (logits_l, _), (logits_w, z_w), (logits_s, z_s) = label_weak(f, self.model, self.concat_weak, *views)
        e = F.normalize(self.centres.weight.float(), dim=1)  # [J, E]
        with torch.no_grad():
            target, w = self.rule(logits_w.softmax(1), u["index"], logits_l.softmax(1), t)
            assigned = assignments(products(z_w, e), self.epsilon, self.rounds)  # [M, J]
        supervised = F.cross_entropy(logits_l, labeled["target"])
        consistency = (w * F.cross_entropy(logits_s, target, reduction="none")).mean()
        clustering = ((1 - w) * F.cross_entropy(products(z_s, e) / self.temperature, assigned, reduction="none")).mean()
        loss = supervised + self.lambda_u * (consistency + self.lambda_c * clustering) + self.rule.penalty(logits_s, w)
        return {
            "loss": loss,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "clustering": clustering.detach(),
            "mask_ratio": w.mean(),
        }
