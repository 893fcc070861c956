"""What frozen features and the labels know: a cheap score where no image is held out.

A linear layer on features of the weights as they are is fitted without an image, and tested on it; each image is left
out in turn. What comes out are tallies, which `Task.total` makes a score of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..evaluation.modules import confusion_of
from ..evaluation.segmentation import Normalise
from ..finetuning.linear import LeastSquares, left_out_logits, softmax
from ..finetuning.pixel_probe import PixelProbe, Softmax
from .parts import Examples
from .pixels import images, sampled

MOST = 10_000  # labels
PENALTIES = (1.0, 0.1, 0.01, 0.001)  # of least squares, as a share of what it is fitted to
FOLDS = 5  # of masks
MOST_MASKS = 200  # looked at
PIXELS = 8000  # of them all
CELLS = 16  # at least, along the shorter side of an image


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
    """What the other masks say of each, by the pixel probe (`finetuning.pixel_probe`) on the encoder's maps.

    `FOLDS` groups of images are left out in turn.

    Args:
        model: the segmenter; its encoder alone is asked.
        labeled: two images with masks at least.
        K: classes.
        most: images looked at.

    Yields:
        The position of an image, the probability of each class of its pixels, float32 [K, h, w], and the mask, uint8
        [h, w].

    Raises:
        UserError: fewer than two masks have a pixel of a class.
    """
    labeled = Examples(labeled.cache, labeled.members[:most], None)
    config: Any = model.config
    maps, probe = (
        FrozenMaps(model, labeled, dict(mean=config.image_mean, std=config.image_std)),
        PixelProbe(pixels=PIXELS),
    )
    x, y, w, of = sampled(maps, maps.divisor, labeled, PIXELS)
    if len(np.unique(of)) < 2:
        raise UserError("One mask alone has a pixel of a class, and each is judged by the others. Paint more.")
    mean, scale = maps.scales(x)
    known = np.unique(y)
    fit = Softmax(((x - mean) / scale).numpy(), y, w, probe.max_iter)
    l2, t = probe.chosen(fit, of)
    n = len(labeled.members)
    fold = np.random.default_rng(0).permutation(n) % min(FOLDS, n)
    rows = labeled.members.numpy()
    layers = []
    for f in range(fold.max() + 1):
        V, c = fit(np.flatnonzero(np.isin(of, rows[fold != f])), l2)
        layers.append((torch.from_numpy(fit.on_features(V) / t).float() / scale, torch.from_numpy(c / t).float()))
    for i, (image, mask) in enumerate(images(labeled)):
        weight, bias = layers[fold[i]]
        high, wide = mask.shape
        logits = torch.einsum("kd,dhw->khw", weight, maps(image)[0].cpu() - mean[:, None, None]) + bias[:, None, None]
        size = [side + -side % maps.divisor for side in (high, wide)]
        logits = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0, :, :high, :wide]
        p = np.zeros((K, high, wide), np.float32)
        p[known] = logits.softmax(0).numpy()
        yield i, p, mask.numpy()


class FrozenMaps:
    """The encoder's maps of an image uint8 [1, 3, H, W] beside each other, float32 [1, D, h, w] of the padded image.

    They are the coarsest with `CELLS` cells along the shorter side of the smallest image, and those coarser still.
    """

    def __init__(self, model: nn.Module, labeled: Examples, seen: dict[str, Any]):
        self.model, self.normalise, self.first = model, Normalise(**seen), 0
        self.divisor: int = cast(Any, model).divisor
        sizes = labeled.cache.sizes[labeled.members].min(1).values
        smallest = labeled.members[int(sizes.argmin())][None]
        (image, _), *_ = images(Examples(labeled.cache, smallest, None))
        fine = [k for k, m in enumerate(self.all(image)) if min(m.shape[-2:]) >= CELLS]
        self.first = fine[-1] if fine else 0
        self.widths = [m.shape[1] for m in self.all(image)]

    @torch.inference_mode()
    def all(self, image: Tensor) -> list[Tensor]:
        encoder, training = cast(Any, self.model), self.model.training
        self.model.eval()
        found = encoder.encode(self.normalise(image.to(next(self.model.parameters()).device)))
        self.model.train(training)
        maps = [m.float() for m in found if m.ndim == 4 and m.shape[1] > 3]  # the first may be the image itself
        return maps[self.first :]

    def __call__(self, image: Tensor) -> Tensor:
        maps = self.all(image)
        size = maps[0].shape[-2:]
        return torch.cat([F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps], 1)

    def scales(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean [D], s [D]) of features [M, D]: s^2 = mean |f - mean|^2 over a map as a whole, that none be louder."""
        spread = x.var(0, unbiased=False)
        return x.mean(0), torch.cat(
            [part.sum().clamp_min(1e-12).sqrt().repeat(len(part)) for part in spread.split(self.widths)]
        )
