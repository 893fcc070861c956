"""FixMatch-EMAN (Cai et al. 2021, arXiv 2101.08482, section 4.2): the teacher makes the pseudo-labels.

L = H(y, p(x_l)) + lambda_u mean w(p'_w) H(target(p'_w), p(x_strong)),   p'_w = p(x_weak; theta')
theta' <- m theta' + (1 - m) theta   for weights AND BatchNorm statistics; the teacher runs in eval mode
"""

from __future__ import annotations

from torch import Tensor, nn

from ..ranges import Average, Weight
from .fixmatch import FixMatch
from .functional import predict
from .presets import CIFAR, EMAN_IMAGENET, PRETRAINED
from .weights import Rule


class FixMatchEMAN(FixMatch):
    """FixMatch whose pseudo-labels come from the averaged network, which is also the one that is evaluated.

    rule, lambda_u: as in FixMatch. ema_decay: m, the share of the teacher kept per step.
    """

    paper = "Cai et al., Exponential moving average normalization"
    year, arxiv = 2021, "2101.08482"
    tasks = ("classification",)
    defaults = {}
    presets = {
        "cifar": CIFAR,
        "pretrained": PRETRAINED,
        "imagenet": dict(EMAN_IMAGENET, method_args=dict(tau=0.7, lambda_u=10.0)),
    }

    ema_buffers = "ema"

    def __init__(
        self, model: nn.Module, *, rule: Rule | None = None, lambda_u: Weight = 1.0, ema_decay: Average = 0.999
    ):
        super().__init__(model, rule=rule, lambda_u=lambda_u, ema_decay=ema_decay)

    def predict(self, x_l: Tensor, x_w: Tensor, x_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits_l, logits_s = predict(self.model, x_l, x_s)
        return logits_l, self.ema(x_w).logits.float(), logits_s
