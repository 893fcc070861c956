"""The one place where a picture file is opened, and the way from there to uint8 [3, S, S]: orientation, mode, size,
crop.

Every picture, mask or not, goes through `open_image`, which reads the header, and `upright`, which decodes it and turns
it as its EXIF, TIFF or XMP orientation says; `upright_size` tells its size from the header.

The geometry is torchvision's Resize + CenterCrop on PIL, which is timm's evaluation transform with crop_pct 1 and the
crop_mode "center" or "squash", pixel for pixel. Modes become RGB as `PIL.Image.convert("RGB")` does it, which is what
timm and transformers' pipelines do, so a model sees the same pixels here and there. In particular transparency is
dropped, not laid on white. Two departures, where PIL's answer is wrong: 16-bit grey is scaled by 1/257 (PIL clips
everything above 255 to white), or from a range of values that is given; float or 32-bit images, whose range nobody
knows, are refused without one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, features

from ...errors import UserError, unknown

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
# What is read; Pillow's other decoders start programs (EPS: Ghostscript) or take anything for an image.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .avif .tga .ico".split()
)
TURNS = {  # of an orientation tag, the turn that sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TEXTS = (b"iTXt", b"tEXt", b"zTXt")  # parts of a PNG, and the names of those in which a tag may stand
LATE = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
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
DECODERS = ("PIL", "pillow_heif", "pillow_jxl", "pillow_avif")  # packages


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
        raise BadImage(f"{width} x {height} px, but each side needs at least {SMALLEST_SIDE} px")
    if long > LARGEST_ASPECT * short:
        raise BadImage(f"{width} x {height} px, but its sides must be within 1:{LARGEST_ASPECT} of each other")


def of_array(array: np.ndarray, what: str, mask: bool = False) -> Image.Image:
    """A picture in memory: uint8 [H, W, 3] or [H, W], or bool [H, W], black and white; a mask [H, W] also of other
    whole numbers from 0 to 255.

    what: it is, for the message of a UserError.
    """
    check_pixels(array.shape[:2], what)
    of_mask = mask and array.ndim == 2 and array.dtype.kind in "iu" and 0 <= array.min() <= array.max() <= 255
    if array.ndim == 2 and array.dtype == bool:
        return Image.fromarray(np.ascontiguousarray(array))
    scaled = "; of numbers from 0 to 1 (255 * x).round() as uint8" if array.dtype.kind == "f" and not mask else ""
    if not (of_mask or array.dtype == np.uint8 and (array.ndim == 2 or array.ndim == 3 and array.shape[2] == 3)):
        scaled += "; of [3, H, W] x.transpose(1, 2, 0)" * (array.ndim == 3 and array.shape[0] == 3)
        raise UserError(
            f"{what} is an array of {array.dtype} of the shape {array.shape}. Give uint8 arrays [H, W, 3] or [H, W], "
            f"PIL images, or files{scaled}."
        )
    return Image.fromarray(np.ascontiguousarray(array, np.uint8))


def check_pixels(sides: tuple[int, ...], what: str) -> None:
    if 0 in sides:
        raise UserError(f"{what} has no pixels: its sides are {' x '.join(map(str, sides))}. Leave it out.")


Range = tuple[float, float] | None  # values that are black and white in an image of more than 8 bits


def grey16(image: Image.Image, value_range: Range = None) -> Image.Image:
    """`value_range` -> 0..255, rounded, clipped; None: 0..65535 = 255 * 257."""
    if value_range is not None:
        low, high = value_range
        scaled = (np.asarray(image).astype(np.float64) - low) * (255 / (high - low))
        return Image.fromarray(np.nan_to_num(scaled + 0.5).clip(0, 255).astype(np.uint8))
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadImage(f"mode {image.mode} with values {low}..{high}, outside 0..65535; give --value-range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """The header of a picture in a regular file or an open one; not yet turned, see `upright`. Raises BadImage."""
    with decoding():
        if isinstance(file, (str, os.PathLike)) and not stat.S_ISREG(os.stat(file).st_mode):
            raise BadImage("not a regular file")
        try:
            image = Image.open(file, formats=_formats())
        except Image.UnidentifiedImageError as error:
            raise BadImage("not an image: no decoder recognises its content") from error
    if image.format == "TIFF":
        image.filename = ""  # else Pillow maps uncompressed pixels into memory with the sides of the turned picture
    return image


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()
    return [name for name in (*FORMATS, *plugins()) if name in Image.OPEN]


@lru_cache(maxsize=1)
def plugins() -> dict[str, tuple[str, ...]]:
    """Formats that installed packages add to Pillow, with the endings of their files."""
    found = {}
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found["HEIF"] = (".heic", ".heif")
    if importlib.util.find_spec("pillow_jxl"):  # registers itself
        importlib.import_module("pillow_jxl")
        found["JXL"] = (".jxl",)
    return found


def read_endings() -> frozenset[str]:
    """Those of `EXTENSIONS` that this Pillow reads, and those of `plugins`."""
    avif = features.check("avif") or importlib.util.find_spec("pillow_avif")
    return (EXTENSIONS if avif else EXTENSIONS - {".avif"}) | {e for found in plugins().values() for e in found}


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where the tag is missing or rubbish."""
    if image.format == "PNG" and "exif" not in image.info and _told_late(image):
        image.load()  # which reads what follows the pixels
    try:
        tags = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()  # of a PNG it would load all
        tag = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever Pillow's parser trips over, the pixels are good
        return 1
    return tag if isinstance(tag, int) and tag in TURNS else 1


def _told_late(image: Image.Image) -> bool:
    """Whether something follows the pixels of a PNG that may tell how it stands, by the heads of its parts; also where
    they do not come to their end, so that a torn file is found out."""
    file = getattr(image, "fp", None)
    if file is None:  # it is loaded
        return False
    at, pixels = file.tell(), False
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if kind == b"IEND":
                return False
            pixels, end = pixels or kind == b"IDAT", file.tell() + int.from_bytes(head[:4], "big") + 4
            if pixels and (kind == b"eXIf" or kind in TEXTS and file.read(24).startswith(LATE)):
                return True
            file.seek(end)
        return True
    finally:
        file.seek(at)


def upright(image: Image.Image) -> Image.Image:
    """The picture decoded, turned as its orientation says, in its own mode."""
    image.load()  # turns a TIFF, and removes its tag
    turn = TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: image.info[key] for key in ("transparency",) if key in image.info}  # no tag to turn it by again
    turned.filename = getattr(image, "filename", "")
    return turned


def turned(image: Image.Image) -> bool:
    """Does the header say that the picture does not stand upright?"""
    return _orientation(image) != 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in px of the upright picture, from the header."""
    width, height = image.size
    if image.format == "TIFF":  # whose size Pillow turns itself, or not, depending on its version
        width, height = (image.tag_v2.get(tag, side) for tag, side in ((256, width), (257, height)))
    return (height, width) if _orientation(image) >= 5 else (width, height)


def to_rgb(image: Image.Image, value_range: Range = None) -> Image.Image:
    """Any image PIL opens, upright, as RGB; see the module for what each mode becomes."""
    if value_range is not None and has_deep_colours(image):
        raise BadImage(
            "colours of 16 bits, of which the upper 8 alone are read, whatever --value-range says; save it with 8 "
            "bits, or in gray"
        )
    image = upright(image)
    if image.mode == "RGB":
        return image
    if image.mode == "F" and value_range is None:
        raise BadImage("floating-point pixels (mode F), whose range is not known; give --value-range LOW HIGH")
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return grey16(image, value_range).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no shorter way
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same pixels with a warning for each file
    return image.convert("RGB")


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture that is not loaded yet has colours of 16 bits, of which Pillow reads the upper 8."""
    coded = [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in getattr(image, "tile", ()) if tile[3]]
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(code) for code in coded)


def is_deep(image: Image.Image) -> bool:
    """Whether a picture that is not loaded yet has more than 8 bits a channel."""
    return image.mode.startswith(("I", "F")) or has_deep_colours(image)


def load_rgb(image: Image.Image, value_range: Range = None) -> Image.Image:
    """The whole image, upright, RGB; a damaged one is a `BadImage`."""
    with decoding():
        check_size(*image.size)
        return to_rgb(image, value_range)


@contextmanager
def decoding() -> Iterator[None]:
    """What PIL raises on damaged files becomes a `BadImage`."""
    try:
        yield
    except UserError:  # BadImage is one
        raise
    except DECODE_ERRORS as error:
        raise BadImage(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:  # of AVIF and JPEG XL; one of our own, or of torch, is no fault of the picture
        if not _of_decoder(error):
            raise
        raise BadImage(f"{type(error).__name__}: {error}") from error


def _of_decoder(error: BaseException) -> bool:
    """Whether Pillow, or what adds formats to it, raised it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in DECODERS


def square_of(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """The square that an image becomes before the view of a network is cut out of it, as arguments of `decode`.

    preprocessing: what evaluation does to an image, under timm's names.
    """
    return {
        "size": int(preprocessing["input_size"][-1] / preprocessing["crop_pct"]),
        "interpolation": preprocessing["interpolation"],
        "squash": preprocessing.get("crop_mode") == "squash",
    }


def fit(
    image: Image.Image, size: int, resample: Image.Resampling, at: float = 0.5, squash: bool = False
) -> Image.Image:
    """The short side becomes `size` (the long one is floored), then a square is cropped, `at` 0 from the start of the
    long side, 1 from its end, 0.5 from the centre (offsets half to even); `squash`: both sides become `size`."""
    width, height = image.size
    if squash:
        return image if image.size == (size, size) else image.resize((size, size), resample)
    short = min(width, height)
    if short != size:
        new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
        image = image.resize(new, resample)
    left, top = (round((side - size) * at) for side in image.size)
    return image if image.size == (size, size) else image.crop((left, top, left + size, top + size))


def decode(
    image: Image.Image,
    size: int,
    interpolation: str = "bilinear",
    at: float = 0.5,
    value_range: Range = None,
    squash: bool = False,
) -> torch.Tensor:
    """uint8 [3, size, size], the square that `fit` makes.

    Raises `BadImage` with the reason when the file is damaged or the image is of no use.
    """
    resample = resampling(interpolation)  # first: a wrong name is the caller's error, not the image's
    with decoding():
        check_size(*image.size)
        pixels = np.array(fit(to_rgb(image, value_range), size, resample, at, squash))  # [S, S, 3]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
