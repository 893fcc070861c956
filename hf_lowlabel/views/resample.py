"""Separable resampling of a batch, one pair of matrices per image: resizing like Pillow and Gaussian blur.

    out[n, c] = rows[n]^T q(x[n, c] columns[n])

Floating-point sums depend on their order, and a matrix library chooses the order by the size of the batch, the machine
and the number of threads. Here they cannot differ: pixels are whole numbers and weights multiples of a power of two,
both so small that every partial sum is a float32 without rounding. (On CUDA this holds while matrix products run in
float32, torch's default; with TF32 switched on, weights lose bits, and levels may differ by one.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .counter_rng import on_device

# Levels are counted from the middle, -128 .. 127, and between the products in eighths; the absolute weights of a cubic
# sum to 1.25. |sum| <= 128 * 1.25 * 2^16 < 2^24, and 1024 * 1.25 * 2^13 < 2^24.
MIDDLE, COLUMN_GRID, PARTS, ROW_GRID = 128, 2.0**16, 8, 2.0**13
BLUR_LEVELS, BLUR_GRID = 2.0**11, 2.0**13  # values in [0, 1] in steps of 2^-11: sums up to 2^24


def two_products(x: Tensor, columns: Tensor, rows: Tensor, q: Callable[[Tensor], Tensor]) -> Tensor:
    """x float32 [N, C, H, W], columns [N, W, w], rows [N, H, h] -> [N, h, C, w]; q rounds between the products.

    Both products are one call over the batch, since the channels of an image stand beside each other in either.
    """
    n, c, h, w = x.shape
    across = torch.bmm(x.reshape(n, c * h, w), columns).view(n, c, h, -1)
    across = q(across.transpose(1, 2)).view(n, h, -1)  # [N, H, C w]
    return torch.bmm(rows.transpose(1, 2), across).view(n, rows.shape[2], c, -1)


def resize(x: Tensor, box: np.ndarray, flip: np.ndarray, size: int, interpolation: str) -> Tensor:
    """The part `box` [N, 4] of every x uint8 [N, C, S, S], resized to size x size like Pillow, mirrored where `flip`.

    Whole levels in float32 [N, C, size, size], rounded half up. Pillow also rounds between columns and rows, moving
    its result by at most 0.5 * 1.25 levels, and the grids here add less than 0.15: the levels of both differ by at most
    one. Pillow from 13 on may take the rows before the columns, which clips other overshoots of a cubic: there, sharp
    edges of anisotropic crops may differ by some levels more.
    """
    S = x.shape[-1]
    columns = _resize_weights(box[:, 0], box[:, 2] - box[:, 0], S, size, interpolation, flip, COLUMN_GRID, x.device)
    rows = _resize_weights(box[:, 1], box[:, 3] - box[:, 1], S, size, interpolation, flip & False, ROW_GRID, x.device)
    y = two_products(x.float().sub_(MIDDLE), columns, rows.div_(PARTS), _eighths).transpose(1, 2)
    return torch.add(y, MIDDLE + 0.5, out=y.new_empty(y.shape)).floor_().clamp_(0, 255)


def blur(x: Tensor, sigma: np.ndarray, radius: int) -> Tensor:
    """x float32 [N, C, H, W] in [0, 1] convolved with exp(-k^2 / 2 sigma^2), |k| <= radius px, borders reflected."""
    rows = _blur_weights(sigma, radius, x.shape[-2], x.device)
    columns = rows if x.shape[-1] == x.shape[-2] else _blur_weights(sigma, radius, x.shape[-1], x.device)
    return two_products(_steps(x), columns, rows, _steps).transpose(1, 2)


def _eighths(x: Tensor) -> Tensor:
    """Levels -128 .. 127 as whole numbers of eighths, contiguous."""
    return torch.mul(x, PARTS, out=x.new_empty(x.shape)).round_().clamp_(-MIDDLE * PARTS, (MIDDLE - 1) * PARTS)


def _steps(x: Tensor) -> Tensor:
    """Values in [0, 1] as whole numbers of 2^-11, contiguous; the weights of a blur divide by 2^11 again."""
    return torch.mul(x, BLUR_LEVELS, out=x.new_empty(x.shape)).round_()


def _resize_weights(
    low: np.ndarray,
    side: np.ndarray,
    S: int,
    size: int,
    interpolation: str,
    mirror: np.ndarray,
    grid: float,
    device: torch.device,
) -> Tensor:
    """Pillow's weights of source pixels low .. low + side - 1 for `size` outputs, float32 [N, S, size] / grid."""
    filter_, reach = FILTERS[interpolation]
    scale = side / size  # source px per output px
    stretch = np.maximum(scale, 1.0)  # the filter widens when it has to average
    taps = 2 * math.ceil(reach * max(S / size, 1.0)) + 1
    step = np.arange(size)
    centre = (np.where(mirror[:, None], step[::-1], step) + 0.5) * scale[:, None]  # [N, size]
    first = np.floor(centre - (reach * stretch)[:, None] + 0.5)
    k = torch.arange(taps, dtype=torch.float32, device=device)[:, None]
    first, offset, stretch, side, low = (
        on_device(v.reshape(len(low), 1, -1), device, torch.float32)
        for v in (first, first + 0.5 - centre, stretch, side, low)
    )
    pixel = first + k  # within the box, [N, taps, size]
    weight = filter_((offset + k).div_(stretch).abs_())
    weight = weight.mul_(pixel.ge(0)).mul_(pixel.lt(side))
    weight = weight.div_(weight.sum(1, keepdim=True)).mul_(grid).round_()
    # what rounding left over goes to the largest weight, so that they sum to 1 and flat regions stay as they are
    weight.scatter_add_(1, weight.argmax(1, keepdim=True), grid - weight.sum(1, keepdim=True))
    column = pixel.add_(low).clamp_(0, S - 1).long()  # a tap outside the image has weight 0
    return torch.zeros(len(weight), S, size, device=device).scatter_add_(1, column, weight.div_(grid))


def _triangle(d: Tensor) -> Tensor:
    """1 - d for a distance d < 1, else 0."""
    return d.neg_().add_(1).clamp_(min=0)


def _cubic(d: Tensor) -> Tensor:
    """Keys's cubic with a = -1/2: t^2 (t - 1) / 2 + s^2 (1 - 2 s), t = max(2 - d, 0), s = max(1 - d, 0)."""
    t, s = (2 - d).clamp_(min=0), (1 - d).clamp_(min=0)
    return (t - 1).mul_(t).mul_(t).mul_(0.5).add_((1 - 2 * s).mul_(s).mul_(s))


FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}


def _blur_weights(sigma: np.ndarray, radius: int, S: int, device: torch.device) -> Tensor:
    """float32 [n, S, S]: column j holds the kernel about pixel j, those of its weights that fall outside reflected."""
    k = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * (k / sigma[:, None]) ** 2)
    weight = (weight / weight.sum(1, keepdims=True) * BLUR_GRID).round()
    weight[:, radius] += BLUR_GRID - weight.sum(1)  # a constant image stays as it is
    source = on_device(reflect(k[:, None] + np.arange(S), S), device).expand(len(sigma), -1, -1)  # [n, taps, S]
    weight = on_device(weight / (BLUR_GRID * BLUR_LEVELS), device, torch.float32)[:, :, None].expand(-1, -1, S)
    return torch.zeros(len(sigma), S, S, device=device).scatter_add_(1, source, weight)


def reflect(index: np.ndarray, n: int) -> np.ndarray:
    """Indices outside 0 .. n - 1 mirrored at the outermost pixels, which are not repeated."""
    index = np.abs(index)
    return np.where(index > n - 1, 2 * (n - 1) - index, index)
