"""Exemplar (Dosovitskiy et al. 2014, arXiv 1406.6909; Zhai et al., S4L, section 3.1): every image is its own class.

    L = mean_a log(1 + exp(max_{p: same image} |z_a - z_p|_2 - min_{n: other image} |z_a - z_n|_2))

the batch-hard triplet loss with soft margin (Hermans et al. 2017, arXiv 1703.07737, section 2) over 8 instances of each
image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, world
from ..errors import UserError
from ..objective import PretrainObjective
from ..ranges import Count, Several


def batch_hard(z: Tensor, image: Tensor, everyone: Tensor, their_image: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the farthest embedding of the same image and the nearest of another: [A, D], [N, D] -> [A], [A]."""
    far = torch.cdist(z.float(), everyone.float(), compute_mode="donot_use_mm_for_euclid_dist")  # [A, N]
    same = image[:, None] == their_image[None]
    return far.masked_fill(~same, -torch.inf).amax(1), far.masked_fill(same, torch.inf).amin(1)


class Exemplar(PretrainObjective):
    """Exemplar: all views of an image attract each other, the images of the batch, of all ranks, repel.

    instances: views of each image in a step. out: width of the embedding, which is not normalised.
    """

    paper = "Dosovitskiy et al., Exemplar CNNs; Zhai et al., S4L"
    year, arxiv = 2014, "1406.6909"
    needs = "eight views"
    # Kolesnikov et al. 2019, 1901.09005
    defaults = dict(batch_size=64, learning_rate=0.1, weight_decay=1e-4, optimizer="momentum")

    views = ("exemplar",) * 8
    compares = True

    def __init__(self, encoder: nn.Module, *, instances: Several = 8, out: Count = 1000):
        super().__init__(encoder)
        self.views, self.head = ("exemplar",) * instances, nn.Linear(encoder.num_features, out)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        views = batch["views"]
        if len(views[0]) * world() < 2:
            raise UserError("A batch holds 1 image, but the loss compares images. Use a batch_size of 2 or more.")
        image = batch["index"].to(views[0].device).repeat(len(views))  # a small set has an image twice in a batch
        z = self.head(self.encoder.pooled(torch.cat(views)))  # [V * B, out]
        positive, negative = batch_hard(z, image, all_gather(z, grad=True), all_gather(image))
        return {"loss": F.softplus(positive - negative).mean(), "hard": (positive > negative).float().mean()}
