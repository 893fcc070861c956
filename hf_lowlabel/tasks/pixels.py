"""Features of some pixels of labeled images, as the last layer of a segmenter sees them scaled to the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..evaluation.segmentation import Normalise
from ..finetuning.pixel_probe import PixelKNN, PixelProbe
from ..mask_palette import IGNORE
from .data_classes import Examples


@torch.inference_mode()
def fit_probe(
    method: PixelProbe | PixelKNN, model: nn.Module, labeled: Examples, num_classes: int, **seen: Any
) -> None:
    """Give a segmenter of architecture `linear` the layer that fits the masks, one of `knn` the pixels that vote.

    Its norm takes the statistics of the sampled pixels, and scales each map of the encoder as a whole.

    Args:
        method: how it is fitted.
        model: the segmenter; its head and norm are changed.
        labeled: images with masks.
        num_classes: K.
        seen: mean and std of the normalisation.

    Raises:
        UserError: the architecture is another, or the masks show one class.
    """
    net: Any = model.network
    config: Any = model.config
    if config.architecture != method.defaults["architecture"]:
        raise UserError(
            f"{method.name} needs the architecture {method.defaults['architecture']!r}, and the segmenter is of "
            f"architecture {config.architecture!r}. Give --model without --init-from, or take --method supervised."
        )
    model.eval()
    net.scale_maps(None)
    normalise, device = Normalise(**seen), next(net.parameters()).device
    segmenter: Any = model
    x, labels, weights, masks = sampled(
        lambda image: segmenter.features(normalise(image.to(device))).float(), segmenter.divisor, labeled, method.pixels
    )
    net.scale_maps(x)
    x = net.norm(x.to(device)[:, :, None, None])[:, :, 0, 0].cpu()
    if isinstance(method, PixelKNN):
        unit = F.normalize(x, dim=1).numpy()
        k, temperature = method.chosen(unit, labels, weights, masks, num_classes=num_classes)
        kept = net.remember(x.to(device), torch.from_numpy(labels), torch.from_numpy(weights), k, temperature)
        config.architecture_args = {**(config.architecture_args or {}), **kept}
        return
    weight, bias = method.head(x.numpy(), labels, weights, masks, num_classes=num_classes)
    conv = net.segmentation_head[0]
    conv.weight.copy_(torch.from_numpy(weight)[:, :, None, None])
    conv.bias.copy_(torch.from_numpy(bias))


def sampled(
    features: Callable[[Tensor], Tensor], divisor: int, labeled: Examples, most: int
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of every mask: half of them evenly over its classes, so that small ones are seen; weights undo that.

    Args:
        features: image uint8 [1, 3, H, W] -> float32 [1, D, h, w] of the image padded below and at the right.
        divisor: px, of which the padded sides are multiples.
        labeled: images with masks.
        most: pixels of all masks together, about.

    Returns:
        Features float32 [M, D], classes int64 [M], weights float64 [M] and which mask int64 [M], by its position in
        the cache.
    """
    random, each = np.random.default_rng(0), max(most // max(len(labeled.members), 1), 1)
    x, y, w, of = [], [], [], []
    for row, (image, truth) in zip(labeled.members.tolist(), images(labeled), strict=True):
        mask = truth.numpy().ravel()
        height, width = truth.shape
        at, weights = chosen_pixels(mask, each, random)
        if not len(at):
            continue
        maps = features(image)
        full = [side + -side % divisor for side in (height, width)]
        place = torch.from_numpy(np.stack([at % width, at // width], 1)).to(maps.device)  # x, y
        place = (2 * place.float() + 1) / torch.tensor(full[::-1], device=maps.device) - 1
        found = F.grid_sample(maps, place[None, None], padding_mode="border", align_corners=False)
        x.append(found[0, :, 0].T.cpu())
        y.append(mask[at].astype(np.int64))
        w.append(weights)
        of.append(np.full(len(at), row))
    if not x:
        raise UserError("No pixel of the masks has a class: all are left out (255 and --mask-ignore). Look at them.")
    weights = np.concatenate(w)
    return torch.cat(x), np.concatenate(y), weights / weights.mean(), np.concatenate(of)


def images(labeled: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """(image uint8 [1, 3, H, W], mask uint8 [H, W] on the CPU) one by one, without the frame around them."""
    sizes = labeled.cache.sizes[labeled.members].tolist()
    for packed, (height, width) in zip(labeled.cache.stream(labeled.members.split(1)), sizes, strict=True):
        yield packed[:, :3, :height, :width], packed[0, 3, :height, :width].cpu()


def chosen_pixels(mask: np.ndarray, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions int64 [m] in a flat mask, and weights float64 [m] that sum to the share of each class times `count`."""
    known = [(k, np.flatnonzero(mask == k)) for k in np.unique(mask) if k != IGNORE]
    total, at, weights = sum(len(rows) for _, rows in known), [], []
    for _, rows in known:
        share = len(rows) / total
        n = min(len(rows), max(round(count * (share + 1 / len(known)) / 2), 1))
        at.append(random.choice(rows, n, replace=False))
        weights.append(np.full(n, share * count / n))
    if not known:
        return np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(at), np.concatenate(weights)
