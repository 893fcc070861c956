"""Geometry of a view: which part of the pool image it shows, at what scale, mirrored or not.

A crop is called with images uint8 [N, 3, S, S] and its draws float64 [N, width] (numpy) and returns new pixels whose
levels are whole numbers 0 .. 255, uint8 or float32 [N, 3, size, size]. `geometry(u, S)` returns the box x0, y0, x1, y1
in px of the pool image, float64 [N, 4], and whether the view is mirrored, bool [N].
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ..errors import UserError
from .counter_rng import between, integers, on_device
from .pil_ops import take_pixels
from .resample import reflect, resize

PADDING = 0.125  # share of the side reflected at every border before a weak crop: 4 px at 32 px (FixMatch)
TRIES = 10  # boxes drawn before a random resized crop falls back to the whole image, as torchvision
FLIP_CHANCE = 0.5


class CentreCrop:
    """The middle size x size px, as at evaluation. No draws."""

    width = 0

    def __init__(self, size: int):
        self.size = size

    def geometry(self, u: np.ndarray, S: int) -> tuple[np.ndarray, np.ndarray]:
        low = int(round((S - self.size) / 2.0))
        box = np.array([low, low, low + self.size, low + self.size], float)
        return np.tile(box, (len(u), 1)), np.zeros(len(u), bool)

    def __call__(self, images: Tensor, u: np.ndarray) -> Tensor:
        low = int(round((check_side(images, self.size) - self.size) / 2.0))
        return images[..., low : low + self.size, low : low + self.size].clone()


class ShiftCrop:
    """The weak augmentation of FixMatch: mirror, then a random window of size x size px.

    From a larger pool image any window inside it; from one of the same size, a window of the image continued by
    reflection by an eighth of its side.
    """

    width = 3  # shift x, shift y, flip

    def __init__(self, size: int, flip: bool = True):
        self.size, self.flip = size, flip

    def geometry(self, u: np.ndarray, S: int) -> tuple[np.ndarray, np.ndarray]:
        pad = round(S * PADDING) if S == self.size else 0
        low = integers(u[:, :2], 0, S + 2 * pad - self.size + 1) - pad  # [N, 2] = x0, y0
        return np.concatenate([low, low + self.size], 1).astype(float), mirrored(u[:, 2], self.flip)

    def __call__(self, images: Tensor, u: np.ndarray) -> Tensor:
        S = check_side(images, self.size)
        box, flip = self.geometry(u, S)
        step = np.arange(self.size)
        columns = box[:, :1].astype(np.int64) + np.where(flip[:, None], step[::-1], step)  # [N, size]
        rows = box[:, 1:2].astype(np.int64) + step
        columns, rows = on_device(reflect(columns, S), images.device), on_device(reflect(rows, S), images.device)
        return take_pixels(images, rows[:, :, None] * S + columns[:, None, :])


class ResizedCrop:
    """Inception crop: a box of random area and aspect ratio, resized to size x size px like Pillow, mirrored at random.

    As torchvision's RandomResizedCrop: area uniform in `scale` (shares of the image), log aspect ratio uniform in
    `ratio`; the first of ten boxes that fits, else the whole image. Resizing and mirror are one pair of products.
    """

    width = 2 * TRIES + 3  # area and ratio of every try, place x, place y, flip

    def __init__(
        self,
        size: int,
        flip: bool = True,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bicubic",
    ):
        self.size, self.flip, self.scale, self.ratio, self.interpolation = size, flip, scale, ratio, interpolation

    def geometry(self, u: np.ndarray, S: int) -> tuple[np.ndarray, np.ndarray]:
        area = between(u[:, :TRIES], *self.scale) * S * S  # [N, TRIES]
        aspect = np.exp(between(u[:, TRIES : 2 * TRIES], math.log(self.ratio[0]), math.log(self.ratio[1])))
        sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], 2).round()  # width, height [N, TRIES, 2]
        fits = ((sides > 0) & (sides <= S)).all(2)
        first = sides[np.arange(len(u)), fits.argmax(1)]
        side = np.where(fits.any(1)[:, None], first, float(S))  # [N, 2]
        low = integers(u[:, 2 * TRIES : 2 * TRIES + 2], 0, S - side + 1)
        return np.concatenate([low, low + side], 1), mirrored(u[:, 2 * TRIES + 2], self.flip)

    def __call__(self, images: Tensor, u: np.ndarray) -> Tensor:
        box, flip = self.geometry(u, images.shape[-1])
        return resize(images, box, flip, self.size, self.interpolation)


def mirrored(u: np.ndarray, allowed: bool) -> np.ndarray:
    return (u < FLIP_CHANCE) & allowed


def check_side(images: Tensor, size: int) -> int:
    """The side of square stored images that hold a size x size window."""
    S = images.shape[-1]
    if S < size:
        raise UserError(
            f"The images are stored at {S} px, which is less than the view's {size} px. "
            f"Store them at {size} px or more (--stored-size), or ask for smaller views (--image-size)."
        )
    return S
