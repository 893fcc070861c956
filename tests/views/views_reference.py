"""Per-image references: Pillow's own operations with given parameters, and test images that reach special cases."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

AFFINE = Image.Transform.AFFINE
PIL_OPS = {  # name: (image, strength in Pillow's unit) -> image
    "identity": lambda image, v: image,
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "rotate": lambda image, v: image.rotate(v),
    "shear_x": lambda image, v: image.transform(image.size, AFFINE, (1, v, 0, 0, 1, 0)),
    "shear_y": lambda image, v: image.transform(image.size, AFFINE, (1, 0, 0, v, 1, 0)),
    "translate_x": lambda image, v: image.transform(image.size, AFFINE, (1, 0, v, 0, 1, 0)),
    "translate_y": lambda image, v: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, v)),
}


def cutout(image: Image.Image, x: float, y: float, side: float, colour: tuple[int, int, int]) -> Image.Image:
    """A filled rectangle about (x, y), cut off at the border as both reference implementations do."""
    x0, y0 = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x0, y0, min(image.width, x0 + side), min(image.height, y0 + side)), colour)
    return image


def kekmodel_randaugment(image: Image.Image, rng: random.Random) -> Image.Image:
    """fixmatch-pytorch's RandAugmentMC(2, 10) written from its facts, with draws of its own."""
    for name in rng.choices(list(PIL_OPS), k=2):
        level, sign = rng.randint(1, 9), rng.choice((-1, 1))
        strength = {
            "posterize": int(level * 4 / 10) + 4,
            "solarize": 256 - int(level * 256 / 10),
            "rotate": sign * int(level * 30 / 10),
            "shear_x": sign * level * 0.3 / 10,
            "shear_y": sign * level * 0.3 / 10,
            "translate_x": int(sign * level * 0.3 / 10 * image.width),
            "translate_y": int(sign * level * 0.3 / 10 * image.height),
        }.get(name, level * 0.9 / 10 + 0.05)
        if rng.random() < 0.5:
            image = PIL_OPS[name](image, strength)
    side = image.width // 2
    return cutout(image, rng.uniform(0, image.width), rng.uniform(0, image.height), side, (127, 127, 127))


def images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """uint8 [n, 3, size, size]: noise, low contrast, smooth, one and two levels, black, white."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))
    coarse = torch.from_numpy(rng.random((n, 3, 4, 4), dtype=np.float32))
    smooth = (torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") * 255).to(torch.uint8)
    x[1::4] = x[1::4] // 4 + 50
    x[2::4], x[3::4] = smooth[2::4], smooth[3::4] // 2 + 100
    if n >= 12:
        x[4], x[5], x[6] = 7, 0, 255
        x[8] = torch.where(x[8] < 128, 3, 250)
        x[9, :, 0, 0] = 0
    return x


def to_pil(x: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]


def from_pil(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
