"""Generated images for segmentation, 64 x 64 px: discs, squares, triangles and crosses on a background, all textured.

A class has its outline and its pattern: discs are finely striped, squares chequered, triangles plain, crosses broadly
striped. Colours, sizes, angles and light are the same lottery for all, so that ten labeled images leave much to learn
from the others. Pure numpy and the same on every machine: image i of a split is a function of i.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from PIL import Image

from ...errors import MissingSplit, unknown
from ..dataset import ImageDataset, Masks, Origin, make_dataset
from ..permutation import philox_key

SIDE = 64  # px
SIZES = {"train": 800, "validation": 100, "test": 200}  # images
CLASSES = ["background", "disc", "square", "triangle", "cross"]
MOST = 4  # shapes in an image; there are 2 at least
PER_SHAPE, PER_TEXTURE = 6, 10  # draws
PERIODS = (
    (16.0, 32.0),
    (3.0, 4.5),
    (5.0, 8.0),
    None,
    (7.0, 11.0),
)  # px of each class's pattern; the square's is a chequer
CHEQUERED = 2
DRAWS = 1 + PER_TEXTURE + MOST * (PER_SHAPE + PER_TEXTURE) + 4
NOISE = 0.04  # standard deviation, of values in 0..1


def shapes(split: str = "train") -> ImageDataset:
    """The embedded set. Labels are free here: how many of its masks are used is the split's business."""
    if split not in SIZES:
        raise unknown("split of 'shapes'", split, SIZES, MissingSplit)
    n = SIZES[split]
    ids = [f"{split}-{i:04d}" for i in range(n)]
    version = hashlib.sha256(repr((SIDE, NOISE, CLASSES)).encode()).hexdigest()
    origin, images, masks = (
        Origin("shapes", split, license="cc0-1.0"),
        ShapesReader(split, False),
        ShapesReader(split, True),
    )
    return make_dataset(origin, ids, np.ones(n, bool), list(CLASSES), [version] * n, images, masks=Masks(masks))


class ShapesReader:
    def __init__(self, split: str, masks: bool):
        self.split, self.masks = split, masks

    def __call__(self, i: int) -> Image.Image:
        pixels, mask = draw(self.split, i)
        return Image.fromarray(mask if self.masks else pixels)

    def ends(self, i: int) -> bytes:
        return b""


@lru_cache(maxsize=1024)  # image and mask are asked for one after the other
def draw(split: str, i: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [64, 64, 3], uint8 [64, 64]) of image i."""
    words = -(-(DRAWS + 3 * SIDE * SIDE) // 4)
    raw = np.random.Philox(key=philox_key(0, f"shapes/{split}"), counter=i * words).random_raw(words * 4)
    u = (raw >> np.uint64(11)) * 2.0**-53  # numpy keeps raw words stable over its versions, not its distributions
    noise, u = u[DRAWS : DRAWS + 3 * SIDE * SIDE].reshape(SIDE, SIDE, 3), u[:DRAWS]
    yy, xx = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5, indexing="ij")
    pixels, mask = texture(u[1 : 1 + PER_TEXTURE], 0, yy, xx), np.zeros((SIDE, SIDE), np.uint8)
    for k in range(2 + int(u[0] * (MOST - 1))):
        start = 1 + PER_TEXTURE + k * (PER_SHAPE + PER_TEXTURE)
        kind, inside = outline(u[start : start + PER_SHAPE], yy, xx)
        pixels[inside] = texture(u[start + PER_SHAPE : start + PER_SHAPE + PER_TEXTURE], kind, yy, xx)[inside]
        mask[inside] = kind
    a, b, c, _ = u[-4:]  # light that falls off to one side
    light = 1 + 0.5 * a * ((yy / SIDE - 0.5) * np.sin(2 * np.pi * b) + (xx / SIDE - 0.5) * np.cos(2 * np.pi * b))
    pixels = pixels * light[..., None] * (0.8 + 0.4 * c) + (noise - 0.5) * (NOISE * 12**0.5)
    return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8), mask


def outline(u: np.ndarray, yy: np.ndarray, xx: np.ndarray) -> tuple[int, np.ndarray]:
    """(class, bool [64, 64]) of one shape: class, centre, radius of 8 to 17 px, angle."""
    kind, radius, angle = 1 + int(u[0] * 4), 8 + 9 * u[3], 2 * np.pi * u[4]
    y, x = yy - SIDE * (0.1 + 0.8 * u[1]), xx - SIDE * (0.1 + 0.8 * u[2])
    y, x = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    if kind == 1:
        return kind, y**2 + x**2 < (0.85 * radius) ** 2
    if kind == 2:
        return kind, np.maximum(np.abs(y), np.abs(x)) < 0.75 * radius
    if kind == 3:  # the centre is a third of the height above the base
        return kind, (y < 0.55 * radius) & (np.abs(x) * 3**0.5 - y < 1.1 * radius)
    return kind, (np.minimum(np.abs(y), np.abs(x)) < 0.3 * radius) & (np.maximum(np.abs(y), np.abs(x)) < radius)


def texture(u: np.ndarray, kind: int, yy: np.ndarray, xx: np.ndarray) -> np.ndarray:
    """float64 [64, 64, 3]: two colours, mixed by the stripes of the class or by the product of two, a chequer."""
    first, second = 0.15 + 0.7 * u[:3], 0.15 + 0.7 * u[3:6]
    if PERIODS[kind] is None:
        return np.broadcast_to(first, (SIDE, SIDE, 3)).copy()
    angle, period = np.pi * u[6], PERIODS[kind][0] + (PERIODS[kind][1] - PERIODS[kind][0]) * u[7]
    along, across = np.cos(angle) * xx + np.sin(angle) * yy, np.cos(angle) * yy - np.sin(angle) * xx
    wave = np.sin(2 * np.pi * (along / period + u[8]))
    if kind == CHEQUERED:
        wave = wave * np.sin(2 * np.pi * (across / period + u[9]))
    return first + (second - first) * (0.5 + 0.5 * wave)[..., None]
