"""VAT (Miyato et al. 2019, arXiv 1704.03976, Eq. 5-14) and VAT + EntMin (Zhai et al., S4L, Eq. 3-5).

    L = H(y, p(x_l)) + a(t) lambda_u mean KL(p(x) || p(x + r)) + entropy mean H(p(x)),   left p(x) without gradient
    a(t) = exp(-5 (1 - min(1, t / ramp))^2)
    r = eps g / |g|,   g = grad_r KL(p(x) || p(x + r)) at r = xi d,   d a random unit vector, g / |g| in later rounds

KL is smallest at r = 0, so g is second order and lives in the last digits: the method runs in float32 whatever the
precision of the run, and xi is 1e-2 (1e-6 leaves noise). BatchNorm in the adversarial passes normalises by a batch
that also holds the labeled images, as the clean pass does, so that KL is zero at r = 0; running statistics are the
clean pass's alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import drawn
from ..objective import FinetuneObjective
from ..ranges import BelowOne, Count, Positive, Share, Weight
from ..views.counter_rng import keyed
from .functional import entropy, frozen_statistics, full_precision, kl, predict, sigmoid_rampup
from .presets import CIFAR, PRETRAINED, S4L


def unit(v: Tensor) -> Tensor:
    """v / |v|_2 for every image: [M, C, H, W]."""
    return F.normalize(v.flatten(1), dim=1).view_as(v)


def gaussian_like(x: Tensor, copies: int = 1) -> Tensor:
    """Standard normal numbers of x's shape, [M, ...]; those of an image are the same on any number of processes.

    copies: so many times x holds the batch, one after the other, such as in four rotations.
    """
    key = drawn(lambda n: torch.randint(2**62, (n, copies), device=x.device), len(x) // copies).T.flatten()
    return torch.special.ndtri(keyed(key, "direction", x[0].numel()).clamp_min(2**-25)).view_as(x).to(x)


def adversarial_direction(
    model: nn.Module, x_l: Tensor, x: Tensor, p: Tensor, xi: float, rounds: int, copies: int = 1
) -> Tensor:
    """The unit vector [M, C, H, W] along which p = p(x) changes most, by `rounds` of power iteration."""
    d = unit(gaussian_like(x, copies))
    for _ in range(rounds):
        d.requires_grad_()
        (g,) = torch.autograd.grad(kl(p, predict(model, x_l, x + xi * d)[1]).sum(), d)
        d = unit(g)
    return d


def smoothness(
    model: nn.Module, x_l: Tensor, x: Tensor, logits: Tensor, *, eps: float, xi: float, rounds: int, copies: int = 1
) -> Tensor:
    """mean KL(p(x) || p(x + r)) with `logits` those of x in one batch with x_l; inside `full_precision`."""
    p = logits.detach().softmax(1)
    with frozen_statistics(model):
        r = eps * adversarial_direction(model, x_l, x, p, xi, rounds, copies)
        return kl(p, predict(model, x_l, x + r)[1]).mean()


class VAT(FinetuneObjective):
    """Predictions that the worst small change of the image does not move.

    lambda_u: weight of the smoothness at the end of the ramp (S4L on ImageNet: 0.5). ramp: share of training over which
    it rises, 0 for none; lambda_u, ramp and eps are those of Oliver et al. 2018. entropy: weight of the entropy, 0 for
    VAT alone. eps: length of the change over the whole normalised image; None: 6 at 32 px, in proportion to its side
    (S4L at 224 px: 40 for pixels in [-1, 1], 88 for pixels divided by ImageNet's deviation of 0.226). xi: step of the
    finite difference. rounds: of power iteration, each one forward and backward pass. ema_decay: of the weights that
    are evaluated.
    """

    paper = "Miyato et al., Virtual adversarial training"
    year, arxiv = 2019, "1704.03976"
    needs = "weak view"
    presets = {
        "cifar": CIFAR,
        "pretrained": PRETRAINED,
        # 10 %: the authors' config/vat.sh; 1 %: that rate in proportion
        **{
            name: dict(
                values,
                learning_rate=0.3 * values["learning_rate"],
                method_args=dict(eps=88.0, lambda_u=0.5, ramp=0.0),
            )
            for name, values in S4L.items()
        },
    }

    unlabeled_views = {"weak": "weak"}

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 0.3,
        ramp: Share = 0.4,
        entropy: Weight = 0.0,
        eps: Positive | None = None,
        xi: Positive = 1e-2,
        rounds: Count = 1,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.ramp, self.entropy = lambda_u, ramp, entropy
        self.eps, self.xi, self.rounds = eps, xi, rounds

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_l, x = batch["labeled"]["image"], batch["unlabeled"]["weak"]
        with full_precision(x):
            logits_l, logits = predict(self.model, x_l, x)
            eps = 6 * x.shape[-1] / 32 if self.eps is None else self.eps
            smooth = smoothness(self.model, x_l, x, logits, eps=eps, xi=self.xi, rounds=self.rounds)
        supervised = F.cross_entropy(logits_l, batch["labeled"]["target"])
        uncertain = entropy(logits).mean()
        return {
            "loss": supervised + sigmoid_rampup(t, self.ramp) * self.lambda_u * smooth + self.entropy * uncertain,
            "supervised": supervised.detach(),
            "consistency": smooth.detach(),
            "entropy": uncertain.detach(),
        }


class VATEntMin(VAT):
    """VAT with entropy minimisation; arguments as there, `entropy` 0.06 in a run."""

    paper = "Miyato et al., VAT, with entropy minimisation"
    year, arxiv = 2019, "1704.03976"
    defaults = dict(method_args=dict(entropy=0.06))  # Oliver et al. 2018, table of hyperparameters
    presets = {
        "cifar": dict(CIFAR, method_args=dict(entropy=0.06)),
        "pretrained": dict(PRETRAINED, method_args=dict(entropy=0.06)),
        # as vat; config/vat_entmin.sh
        **{
            name: dict(
                values,
                learning_rate=0.3 * values["learning_rate"],
                method_args=dict(eps=88.0, lambda_u=0.5, ramp=0.0, entropy=1.0),
            )
            for name, values in S4L.items()
        },
    }
