"""CoMatch (Li et al. 2021, arXiv 2011.11183, Eq. 1-11): a graph of pseudo-labels teaches a graph of embeddings.

    q = alpha norm(p(u_weak) / p~) + (1 - alpha) sum_k a_k p_k,   a_k = softmax_k(z(u_weak) . z_k / T); bank (z_k, p_k)
    L = H(y, p(x_l)) + lambda_u mean 1[max q >= tau] H(q, p(u_strong)) + lambda_c mean_b H(W^q_b, W^z_b)
    W^q_bj  propto  1 if b = j, q_b . q_j if that is >= edge, else 0
    W^z_bj = softmax_j(z(u_strong)_b . z(u_strong2)_j / T)

The bank holds weak views: p before smoothing for unlabeled images, the label for labeled ones. Smoothing starts when
the bank is full. Graphs span the batches of all ranks.

On ImageNet (`teacher`) a momentum encoder sees the weak views and u_strong2, and a second queue of its strong keys
z'_k with their q_k takes part in both graphs: j runs over the batch, then over the queue, and edges are counted among
all of them. The authors' code adds 1e-7 inside that logarithm; here it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..objective import EMA, FinetuneObjective
from ..ranges import BelowOne, Count, CountOrNone, Positive, Share, Weight
from .functional import align, check_average, embed, has_batchnorm, label_weak, products, projection
from .memory import Queue, RunningMean, left_out
from .presets import CIFAR, PRETRAINED


class CoMatch(FinetuneObjective):
    """Classes smoothed by neighbours, embeddings drawn together by classes.

    lambda_u, lambda_c: weights of classes and graph (ImageNet: 10 and 10 at 1 %, 10 and 2 at 10 %). tau: confidence
    from which a target counts. edge: agreement from which two images are joined. alpha: share of the image's own
    prediction. temperature: T of the similarities. width: of the embeddings. bank: images in the memory (5 of the
    authors' batches), and strong keys in the second queue. memory: batches of which p~ is the mean. teacher: whether
    there are a momentum encoder and a second queue. passes: of the run over the unlabeled images, where something
    depends on them: the weight of the graph is min(pass, lambda_c) in the pass counted from 1, in the first one nothing
    is smoothed and the teacher keeps 0.99; 0: lambda_c throughout. ema_decay: of the momentum encoder, and of the
    weights that are evaluated.

    Not as in the authors' code: a wrapping batch is stored whole, where theirs drops what is over the end of the
    queue, so that batches need not divide it; empty places of a queue take no part, where theirs hold random keys
    without a class, from which there is nothing to learn. With full queues of a whole number of batches both are equal.
    On ImageNet theirs has resized crops of 0.2 to 1 of the image for all views, and for both strong ones the colours of
    u_strong2; here weak and strong views are those of FixMatch, as on CIFAR.
    """

    paper = "Li et al., CoMatch"
    year, arxiv = 2021, "2011.11183"
    needs = "weak and two strong views"
    presets = {
        "cifar": dict(CIFAR, max_steps=2**19),
        "pretrained": PRETRAINED,
        "imagenet": dict(
            learning_rate=0.1,
            batch_size=160,
            unlabeled_ratio=4,
            weight_decay=1e-4,
            lr_scheduler_type="cosine",
            epochs=400,
            method_args=dict(
                tau=0.6,
                edge=0.3,
                lambda_u=10.0,
                lambda_c=10.0,
                temperature=0.1,
                width=128,
                bank=30_000,
                memory=128,
                teacher=1,
                passes=400,
                ema_decay=0.996,
            ),
        ),
    }

    unlabeled_views = {"weak": "weak", "strong": "strong", "strong2": "comatch"}

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        if settings["teacher"]:
            check_average(settings["ema_decay"], "makes the keys")

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_u: Weight = 1.0,
        lambda_c: Weight = 1.0,
        tau: Share = 0.95,
        edge: Share = 0.8,
        alpha: Share = 0.9,
        temperature: Positive = 0.2,
        width: Count = 64,
        bank: Count = 2560,
        memory: Count = 32,
        teacher: bool = False,
        passes: CountOrNone = 0,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay, ema_buffers="own" if teacher else "copy")
        self.lambda_u, self.lambda_c, self.tau, self.edge = lambda_u, lambda_c, tau, edge
        self.alpha, self.temperature = alpha, temperature
        self.projector, self.mean = projection(model.num_features, width), RunningMean(memory, num_classes)
        self.bank, self.concat_weak = Queue(bank, z=width, p=num_classes), has_batchnorm(model)
        self.passes, self.first_pass = passes, False
        self.teacher_projector = EMA(self.projector) if teacher else None
        self.strong = Queue(bank, z=width, p=num_classes) if teacher else None

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        self.first_pass = bool(self.passes) and t * self.passes < 1
        (logits_l, z_l), (logits_w, z_w), (logits_s, z_1), (_, z_2) = self.embed(labeled["image"], u)
        with torch.no_grad():
            p = logits_w.softmax(1)
            mean, y = self.mean.update(p, t), F.one_hot(labeled["target"], p.shape[1]).to(p)
            z_u, p_u, z_y, y = self.bank.so_far(t, z_w, p, z_l, y)
            self.bank.later(parts=[(z_u, align(p_u, mean)), (z_y, y)])
            p = align(p, mean)  # [M, K]
            neighbours = products((products(z_w, self.bank.z) / self.temperature).softmax(1), self.bank.p.T)
            smooth = self.bank.filled.all() & (not self.first_pass)
            q = torch.where(smooth, torch.lerp(neighbours, p, self.alpha), p)
            w = (q.amax(1) >= self.tau).float()
        supervised = F.cross_entropy(logits_l, labeled["target"])
        consistency = (w * F.cross_entropy(logits_s, q, reduction="none")).mean()
        graph = self.graph(z_1, z_2, q)
        if self.strong is not None:
            self.strong.wait(t, (z_2, q))
        lambda_c = min(int(t * self.passes) + 1, self.lambda_c) if self.passes else self.lambda_c
        return {
            "loss": supervised + self.lambda_u * consistency + lambda_c * graph,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "graph": graph.detach(),
            "mask_ratio": w.mean(),
        }

    def embed(self, x_l: Tensor, u: dict[str, Tensor]) -> tuple[tuple[Tensor, Tensor], ...]:
        """(logits, embeddings) of the labeled and weak views, of the strong and of the second strong ones."""
        if self.teacher_projector is None:
            f = partial(embed, self.model, self.projector)
            return label_weak(f, self.model, self.concat_weak, x_l, u["weak"], u["strong"], u["strong2"])
        (logits_l, _), first = embed(self.model, self.projector, x_l, u["strong"])
        with torch.no_grad():
            teacher = self.ema.module, self.teacher_projector.module
            (_, z_l), weak, second = embed(*teacher, x_l, u["weak"], u["strong2"])
        return (logits_l, z_l), weak, first, second

    def graph(self, z_1: Tensor, z_2: Tensor, q: Tensor) -> Tensor:
        """mean_b H(W^q_b, W^z_b) over the images of all ranks and, with a teacher, its queue of strong keys."""
        agreement = products(q, all_gather(q))  # [M, world M]
        agreement.diagonal(rank() * len(q)).fill_(1.0)  # an image agrees with itself
        logits = products(z_1, all_gather(z_2, grad=True)) / self.temperature
        if self.strong is not None:
            agreement = torch.cat([agreement, products(q, self.strong.p)], 1)
            past = products(z_1, self.strong.z) / self.temperature + left_out(self.strong.filled)
            logits = torch.cat([logits, past], 1)
        return F.cross_entropy(logits, F.normalize(agreement * (agreement >= self.edge), p=1, dim=1))

    @property
    def momentum(self) -> float:
        return 0.99 if self.first_pass else self.ema_decay if self.passes else super().momentum

    def after_step(self, t: float) -> None:
        super().after_step(t)
        if self.teacher_projector is not None:
            self.teacher_projector.update(self.projector, self.momentum)
