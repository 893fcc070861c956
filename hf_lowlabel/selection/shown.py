"""What a person is shown of an image: what a network sees of it, in a file that browsers show."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..data.images import is_deep
from .server import TYPES

FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "AVIF")  # that browsers show, by content


def file_to_show(image: Image.Image) -> Path | None:
    """The file of a picture, just opened, where a browser shows of it what a network sees; None: save it as PNG.

    A browser plays an animation, and knows of no range of values; of a MPO it shows the first picture, which is the
    one that is read.
    """
    file = Path(getattr(image, "filename", "") or "")
    one = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
    same = one and image.format in FORMATS and not is_deep(image)
    return file if same and file.suffix.lower() in TYPES and file.is_file() else None
