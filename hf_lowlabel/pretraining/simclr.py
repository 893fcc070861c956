"""SimCLR (Chen et al. 2020, arXiv 2002.05709, Eq. 1 and algorithm 1): NT-Xent over the global batch.

    l(i, j) = -log exp(z_i.z_j / tau) / sum_{k != i} exp(z_i.z_k / tau)

z: unit vectors of all views of all images on all ranks, j the other view of i's image; the loss is the mean over i.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..objective import PretrainObjective, feature_std, mlp
from ..ranges import Count, CountOrNone, Positive
from .contrast import full_precision, unit


def nt_xent(z: Tensor, tau: float, index: Tensor | None = None) -> Tensor:
    """The mean of l(i, j) over this rank's rows. z: unit vectors [2B, D], first the first views, then the second.

    Other ranks' rows are gathered with gradient, so that the mean over ranks has the gradient of the global batch.
    index: which image each row shows, int64 [B]; one that is twice in the batch is no negative of itself. None: all
    are different.
    """
    n = len(z)
    everyone = all_gather(z, grad=True)  # [world * 2B, D]
    row = torch.arange(n, device=z.device)
    me, partner = row + rank() * n, (row + n // 2) % n + rank() * n  # positions in `everyone`
    with full_precision(z):
        logits = z @ everyone.T / tau  # [2B, world * 2B]
    itself = me[:, None] == torch.arange(len(everyone), device=z.device)  # k = i
    if index is not None:
        image = index.to(z.device).repeat(2)
        again = image[:, None] == all_gather(image)
        itself = itself | again.scatter(1, partner[:, None], False)
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), partner)


class SimCLR(PretrainObjective):
    """SimCLR: all other images of the batch, of all ranks, are the negatives; both views pass the encoder together.

    hidden: width of the projector's hidden layer, 0 for that of the features. out: width of the embedding. tau:
    temperature (0.5 suits CIFAR, 0.1 ImageNet).
    """

    paper = "Chen et al., A simple framework for contrastive learning"
    year, arxiv = 2020, "2002.05709"
    needs = "two views"
    defaults = dict(batch_size=256, learning_rate=0.3, weight_decay=1e-6, optimizer="lars")
    presets = {
        # a tenth of ImageNet's rate, as Xu et al. section 4.1
        "target": dict(learning_rate=0.03, epochs=300, l2_sp=1e-2),
        "imagenet": dict(batch_size=4096, epochs=100, warmup_ratio=0.1, l2_sp=0.0, method_args=dict(tau=0.1)),
        "cifar": dict(batch_size=1024, learning_rate=1.0, epochs=1000, warmup_ratio=0.01, l2_sp=0.0),  # appendix B.9
    }

    views = ("simclr", "simclr")
    compares = True

    def __init__(self, encoder: nn.Module, *, hidden: CountOrNone = 0, out: Count = 128, tau: Positive = 0.5):
        super().__init__(encoder)
        self.projector, self.tau = mlp(encoder.num_features, hidden or encoder.num_features, out), tau

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        z = unit(self.projector(self.encoder.pooled(torch.cat(batch["views"]))))  # [2B, out]
        return {"loss": nt_xent(z, self.tau, batch["index"]), "z_std": feature_std(z)}
