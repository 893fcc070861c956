"""ReMixMatch (Berthelot et al. 2020, arXiv 1911.09785, algorithm 1, Eq. 3-4), with K = 2 strong views.

q = sharpen(norm(p(u_weak) p_y / p~), T)        p_y: mean label of the last 128 steps
                                                p~: mean prediction of the 128 steps before, 1 / K before the first
X', U' = MixUp of the union of (x_strong, y), (u_strong1, q), (u_strong2, q), (u_weak, q) with itself shuffled
L = mean H(y', p(x')) + a(t) lambda_u mean H(q', p(u')) + a(t) lambda_1 mean H(q, p(u_strong1))
    + lambda_r mean H(r, p_rot(rotate(u_strong1, r)))          a(t) = min(1, t / ramp)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import drawn
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Count, Positive, Share, Weight
from .functional import align, frozen_statistics, linear_rampup, mixup, predict, rotate, sharpen
from .memory import RunningMean
from .presets import MIXMATCH


class ReMixMatch(FinetuneObjective):
    """MixMatch with distribution alignment, augmentation anchoring and a rotation loss.

    lambda_u, lambda_1, lambda_r: weights of the mixed images, the first strong view and the rotations. temperature: T,
    below 1 sharpens. alpha: of the Beta distribution of MixUp. ramp: share of training over which lambda_u and lambda_1
    rise. memory: steps that the marginals average. ema_decay: of the weights that are evaluated. All that is trained on
    goes through one forward pass, whose BatchNorm statistics are the ones kept.

    The paper does not say whether p~ holds the batch itself, nor what it is at the start; here it is that of the
    authors' libml/layers.py. With the batch itself and no start (as in USB) the first steps are aligned to less. Their
    p_y is the labeled set's, known beforehand; here it is what the steps have seen, which comes to the same.
    """

    paper = "Berthelot et al., ReMixMatch"
    year, arxiv = 2020, "1911.09785"
    needs = "weak and two strong views"
    # as MixMatch
    defaults = dict(unlabeled_ratio=1, method_args=dict(ramp=0.4))
    presets = {"cifar": MIXMATCH}

    labeled_views = {"image": "strong"}
    unlabeled_views = {"weak": "weak", "strong": "strong", "strong2": "strong"}

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_u: Weight = 1.5,
        lambda_1: Weight = 0.5,
        lambda_r: Weight = 0.5,
        temperature: Positive = 0.5,
        alpha: Positive = 0.75,
        ramp: Share = 0.0156,
        memory: Count = 128,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.lambda_1, self.lambda_r = lambda_u, lambda_1, lambda_r
        self.temperature, self.alpha, self.ramp = temperature, alpha, ramp
        self.marginal = RunningMean(memory, num_classes)
        self.expected = RunningMean(memory, num_classes, first=1 / num_classes)
        self.turn = nn.Linear(model.num_features, 4)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_l, target, u = batch["labeled"]["image"], batch["labeled"]["target"], batch["unlabeled"]
        with torch.no_grad(), frozen_statistics(self.model):
            p = predict(self.model, u["weak"])[0].softmax(1)  # [M, K]
            y = F.one_hot(target, p.shape[1]).to(p)  # [B, K]
            q = sharpen(align(p, self.expected.mean, self.marginal.update(y, t)), self.temperature)
            self.expected.update(p, t)
        union, sizes = torch.cat([x_l, u["strong"], u["strong2"], u["weak"]]), [len(x_l), *[len(q)] * 3]
        mixed, y = mixup(union, torch.cat([y, q, q, q]), self.alpha, sizes)
        quarters = drawn(lambda n: torch.randint(4, (n,), device=q.device), len(q))
        x = torch.cat([mixed, u["strong"], rotate(u["strong"], quarters)])
        features = self.model.features(x)
        logits = self.model.classify(features[: len(mixed) + len(q)]).float()
        logits_l, logits_u, logits_1 = logits.split([len(x_l), 3 * len(q), len(q)])
        supervised = F.cross_entropy(logits_l, y[: len(x_l)])
        consistency = F.cross_entropy(logits_u, y[len(x_l) :])
        anchored = F.cross_entropy(logits_1, q)
        rotation = F.cross_entropy(self.turn(features[-len(q) :]).float(), quarters)
        rising = linear_rampup(t, self.ramp) * (self.lambda_u * consistency + self.lambda_1 * anchored)
        return {
            "loss": supervised + rising + self.lambda_r * rotation,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "anchored": anchored.detach(),
            "rotation": rotation.detach(),
        }
