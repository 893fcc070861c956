"""CoMatch (Li et al. 2021, arXiv 2011.11183, Eq. 1-11): a graph of pseudo-labels teaches a graph of embeddings.

    q = alpha norm(p(u_weak) / p~) + (1 - alpha) sum_k a_k p_k,   a_k = softmax_k(z(u_weak) . z_k / T); bank (z_k, p_k)
    L = H(y, p(x_l)) + lambda_u mean 1[max q >= tau] H(q, p(u_strong)) + lambda_c mean_b H(W^q_b, W^z_b)
    W^q_bj  propto  1 if b = j, q_b . q_j if that is >= edge, else 0
    W^z_bj = softmax_j(z(u_strong)_b . z(u_strong2)_j / T)

The bank holds weak views: p before smoothing for unlabeled images, the label for labeled ones. Smoothing starts when
the bank is full. Graphs span the batches of all ranks.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..objective import FinetuneObjective
from .functional import align, embed, has_batchnorm, label_weak, products, projection
from .memory import Queue, RunningMean
from .presets import CIFAR, PRETRAINED


class CoMatch(FinetuneObjective):
    """Classes smoothed by neighbours, embeddings drawn together by classes.

    lambda_u, lambda_c: weights of classes and graph (ImageNet: 10 and 10 at 1 %, 10 and 2 at 10 %). tau: confidence
    from which a target counts. edge: agreement from which two images are joined. alpha: share of the image's own
    prediction. temperature: T of the similarities. width: of the embeddings. bank: images in the memory (5 of the
    authors' batches). memory: batches of which p~ is the mean. ema_decay: of the weights that are evaluated.
    """

    paper = "Li et al., CoMatch"
    year, arxiv = 2021, "2011.11183"
    needs = "weak, strong and SimCLR view"
    presets = {
        "cifar": dict(CIFAR, max_steps=2**19),
        "pretrained": PRETRAINED,
        "imagenet": dict(
            learning_rate=0.1,
            batch_size=160,
            unlabeled_ratio=4,
            weight_decay=1e-4,
            lr_scheduler_type="cosine",
            method_args=dict(
                tau=0.6, edge=0.3, lambda_u=10.0, lambda_c=10.0, temperature=0.1, width=128, bank=30_000, memory=128
            ),
        ),
    }

    unlabeled_views = {"weak": "weak", "strong": "strong", "strong2": "simclr"}

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        lambda_u: float = 1.0,
        lambda_c: float = 1.0,
        tau: float = 0.95,
        edge: float = 0.8,
        alpha: float = 0.9,
        temperature: float = 0.2,
        width: int = 64,
        bank: int = 2560,
        memory: int = 32,
        ema_decay: float = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.lambda_c, self.tau, self.edge = lambda_u, lambda_c, tau, edge
        self.alpha, self.temperature = alpha, temperature
        self.projector, self.mean = projection(model.num_features, width), RunningMean(memory, num_classes)
        self.bank, self.concat_weak = Queue(bank, z=width, p=num_classes), has_batchnorm(model)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, u = batch["labeled"], batch["unlabeled"]
        (logits_l, z_l), (logits_w, z_w), (logits_s, z_1), (_, z_2) = label_weak(
            partial(embed, self.model, self.projector),
            self.model,
            self.concat_weak,
            labeled["image"],
            u["weak"],
            u["strong"],
            u["strong2"],
        )
        with torch.no_grad():
            p = logits_w.softmax(1)
            mean, y = self.mean.update(p, t), F.one_hot(labeled["target"], p.shape[1]).to(p)
            z_u, p_u, z_y, y = self.bank.so_far(t, z_w, p, z_l, y)
            self.bank.later(parts=[(z_u, align(p_u, mean)), (z_y, y)])
            p = align(p, mean)  # [M, K]
            neighbours = products((products(z_w, self.bank.z) / self.temperature).softmax(1), self.bank.p.T)
            q = torch.where(self.bank.filled.all(), torch.lerp(neighbours, p, self.alpha), p)
            w = (q.amax(1) >= self.tau).float()
        supervised = F.cross_entropy(logits_l, labeled["target"])
        consistency = (w * F.cross_entropy(logits_s, q, reduction="none")).mean()
        graph = F.cross_entropy(products(z_1, all_gather(z_2, grad=True)) / self.temperature, self.joined(q))
        return {
            "loss": supervised + self.lambda_u * consistency + self.lambda_c * graph,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "graph": graph.detach(),
            "mask_ratio": w.mean(),
        }

    def joined(self, q: Tensor) -> Tensor:
        """W^q, the rows of this rank's images over those of all: [M, world M]."""
        agreement = products(q, all_gather(q))
        agreement.diagonal(rank() * len(q)).fill_(1.0)  # an image agrees with itself
        return F.normalize(agreement * (agreement >= self.edge), p=1, dim=1)
