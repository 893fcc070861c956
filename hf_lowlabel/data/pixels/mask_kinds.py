"""Whether a mask looks like one of class numbers or like one of 0 and 255, by its pixels: to ask, never to decide."""

from __future__ import annotations

from enum import Enum

import numpy as np
from PIL import Image

from ...errors import UserError
from ...mask_palette import IGNORE, IGNORE_COLOR
from .masks import one_channel

SOFT = 32  # more different values than this are shades along the border of an object


class Kind(Enum):
    """OBJECT: 0 and 255, or drawn into the transparency. COLORS: of red, green and blue. NUMBERS: of classes. BOTH:
    numbers, and 255 where a pixel takes no part. UNKNOWN: none of these, or one value that may be of any; so may a
    palette of 0 and 255, in which programs save numbers alone."""

    OBJECT = "object"
    COLORS = "colors"
    NUMBERS = "numbers"
    BOTH = "both"
    UNKNOWN = "unknown"


def kind_of(image: Image.Image) -> Kind:
    """Of a mask as it was opened."""
    blurred = image.format in ("JPEG", "MPO")
    try:
        values = np.unique(np.asarray(image.convert("L")) if blurred else one_channel(image, ""))
    except UserError:
        if "A" in image.getbands() and np.ptp(np.asarray(image.getchannel("A"))):
            return Kind.OBJECT
        return Kind.COLORS if image.mode in ("RGB", "RGBA") else Kind.UNKNOWN
    ends = values[0] <= 0 and values[-1] >= IGNORE
    if image.mode != "P" and ends and (len(values) == 2 or blurred or len(values) > SOFT):
        return Kind.OBJECT
    if blurred or not ((values > 0) & (values < IGNORE)).any():
        return Kind.UNKNOWN
    return Kind.BOTH if values[-1] == IGNORE else Kind.NUMBERS


def is_painted(image: Image.Image) -> bool:
    """Whether a mask has the palette of those that are written here, and not of another program that draws 0 and 255
    through one."""
    return image.mode == "P" and tuple((image.getpalette() or [])[3 * IGNORE :]) == IGNORE_COLOR
