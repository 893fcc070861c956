"""RandAugment (Cubuk et al. 2020) as FixMatch uses it (Sohn et al. 2020, appendix D), then cutout (DeVries & Taylor).

Per image and layer one of 14 operations with a random strength; last, a gray square at a random place. The two
reference implementations differ, and both are presets: "fixmatch-pytorch" (kekmodel/FixMatch-pytorch,
`RandAugmentMC(2, 10)`) and "usb" (TorchSSL and USB, `RandAugment(3, 5)`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..views import pil_ops
from .counter_rng import Groups, between, integers, signs

# The geometric five stand together, so that one gather serves their common slice of a sorted batch.
OPS = (
    "identity",
    "autocontrast",
    "equalize",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
OP = {name: k for k, name in enumerate(OPS)}
FIRST_GEOMETRIC = OP["rotate"]
WITH_STRENGTH = {
    "brightness": pil_ops.brightness,
    "color": pil_ops.color,
    "contrast": pil_ops.contrast,
    "sharpness": pil_ops.sharpness,
    "posterize": pil_ops.posterize,
    "solarize": pil_ops.solarize,
}
WITHOUT = {"autocontrast": pil_ops.autocontrast, "equalize": pil_ops.equalize}
# Each changes all channels alike, or moves pixels: a colour stays what it is, but for its brightness and contrast.
COLORS_STAY = np.array([OP[n] for n in OPS if n not in ("autocontrast", "equalize", "color", "posterize", "solarize")])
MATRICES = {
    "rotate": pil_ops.rotate,
    "shear_x": pil_ops.shear_x,
    "shear_y": pil_ops.shear_y,
    "translate_x": pil_ops.translate_x,
    "translate_y": pil_ops.translate_y,
}

# Strengths in Pillow's unit. fixmatch-pytorch: bias + span * level / 10, level 1 .. 9; USB: uniform in a range.
KEKMODEL = {
    "brightness": (0.05, 0.9),
    "color": (0.05, 0.9),
    "contrast": (0.05, 0.9),
    "sharpness": (0.05, 0.9),
    "posterize": (4, 4),
    "solarize": (0, 256),
    "rotate": (0, 30),
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "translate_x": (0, 0.3),
    "translate_y": (0, 0.3),
}
USB = {
    "brightness": (0.05, 0.95),
    "color": (0.05, 0.95),
    "contrast": (0.05, 0.95),
    "sharpness": (0.05, 0.95),
    "posterize": (4, 8),
    "solarize": (0, 256),
    "rotate": (-30, 30),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "translate_x": (-0.3, 0.3),
    "translate_y": (-0.3, 0.3),
}
DRAWS_PER_LAYER = 4  # operation, strength, sign, gate
CUTOUT_DRAWS = 3  # centre x, centre y, side


def _columns(table: dict[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The two numbers of every operation, in the order of OPS; 0 where it has no strength."""
    rows = np.array([table.get(name, (0.0, 0.0)) for name in OPS], dtype=np.float64)
    return rows[:, 0], rows[:, 1]


def _among(op: np.ndarray, *names: str) -> np.ndarray:
    return np.isin(op, [OP[name] for name in names])


def kekmodel_strength(op: np.ndarray, u: np.ndarray, sign: np.ndarray, size: int) -> np.ndarray:
    """bias + span * level / 10, level 1 .. 9; whole where Pillow wants it, of either sign where it moves."""
    bias, span = _columns(KEKMODEL)
    value = integers(u, 1, 10) * span[op] / 10
    value = np.where(_among(op, "posterize", "solarize", "rotate"), np.trunc(value), value) + bias[op]
    value = np.where(op >= FIRST_GEOMETRIC, value * sign, value)
    value = np.where(_among(op, "translate_x", "translate_y"), np.trunc(value * size), value)
    return np.where(_among(op, "solarize"), 256 - value, value)


def usb_strength(op: np.ndarray, u: np.ndarray, sign: np.ndarray, size: int) -> np.ndarray:
    """Uniform in the operation's range, which holds both signs where it moves."""
    low, high = _columns(USB)
    value = between(u, low[op], high[op])
    value = np.where(_among(op, "posterize"), np.trunc(value), value)
    return np.where(_among(op, "translate_x", "translate_y"), value * size, value)


def kekmodel_cutout(u: np.ndarray, size: int) -> np.ndarray:
    """A square of half the image's side about a uniform centre, cut off at the border."""
    side = size // 2
    low = np.trunc(np.maximum(u[:, :2] * size - side / 2, 0))
    return np.concatenate([low, np.minimum(low + side, size)], 1).astype(np.int64)


def usb_cutout(u: np.ndarray, size: int) -> np.ndarray:
    """A square of 0 to half the image's side about a uniform centre, cut off at the border."""
    side = 0.5 * u[:, 2:3] * size
    low = np.trunc(np.maximum(u[:, :2] * size - side / 2, 0))
    return np.concatenate([low, np.minimum(low + side, size)], 1).astype(np.int64)


@dataclass(frozen=True)
class Preset:
    """Facts of one reference implementation. `gate` is the chance that a drawn operation is applied."""

    layers: int
    gate: float
    strength: Callable  # (operation, draw, sign, size) -> strength in Pillow's unit
    cutout: Callable  # (draws, size) -> corners
    level: tuple[int, int, int]


PRESETS = {
    "fixmatch-pytorch": Preset(2, 0.5, kekmodel_strength, kekmodel_cutout, (127, 127, 127)),
    "usb": Preset(3, 1.0, usb_strength, usb_cutout, (125, 123, 114)),
}


class RandAugment:
    """`preset.layers` operations, then `cutout`, on uint8 [N, 3, S, S]; in and out are whole levels, as with Pillow.

    color False: only operations that leave colours as they are.
    """

    def __init__(self, preset: Preset, cutout: bool = True, color: bool = True):
        self.preset, self.cutout, self.width = preset, cutout, preset.layers * DRAWS_PER_LAYER + CUTOUT_DRAWS
        self.ops = np.arange(len(OPS)) if color else COLORS_STAY

    def parameters(self, u: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of draws u [N, width]: operations int64 and strengths float64 [N, layers], cutout corners int64 [N, 4]."""
        layers = self.preset.layers
        which, strength, sign, gate = np.moveaxis(u[:, : layers * DRAWS_PER_LAYER].reshape(len(u), layers, -1), 2, 0)
        op = np.where(gate < self.preset.gate, self.ops[integers(which, 0, len(self.ops))], OP["identity"])
        return op, self.preset.strength(op, strength, signs(sign), size), self.preset.cutout(u[:, -CUTOUT_DRAWS:], size)

    def __call__(self, x: Tensor, u: np.ndarray) -> Tensor:
        size = x.shape[-1]
        op, strength, corners = self.parameters(u, size)
        batch = Groups(x)
        for layer in range(self.preset.layers):
            apply_layer(batch, op[:, layer], strength[:, layer])
        x = batch.restored()
        return pil_ops.rectangle(x, corners, self.preset.level) if self.cutout else x


def apply_layer(batch: Groups, op: np.ndarray, strength: np.ndarray) -> None:
    """One operation per image: op int64 [N], strength float64 [N], both in the original order of the batch."""
    slices = batch.by(op)
    x, strength = batch.x, strength[batch.origin]
    for k, part in slices.items():
        if OPS[k] in WITH_STRENGTH:
            x[part] = WITH_STRENGTH[OPS[k]](x[part], strength[part])
        elif OPS[k] in WITHOUT:
            x[part] = WITHOUT[OPS[k]](x[part])
    moved = [k for k in slices if k >= FIRST_GEOMETRIC]
    if moved:
        matrices = [MATRICES[OPS[k]](strength[slices[k]], x.shape[-1]) for k in moved]
        part = slice(slices[moved[0]].start, len(x))
        x[part] = pil_ops.affine_nearest(x[part], np.concatenate(matrices))
