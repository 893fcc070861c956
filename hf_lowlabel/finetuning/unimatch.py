"""UniMatch (Yang et al. 2023, arXiv 2208.09910, sections 3.2 to 3.4).

    L = 1/2 H(y, p(x_l)) + 1/2 (lambda_s/2 (L_s1 + L_s2) + lambda_fp L_fp),   lambda_s = lambda_fp = 1/2
    L_si = mean over valid pixels of  1[max p_w >= tau] H(argmax p_w, p(x_si)),   x_si a strong view with a pasted box
    L_fp = the same with p(dropped features of x_w): whole channels of every encoder map are dropped with chance 1/2

p_w = p(x_w) without gradient, mixed by the same boxes. No averaged network teaches or is evaluated. As in the authors'
code BatchNorm sees three batches: labeled and weak views, whose labels are those of an image's own pixels; the strong
views; and in eval mode the weak views that give a box its labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.inference import evaluating
from ..objective import FinetuneObjective
from ..ranges import BelowOne, CountOrNone, Share, Weight
from ..views.counter_rng import keyed
from .functional import predict
from .pixels import box_mask, check_pairs, cross_entropy, hard_cross_entropy, masked_mean, partner, paste


class UniMatch(FinetuneObjective):
    """Two strong views and one view perturbed in feature space learn from the weak view's labels.

    tau: confidence from which a pixel's label counts. lambda_s, lambda_fp: weights of the two kinds of views. drop:
    chance to drop a channel. box: chance that a strong view gets a box of its partner, 2 to 40 % of the image. hard:
    labeled pixels that learn at least, the rest only where p(y) <= 0.7 (see hard_cross_entropy); 0: all of them. A
    partner is a neighbour in the batch; the authors draw a second batch of unlabeled images for it.
    ema_decay: of an average that is evaluated instead of the network; 0, the authors' choice, for none.
    """

    paper = "Yang et al., Revisiting weak-to-strong consistency"
    year, arxiv = 2023, "2208.09910"
    needs = "weak and two strong views of at least two images"
    tasks = ("segmentation",)
    defaults = dict(
        optimizer="momentum",
        learning_rate=1e-3,
        head_lr=10.0,
        batch_size=8,
        unlabeled_ratio=1,
        weight_decay=1e-4,
        lr_scheduler_type="poly",
        scale=[0.5, 2.0],
    )
    presets = {
        "voc": dict(image_size=321, epochs=80),  # section 4.1 and the authors' configs/
        "cityscapes": dict(
            learning_rate=5e-3,
            head_lr=1.0,
            image_size=801,
            window=801,
            epochs=240,
            method_args=dict(tau=0.0, hard=200_000),
        ),
    }

    unlabeled_views = {"weak": "weak", "strong": "strong", "strong2": "strong"}

    def __init__(
        self,
        model: nn.Module,
        *,
        tau: Share = 0.95,
        lambda_s: Weight = 0.5,
        lambda_fp: Weight = 0.5,
        drop: BelowOne = 0.5,
        box: Share = 0.5,
        hard: CountOrNone = 0,
        ema_decay: BelowOne = 0.0,
    ):
        super().__init__(model, ema_decay=ema_decay)
        self.hard = hard
        self.tau, self.lambda_s, self.lambda_fp, self.drop, self.box = tau, lambda_s, lambda_fp, drop, box

    def forward(self, batch: dict, t: float) -> dict[str, Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        x_l, (x_w, valid, key) = labeled["image"], (unlabeled[k] for k in ("weak", "valid", "key"))
        check_pairs(x_w, "UniMatch")
        n, m, size = len(x_l), len(x_w), tuple(x_w.shape[-2:])
        boxes = [random_boxes(key, size, self.box, f"box {k}") for k in range(2)]
        strong = [paste(box, partner(x), x) for box, x in zip(boxes, (unlabeled["strong"], unlabeled["strong2"]))]
        with torch.no_grad(), evaluating(self.model):
            other = self.model(x_w).logits.float().softmax(1).max(1)  # (confidence, label) [M, H, W] for the boxes
        maps = self.model.encode(torch.cat([x_l, x_w]))
        dropped = [drop_channels(f[n:], key, self.drop, f"map {k}") for k, f in enumerate(maps)]
        features = self.model.decode([torch.cat([f, d]) for f, d in zip(maps, dropped, strict=True)])
        logits_l, logits_w, logits_fp = self.model.classify(features, size).float().split([n, m, m])
        logits_1, logits_2 = predict(self.model, *strong)

        confidence, label = logits_w.detach().softmax(1).max(1)  # [M, H, W]
        counted = unlabeled.get("counted")
        perturbed = sure_loss(logits_fp, label, confidence, valid, self.tau, counted)
        pairs = (label, other[1]), (confidence, other[0]), (valid, valid)
        first, second = (
            sure_loss(z, *(paste(box, partner(theirs), own) for own, theirs in pairs), self.tau, counted)
            for box, z in zip(boxes, (logits_1, logits_2))
        )
        supervised = supervised_loss(logits_l, labeled, self.hard)
        consistency = self.lambda_s / 2 * (first + second) + self.lambda_fp * perturbed
        return {
            "loss": (supervised + consistency) / 2,
            "supervised": supervised.detach(),
            "consistency": consistency.detach(),
            "mask_ratio": masked_mean((confidence >= self.tau).float(), valid, counted),
        }


def supervised_loss(logits: Tensor, labeled: dict[str, Tensor], hard: int) -> Tensor:
    """Cross-entropy of all labeled pixels, or of the hard ones, at least `hard` of them."""
    target = labeled["target"]
    return (
        hard_cross_entropy(logits, target, 0.7, hard)
        if hard
        else cross_entropy(logits, target, counted=labeled.get("counted"))
    )


def sure_loss(
    logits: Tensor, label: Tensor, confidence: Tensor, valid: Tensor, tau: float, counted: Tensor | None
) -> Tensor:
    """mean over valid pixels of 1[confidence >= tau] H(label, softmax(logits))"""
    loss = F.cross_entropy(logits, label, reduction="none")
    return masked_mean(torch.where(confidence >= tau, loss, 0.0), valid, counted)


def drop_channels(x: Tensor, key: Tensor, chance: float, purpose: str = "map") -> Tensor:
    """Whole channels set to 0 with that chance, the rest scaled by 1 / (1 - chance); prefix tokens stay as they are."""
    if x.dim() != 4 or not chance:
        return x
    keep = (keyed(key, purpose, x.shape[1]) >= chance).to(x) / (1 - chance)  # [M, C]
    return x * keep[:, :, None, None]


def random_boxes(key: Tensor, size: tuple[int, int], chance: float, purpose: str = "box", tries: int = 8) -> Tensor:
    """bool [M, H, W]: for each image with that chance a box of 2 to 40 % of it, height over width from 0.3 to 1 / 0.3.

    Position and shape are drawn until the box lies inside; after `tries` without success it is moved inside.
    """
    h, w = size
    u = keyed(key, purpose, 4 * tries + 1).T  # [4 tries + 1, M]
    on, u = u[-1] < chance, u[:-1].view(tries, 4, -1)
    area, ratio = 0.02 + 0.38 * u[0, 0], 0.3 + (1 / 0.3 - 0.3) * u[:, 1]
    high = (area * h * w * ratio).sqrt().floor().clamp(1, h)  # [tries, M]
    wide = (area * h * w / ratio).sqrt().floor().clamp(1, w)
    top, left = (u[:, 2] * h).floor(), (u[:, 3] * w).floor()
    fits = (top + high <= h) & (left + wide <= w)
    first = torch.where(fits.any(0), fits.float().argmax(0), tries - 1)[None]
    high, wide, top, left = (v.gather(0, first)[0] for v in (high, wide, top, left))
    top, left = torch.minimum(top, h - high), torch.minimum(left, w - wide)
    return box_mask(top, left, high, wide, (h, w)) & on[:, None, None]
