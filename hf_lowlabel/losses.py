"""Losses of the methods as functions and modules, for your own training loop.

    from hf_lowlabel import losses
    rule = losses.Free(num_classes=10)                                     # once, and on the device of the network
    for step in range(steps):
        weak, strong = model(x_weak).detach(), model(x_strong)             # logits [M, K]
        guess, weight = rule(weak.softmax(1), index, p_labeled, step / steps)
        loss = (weight * F.cross_entropy(strong, guess, reduction="none")).mean() + rule.penalty(strong, weight)
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        rule.end_step()                                                    # averages and tables of the rule move

Self-supervised losses of features [B, D]: `byol_loss`, `negative_cosine` (SimSiam), `variance` and `covariance`
(VICReg); of unit vectors: `info_nce` (MoCo) [B, D], and `nt_xent` (SimCLR) [2 B, D], first the first views of all
images, then the second ones in the same order. The first two answer for every row, [B], the others with a scalar.

Supervised and consistency losses: `cross_entropy` over all ranks, `masked_mean`, `entropy` and `kl`. The class axis is
1, so that logits [B, K] and [B, K, H, W] both fit. Targets that do not count are -100 for `cross_entropy`, as in
the batches of this library; files of masks have 255 there: `target.masked_fill(target == 255, -100)`.

Pseudo-labels: `sharpen` (MixMatch), `align` (ReMixMatch), `mixup`, and the rules by which one counts, modules that are
called as rule(p, index, p_labeled, t) -> (target, weight): `Fixed` (FixMatch), `Flex`, `Free`, `Soft`, `Ada`, `Uda` and
`Prior` (AS3L). p, p_labeled: probabilities of the unlabeled and of the labeled images; index: which images of the pool
the unlabeled ones are; t: the share of training that is done, the same in all micro-batches of a step and another one
in the next. A rule that remembers something moves when `rule.end_step()` is called after the optimizer's step, and not
before.

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
