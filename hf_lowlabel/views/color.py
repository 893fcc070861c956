"""Photometric steps on float32 images in [0, 1], one strength per image.

Every step is called with x [N, 3, S, S], which it may overwrite, and its draws float64 [N, width] (numpy). Sums over
pixels are exact in float64 and everything else is one rounding per pixel and operation, so that an image's result does
not depend on the images beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .counter_rng import Groups, between, on_device, per_sample, permutations
from .resample import blur

LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of R, G, B
BRIGHTNESS, CONTRAST, SATURATION, HUE, NOTHING = range(5)


class Jitter:
    """ColorJitter with chance p: brightness, contrast, saturation and hue in a random order per image, each clamped.

    With a factor f uniform in [max(0, 1 - a), 1 + a] each: f x; f x + (1 - f) mean luma(x); f x + (1 - f) luma(x); and
    a turn of the HSV hue by a share of the circle uniform in [-hue, hue].
    """

    width = 9  # strength of the four, order of the four, gate

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, p: float = 0.8):
        self.amounts, self.p = (brightness, contrast, saturation, hue), p

    def parameters(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Strengths float64 [N, 4] and, per position, which step it is int64 [N, 4] (NOTHING where it is off)."""
        factors = [between(u[:, k], max(0.0, 1 - a), 1 + a) for k, a in enumerate(self.amounts[:HUE])]
        strength = np.stack([*factors, between(u[:, HUE], -self.amounts[HUE], self.amounts[HUE])], 1)
        order = np.where(u[:, 8:] < self.p, permutations(u[:, 4:8]), NOTHING)
        idle = [k for k, a in enumerate(self.amounts) if a == 0]
        return strength, np.where(np.isin(order, idle), NOTHING, order)

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        strength, order = self.parameters(u)
        batch = Groups(x)
        for position in range(4):
            slices = batch.by(order[:, position])
            slices.pop(NOTHING, None)
            for kind, part in slices.items():
                STEPS[kind](batch.x[part], strength[batch.origin[part], kind])
        return batch.restored()


def luma(x: Tensor) -> Tensor:
    """0.2989 R + 0.587 G + 0.114 B, [n, H, W]."""
    return (x[:, 0] * LUMA[0]).add_(x[:, 1] * LUMA[1]).add_(x[:, 2] * LUMA[2])


def brighten(x: Tensor, factor: np.ndarray) -> None:
    """clamp(f x), in place."""
    x.mul_(per_sample(factor, x, torch.float32)).clamp_(0, 1)


def change_contrast(x: Tensor, factor: np.ndarray) -> None:
    """clamp(f x + (1 - f) mean luma), in place."""
    # 1 + luma is a multiple of 2^-23, so that its float64 sum is exact in any order
    total = luma(x).add_(1).double().sum((1, 2))
    mean = total.div_(x[0, 0].numel()).sub_(1).float()[:, None, None, None]
    x.mul_(per_sample(factor, x, torch.float32)).add_(mean * per_sample(1 - factor, x, torch.float32)).clamp_(0, 1)


def saturate(x: Tensor, factor: np.ndarray) -> None:
    """clamp(f x + (1 - f) luma), in place."""
    gray = luma(x)[:, None].mul_(per_sample(1 - factor, x, torch.float32))
    x.mul_(per_sample(factor, x, torch.float32)).add_(gray).clamp_(0, 1)


def turn_hue(x: Tensor, turn: np.ndarray) -> None:
    """Hue + turn (shares of the circle) at constant HSV saturation and value, in place."""
    h, low, chroma = hue(x)
    put_hue(x, h, turn, low, chroma)


def hue(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of the circle in [0, 6], minimum and chroma (maximum - minimum) of every pixel, each [n, H, W].

    Sorting the channels by two exchanges leaves h = |6 k + (second - third) / chroma|, where 6 k is 0 for R >= G >= B,
    -6 after exchanging G and B only, -2 after exchanging R and the larger of them only, and 4 after both.
    """
    r, g, b = x.unbind(1)
    larger, smaller = torch.maximum(g, b), torch.minimum(g, b)
    high, second = torch.maximum(r, larger), torch.minimum(r, larger)
    low = torch.minimum(second, smaller)
    chroma = torch.sub(high, low, out=high)
    # comparisons written as 0 or 1 into float32: torch.where is ten times slower than arithmetic on a CPU
    exchanged = torch.lt(g, b, out=torch.empty_like(low))
    moved = torch.lt(r, larger, out=larger)
    h = second.sub_(smaller).div_(torch.clamp(chroma, min=1e-12, out=smaller))  # a gray pixel has 0 / 1e-12
    h.sub_(torch.mul(exchanged, 6, out=smaller))
    return h.add_(exchanged.mul_(12).sub_(2).mul_(moved)).abs_(), low, chroma


def put_hue(x: Tensor, h: Tensor, turn: np.ndarray, low: Tensor, chroma: Tensor) -> None:
    """Writes the colour of hue h (sixths of the circle) plus turn (circles, > -1), minimum and chroma into x.

    R = low + chroma clamp(|h - 3| - 1), G = low + chroma clamp(2 - |h - 2|), B = low + chroma clamp(2 - |h - 4|).
    """
    h = h.div_(6).add_(on_device(turn + 1, x.device, torch.float32)[:, None, None]).frac_().mul_(6)
    red, green, blue = x.unbind(1)
    distance = (h - 3).abs_().sub_(1)
    torch.add(distance.clamp_(0, 1).mul_(chroma), low, out=red)
    distance = torch.sub(h, 2, out=distance).abs_().neg_().add_(2)
    torch.add(distance.clamp_(0, 1).mul_(chroma), low, out=green)
    distance = h.sub_(4).abs_().neg_().add_(2)
    torch.add(distance.clamp_(0, 1).mul_(chroma), low, out=blue)


STEPS = {BRIGHTNESS: brighten, CONTRAST: change_contrast, SATURATION: saturate, HUE: turn_hue}


class HsvJitter:
    """Dosovitskiy et al. 2014, section 2.1: in HSV, S <- m S^p + a and V likewise, H <- H + d, clamped.

    p = 2^U(-2, 2), m = 2^U(-1/2, 1/2), a from U(-0.1, 0.1), d from U(-0.1, 0.1) of the circle, drawn separately for S
    and V. Both pass through a table of 256 levels: V of an 8-bit image has no more, S is rounded to them.
    """

    width = 7  # exponent, factor and offset of S and of V, turn of the hue

    def parameters(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tables of S and V float32 [N, 2, 256] and turns of the hue float64 [N]."""
        draws = u[:, :6].reshape(-1, 2, 3)
        power, factor = 2 ** between(draws[..., :1], -2, 2), 2 ** between(draws[..., 1:2], -0.5, 0.5)
        level = np.arange(256) / 255
        tables = factor * level**power + between(draws[..., 2:], -0.1, 0.1)
        return tables.clip(0, 1).astype(np.float32), between(u[:, 6], -0.1, 0.1)

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        tables, turn = self.parameters(u)
        h, low, chroma = hue(x)
        high = low.add_(chroma)
        saturation = chroma.div_(high.clamp(min=1e-12))
        levels = torch.stack([saturation, high], 1).mul_(255).add_(0.5).flatten(2).long()  # [n, 2, H W]
        new = on_device(tables, x.device).gather(2, levels).view(len(x), 2, *x.shape[2:])
        high = new[:, 1]
        chroma = new[:, 0] * high
        put_hue(x, h, turn, high - chroma, chroma)
        return x


class Grayscale:
    """With chance p, every channel becomes the luma."""

    width = 1

    def __init__(self, p: float):
        self.p = p

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        return to_chosen(lambda y: y.copy_(luma(y)[:, None]), x, u[:, 0] < self.p)


class Solarize:
    """With chance p, values of at least one half are inverted."""

    width = 1

    def __init__(self, p: float):
        self.p = p

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        return to_chosen(lambda y: torch.ge(y, 128 / 255, out=torch.empty_like(y)).sub_(y).abs_(), x, u[:, 0] < self.p)


class Blur:
    """With chance p, a Gaussian of standard deviation uniform in `sigma` px.

    SimCLR's kernel spans a tenth of the image's side (23 px at 224 px), and BYOL and its successors follow.
    """

    width = 2  # gate, standard deviation

    def __init__(self, p: float, size: int, sigma: tuple[float, float] = (0.1, 2.0)):
        self.p, self.radius, self.sigma = p, max(1, size // 20), sigma

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        chosen = u[:, 0] < self.p
        return to_chosen(lambda y: blur(y, between(u[chosen, 1], *self.sigma), self.radius), x, chosen)


def to_chosen(step: Callable[[Tensor], Tensor], x: Tensor, chosen: np.ndarray) -> Tensor:
    """x with the images where chosen bool [N] replaced by step of them."""
    if chosen.all():
        return step(x)
    if chosen.any():
        k = on_device(np.flatnonzero(chosen), x.device)
        x.index_copy_(0, k, step(x.index_select(0, k)))
    return x
