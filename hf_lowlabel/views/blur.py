"""Gaussian blur with one width per image, as a banded matrix product along columns and along rows."""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_lowlabel.views.draws import between, on_device

TILE = 32  # output px of one product
# Values become multiples of 2^-11 and weights of 2^-13: every partial sum is then exact in float32, in any order.
VALUE_GRID, WEIGHT_GRID = 2.0**11, 2.0**13


class Blur:
    """With chance p, a Gaussian of standard deviation uniform in `sigma` px, reflected at the border.

    SimCLR's kernel is a tenth of the image's side (23 taps at 224 px), and BYOL and its successors follow.
    """

    width = 2  # gate, standard deviation

    def __init__(self, p: float, size: int, sigma: tuple[float, float] = (0.1, 2.0)):
        self.p, self.radius, self.sigma = p, max(1, size // 20), sigma

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        chosen = np.flatnonzero(u[:, 0] < self.p)
        if len(chosen) == 0:
            return x
        k = on_device(chosen, x.device)
        band = gaussian_band(between(u[chosen, 1], *self.sigma), self.radius, x.device)
        y = x.index_select(0, k)
        for _ in range(2):  # along columns; then transposed, along rows
            y = along_columns(y, band, self.radius).transpose(2, 3)
        return x.index_copy_(0, k, y)


def gaussian_band(sigma: np.ndarray, radius: int, device: torch.device) -> Tensor:
    """float32 [n, TILE + 2 radius, TILE]: column j holds the kernel w_k = exp(-k^2 / 2 sigma^2) from row j on."""
    k = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (k / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdims=True) * WEIGHT_GRID).round()
    weights[:, radius] += WEIGHT_GRID - weights.sum(1)  # a constant image stays as it is
    padded = F.pad(on_device(weights / WEIGHT_GRID, device, torch.float32), (0, TILE))  # [n, taps + TILE]
    # laid end to end, kernels with TILE zeros between them start one place later in every row of TILE + taps - 1
    taps = len(k)
    return padded[:, None].expand(-1, TILE, -1).reshape(len(sigma), -1)[:, :TILE * (TILE + taps - 1)] \
        .reshape(len(sigma), TILE, TILE + taps - 1).transpose(1, 2)


def along_columns(x: Tensor, band: Tensor, radius: int) -> Tensor:
    """Every row of x [n, 3, H, W] convolved with its image's kernel."""
    n, c, h, w = x.shape
    tiles = -(-w // TILE)
    y = (x * VALUE_GRID).round_().div_(VALUE_GRID).reshape(n, c * h, w)
    y = F.pad(F.pad(y, (radius, radius), mode="reflect"), (0, tiles * TILE - w))
    y = y.unfold(2, TILE + 2 * radius, TILE).reshape(n, c * h * tiles, TILE + 2 * radius)
    return torch.bmm(y, band).view(n, c, h, tiles * TILE)[..., :w]
