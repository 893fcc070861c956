"""From an image file as it is to uint8 [3, S, S]: the mode, the orientation, the short side, the centre.

The geometry is torchvision's Resize + CenterCrop on PIL, which is timm's evaluation transform with crop_pct 1, pixel
for pixel. Modes become RGB as `PIL.Image.convert("RGB")` does it, which is what timm and transformers' pipelines do, so
a model sees the same pixels here and there. In particular transparency is dropped, not laid on white. Two departures,
where PIL's answer is wrong: 16-bit grey is scaled by 1/257 (PIL clips everything above 255 to white), and float or
32-bit images, whose range nobody knows, are refused.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from ..errors import UserError, unknown

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
SMALLEST_SIDE = 2  # px: one pixel is a tracking pixel or a placeholder, and there is nothing to see in it
LARGEST_ASPECT = 100  # beyond it the resized long side alone would take gigabytes
# What PIL's decoders raise on damaged files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BadImage(UserError):
    """An image that cannot be used: `reason` says why, `id` which one."""

    def __init__(self, reason: str, id: str | None = None):
        self.reason, self.id = reason, id
        super().__init__(f"image {id!r} cannot be used: {reason}" if id is not None else reason)

    def __reduce__(self):
        return type(self), (self.reason, self.id)  # exceptions cross from the workers of a loader


def resampling(interpolation: str) -> Image.Resampling:
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    return INTERPOLATIONS[interpolation]


def check_size(width: int, height: int) -> None:
    """Refuse what has no content or would explode when its short side is resized."""
    short, long = sorted((width, height))
    if short < SMALLEST_SIDE:
        raise BadImage(f"{width} x {height} px, expected at least {SMALLEST_SIDE} px on each side")
    if long > LARGEST_ASPECT * short:
        raise BadImage(f"{width} x {height} px, expected sides within 1:{LARGEST_ASPECT} of each other")


def grey16(image: Image.Image) -> Image.Image:
    """0..65535 -> 0..255, rounded: 65535 = 255 * 257."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadImage(f"mode {image.mode} with values {low}..{high}, expected 0..65535; save it as 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image PIL opens, upright by its EXIF orientation, as RGB; see the module for what each mode becomes."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise BadImage("floating-point pixels (mode F), expected 8 or 16 bit integers; save it as PNG")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return grey16(image).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same pixels with a warning for each file
    return image.convert("RGB")


def load_rgb(image: Image.Image) -> Image.Image:
    """The whole image, upright, RGB; a damaged one is a `BadImage`."""
    try:
        check_size(*image.size)
        image.load()  # the file may be closed after this
        return to_rgb(image)
    except BadImage:
        raise
    except DECODE_ERRORS as error:
        raise BadImage(f"{type(error).__name__}: {error}") from error


def fit(image: Image.Image, size: int, resample: Image.Resampling, at: float = 0.5) -> Image.Image:
    """The short side becomes `size` (the long one is floored), then a square is cropped, `at` 0 from the start of the long
    side, 1 from its end, 0.5 from the centre (offsets half to even)."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
        image = image.resize(new, resample)
    left, top = (round((side - size) * at) for side in image.size)
    return image if image.size == (size, size) else image.crop((left, top, left + size, top + size))


def decode(image: Image.Image, size: int, interpolation: str = "bilinear", at: float = 0.5) -> torch.Tensor:
    """uint8 [3, size, size], the square that `fit` crops.

    Raises `BadImage` with the reason when the file is damaged or the image is of no use.
    """
    resample = resampling(interpolation)  # before the try: a wrong name is the caller's error, not the image's
    try:
        check_size(*image.size)
        pixels = np.array(fit(to_rgb(image), size, resample, at))  # [S, S, 3]
    except BadImage:
        raise
    except DECODE_ERRORS as error:
        raise BadImage(f"{type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def open_image(file) -> Image.Image:
    """PIL.Image.open (the header only) with its errors as `BadImage`."""
    try:
        return Image.open(file)
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image: no decoder recognises its content") from error
    except DECODE_ERRORS as error:
        raise BadImage(f"{type(error).__name__}: {error}") from error
