"""SsCL (Zhang et al. 2021, arXiv 2105.07387, Eq. 1-5, tables 7-8): similarity and classes calibrate each other.

    L = H(y, p(x_l)) + lambda_u mean 1[max p^ >= tau] H(p^, p(u_strong)) + lambda_ctr mean L_ctr             (Eq. 1-3)
    p^ = norm(p(u_weak) s~),   s~ = mean of s over the last 128 batches,   s = softmax_c(gamma cos(v(u_weak), v_c))
    v_c: prototype of class c, unit mean of its labeled images and of mixes lambda x_c + (1 - lambda) u_c    (Eq. 4)
    L_ctr = log(1 + sum_n exp(gamma (s_n + m)) sum_p exp(- gamma alpha_p s_p))                               (Eq. 5)

s_n: similarities of v(u_strong) to a queue of keys of other images; s_p: to its own key (alpha_p = 1) and to labeled
keys of class c = argmax p(u_weak), alpha_p = max(0, cos(v(u_weak), v_c)). Keys come from the averaged encoder. The
paper makes prototypes and classes anew every 5 epochs and finds 1 to 20 alike; here they follow step by step.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, drawn
from ..objective import EMA, FinetuneObjective
from ..ranges import Average, BelowOne, Count, Limits, Positive, Share, Weight
from .functional import beta, embed, frozen_statistics, has_batchnorm, label_weak, products, projection
from .memory import ClassQueue, Queue, RunningMean, follow, left_out


class SsCL(FinetuneObjective):
    """Classes calibrated by similarity, similarity taught by classes.

    lambda_u, lambda_ctr: weights of pseudo-labels and contrast. tau: confidence from which a pseudo-label counts.
    gamma: 1 / temperature. margin: m. queue: K, keys that are negatives. positives: labeled keys of the class, beside
    the own. alpha: of the Beta distribution of Eq. 4. prototype_m: share of a prototype kept per step. memory: batches
    of which s~ is the mean. width: of the embeddings. ema_decay: of the key encoder, which is also what is evaluated.

    The paper does not say how many labeled keys of a class are positives, nor how an unlabeled image is chosen for a
    mix; here the last `positives`, and one of the batch that is predicted to be of the class. More positives pull an
    image towards its class rather than to itself.
    """

    paper = "Zhang et al., Semi-supervised contrastive learning"
    year, arxiv = 2021, "2105.07387"
    needs = "weak and strong view"
    defaults = dict(unlabeled_ratio=4)
    of_images = ("negatives.image",)
    presets = {
        "cifar": dict(learning_rate=0.03, unlabeled_ratio=4, weight_decay=5e-4, lr_scheduler_type="cosine", epochs=200),
        # table 8
        **{
            f"imagenet-{percent}": dict(
                learning_rate=0.4,
                batch_size=256,
                unlabeled_ratio=4,
                weight_decay=1e-4,
                lr_scheduler_type="cosine",
                epochs=800,
                method_args=dict(weights, tau=0.6, gamma=10.0, queue=65_536, width=128),
            )
            for percent, weights in (
                (1, dict(lambda_ctr=10.0, lambda_u=5.0)),
                (10, dict(lambda_ctr=5.0, lambda_u=10.0)),
            )
        },
    }

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_u: Weight = 1.0,
        lambda_ctr: Weight = 1.0,
        tau: Share = 0.95,
        gamma: Positive = 5.0,
        margin: Annotated[float, Limits(min=-1, max=1)] = -0.25,
        queue: Count = 4096,
        positives: Count = 3,
        alpha: Positive = 1.0,
        prototype_m: BelowOne = 0.9,
        memory: Count = 128,
        width: Count = 64,
        ema_decay: Average = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.lambda_ctr, self.tau, self.gamma, self.margin = lambda_u, lambda_ctr, tau, gamma, margin
        self.alpha, self.prototype_m, self.concat_weak = alpha, prototype_m, has_batchnorm(model)
        self.projector = projection(model.num_features, width)
        self.key_projector = EMA(self.projector)
        self.negatives, self.labeled = Queue(queue, z=width, image=1), ClassQueue(num_classes, positives, width)
        self.negatives.image.fill_(-1)  # of nobody; float32 tells 16 million images apart
        self.similar = RunningMean(memory, num_classes)
        self.register_buffer("prototypes", torch.zeros(num_classes, width))  # [K, E], not normalised

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        y = labeled["target"]
        f, views = partial(embed, self.model, self.projector), (labeled["image"], u["weak"], u["strong"])
        (logits_l, v_l), (logits_w, v_w), (logits_s, v_s) = label_weak(f, self.model, self.concat_weak, *views)
        with torch.no_grad():
            (_, k_l), (_, k_u) = embed(self.ema.module, self.key_projector.module, labeled["image"], u["weak"])
            p = logits_w.softmax(1)
            c = p.argmax(1)
            prototypes = self.refine(labeled["image"], y, v_l, u["weak"], c, t)
            cosine = products(v_w, F.normalize(prototypes, dim=1))  # [M, K]
            p = F.normalize(p * self.similar.update((self.gamma * cosine).softmax(1), t), p=1, dim=1)
            w = (p.amax(1) >= self.tau).float()
            paced = cosine.gather(1, c[:, None]).clamp_min(0)  # alpha_p [M, 1]
        supervised = F.cross_entropy(logits_l, y)
        pseudo = (w * F.cross_entropy(logits_s, p, reduction="none")).mean()
        image = u["index"].to(v_s.device, torch.float32)[:, None]
        contrast = self.contrast(v_s, k_u, c, paced, image).mean()
        self.negatives.wait(t, (k_u, image))
        self.labeled.wait(t, (k_l, y))
        return {
            "loss": supervised + self.lambda_u * pseudo + self.lambda_ctr * contrast,
            "supervised": supervised.detach(),
            "consistency": pseudo.detach(),
            "contrast": contrast.detach(),
            "mask_ratio": w.mean(),
        }

    def contrast(self, v: Tensor, own: Tensor, c: Tensor, paced: Tensor, image: Tensor) -> Tensor:
        """L_ctr of every image, in its third form: v, own [M, E], c [M], paced and the image's index [M, 1] -> [M]."""
        others = self.negatives.filled & (image != self.negatives.image.T)  # a small set has old keys of each image
        s_n = products(v, self.negatives.z) + left_out(others)  # [M, Q]
        s_p = (self.labeled.z[c] * v[:, None]).sum(2)  # [M, P]
        pulls = -self.gamma * paced * s_p + left_out(self.labeled.filled[c])
        pulls = torch.cat([-self.gamma * (v * own).sum(1, keepdim=True), pulls], 1)
        return F.softplus((self.gamma * (s_n + self.margin)).logsumexp(1) + pulls.logsumexp(1))

    def refine(self, x: Tensor, y: Tensor, v: Tensor, u: Tensor, c: Tensor, t: float) -> Tensor:
        """Prototypes follow labeled images and their mixes with a random unlabeled image of the same class: [K, E]."""
        u, c = all_gather(u), all_gather(c)
        same = y[:, None] == c[None]  # [B, M of all processes]
        partner = (drawn(lambda n: torch.rand(n, len(c), device=x.device), len(x)) * same).argmax(1)
        share = drawn(lambda n: beta(n, self.alpha, x), len(x)).view(-1, 1, 1, 1)
        with frozen_statistics(self.model):
            ((_, mixed),) = embed(self.model, self.projector, torch.lerp(u[partner], x, share.to(x)))
        member = F.one_hot(y, len(self.prototypes)).to(v)  # [B, K]
        mix = member * same.any(1, keepdim=True)
        sums, counts = products(member.T, v.T) + products(mix.T, mixed.T), (member + mix).sum(0)
        sums, counts = (all_gather(v).sum(0) for v in self.so_far(t, sums[None], counts[None]))
        fresh = F.normalize(sums, dim=1)
        fresh = torch.where(counts[:, None] > 0, fresh, self.prototypes)
        first = self.prototypes.abs().sum(1, keepdim=True) == 0
        prototypes = follow(torch.where(first, fresh, self.prototypes), fresh, self.prototype_m)
        self.later(prototypes=prototypes)
        return prototypes

    def after_step(self, t: float) -> None:
        super().after_step(t)
        self.key_projector.update(self.projector, self.momentum)
