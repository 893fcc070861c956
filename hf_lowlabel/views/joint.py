"""Views of images with masks: one geometry per image for the image, its mask and every other view of it.

An image is scaled by a factor of its own, a window is cut out of it, turned and mirrored at random; the image is
sampled bilinearly, the mask to the nearest pixel, and what lies outside the image is not valid: mean colour, and -100
in the target. Then each view gets its own colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError, unknown
from ..mask_palette import IGNORE
from ..objective import IGNORE_INDEX
from .color import Blur, Grayscale, Jitter
from .counter_rng import between, on_device

SMALL = 64  # px below which a view is not blurred
FLIP_CHANCE = 0.5
WIDTH = 4  # scale, place y, place x, flip; a fifth for the angle where there are any


class Colors(NamedTuple):
    """Of a kind of view: jitter (of 80 % of the images), chances of gray and of blur, its standard deviations in px."""

    strength: float  # of brightness and contrast
    saturation: float
    hue: float
    gray: float
    blur: float
    sigma: tuple[float, float] = (0.1, 2.0)


COLORS = {
    "strong": Colors(0.5, 0.5, 0.25, 0.2, 0.5),
    "cutmix": Colors(0.4, 0.4, 0.1, 0.2, 0.0),
    "classmix": Colors(0.25, 0.25, 0.25, 0.0, 0.5, (0.15, 1.15)),
    "clmb": Colors(0.25, 0.125, 0.25 / 3, 0.0, 0.2, (0.1, 1.5)),
}


class JointView:
    """views: batch key -> "weak" (geometry alone), "strong" (with colours: Yang et al. 2023, UniMatch, section 4.1), or
    the colours of the authors of CutMix-Seg, ClassMix and CLMB, "cutmix", "classmix" and "clmb".

    size: (height, width) of the window in px. scale: range of the factor (0.5 to 1.5, French et al. 2019). rotation:
    largest angle in degrees by which the window is turned around its centre, either way. color False: no hue,
    saturation or grayscale, for gray images.
    """

    def __init__(
        self,
        views: Mapping[str, str],
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        scale: tuple[float, float] = (0.5, 1.5),
        rotation: float = 0.0,
        flip: bool = True,
        color: bool = True,
    ):
        if not 0 < scale[0] <= scale[1] or min(size) < 1:
            raise UserError(
                f"No view can have scale {scale} and size {size}: give a smallest and a largest scale above 0, in this "
                "order, and a size of at least 1 px."
            )
        self.size, self.scale, self.rotation, self.flip = size, scale, rotation, flip
        self.steps = {key: _steps(kind, size, color) for key, kind in views.items()}
        self.first = WIDTH + (rotation > 0)  # draw of the first colour
        self.width = self.first + sum(step.width for steps in self.steps.values() for step in steps)
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def geometry(self, u: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(factors [N], (y, x) of the window's corner in the scaled image [N, 2], mirrored bool [N]).

        The corner is uniform where the window fits; a smaller image lies anywhere in the window, whose corner is then
        negative.
        """
        factor = between(u[:, 0], *self.scale)
        corner = u[:, 1:3] * (sizes * factor[:, None] - np.array(self.size))
        return factor, corner, (u[:, 3] < FLIP_CHANCE) & self.flip

    def __call__(self, images: Tensor, sizes: Tensor, u: Tensor) -> dict[str, Tensor]:
        """images uint8 [N, 3 or 4, H, W] on the device, the mask as channel 4; sizes int64 [N, 2] = height, width in px
        of the image within, and draws u float64 [N, width], both on the CPU.

        Returns float32 [N, 3, h, w] of every view, "valid" bool [N, h, w], and with masks "target" int64 [N, h, w].
        """
        self._check(images, sizes, u)
        draws, n = u.numpy(), len(images)
        rows, columns = self._coordinates(draws, sizes.numpy().astype(np.float64))  # [N, h or 1, w or 1] in px
        high = sizes.numpy()[:, :, None, None]
        inside = [(c >= 0) & (c < top) for c, top in ((rows, high[:, 0]), (columns, high[:, 1]))]
        y, x = (
            on_device(c.clip(0.5, top - 0.5) - 0.5, images.device, torch.float32)  # between pixel centres
            for c, top in ((rows, high[:, 0]), (columns, high[:, 1]))
        )
        valid = on_device(inside[0], images.device) & on_device(inside[1], images.device)
        out = {"valid": valid}  # [N, h, w]
        if images.shape[1] == 4:
            r, c = (
                on_device(np.floor(k).clip(0, top - 1).astype(np.int64), images.device)
                for k, top in ((rows, high[:, 0]), (columns, high[:, 1]))
            )
            at = torch.arange(n, device=images.device)[:, None, None]
            mask = images[:, 3][at, r, c].long()
            out["target"] = torch.where(valid & (mask != IGNORE), mask, IGNORE_INDEX)
        pixels = bilinear(images[:, :3], y, x) / 255  # [N, 3, h, w]
        at = self.first
        for k, (key, steps) in enumerate(self.steps.items()):
            view = pixels.clone() if steps and k + 1 < len(self.steps) else pixels
            for step in steps:
                view = step(view, draws[:, at : at + step.width])
                at += step.width
            out[key] = self._normalised(view, valid)
        return out

    def _coordinates(self, u: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the window's pixel centres lie in the image, in px from its edge.

        Rows [N, h, 1] and columns [N, 1, w], or both [N, h, w] where windows are turned.
        """
        factor, corner, flip = self.geometry(u, sizes)
        step = np.arange(self.size[1]) + 0.5
        down = (np.arange(self.size[0]) + 0.5)[None, :, None]
        across = np.where(flip[:, None], step[::-1], step)[:, None, :]
        if self.rotation:
            angle = np.radians(between(u[:, WIDTH], -self.rotation, self.rotation))[:, None, None]
            y, x = (side - length / 2 for side, length in zip((down, across), self.size, strict=True))
            down = np.cos(angle) * y - np.sin(angle) * x + self.size[0] / 2
            across = np.sin(angle) * y + np.cos(angle) * x + self.size[1] / 2
        corner, factor = corner[:, :, None, None], factor[:, None, None]
        return (down + corner[:, 0]) / factor, (across + corner[:, 1]) / factor

    def _normalised(self, x: Tensor, valid: Tensor) -> Tensor:
        if x.device not in self._constants:  # copied there once
            self._constants[x.device] = self.mean.to(x.device), self.std.to(x.device)
        mean, std = self._constants[x.device]
        return (x - mean).div_(std).mul_(valid[:, None])

    def _check(self, images: Tensor, sizes: Tensor, u: Tensor) -> None:
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (3, 4):
            raise UserError(f"Images are {images.dtype} {list(images.shape)}, and not uint8 [N, 3 or 4, H, W].")
        if u.shape != (len(images), self.width) or sizes.shape != (len(images), 2):
            raise UserError(
                f"Draws of shape {list(u.shape)} and sizes of shape {list(sizes.shape)} do not belong to "
                f"{len(images)} images: they must be [{len(images)}, {self.width}] and [{len(images)}, 2]."
            )


def bilinear(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] at rows y [N, h or 1, w or 1] and columns x, likewise, in px with pixel 0's centre at 0."""
    top, left = max(images.shape[-2] - 1, 1), max(images.shape[-1] - 1, 1)
    x, y = torch.broadcast_tensors(x * (2 / left) - 1, y * (2 / top) - 1)
    return F.grid_sample(
        images.float(), torch.stack([x, y], -1), mode="bilinear", padding_mode="border", align_corners=True
    )


def _steps(kind: str, size: tuple[int, int], color: bool) -> list:
    if kind not in ("weak", *COLORS):
        raise unknown("view of an image with a mask", kind, ("weak", *COLORS))
    if kind == "weak":
        return []
    of = COLORS[kind]
    steps = [Jitter(of.strength, of.strength, *((of.saturation, of.hue) if color else (0.0, 0.0)), p=0.8)]
    if color and of.gray:
        steps.append(Grayscale(of.gray))
    return [*steps, Blur(of.blur, min(size), of.sigma)] if of.blur and min(size) >= SMALL else steps
