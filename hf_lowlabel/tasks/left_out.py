"""What frozen features and the labels know: a cheap score where no image is held out.

A linear layer on features of the weights as they are is fitted without an image, and tested on it; each image is left
out in turn. What comes out are tallies, which `Task.total` makes a score of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.modules import confusion_of
from ..evaluation.segmentation import Normalise
from ..finetuning.linear import LeastSquares, softmax
from ..finetuning.probes import left_out_logits
from .parts import Examples

MOST = 10_000  # labels
PENALTIES = (1.0, 0.1, 0.01, 0.001)  # of least squares, as a share of what it is fitted to
FOLDS = 5  # of masks
MOST_MASKS = 200  # looked at
CELLS = 16  # at least, along the shorter side of an image
FINER = 4  # places of a mask looked at in each direction of a cell


def of_classes(task: Any, model: nn.Module, labeled: Examples, names: Sequence[str]) -> np.ndarray | None:
    """[m, 2, K] of the m labels that can be left out, by a probe; None for labels of one class, or too many."""
    assert labeled.targets is not None
    y = labeled.targets.numpy()
    if len(y) > MOST or len(np.unique(y)) < 2:
        return None
    _, logits, truth = left_out_logits(task.features(model, labeled.cache, labeled.members), y, len(names))
    return np.stack([softmax(logits), np.eye(len(names))[truth]], 1) if len(truth) > 1 else None


def of_several(task: Any, model: nn.Module, labeled: Examples) -> np.ndarray | None:
    """[n, 2, K], by least squares on 0 and 1 with the penalty whose answers on what is left out are nearest."""
    assert labeled.targets is not None
    y = labeled.targets.double().numpy()
    if not 3 < len(y) <= MOST:
        return None
    fit = LeastSquares(task.features(model, labeled.cache, labeled.members))
    found = [fit.left_out(y, l2) for l2 in PENALTIES]
    best = min(found, key=lambda p: float(np.square(p - y).mean()))
    return np.stack([best.clip(0, 1), y], 1)


def of_masks(model: nn.Module, labeled: Examples, K: int) -> np.ndarray | None:
    """Confusion matrices [n, K, K] of `MOST_MASKS` at most, by `guesses_of_masks`."""
    n = min(len(labeled.members), MOST_MASKS)
    if n < 2:
        return None
    found = np.zeros((n, K, K))
    for i, p, target in guesses_of_masks(model, labeled, K, MOST_MASKS):
        found[i] = confusion_of(torch.from_numpy(p.argmax(0)), torch.from_numpy(target), K).numpy()
    return found


def guesses_of_masks(
    model: nn.Module, labeled: Examples, K: int, most: int | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """What the other masks say of each, by least squares on the cells of the encoder's maps, each a share of classes.

    `FOLDS` groups of images are left out in turn.

    Args:
        model: the segmenter; its encoder alone is asked.
        labeled: two images with masks at least.
        K: classes.
        most: images looked at.

    Yields:
        The position of an image, about the probability of each class of its pixels, float32 [K, h, w], and the mask,
        uint8 [h, w].
    """
    labeled = Examples(labeled.cache, labeled.members[:most], None)
    n = len(labeled.members)
    config: Any = model.config
    seen = dict(mean=config.image_mean, std=config.image_std)
    shapes, cells = zip(*(cells_of(model, packed, size, K, seen) for packed, size in images(labeled)))
    width = cells[0][0].shape[1] + 1
    fold = np.random.default_rng(0).permutation(n) % min(FOLDS, n)
    moments = [(torch.zeros(width, width).double(), torch.zeros(width, K).double()) for _ in range(fold.max() + 1)]
    gram, targets = torch.zeros(width, width).double(), torch.zeros(width, K).double()
    for f, (x, share) in zip(fold, cells):
        x1, weight = with_one(x), share.sum(1, keepdim=True)  # cells that partly take no part count less
        for whole, part, own in zip((gram, targets), moments[f], (x1.T @ (weight * x1), x1.T @ share.double())):
            whole.add_(own)
            part.add_(own)
    answers: list[list[tuple[int, Tensor]]] = [[] for _ in PENALTIES]
    for f, (own_gram, own_targets) in enumerate(moments):
        layers = [layer(gram - own_gram, targets - own_targets, l2) for l2 in PENALTIES]
        rows = np.flatnonzero(fold == f)
        for kept, W in zip(answers, layers):
            kept += [(int(i), with_one(cells[i][0]) @ W) for i in rows]
    wrong = [sum(float((p - cells[i][1]).square().sum()) for i, p in kept) for kept in answers]
    logits = dict(answers[int(np.argmin(wrong))])
    for i, (packed, (h, w)) in enumerate(images(labeled)):
        small = logits[i].T.reshape(1, K, *shapes[i]).float()
        p = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)[0]
        yield i, p.numpy(), packed[3, :h, :w].cpu().numpy()


def images(labeled: Examples) -> Iterator[tuple[Tensor, list[int]]]:
    """(image and mask uint8 [4, H, W], (height, width) of what is no frame) one by one."""
    sizes = labeled.cache.sizes[labeled.members].tolist()
    for packed, size in zip(labeled.cache.stream(labeled.members.split(1)), sizes):
        yield packed[0], size


@torch.inference_mode()
def cells_of(
    model: nn.Module, packed: Tensor, size: Sequence[int], K: int, seen: dict[str, Any]
) -> tuple[tuple[int, int], tuple[Tensor, Tensor]]:
    """((h, w), (features [h w, D], share of each class [h w, K])) of an image; the shares of a cell add up to what of
    it takes part."""
    height, width = size
    encoder: Any = model
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = encoder.encode(Normalise(**seen)(packed[None, :3, :height, :width].to(device)))
    model.train(training)
    maps = [m.float().cpu() for m in found if m.ndim == 4 and m.shape[1] > 3]  # the first may be the image itself
    coarse = [k for k, m in enumerate(maps) if min(m.shape[-2:]) >= CELLS]
    maps = maps[coarse[-1] if coarse else 0 :]
    h, w = maps[0].shape[-2:]
    together = torch.cat([F.interpolate(m, size=(h, w), mode="bilinear", align_corners=False) for m in maps], 1)[0]
    mask = F.interpolate(packed[None, None, 3, :height, :width].float().cpu(), size=(h * FINER, w * FINER)).long()[0, 0]
    each = F.one_hot(mask.clamp(max=K), K + 1)[..., :K].permute(2, 0, 1)[None].float()
    share = F.avg_pool2d(each, FINER)[0]
    return (h, w), (together.flatten(1).T, share.flatten(1).T)


def with_one(x: Tensor) -> Tensor:
    return torch.cat([x.double(), torch.ones(len(x), 1).double()], 1)


def layer(gram: Tensor, targets: Tensor, l2: float) -> Tensor:
    """[D + 1, K]; the last row, the bias, is not penalised."""
    scale = gram.diagonal()[:-1].mean().clamp_min(1e-12)
    penalty = torch.full((len(gram),), l2 * float(scale), dtype=gram.dtype)
    penalty[-1] = 1e-6 * float(scale)
    return torch.cholesky_solve(targets, torch.linalg.cholesky(gram + penalty.diag()))
