"""Images for the labeling pages: the network's view of an image, in a browser format."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.pixels.images import BadImage, Range, decoding, is_deep, load_rgb, open_image, turned
from .server import BINARY, TYPES, Answer, picture

FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "AVIF")  # that browsers show, by content
# An orientation in EXIF, one number of 16 bits, little- or big-endian: of a JPEG, all that every browser turns it by.
PLAIN_TURN = re.compile(rb"\x12\x01\x03\0\x01\0\0\0|\x01\x12\0\x03\0\0\0\x01")


def file_to_show(image: Image.Image) -> Path | None:
    """The file of a picture, just opened, where a browser shows of it what a network sees; None: save it as PNG.

    A browser plays an animation, and knows of no range of values; of a MPO it shows the first picture, which is the
    one that is read. It does not turn a WebP, nor anything by XMP.
    """
    file = Path(getattr(image, "filename", "") or "")
    one = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
    same = one and image.format in FORMATS and not is_deep(image) and (not turned(image) or _turned_by_all(image))
    return file if same and file.suffix.lower() in TYPES and file.is_file() else None


def _turned_by_all(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO") and bool(PLAIN_TURN.search(image.info.get("exif", b"")))


def answer_of(image: Path, value_range: Range) -> Answer | None:
    """An image as it is where browsers show what a network sees of it, else as PNG; None where there is none."""
    if not image.is_file():
        return None
    try:
        with open_image(image) as opened, decoding():
            as_it_is = file_to_show(opened)
            if as_it_is:
                return picture(as_it_is)
            out = io.BytesIO()
            load_rgb(opened, value_range).save(out, "PNG", compress_level=1)
            return Answer("image/png", out.getvalue())
    except BadImage:
        if image.is_symlink():  # to what is no image
            return None
        raise


def packed(array: np.ndarray) -> Answer:
    """Bytes row by row, little-endian."""
    return Answer(BINARY, gzip.compress(np.ascontiguousarray(array).tobytes(), 1), "gzip")
