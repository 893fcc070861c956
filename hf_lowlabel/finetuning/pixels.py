"""What the segmentation methods share: means over the pixels that count, rectangles, class masks, mixing.

Logits [M, K, H, W], labels int64 [M, H, W], masks bool [M, H, W]. Partners in a mix are neighbours in the batch: images
0 and 1, 2 and 3, and so on; in a shuffled batch that is as random as any pairing. What an image draws is a function of
its `key` int64 [M]. So a batch on several processes, an even number of images on each, is mixed as it is on one. A
batch's `valid` is false where a view lies outside its image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import all_mean, world
from ..errors import UserError
from ..objective import IGNORE_INDEX, wide
from ..views.counter_rng import keyed


def cross_entropy(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, counted: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the targets that are not IGNORE_INDEX (-100), on all ranks together; 0 if there is none.

    Masks as they are stored have 255 where nothing counts: `target.masked_fill(target == 255, -100)`.
    counted: float [M], the pixels of an image that count, in the mean over the whole step (`count_pixels`), where the
    batch is one part of it: a part with few of them then weighs as much as its pixels.
    """
    logits = wide(logits)
    if target.dim() == 1:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    loss = F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    known = target != IGNORE_INDEX
    return masked_mean(loss, known, counted)


def count_pixels(known: Tensor) -> Tensor:
    """float [M], the same for all: pixels of an image that count, in the mean over all ranks. known: bool [M, H, W]."""
    return all_mean(known.sum() / len(known)).expand(len(known))


def hard_cross_entropy(logits: Tensor, target: Tensor, tau: float, least: int) -> Tensor:
    """Cross-entropy of the hard pixels alone: those with p(target) <= tau, and at least the `least` hardest.

    Online hard example mining, as UniMatch's authors have it (util/ohem.py): where fewer than `least` pixels of the
    batch have a target, all of them count. The pixels are those of one process, and of one micro-batch: which of
    a step are hard is not known before all of its parts are.
    """
    known = target != IGNORE_INDEX
    with torch.no_grad():
        p = logits.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0].masked_fill(~known, 1.0)  # [M, H, W]
        ranked = p.flatten().sort().values
        threshold = ranked[min(len(ranked), least) - 1].clamp(min=tau)
        few = known.sum() < least
    hard = known & ((p <= threshold) | few)
    return masked_mean(F.cross_entropy(logits, target, reduction="none"), hard)


def masked_mean(values: Tensor, valid: Tensor | None, counted: Tensor | None = None) -> Tensor:
    """Mean of `values` where `valid`, on all ranks together; 0 where nothing is. None: everything is valid.

    counted: float [M], see `cross_entropy`. Mixing moves a few valid pixels from part to part, which it leaves out.
    """
    if valid is None:
        return wide(values).mean()
    # DDP averages the gradients of the ranks' quotients
    count = all_mean(valid.sum().float()) if counted is None else counted.sum()
    return torch.where(valid, wide(values), 0.0).sum() / count.clamp(min=1 / world())


def half_box(key: Tensor, size: tuple[int, int], area: float = 0.5) -> Tensor:
    """bool [M, H, W], true in one rectangle per image that covers `area` of it and lies inside (French et al., 3.2).

    Its height is area^r of the image's, r uniform in [0, 1), in whole px; its width is whatever makes up the area, in
    whole px.
    """
    h, w = size
    r, y, x0 = keyed(key, "box", 3).unbind(1)  # [M]
    high = (torch.exp(r * math.log(area)) * h).round().clamp(min=1)
    wide = (area * h * w / high).round().clamp(max=w)
    return box_mask((y * (h - high + 1)).floor(), (x0 * (w - wide + 1)).floor(), high, wide, size)


def box_mask(top: Tensor, left: Tensor, high: Tensor, wide: Tensor, size: tuple[int, int]) -> Tensor:
    """bool [M, H, W], true inside of each box; all four [M] in px."""
    rows, columns = (torch.arange(side, device=top.device) for side in size)
    inside_y = (rows >= top[:, None]) & (rows < (top + high)[:, None])
    inside_x = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return inside_y[:, :, None] & inside_x[:, None, :]


def half_classes(
    key: Tensor, labels: Tensor, classes: int, valid: Tensor | None = None, *, more: int = 0, background: bool = False
) -> Tensor:
    """bool [M, H, W], true at the pixels of half of the classes an image has (floor(n / 2) of n), drawn at random.

    Pixels that are not valid belong to no class. more: classes taken beside the half. background: class 0 is none of
    them, and is not counted, where an image has others.
    """
    flat = labels.flatten(1)  # [M, H W]
    counted = torch.ones_like(flat) if valid is None else valid.flatten(1).long()
    present = torch.zeros(len(labels), classes, dtype=torch.long, device=labels.device)
    present = present.scatter_add_(1, flat, counted) > 0  # [M, K]
    if background:
        present[:, 0] &= present.sum(1) == 1
    chance = keyed(key, "classes", classes).masked_fill(~present, -1.0)
    place = chance.argsort(1, descending=True).argsort(1)  # 0 is the first to be taken
    chosen = place < present.sum(1, keepdim=True) // 2 + more  # [M, K]
    chosen = chosen & present
    taken = chosen.gather(1, flat).view(labels.shape)
    return taken if valid is None else taken & valid


def paste(mask: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """`own` where the mask is true, `other` elsewhere: [M, H, W] or [M, C, H, W]."""
    return torch.where(mask if own.dim() == 3 else mask[:, None], own, other)


def partner(x: Tensor) -> Tensor:
    """The other image of each pair of neighbours; the last of an odd number takes the one before it."""
    i = torch.arange(len(x), device=x.device)
    return x[torch.where((i ^ 1) < len(x), i ^ 1, i - 1)]


def check_pairs(x: Tensor, method: str) -> None:
    if len(x) < 2:
        raise UserError(
            f"A forward pass of a process sees {len(x)} unlabeled image, but {method} mixes at least 2. Use a larger "
            "batch or unlabeled ratio, or fewer accumulation steps or processes."
        )
