"""Losses of the methods as functions and modules, for your own training loop.

    from hf_lowlabel import losses
    weak, strong = model(x_weak), model(x_strong)                          # logits [M, K]
    guess, weight = losses.Fixed(tau=0.95)(weak.softmax(1), index, p_labeled, t)
    loss = (weight * F.cross_entropy(strong, guess, reduction="none")).mean()

Self-supervised losses: `byol_loss`, `negative_cosine` (SimSiam), `nt_xent` (SimCLR), `info_nce` (MoCo), `variance` and
`covariance` (VICReg), of features [B, D]. The first two answer for every row, [B], the others with a scalar.

Supervised and consistency losses: `cross_entropy` over all ranks, `masked_mean`, `entropy` and `kl`. The class axis is
1, so that logits [B, K] and [B, K, H, W] both fit.

Pseudo-labels: `sharpen` (MixMatch), `align` (ReMixMatch), `mixup`, and the rules by which one counts, modules that are
called as rule(p, index, p_labeled, t) -> (target, weight): `Fixed` (FixMatch), `Flex`, `Free`, `Soft`, `Ada`, `Uda` and
`Prior` (AS3L).

Schedules of a loss's weight: `linear_rampup` and `sigmoid_rampup`, of the share of training that is done.
"""

from .finetuning.functional import align, entropy, kl, linear_rampup, mixup, sharpen, sigmoid_rampup
from .finetuning.pixels import cross_entropy, masked_mean
from .finetuning.weights import Ada, Fixed, Flex, Free, Prior, Rule, Soft, Uda
from .pretraining.byol import byol_loss
from .pretraining.contrast import info_nce
from .pretraining.simclr import nt_xent
from .pretraining.simsiam import negative_cosine
from .pretraining.vicreg import covariance, variance

__all__ = [
    "Ada",
    "Fixed",
    "Flex",
    "Free",
    "Prior",
    "Rule",
    "Soft",
    "Uda",
    "align",
    "byol_loss",
    "covariance",
    "cross_entropy",
    "entropy",
    "info_nce",
    "kl",
    "linear_rampup",
    "masked_mean",
    "mixup",
    "negative_cosine",
    "nt_xent",
    "sharpen",
    "sigmoid_rampup",
    "variance",
]
