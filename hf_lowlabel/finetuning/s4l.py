"""S4L (Zhai et al. 2019, arXiv 1905.03670, Eq. 1-2, sections 3.1 and 4.4): labels and self-supervision at once.

    L = mean H(y, p(x_l)) over every augmented copy of the labeled images + lambda_u L_self over all images
    Rotation:  L_self = 1/4 sum_r mean H(r, p_rot(x^r)),   r in 0, 90, 180, 270 degrees, all four in one step
    Exemplar:  L_self = batch-hard triplet loss with soft margin over 8 instances of each image

The reference implementation averages the labeled and the unlabeled half of L_self, as is done here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, world
from ..errors import UserError
from ..objective import FinetuneObjective
from ..pretraining.exemplar import batch_hard
from ..pretraining.rotnet import four_rotations
from ..ranges import BelowOne, Count, Several, Weight
from .presets import S4L


class S4LRotation(FinetuneObjective):
    """Classes and rotations. lambda_u: weight of the rotations. ema_decay: of the weights that are evaluated.

    The paper does not say how the labeled and the unlabeled images are weighed in L_self; here each half counts 1/2, as
    in the authors' code. One mean over all images is the same at unlabeled_ratio 1, the paper's.
    """

    paper = "Zhai et al., S4L"
    year, arxiv = 2019, "1905.03670"
    needs = "weak view, turned four ways"
    defaults = dict(unlabeled_ratio=1)
    presets = S4L

    unlabeled_views = {"weak": "weak"}

    def __init__(self, model: nn.Module, *, lambda_u: Weight = 1.0, ema_decay: BelowOne = 0.999):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.turn = lambda_u, nn.Linear(model.num_features, 4)

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        (x_l, r_l), (x_u, r_u) = (four_rotations(x) for x in (batch["labeled"]["image"], batch["unlabeled"]["weak"]))
        features = self.model.features(torch.cat([x_l, x_u]))  # [4 (B + M), D]
        logits = self.model.classify(features[: len(x_l)]).float()  # [4 B, K]
        turn_l, turn_u = self.turn(features).float().split([len(x_l), len(x_u)])
        supervised = F.cross_entropy(logits, batch["labeled"]["target"].repeat(4))
        rotation = (F.cross_entropy(turn_l, r_l) + F.cross_entropy(turn_u, r_u)) / 2
        return {
            "loss": supervised + self.lambda_u * rotation,
            "supervised": supervised.detach(),
            "consistency": rotation.detach(),
            "rotation_accuracy": (turn_u.argmax(1) == r_u).float().mean(),
        }


class S4LExemplar(FinetuneObjective):
    """Classes and instances.

    lambda_u: weight of the triplets. instances: views of each image. width: of the embedding, which has unit length.
    ema_decay: of the weights that are evaluated.

    The paper does not say whether labeled and unlabeled images repel each other; here each half has triplets of its
    own, as in the authors' code. Together an image would meet about twice as many, and so harder, negatives.
    """

    paper = "Zhai et al., S4L"
    year, arxiv = 2019, "1905.03670"
    needs = "eight views"
    defaults = dict(unlabeled_ratio=1)
    presets = S4L

    labeled_views = unlabeled_views = {"image": "exemplar"}  # and as many more as there are instances

    def __init__(
        self,
        model: nn.Module,
        *,
        lambda_u: Weight = 1.0,
        instances: Several = 8,
        width: Count = 1000,
        ema_decay: BelowOne = 0.999,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.lambda_u, self.projector = lambda_u, nn.Linear(model.num_features, width)
        self.keys = ["image", *(f"view{i}" for i in range(2, instances + 1))]
        self.labeled_views = self.unlabeled_views = dict.fromkeys(self.keys, "exemplar")

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        x_l, x_u = (torch.cat([batch[part][k] for k in self.keys]) for part in ("labeled", "unlabeled"))
        features = self.model.features(torch.cat([x_l, x_u]))  # [V (B + M), D]
        logits = self.model.classify(features[: len(x_l)]).float()  # [V B, K]
        z_l, z_u = F.normalize(self.projector(features).float(), dim=1).split([len(x_l), len(x_u)])
        supervised = F.cross_entropy(logits, batch["labeled"]["target"].repeat(len(self.keys)))
        triplet = (self.triplet(z_l, batch["labeled"]["index"]) + self.triplet(z_u, batch["unlabeled"]["index"])) / 2
        return {
            "loss": supervised + self.lambda_u * triplet,
            "supervised": supervised.detach(),
            "consistency": triplet.detach(),
        }

    def triplet(self, z: Tensor, index: Tensor) -> Tensor:
        """mean softplus(hardest positive - hardest negative) for embeddings [V B, E] of V views of B images.

        index: which image each is, int64 [B]: few labels fill a batch several times over.
        """
        if len(index) * world() < 2:
            raise UserError("A batch holds 1 image, but the loss compares images. Use a batch_size of 2 or more.")
        image = index.to(z.device).repeat(len(self.keys))
        positive, negative = batch_hard(z, image, all_gather(z, grad=True), all_gather(image))
        return F.softplus(positive - negative).mean()
