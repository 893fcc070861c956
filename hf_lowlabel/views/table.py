"""The views of every paper in one table, and `build_view`, which makes one of them.

A view takes images uint8 [N, 3, S, S] on the training device and draws float64 [N, width] on the CPU and returns
float32 [N, 3, size, size], normalised. Row i of the result depends on image i and row i of the draws only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, unknown
from .color import Blur, Grayscale, HsvJitter, Jitter, Solarize
from .crops import CentreCrop, ResizedCrop, ShiftCrop
from .randaugment import PRESETS, RandAugment

SMALL = 64  # px below which a view is not blurred: at 32 px the blur of the papers leaves nothing to recognise
# Bytes of pixels worked on at a time: on a CPU smaller pieces pay more per call; on a GPU this bounds its memory.
PIECE = {"cpu": 1 << 22, "cuda": 1 << 29}


@dataclass(frozen=True)
class Recipe:
    """One kind of view. Chances are shares of the samples; jitter is brightness, contrast, saturation, hue."""

    crop: str  # "centre", "shift" or "resized"
    scale: tuple[float, float] = (0.08, 1.0)  # area of a resized crop, shares of the pool image
    interpolation: str = "bicubic"
    jitter: tuple[float, float, float, float] | None = None
    jitter_chance: float = 0.8
    hsv: bool = False
    gray_chance: float = 0.0
    blur_chance: float = 0.0  # standard deviation 0.1 to 2 px
    solarize_chance: float = 0.0
    randaugment: bool = False
    side: float = 1.0  # of the view, a share of the run's; below 1 a local crop, of which min_scale says nothing


VIEWS = {
    "eval": Recipe("centre"),
    "weak": Recipe("shift"),  # FixMatch, Sohn et al. 2020, section 2.3
    "strong": Recipe("shift", randaugment=True),
    # BYOL, Grill et al. 2020, table 6: two views that differ in blur and solarisation
    "byol1": Recipe("resized", jitter=(0.4, 0.4, 0.2, 0.1), gray_chance=0.2, blur_chance=1.0),
    "byol2": Recipe("resized", jitter=(0.4, 0.4, 0.2, 0.1), gray_chance=0.2, blur_chance=0.1, solarize_chance=0.2),
    # MoCo v2, Chen et al. 2020; SimSiam, Chen & He 2021, takes its views over
    "moco": Recipe("resized", (0.2, 1.0), "bilinear", (0.4, 0.4, 0.4, 0.1), gray_chance=0.2, blur_chance=0.5),
    "simsiam": Recipe("resized", (0.2, 1.0), "bilinear", (0.4, 0.4, 0.4, 0.1), gray_chance=0.2, blur_chance=0.5),
    # SimCLR, Chen et al. 2020, appendix A; half the colour strength below 64 px, appendix B.9
    "simclr": Recipe("resized", (0.08, 1.0), "bicubic", (0.8, 0.8, 0.8, 0.2), gray_chance=0.2, blur_chance=0.5),
    # CoMatch, Li et al. 2021: the authors' code, on CIFAR beside RandAugment, on ImageNet twice
    "comatch": Recipe("resized", (0.2, 1.0), "bilinear", (0.4, 0.4, 0.4, 0.1), gray_chance=0.2),
    # PixPro, Xie et al. 2021: BYOL's colours, bilinear crops
    "pixpro1": Recipe("resized", (0.08, 1.0), "bilinear", (0.4, 0.4, 0.2, 0.1), gray_chance=0.2, blur_chance=1.0),
    "pixpro2": Recipe(
        "resized", (0.08, 1.0), "bilinear", (0.4, 0.4, 0.2, 0.1), gray_chance=0.2, blur_chance=0.1, solarize_chance=0.2
    ),
    # DINO, Caron et al. 2021, section 3.1: beside BYOL's two views
    "dino-local": Recipe(
        "resized", (0.05, 0.4), jitter=(0.4, 0.4, 0.2, 0.1), gray_chance=0.2, blur_chance=0.5, side=96 / 224
    ),
    # S4L-Exemplar, Zhai et al. 2019, section 4.2: Inception crop, mirror, HSV colour randomisation
    "exemplar": Recipe("resized", (0.08, 1.0), "bilinear", hsv=True),
}


class View:
    """A crop, photometric steps and normalisation; `width` draws a sample."""

    def __init__(self, crop, steps: Sequence, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype):
        self.crop, self.steps, self.dtype = crop, list(steps), dtype
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))
        self.width = crop.width + sum(step.width for step in self.steps)
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def geometry(self, u: Tensor, S: int) -> tuple[Tensor, Tensor]:
        """Where draws u [N, width] cut pool images of side S: boxes float32 [N, 4] = x0, y0, x1, y1; flips bool [N].

        A mirrored view shows its box's x1 at the left.
        """
        box, flip = self.crop.geometry(u.numpy()[:, : self.crop.width], S)
        return torch.from_numpy(box).float(), torch.from_numpy(flip)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        square = images.dim() == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
        if images.dtype != torch.uint8 or not square:
            raise UserError(f"Images are {images.dtype} {list(images.shape)}, and must be uint8 [N, 3, S, S].")
        if u.shape != (len(images), self.width) or u.dtype != torch.float64 or u.device.type != "cpu":
            raise UserError(
                f"Draws are {u.dtype} {list(u.shape)} on {u.device}, and must be float64 [{len(images)}, {self.width}] "
                "on the CPU, as uniforms(seed, stream, start, count, view.width) makes them."
            )
        draws, size = u.numpy(), self.crop.size
        out = torch.empty(len(images), 3, size, size, device=images.device)
        piece = self._piece(images)
        for a in range(0, len(images), piece):
            self._fill(out[a : a + piece], images[a : a + piece], draws[a : a + piece])
        return out.to(self.dtype)

    def _piece(self, images: Tensor) -> int:
        """Images worked on at a time; RandAugment takes one byte a value, the other steps four."""
        side, whole = max(images.shape[-1], self.crop.size), all(isinstance(step, RandAugment) for step in self.steps)
        return max(1, PIECE[images.device.type] // (3 * side * side * (1 if whole else 4)))

    def _fill(self, out: Tensor, images: Tensor, u: np.ndarray) -> None:
        x = self.crop(images, u[:, : self.crop.width])
        at, top = self.crop.width, 255.0
        for step in self.steps:
            if isinstance(step, RandAugment) and x.dtype != torch.uint8:
                x = x.to(torch.uint8)  # a resized crop gives whole levels
            if not isinstance(step, RandAugment) and top != 1:
                x, top = x.float().div_(255), 1.0
            x = step(x, u[:, at : at + step.width])
            at += step.width
        scale, shift = self._normalisation(images.device)
        torch.mul(x, scale / top, out=out).sub_(shift)

    def _normalisation(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """1 / std and mean / std on the device, copied there once."""
        if device not in self._constants:
            self._constants[device] = (1 / self.std).to(device), (self.mean / self.std).to(device)
        return self._constants[device]


def build_view(
    kind: str,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = True,
    preset: str = "fixmatch-pytorch",
    min_scale: float | None = None,
    color: bool = True,
    randaugment: bool = False,
    multiple: int = 1,
    dtype: torch.dtype = torch.float32,
) -> View:
    """The view `kind` of VIEWS at size x size px, a local crop at 3/7 of that, rounded to a multiple of `multiple` px.

    flip False: never mirrored, for data whose mirror image is something else (digits). preset: which RandAugment.
    min_scale: smallest area of a resized crop, a share of the pool image; small images need 0.3 to 0.5. color False:
    brightness, contrast and sharpness alone, for data whose colours tell the classes. randaugment: RandAugment (without
    its cutout) before the other steps of any view that is cut by a random resized crop; it turns and shears, which
    crops do not. Views below 64 px are not blurred, as is common practice.
    """
    if kind not in VIEWS:
        raise unknown("view", kind, VIEWS)
    if preset not in PRESETS:
        raise unknown("RandAugment preset", preset, PRESETS)
    if min_scale is not None and not 0 < min_scale <= 1:
        raise UserError(f"min_scale is {min_scale}, but it is a share of the image: give a number above 0, at most 1.")
    recipe = VIEWS[kind]
    if recipe.side < 1:
        size = max(1, round(recipe.side * size / multiple)) * multiple
    elif min_scale is not None:
        recipe = replace(recipe, scale=(min_scale, max(min_scale, recipe.scale[1])))
    if randaugment and recipe.crop == "resized":
        recipe = replace(recipe, randaugment=True)
    return View(_crop(recipe, size, flip), _steps(recipe, size, preset, color), mean, std, dtype)


def read_by(kinds: Iterable[str], randaugment: bool) -> set[str]:
    """Which of the settings augment, min_scale and randaugment change at least one of these views."""
    recipes = [VIEWS[kind] for kind in kinds]
    resized = any(recipe.crop == "resized" for recipe in recipes)
    read = dict(
        augment=any(recipe.randaugment for recipe in recipes) or (resized and randaugment),
        min_scale=any(recipe.crop == "resized" and recipe.side == 1 for recipe in recipes),
        randaugment=resized,
    )
    return {name for name, is_read in read.items() if is_read}


def _crop(recipe: Recipe, size: int, flip: bool):
    if recipe.crop == "resized":
        return ResizedCrop(size, flip, recipe.scale, interpolation=recipe.interpolation)
    return ShiftCrop(size, flip) if recipe.crop == "shift" else CentreCrop(size)


def _steps(recipe: Recipe, size: int, preset: str, color: bool) -> list:
    steps = []
    if recipe.randaugment:
        steps.append(RandAugment(PRESETS[preset], cutout=recipe.crop == "shift", color=color))
    if recipe.jitter:
        amounts = [a / 2 for a in recipe.jitter] if size < SMALL and max(recipe.jitter) > 0.5 else list(recipe.jitter)
        steps.append(Jitter(*(amounts if color else [*amounts[:2], 0.0, 0.0]), p=recipe.jitter_chance))
    if recipe.hsv and color:
        steps.append(HsvJitter())
    if recipe.gray_chance and color:
        steps.append(Grayscale(recipe.gray_chance))
    if recipe.blur_chance and size >= SMALL:
        steps.append(Blur(recipe.blur_chance, size))
    if recipe.solarize_chance and color:
        steps.append(Solarize(recipe.solarize_chance))
    return steps
