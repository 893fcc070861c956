"""The image operations of RandAugment on batches of uint8 images, bit-identical to Pillow, one strength per image.

Every function takes x uint8 [n, 3, H, W] and, where the operation has a strength, a float64 array [n] in Pillow's own
unit; it may overwrite x, and returns the result.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .counter_rng import on_device, per_sample


def luma(x: Tensor) -> Tensor:
    """Pillow's mode "L": (19595 R + 38470 G + 7471 B + 32768) >> 16, int32 [n, H, W]."""
    r, g, b = x.unbind(1)
    total = r.int().mul_(19595).add_(g.int().mul_(38470)).add_(b.int().mul_(7471))
    return total.add_(0x8000).bitwise_right_shift_(16)


def blend(degenerate: Tensor, x: Tensor, factor: np.ndarray) -> Tensor:
    """trunc(degenerate + factor (x - degenerate)) in float32 for factor in [0, 1], as Pillow's Image.blend."""
    y = x.float().sub_(degenerate).mul_(per_sample(factor, x, torch.float32)).add_(degenerate)
    return y.to(torch.uint8)


def brightness(x: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with black."""
    return x.float().mul_(per_sample(factor, x, torch.float32)).to(torch.uint8)


def contrast(x: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with the image's mean luma, rounded half up to a whole level."""
    mean = luma(x).sum((1, 2), dtype=torch.int64).double().div_(x[0, 0].numel()).add_(0.5).floor_()
    return blend(mean.float()[:, None, None, None], x, factor)


def color(x: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with the image's luma."""
    return blend(luma(x).float()[:, None], x, factor)


def sharpness(x: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, whose border is the image's own."""
    smooth = x.float()
    if min(x.shape[-2:]) > 2:
        y = x.short()
        rows = y[:, :, :-2] + y[:, :, 1:-1] + y[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + y[:, :, 1:-1, 1:-1] * 4
        # a whole number plus 6.5 is never a multiple of 13, so that float32 rounds as Pillow's sum of nine products
        smooth[:, :, 1:-1, 1:-1] = total.float().add_(6.5).div_(13).floor_()
    return blend(smooth, x, factor)


def posterize(x: Tensor, bits: np.ndarray) -> Tensor:
    """Keeps the `bits` highest bits of every level."""
    mask = 256 - 2 ** (8 - bits.astype(np.int64))
    return x.bitwise_and_(per_sample(mask, x, torch.uint8))


def solarize(x: Tensor, threshold: np.ndarray) -> Tensor:
    """255 - level for levels >= threshold, which lies in [0, 256]."""
    whole = np.ceil(threshold)  # level >= threshold is level >= its ceiling
    inverted = x.ge(per_sample(whole.clip(max=255), x, torch.uint8)).view(torch.uint8)
    inverted = inverted.mul_(per_sample(np.where(whole > 255, 0, 255), x, torch.uint8))
    return x.bitwise_xor_(inverted)  # 255 - level is level xor 255


def autocontrast(x: Tensor) -> Tensor:
    """Stretches every channel's range of levels to 0 .. 255; a channel of one level stays."""
    pixels = x.flatten(2)
    low, high = pixels.amin(-1, keepdim=True).double(), pixels.amax(-1, keepdim=True).double()  # [n, 3, 1]
    level = torch.arange(256, dtype=torch.float64, device=x.device)
    span = (high - low).clamp_(min=1.0)
    scale = torch.full_like(span, 255.0) / span  # 255.0 / span would be 255 times a rounded reciprocal
    table = (level * scale).add_(-low * scale).trunc_().clamp_(0, 255)  # [n, 3, 256]
    return look_up(x, torch.where(high > low, table, level).to(torch.uint8))


def equalize(x: Tensor) -> Tensor:
    """Levels by rank: table[i] = (step // 2 + pixels below i) // step, step = (pixels - those of the last) // 255."""
    n, c, h, w = x.shape
    level = x.view(n, c, h * w).long()
    count = torch.zeros(n, c, 256, dtype=torch.int32, device=x.device)
    count.scatter_add_(2, level, count.new_ones(()).expand_as(level))
    last = count.gather(2, level.amax(2, keepdim=True))
    step = (h * w - last).div_(255, rounding_mode="floor")  # [n, 3, 1]
    below = count.cumsum(2, dtype=torch.int32) - count
    table = below.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    identity = torch.arange(256, dtype=torch.int32, device=x.device)
    return look_up(x, torch.where(step > 0, table, identity).to(torch.uint8))


def look_up(x: Tensor, table: Tensor) -> Tensor:
    """Every level replaced by its entry in the channel's table uint8 [n, 3, 256]."""
    return table.gather(2, x.flatten(2).long()).view(x.shape)


def affine_nearest(x: Tensor, matrix: np.ndarray) -> Tensor:
    """Pillow's transform(AFFINE, NEAREST), black outside: pixel pixel (i, j) shows the source at A (j + .5, i + .5, 1).

    matrix float64 [n, 6] is Pillow's (a, b, c, d, e, f). Coordinates are fixed point with 16 fractional bits.
    """
    a, b, c, d, e, f = np.moveaxis(matrix, 1, 0)
    exact = np.stack([a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e], 1)
    fixed = on_device(np.floor(exact * 65536 + 0.5).astype(np.int32), x.device)[:, :, None, None].unbind(1)
    h, w = x.shape[-2:]
    i = torch.arange(h, dtype=torch.int32, device=x.device)[:, None]
    j = torch.arange(w, dtype=torch.int32, device=x.device)
    column = (fixed[0] * j + (fixed[1] * i + fixed[2])).bitwise_right_shift_(16)  # [n, H, W]
    row = (fixed[3] * j + (fixed[4] * i + fixed[5])).bitwise_right_shift_(16)
    near_column, near_row = column.clamp(0, w - 1), row.clamp(0, h - 1)
    inside = column.eq_(near_column).mul_(row.eq_(near_row)).to(torch.uint8)
    return take_pixels(x, near_row.mul_(w).add_(near_column)).mul_(inside[:, None])


def take_pixels(x: Tensor, index: Tensor) -> Tensor:
    """out[n, c, i, j] = the pixel of x[n, c] numbered index[n, i, j] (row * W + column)."""
    n, c = x.shape[:2]
    flat = index.reshape(n, 1, -1).long().expand(n, c, -1)
    return x.reshape(n, c, -1).gather(2, flat).view(n, c, *index.shape[1:])


# Matrices [n, 6] for images of size x size px, as Pillow's callers write them.


def shear_x(amount: np.ndarray, size: int) -> np.ndarray:
    """Source column j + amount * i."""
    return _matrix(len(amount), {1: amount})


def shear_y(amount: np.ndarray, size: int) -> np.ndarray:
    """Source row i + amount * j."""
    return _matrix(len(amount), {3: amount})


def translate_x(px: np.ndarray, size: int) -> np.ndarray:
    """Source column j + px, rounded half up as Pillow does where nothing turns or shears."""
    return _matrix(len(px), {2: np.floor(px + 0.5)})


def translate_y(px: np.ndarray, size: int) -> np.ndarray:
    """Source row i + px, rounded half up."""
    return _matrix(len(px), {5: np.floor(px + 0.5)})


def rotate(degrees: np.ndarray, size: int) -> np.ndarray:
    """A counter-clockwise turn about the centre."""
    angle = -np.radians(degrees % 360.0)
    cos, sin, centre = np.cos(angle).round(15), np.sin(angle).round(15), size / 2
    return _matrix(
        len(degrees),
        {
            0: cos,
            1: sin,
            2: cos * -centre + sin * -centre + centre,
            3: -sin,
            4: cos,
            5: -sin * -centre + cos * -centre + centre,
        },
    )


def _matrix(n: int, entries: dict[int, np.ndarray]) -> np.ndarray:
    matrix = np.tile(np.array([1.0, 0, 0, 0, 1.0, 0]), (n, 1))
    for k, values in entries.items():
        matrix[:, k] = values
    return matrix


def rectangle(x: Tensor, corners: np.ndarray, level: tuple[int, int, int]) -> Tensor:
    """Fills columns x0 .. x1 and rows y0 .. y1, both ends included; corners int64 [n, 4] = x0, y0, x1, y1."""
    x0, y0, x1, y1 = (on_device(v, x.device)[:, None] for v in np.moveaxis(corners, 1, 0))
    i, j = torch.arange(x.shape[-2], device=x.device), torch.arange(x.shape[-1], device=x.device)
    rows, columns = ((i >= y0) & (i <= y1)).view(torch.uint8), ((j >= x0) & (j <= x1)).view(torch.uint8)
    covered = (rows.mul_(255)[:, None, :, None]) & (columns.mul_(255)[:, None, None, :])  # 255 inside, [n, 1, H, W]
    fill = on_device(np.array(level, dtype=np.uint8), x.device)[:, None, None]
    return x.bitwise_and_(covered.bitwise_not()).bitwise_or_(covered & fill)
