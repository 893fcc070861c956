"""Images that are in memory, or named there, as a column of a table: encoded, or the path of each."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ...errors import UserError
from ...text import brief
from .images import BadImage, check_pixels, decoding, of_array, upright

WRITTEN = {"HSV": "RGB", "RGBa": "RGBA", "La": "LA", "I;16N": "I"}  # modes that no file has


def encoded_images(images: Sequence, masks: bool = False) -> pa.ChunkedArray:
    """A column of images for a table: of paths, bytes, PIL images, arrays, tensors or {bytes, path}; None is none.

    Args:
        images: the images.
        masks: they are masks, whose arrays may be of any whole numbers.

    Raises:
        UserError: something else is among them.
    """
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    name = "Mask" if masks else "Image"
    values = [None if image is None else encoded_image(image, f"{name} {i}", masks) for i, image in enumerate(images)]
    parts = [pa.array(values[i : i + 1000], kind) for i in range(0, len(values), 1000)]  # one array ends at 2 GiB
    return pa.chunked_array(parts, kind)


def encoded_image(image: Any, what: str, mask: bool) -> dict:
    """See `encoded_images`; what: the image, for the message of a UserError."""
    if isinstance(image, dict):
        return image
    image = of_tensor(image)
    if isinstance(image, np.ndarray):
        image = of_array(image, what, mask)
    if isinstance(image, (str, Path)):
        return {"bytes": None, "path": os.path.abspath(image)}
    if isinstance(image, Image.Image):
        image = bytes_of(image, what)
    if not isinstance(image, bytes):
        raise UserError(
            f"{what} is {brief(image)}. Give files, PIL images, uint8 arrays or tensors [H, W, 3] or [H, W], or "
            "encoded bytes."
        )
    return {"bytes": image, "path": None}


def of_tensor(image: Any) -> Any:
    """The array [H, W, 3] or [H, W] of a tensor of PyTorch, also of [3, H, W], where that cannot be [H, W, 3] as well;
    anything else as it is."""
    if not hasattr(image, "detach"):
        return image
    image = image.detach().cpu()
    array = (image.float() if image.is_floating_point() else image).numpy()  # numpy has no bfloat16
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] == 3 != array.shape[2] else array


def bytes_of(image: Image.Image, what: str) -> bytes:
    """A picture encoded without loss, upright."""
    check_pixels(image.size, what)
    buffer = io.BytesIO()
    try:
        with decoding():
            image = upright(image)
            image = image.convert(WRITTEN[image.mode]) if image.mode in WRITTEN else image
            png = image.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
            image.save(buffer, "PNG", compress_level=0) if png else image.save(buffer, "TIFF")
    except BadImage as error:
        raise UserError(
            f"{what} of mode {image.mode} cannot be read: {error.reason}. Leave it out, or give it as RGB."
        ) from error
    return buffer.getvalue()
