"""MOAM, step 1 (Zhai et al. 2019, S4L, arXiv 1905.03670, section 5): rotations, adversaries and entropy in one loss.

    L = w_sup H(y, p(x_l^r)) + lambda_u [ w_rot L_rot + w_vat mean KL(p(x^r) || p(x^r + delta)) + w_ent mean H(p(x^r)) ]

over all four rotations x^r of labeled (x_l) and unlabeled (x) images. Step 2 trains on the pseudo-labels of this
network as if every image were labeled, step 3 on the labels alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..objective import FinetuneObjective
from ..pretraining.rotnet import four_rotations
from ..ranges import BelowOne, Positive, Weight
from .functional import entropy, full_precision
from .vat import smoothness


class MOAM(FinetuneObjective):
    """S4L-Rotation and VAT + EntMin together.

    lambda_u: weight of all that needs no label. w_sup, w_rot, w_vat, w_ent: weights of the four losses; the paper has
    w_sup 0.3. eps, xi: of VAT; eps None: 71 at 224 px, in proportion to the side (the authors' 32 is for pixels in
    [-1, 1]). ema_decay: of the weights that are evaluated (the paper: half a life per epoch).

    Labels weigh as much as all else together. The paper's weight, tuned for 200 passes over 128,000 labels, is that of
    the preset; in a short run it lets adversaries and entropy decide: 18 % of 2,000 natural images are right after 500
    steps on 500 labels, instead of 31 % (recipes/results/natural_images.md).

    The paper does not say whether virtual adversaries and entropy see the turned copies; here all four. With upright
    ones alone those terms say nothing of three quarters of what is classified.

    The other weights and the Kullback-Leibler divergence are the paper's. Its authors' code has the divergence with its
    sides exchanged, xi 1e-6, and rotations weighted by 0.4 (semi_supervised/rotation_vat.py, config/moam_step_1.sh).
    """

    paper = "Zhai et al., S4L, step 1 of the mix of all models"
    year, arxiv = 2019, "1905.03670"
    needs = "weak view, turned four ways"
    defaults = dict(unlabeled_ratio=1)
    # section 5
    presets = {
        "imagenet-10": dict(
            optimizer="momentum",
            learning_rate=0.1,
            batch_size=128,
            unlabeled_ratio=1,
            weight_decay=2e-4,
            lr_scheduler_type="steps-moam",
            warmup_ratio=0.05,
            epochs=20,
            method_args=dict(w_sup=0.3),
        )
    }

    unlabeled_views = {"weak": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 1.0,
        w_sup: Weight = 1.3,
        w_rot: Weight = 0.7,
        w_vat: Weight = 0.3,
        w_ent: Weight = 0.3,
        eps: Positive | None = None,
        xi: Positive = 1e-2,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.w_sup, self.w_rot, self.w_vat, self.w_ent = lambda_u, w_sup, w_rot, w_vat, w_ent
        self.eps, self.xi, self.turn = eps, xi, nn.Linear(model.num_features, 4)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        (x_l, r_l), (x_u, r_u) = (four_rotations(x) for x in (batch["labeled"]["image"], batch["unlabeled"]["weak"]))
        with full_precision(x_u):
            features = self.model.features(torch.cat([x_l, x_u]))  # [4 (B + M), D]
            logits_l, logits_u = self.model.classify(features).float().split([len(x_l), len(x_u)])
            turn_l, turn_u = self.turn(features).float().split([len(x_l), len(x_u)])
            eps = 71 * x_u.shape[-1] / 224 if self.eps is None else self.eps
            smooth = smoothness(self.model, x_l, x_u, logits_u, eps=eps, xi=self.xi, rounds=1, copies=4)
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"].repeat(4))
        rotation = (F.cross_entropy(turn_l, r_l) + F.cross_entropy(turn_u, r_u)) / 2
        uncertain = entropy(logits_u).mean()
        free = self.w_rot * rotation + self.w_vat * smooth + self.w_ent * uncertain
        return {
            "loss": self.w_sup * supervised + self.lambda_u * free,
            "supervised": supervised.detach(),
            "rotation": rotation.detach(),
            "consistency": smooth.detach(),
            "entropy": uncertain.detach(),
        }
