"""PixPro's pairs and propagation, and a bilinear resampling, one pixel at a time in float64."""

from __future__ import annotations

import math

import numpy as np
from pretraining_stand_in import array
from torch import nn


def centre(box: np.ndarray, flip: bool, h: int, w: int, cell: int) -> np.ndarray:
    """A cell's centre in the image, one cell at a time; a mirrored view shows the image's right edge at its left."""
    row, column = divmod(cell, w)
    x0, y0, x1, y1 = box
    width, height = (x1 - x0) / w, (y1 - y0) / h
    x = x1 - (column + 0.5) * width if flip else x0 + (column + 0.5) * width
    return np.array([x, y0 + (row + 0.5) * height])


def is_positive(batch: dict, b: int, i: int, j: int, h: int, w: int, tau: float) -> bool:
    boxes, flips = [array(x[b]) for x in batch["boxes"]], [bool(x[b]) for x in batch["flips"]]
    diagonal = max(np.hypot((x[2] - x[0]) / w, (x[3] - x[1]) / h) for x in boxes)
    apart = centre(boxes[0], flips[0], h, w, i) - centre(boxes[1], flips[1], h, w, j)
    return np.linalg.norm(apart) / diagonal < tau


def propagate(x: np.ndarray, value: nn.Conv2d, gamma: float, valid: np.ndarray | None = None) -> np.ndarray:
    """y_i = sum_j max(cos(x_i, x_j), 0)^gamma g(x_j) for one map [D, P], over the valid j; g of unit length."""
    g = array(value.weight)[:, :, 0, 0] @ x + array(value.bias)[:, None]
    g, u = g / np.linalg.norm(g, axis=0), x / np.linalg.norm(x, axis=0)
    sources = [j for j in range(x.shape[1]) if valid is None or valid[j]]
    return np.stack(
        [sum(max(u[:, i] @ u[:, j], 0) ** gamma * g[:, j] for j in sources) for i in range(x.shape[1])], axis=1
    )


def bilinear(image: np.ndarray, x: float, y: float) -> float:
    """The image [H, W] at pixel position (x, y), pixel centres at integers, 0 outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return total
