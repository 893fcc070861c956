"""What values and colours of masks mean by themselves: what `overlays` writes, and the data are recognised by."""

RGB = tuple[int, int, int]
IGNORE = 255  # value of a pixel that takes no part, in every mask this library hands on
IGNORE_COLOR: RGB = (128, 128, 128)


def voc_color(k: int) -> RGB:
    """PASCAL VOC's colour of class k: its bits 0, 3, 6 ... from the top of red, 1, 4 ... of green, 2, 5 ... of blue."""
    red, green, blue = (sum((k >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))
    return red, green, blue
