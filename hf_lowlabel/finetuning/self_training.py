"""Self-training: the pool's pseudo-labels were made beforehand and stay as they are (--prior).

    L = lambda_l H(y, p(x_l))
        + lambda_u mean_u w_u [ (1 - share) H(q_u, p(x_u)) + share KL(p^{t-1}(x_u) || p(x_u)) ]

q_u: the prior of image u, hard or soft. w_u: 0 where it says nothing, else 1 over the share of the pool where it does.

    share 0                        the second step of Pseudo-Label (Zhai et al. 2019, arXiv 1905.03670, section 4.2),
                                   and V-PET's (Zhang et al. 2025, arXiv 2503.09707), whose q is an ensemble's
    share 0.5, lambda_l 0          phase two of alternating optimisation (Rebuffi et al. 2020, arXiv 1905.08845,
                                   section 3.2, algorithm 1)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Share, Weight
from .functional import predict
from .temporal_consistency import Predictions
from .uninformative import without_uninformative


class SelfTraining(FinetuneObjective):
    """Cross-entropy to pseudo-labels that do not change.

    priors: q [N, K]. lambda_u, lambda_l: weights of the pseudo-labels and of the labels. share: of the pseudo-labels'
    weight that goes to agreement with the previous epoch's prediction. ema_decay: of the weights that are evaluated.

    The papers do not say how an image counts that has no pseudo-label; here not at all, and the mean is over those that
    have one. A mean over all would weaken the loss by the share left out.
    """

    paper = "Zhai et al., S4L, section 4.2: Pseudo-Label in two steps"
    year, arxiv = 2019, "1905.03670"
    needs = "weak view, pseudo-labels of all images (--prior)"
    prior = "must"
    # section 4.2
    presets = {
        "imagenet": dict(
            learning_rate=0.1,
            batch_size=32,
            unlabeled_ratio=8,
            weight_decay=1e-4,
            lr_scheduler_type="steps",
            epochs=100,
            method_args=dict(lambda_l=0.0),
        )
    }

    unlabeled_views = {"weak": "weak"}
    unguarded = ("priors",)
    of_images = ("priors", "previous.table")  # the table where `share` has a weight; once it was there without

    def __init__(
        self,
        model: nn.Module,
        *,
        priors: Tensor,
        lambda_u: Weight = 1.0,
        lambda_l: Weight = 1.0,
        share: Share = 0.0,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.lambda_l, self.share = lambda_u, lambda_l, share
        self.previous = Predictions(*priors.shape) if share else None
        self.register_buffer("priors", without_uninformative(priors))
        self.kept = float((self.priors.sum(1) > 0).double().mean())
        if not self.kept:
            raise UserError("The prior has a pseudo-label for none of the images. Give another --prior.")

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits_l, logits_u = predict(self.model, labeled["image"], unlabeled["weak"])
        q = self.priors[unlabeled["index"]].to(logits_u)  # [M, K]
        w = (q.sum(1) > 0).float() / self.kept
        supervised = F.cross_entropy(logits_l, labeled["target"])
        pseudo = (w * F.cross_entropy(logits_u, q, reduction="none")).mean()
        unsupervised, told = pseudo, {"supervised": supervised.detach(), "pseudo": pseudo.detach()}
        if self.previous is not None:
            agreement, known = self.previous.consistency(t, unlabeled["index"], logits_u, w)
            unsupervised = (1 - self.share) * pseudo + self.share * agreement
            told |= {"consistency": agreement.detach(), "mask_ratio": known}
        return {"loss": self.lambda_l * supervised + self.lambda_u * unsupervised, **told}
