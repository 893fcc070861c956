"""Selection and weights of pseudo-labels: all in which the FixMatch family differs.

A rule maps (p, index, p_labeled, t) to (target, weight): p [M, K, ...] class probabilities of the weak views, index [M]
the images' positions in the unlabeled pool, p_labeled [B, K, ...] probabilities of the labeled images, t the progress
of training in [0, 1]; target is either classes, int64 [M, ...], or probabilities, [M, K, ...] (F.cross_entropy takes
both), weight [M, ...] is in [0, 1]. The class axis is 1, any spatial axes follow. A rule with a memory keeps it in
buffers, and all ranks keep the same one. Averages move once per optimizer step, by all its images, when `end_step` is
called after it (a method's `after_step` does); a micro-batch is judged by the averages with it and with those before it
in its step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import all_gather, all_mean
from ..once_per_step import OncePerStep
from ..ranges import BelowOne, Count, Positive, Share, Weight
from .functional import align, sharpen
from .memory import RunningMean, follow, write_
from .uninformative import without_uninformative


class Rule(OncePerStep):
    """The base of all rules."""

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} must define forward(p, index, p_labeled, t)")

    def penalty(self, logits: Tensor, weight: Tensor) -> Tensor:
        """What the rule adds to the loss, from logits [M, K, ...] of the strong views and its weights: a scalar."""
        return logits.new_zeros(())


class Fixed(Rule):
    """FixMatch (Sohn et al. 2020, Eq. 4): w = 1[max p >= tau].   tau: confidence from which a pseudo-label counts."""

    def __init__(self, *, tau: Share = 0.95):
        super().__init__()
        self.tau = tau

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        confidence, label = p.max(1)
        return label, (confidence >= self.tau).float()


class Flex(Rule):
    """FlexMatch (Zhang et al. 2021, arXiv 2110.08263, Eq. 5-11): a threshold per class from its learning status.

        w = 1[max p >= tau M(beta_c)],   c = argmax p,   M(x) = x / (2 - x)
        sigma_c = number of images whose last prediction with max p >= tau was class c
        beta_c = sigma_c / max(max_c sigma_c, N - sum_c sigma_c)

    tau: the highest threshold, and the confidence from which a prediction is remembered. The table of last predictions
    covers the pool; only the batch's rows are touched in a step.

    The paper does not say which of several views of an image in one batch is remembered; here the last one. A batch is
    judged by the table before it, as in the authors' code.
    """

    unguarded = of_images = ("last", "count")

    def __init__(self, *, num_classes: int, num_images: int, tau: Share = 0.95):
        super().__init__()
        self.tau = tau
        self.register_buffer("last", torch.full((num_images,), -1))  # [N] class, -1 for never confident
        self.register_buffer("count", torch.zeros(num_classes + 1, dtype=torch.int64))
        self.count[0] = num_images  # unused images, then sigma_c

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        confidence, label = p.max(1)
        beta = self.count[1:] / self.count.max()  # max covers the unused too
        weight = (confidence >= (self.tau * beta / (2 - beta))[label]).float()
        index, c, confident = self.so_far(t, index, label, confidence >= self.tau)
        self.later(index=index, label=c, confident=confident)
        return label, weight

    @torch.no_grad()
    def advance(self) -> None:
        new = {k: all_gather(v.long()) for k, v in self.take().items()}
        if new:
            old, c, once = write_(self.last, new["index"], new["label"], new["confident"].bool())
            self.count.index_add_(0, old + 1, -once).index_add_(0, c + 1, once)


class Free(Rule):
    """FreeMatch (Wang et al. 2023, arXiv 2205.07246, Eq. 5-11): thresholds that follow the model's own confidence.

        tau_t = m tau_{t-1} + (1 - m) mean_b max p_b        p~_t = m p~_{t-1} + (1 - m) mean_b p_b       both from 1 / K
        w = 1[max p >= tau_t p~_t(c) / max_c p~_t(c)],  c = argmax p
        fairness: lambda_f sum_c a_c log b_c,   a = norm(p~_t / h~_t),   b = norm(mean_b w_b q_b / h)

    with q the strong views' probabilities, h the histogram of their argmax where w = 1, h~ the average histogram of
    argmax p. m: share of the averages kept per step. lambda_f: weight of fairness (w_f; the authors use 0.001 to
    0.05 by data set).

    The paper does not say what fairness is where no image counts; here it is 0. Neither histogram is normalised, which
    the norm around the ratio makes no difference to.
    """

    def __init__(self, *, num_classes: int, m: BelowOne = 0.999, lambda_f: Weight = 0.001):
        super().__init__()
        self.m, self.lambda_f = m, lambda_f
        self.register_buffer("tau", torch.tensor(1 / num_classes))
        self.register_buffer("p_mean", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("h_mean", torch.full((num_classes,), 1 / num_classes))
        self.now = self.p_mean, self.h_mean  # with the images of the latest forward pass

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        (seen,) = self.so_far(t, p)
        confidence, label = seen.max(1)
        tau = follow(self.tau, all_mean(confidence.mean()), self.m)
        p_mean = follow(self.p_mean, all_mean(class_mean(seen)), self.m)
        self.now = p_mean, follow(self.h_mean, all_mean(class_mean(one_hot(label, seen))), self.m)
        self.later(tau=tau, p_mean=p_mean, h_mean=self.now[1])
        confidence, label = p.max(1)
        return label, (confidence >= (tau * p_mean / p_mean.max())[label]).float()

    def penalty(self, logits: Tensor, weight: Tensor) -> Tensor:
        q, w, (p_mean, h_mean) = logits.softmax(1), weight.unsqueeze(1), self.now
        mine = torch.stack([class_mean(w * q), class_mean(w * one_hot(q.argmax(1), q))])[None]  # [1, 2, K]
        q_mean, h = all_gather(mine, grad=True).mean(0)  # over all ranks
        a = F.normalize(p_mean / h_mean.clamp_min(1e-30), p=1, dim=0)  # a class not seen for 10^5 steps
        b = F.normalize(torch.where(h > 0, q_mean / h.clamp_min(1e-12), 0.0), p=1, dim=0)
        return self.lambda_f * torch.where(h.sum() > 0, (a * (b + 1e-12).log()).sum(), 0.0)


class Soft(Rule):
    """SoftMatch (Chen et al. 2023, arXiv 2301.10921, Eq. 6-10): a truncated Gaussian of the confidence, not a step.

        p' = norm(p / p~),   w = exp(-(max p' - mu)^2 / (2 sigma^2 / n^2)) if max p' < mu else 1

    mu, sigma^2: averages of the batches' mean and unbiased variance of max p', from 1 / K and 1; p~: average of p.
    Alignment to uniform counts for the weight only, the pseudo-label is argmax p. m: share of the averages kept per
    step. n: 2 in the authors' runs; 1 is the paper's formula.

    The paper does not say where p~ starts; here at 1 / K. The authors' code starts at the first batch's mean, which
    changes the steps until it is forgotten, some 1 / (1 - m).
    """

    def __init__(self, *, num_classes: int, m: BelowOne = 0.999, n: Positive = 2.0):
        super().__init__()
        self.m, self.n = m, n
        self.register_buffer("mu", torch.tensor(1 / num_classes))
        self.register_buffer("var", torch.tensor(1.0))
        self.register_buffer("p_mean", torch.full((num_classes,), 1 / num_classes))

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        (seen,) = self.so_far(t, p)
        p_mean = follow(self.p_mean, all_mean(class_mean(seen)), self.m)
        everyone = all_gather(align(seen, p_mean).amax(1).flatten())
        mu, var = follow(self.mu, everyone.mean(), self.m), follow(self.var, everyone.var(), self.m)
        self.later(p_mean=p_mean, mu=mu, var=var)
        confidence = align(p, p_mean).amax(1)
        return p.argmax(1), torch.exp(-((confidence - mu).clamp_max(0) ** 2) * self.n**2 / (2 * var))


class Ada(Rule):
    """AdaMatch (Berthelot et al. 2022, arXiv 2106.04732, section 3): alignment to the labels, a relative threshold.

        p' = norm(p E[p_labeled] / E[p]),   w = 1[max p' >= tau mean_b max p_labeled_b],   target argmax p'

    E[p_labeled]: average over steps, from 1 / K. E[p]: mean of the last `memory` steps' means, which are 1 / K before
    the first. tau: threshold as a share of the labeled images' mean confidence. m: share of the labeled average kept
    per step. The paper says "running average" of both; the two kinds are those of the authors' code.
    """

    def __init__(self, *, num_classes: int, tau: Share = 0.9, m: BelowOne = 0.999, memory: Count = 128):
        super().__init__()
        self.tau, self.m = tau, m
        self.register_buffer("p_labeled", torch.full((num_classes,), 1 / num_classes))
        self.seen = RunningMean(memory, num_classes, first=1 / num_classes)

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        (known,) = self.so_far(t, p_labeled)
        average = follow(self.p_labeled, all_mean(class_mean(known)), self.m)
        self.later(p_labeled=average)
        confidence, label = align(p, self.seen.update(p, t), average).max(1)
        return label, (confidence >= self.tau * all_mean(known.amax(1).mean())).float()


class Uda(Rule):
    """UDA (Xie et al. 2020, arXiv 1904.12848, section 2.3): target sharpen(p, T), w = 1[max p >= tau] of the p before.

    temperature: T, below 1 sharpens. tau: confidence from which an image counts.
    """

    def __init__(self, *, temperature: Positive = 0.4, tau: Share = 0.8):
        super().__init__()
        self.temperature, self.tau = temperature, tau

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return sharpen(p, self.temperature), (p.amax(1) >= self.tau).float()


class Prior(Rule):
    """AS3L (Wen et al. 2024, Eq. 4-5): any rule, told of prior pseudo-labels while training is young.

        the rule sees norm(y_prior + p) while t <= until, and p afterwards

    rule: the rule that decides. priors: y_prior [N, K], the pool's pseudo-labels from label propagation. until: T as a
    share of training (60 of 1024 epochs).

    The paper does not say whether averages of a rule (FreeMatch's, AdaMatch's) see p or its mix with the prior; here
    all of a rule sees the mix. The other reading changes thresholds while t <= until. Of an image whose prior says
    nothing (uninformative.py) the rule sees p.
    """

    unguarded = of_images = ("priors",)

    def __init__(self, rule: Rule, priors: Tensor, *, until: float = 0.0586):
        super().__init__()
        self.rule, self.until = rule, until
        self.register_buffer("priors", without_uninformative(priors))

    def forward(self, p: Tensor, index: Tensor, p_labeled: Tensor, t: float) -> tuple[Tensor, Tensor]:
        if t <= self.until:
            p = F.normalize(self.priors[index].to(p) + p, p=1, dim=1)
        return self.rule(p, index, p_labeled, t)

    def penalty(self, logits: Tensor, weight: Tensor) -> Tensor:
        return self.rule.penalty(logits, weight)


def class_mean(p: Tensor) -> Tensor:
    """The mean over all axes but the class axis: [M, K, ...] -> [K]."""
    return p.mean((0, *range(2, p.dim())))


def one_hot(label: Tensor, like: Tensor) -> Tensor:
    """[M, ...] -> [M, K, ...] in the shape and type of `like`."""
    return torch.zeros_like(like).scatter_(1, label.unsqueeze(1), 1.0)
