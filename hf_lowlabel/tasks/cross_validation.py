"""Linear probe on frozen features: a cheap score beside that of the trained network.

A linear layer on features of the weights as they are is fitted to the labels, and tested on the test images; where
there are none, each labeled image is left out of the fit in turn, copies of it with it, and tested on. What comes out
are tallies, one for each picture, which `Task.total` makes a score of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_mean, rank, world
from ..errors import UserError
from ..evaluation.inference import evaluating
from ..evaluation.modules import confusion_of
from ..evaluation.near_copies import copies_of_each
from ..evaluation.segmentation import Normalise
from ..finetuning.linear import LeastSquares, first_of_each, group_of, left_out_logits, softmax
from ..finetuning.pixel_probe import PixelProbe, Softmax
from .data_classes import Examples, LeftOut
from .pixels import images, sampled

MOST = 10_000  # labels
PENALTIES = (1.0, 0.1, 0.01, 0.001)  # of least squares, as a share of what it is fitted to
FOLDS = 5  # of masks
MOST_MASKS = 200  # looked at
MOST_FITTED = 1000  # of masks, where others are tested on
PIXELS = 8000  # of them all
CELLS = 16  # at least, along the shorter side of an image


def groups_among(rows: np.ndarray, copies: np.ndarray | None) -> np.ndarray:
    """Numbers of the groups of images, int [m]. rows: their positions among those of `copies_of_each`."""
    return rows if copies is None else group_of(copies)[0][rows]


def of_classes(task: Any, model: nn.Module, labeled: Examples, names: Sequence[str]) -> LeftOut | None:
    """[m, 2, K] of the m labels that can be left out, by a probe; None for labels of one class, or too many."""
    assert labeled.targets is not None
    y = labeled.targets.numpy()
    if len(y) > MOST or len(np.unique(y)) < 2:
        return None
    x, copies = task.features(model, labeled.cache, labeled.members), copies_of_each(labeled)
    _, logits, rows = left_out_logits(x, y, len(names), copies)
    if len(rows) < 2:
        return None
    return LeftOut(np.stack([softmax(logits), np.eye(len(names))[y[rows]]], 1), groups_among(rows, copies))


def of_several(task: Any, model: nn.Module, labeled: Examples) -> LeftOut | None:
    """[n, 2, K], by least squares on 0 and 1 with the penalty whose answers on what is left out are nearest."""
    assert labeled.targets is not None
    y = labeled.targets.double().numpy()
    if not 3 < len(y) <= MOST:
        return None
    fit = LeastSquares(task.features(model, labeled.cache, labeled.members))
    copies = copies_of_each(labeled)
    found = [fit.left_out(y, l2, copies=copies) for l2 in PENALTIES]
    best = min(found, key=lambda p: float(np.square(p - y).mean()))
    once = np.flatnonzero(first_of_each(len(y), copies))
    return LeftOut(np.stack([best.clip(0, 1), y], 1)[once], groups_among(once, copies))


def of_masks(model: nn.Module, labeled: Examples, K: int) -> LeftOut | None:
    """Confusion matrices [n, K, K] of `MOST_MASKS` at most, by `guesses_of_masks`."""
    n = min(len(labeled.members), MOST_MASKS)
    if n < 2:
        return None
    found = np.zeros((n, K, K))
    for i, p, target in guesses_of_masks(model, labeled, K, MOST_MASKS):
        found[i] = confusion_of(torch.from_numpy(p.argmax(0)), torch.from_numpy(target), K).numpy()
    copies = copies_of_each(Examples(labeled.cache, labeled.members[:n], None))
    once = np.flatnonzero(first_of_each(len(found), copies))
    return LeftOut(found[once], groups_among(once, copies))


def guesses_of_masks(
    model: nn.Module, labeled: Examples, K: int, most: int | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """What the other masks say of each, by the pixel probe (`finetuning.pixel_probe`) on the encoder's maps.

    `FOLDS` groups of images are left out in turn, those of a group (`copies_of_each`) together.

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
    probe, n = MapProbe(model, labeled, K), len(labeled.members)
    if len(np.unique(probe.of)) < 2:
        raise UserError("One mask alone has a pixel of a class, and each is judged by the others. Paint more.")
    copies = copies_of_each(labeled)
    group = groups_among(np.arange(n), copies)
    groups = group.max() + 1
    if groups < 2:
        raise UserError("All masks are of one picture, and each is judged by those of others. Paint another image.")
    fold = (np.random.default_rng(0).permutation(groups) % min(FOLDS, groups))[group]
    rows = labeled.members.numpy()
    layers = [probe.layer(rows[fold != f]) for f in range(fold.max() + 1)]
    for i, (image, mask) in enumerate(images(labeled)):
        yield i, probe(layers[fold[i]], image), mask.numpy()


def of_other_masks(model: nn.Module, labeled: Examples, others: Examples, K: int) -> np.ndarray:
    """Confusion matrices [m, K, K] of images that are tested on, by the pixel probe fitted to all labeled ones, or to
    `MOST_FITTED` of them; each process takes a share of the images.

    Raises:
        UserError: the masks show one class.
    """
    some = torch.linspace(0, len(labeled.members) - 1, min(MOST_FITTED, len(labeled.members))).long()
    labeled = Examples(labeled.cache, labeled.members[some], None)
    probe = MapProbe(model, labeled, K)
    if len(probe.known) < 2:
        raise UserError("The masks show one class, and a probe tells two apart.")
    layer, m = probe.layer(labeled.members.numpy()), len(others.members)
    found = torch.zeros(m, K, K, dtype=torch.float64)
    mine = torch.arange(m)[rank() :: world()]
    share = images(Examples(others.cache, others.members[mine], None)) if len(mine) else ()
    for i, (image, mask) in zip(mine.tolist(), share, strict=True):
        found[i] = confusion_of(torch.from_numpy(probe(layer, image).argmax(0)), mask, K)
    return all_mean(found).numpy() * world()


class MapProbe:
    """The pixel probe (`finetuning.pixel_probe`) on an encoder's maps, with its penalty and temperature chosen.

    known: the classes that the masks show. of: [M], which mask each pixel that is looked at is of.

    Args:
        model: the segmenter; its encoder alone is asked.
        labeled: images with masks.
        K: classes.
    """

    def __init__(self, model: nn.Module, labeled: Examples, K: int):
        config: Any = model.config
        self.K, self.maps = K, FrozenMaps(model, labeled, dict(mean=config.image_mean, std=config.image_std))
        x, y, w, self.of = sampled(self.maps, self.maps.divisor, labeled, PIXELS)
        self.mean, self.scale = self.maps.scales(x)
        self.known = np.unique(y)
        method = PixelProbe(pixels=PIXELS)
        self.fit = Softmax(((x - self.mean) / self.scale).numpy(), y, w, method.max_iter)
        self.l2, self.t = method.chosen(self.fit, self.of)

    def layer(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(weight [k, D], bias [k]) fitted to the masks at these positions of the cache."""
        V, c = self.fit(np.flatnonzero(np.isin(self.of, rows)), self.l2)
        weight = torch.from_numpy(self.fit.on_features(V) / self.t).float() / self.scale
        return weight, torch.from_numpy(c / self.t).float()

    def __call__(self, layer: tuple[Tensor, Tensor], image: Tensor) -> np.ndarray:
        """The probability of each class, float32 [K, h, w], of an image uint8 [1, 3, h, w]."""
        weight, bias = layer
        high, wide = image.shape[-2:]
        found = self.maps(image)[0].cpu() - self.mean[:, None, None]
        logits = torch.einsum("kd,dhw->khw", weight, found) + bias[:, None, None]
        size = [side + -side % self.maps.divisor for side in (high, wide)]
        logits = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0, :, :high, :wide]
        p = np.zeros((self.K, high, wide), np.float32)
        p[self.known] = logits.softmax(0).numpy()
        return p


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
        with evaluating(self.model):
            found = cast(Any, self.model).encode(self.normalise(image.to(next(self.model.parameters()).device)))
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
