"""Masks whose colours say the classes: how they are read, and the palette of those that this library writes.

A mask of ours is a palette PNG of class numbers; in data whose colours are declared its palette has those, so that its
numbers and its colours say the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from ...errors import UserError
from ...mask_palette import IGNORE, IGNORE_COLOR, RGB, voc_color
from ...text import listed

Colors = dict[str, list[RGB]]  # of a class, the one it is painted in first
SMOOTHED = 8  # strange colours in a mask; more of them are mixtures, which no line of a file of classes mends
FIRST = 24  # from here on a palette of ours has PASCAL VOC's colours, where no class has a number so high


class MaskFault(UserError):
    """A mask that cannot be used. what: the fault alone. kind: of faults for which the advice is the same."""

    kind = "size"

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what} {advice}")
        self.what = what


class WrongColors(MaskFault):
    kind = "colors"


class SmoothedColors(MaskFault):
    kind = "smoothed colors"


class NumbersAmongColors(MaskFault):
    kind = "numbers among colors"


def from_colors(image: Image.Image, pairs: Sequence[tuple[RGB, int]], num_classes: int, id: str) -> np.ndarray:
    """uint8 [H, W] of classes by the colour of each pixel. pairs: (colour, class); class 255 takes no part.

    Raises:
        UserError: a colour is none of these, or it is a mask of ours with other colours.
    """
    if (own := palette_of_ours(image, num_classes)) is not None:
        return _by_number(np.asarray(image), own, pairs, id)
    rgb = np.asarray(image.convert("RGB"))
    codes = _packed(np.array([color for color, _ in pairs]))
    order = np.argsort(codes, kind="stable")
    pixels = _packed(rgb)
    at = order[np.searchsorted(codes[order], pixels).clip(max=len(codes) - 1)]
    strange = codes[at] != pixels
    if strange.any():
        codes_of, counts = np.unique(pixels[strange], return_counts=True)
        code = int(codes_of[counts.argmax()])  # of all strange ones, that of the most pixels
        color = code >> 16, code >> 8 & 255, code & 255
        if image.mode in ("L", "1", "I;16", "I") and not _beyond(np.asarray(image), num_classes):
            raise _numbers(id, f"its values are {listed(map(str, np.unique(np.asarray(image))), 8)}")
        near, k = min(pairs, key=lambda pair: sum((a - b) ** 2 for a, b in zip(pair[0], color, strict=True)))
        means = "of no class" if k == IGNORE else f"of class {k}"
        more = f"{len(counts)} strange colours, such as" if len(counts) > 1 else "the colour"
        what = (
            f"The mask of image {id!r} has {more} {color} in {counts.max()} of its pixels, which is none of the "
            f"{len(codes)} declared ones; the nearest one is {near}, {means}."
        )
        if len(counts) > SMOOTHED:
            raise SmoothedColors(
                what,
                "So many come of smoothed edges (antialiasing) or of JPEG: draw or save the masks without it, as PNG.",
            )
        raise WrongColors(
            what,
            f"If it means the same, add a line with that name and {hexadecimal(color)} to the file of classes; if it "
            "is no class, with the name 'ignore' (JPEG blurs colours: use PNG).",
        )
    return np.array([k for _, k in pairs], np.uint8)[at]


def hexadecimal(color: Iterable[int]) -> str:
    return "#" + "".join(f"{v:02x}" for v in color)


def further_color(name: str, names: Collection[str], colors: Colors) -> Colors:
    """The colour of a class that is new beside `names`: the first of PASCAL VOC's that is free, where each of them has
    one; else none."""
    if not names or not colors.keys() >= {*names}:
        return {}
    taken = {IGNORE_COLOR, *(color for of in colors.values() for color in of)}
    return {name: [next(color for color in map(voc_color, range(1, IGNORE)) if color not in taken)]}


def lines_of(names: Iterable[str], colors: Mapping[str, Iterable[Iterable[int]]]) -> str:
    """The text of a file of classes; colours of no class stay in it too."""
    of = {name: colors.get(name) or [()] for name in [*names, *colors]}
    return "".join(f"{name} {hexadecimal(c)}\n" if c else f"{name}\n" for name, every in of.items() for c in every)


def palette_of_ours(image: Image.Image, num_classes: int) -> np.ndarray | None:
    """uint8 [256, 3] of a palette PNG that `predict` or the page for masks wrote; None of any other picture."""
    colors = image.getpalette() if image.mode == "P" else None
    if colors is None or len(colors) != 3 * 256:
        return None
    colors = np.array(colors, np.uint8).reshape(256, 3)
    rest = range(max(FIRST, num_classes), IGNORE)
    ours = all(tuple(colors[k]) == voc_color(k) for k in rest) and tuple(colors[IGNORE]) == IGNORE_COLOR
    return colors if ours else None


def _by_number(values: np.ndarray, own: np.ndarray, pairs: Sequence[tuple[RGB, int]], id: str) -> np.ndarray:
    """A mask of ours, where the colours of its numbers are those of the classes."""
    classes = {tuple(color): k for color, k in pairs}
    for k in np.unique(values).tolist():
        color = tuple(own[k].tolist())
        if k != IGNORE and classes.get(color) != k:
            known = [tuple(c) for c, number in pairs if number == k]
            raise _numbers(id, f"{k} in it is {color}, and declared {known[0] if known else 'for no class'}")
    return values


def _numbers(id: str, what: str) -> MaskFault:
    return NumbersAmongColors(
        f"The mask of image {id!r} looks like class numbers, as `predict` and the page of `label` write them, not like "
        f"the declared colours ({what}).",
        "Let a model that was trained from these colours predict it again, or save it in them.",
    )


def _beyond(values: np.ndarray, num_classes: int) -> bool:
    return bool(((values >= num_classes) & (values != IGNORE) | (values < 0)).any())


def _packed(c: np.ndarray) -> np.ndarray:
    c = c.astype(np.int32)
    return c[..., 0] << 16 | c[..., 1] << 8 | c[..., 2]
