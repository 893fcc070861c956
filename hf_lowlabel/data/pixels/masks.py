"""What the pixels of a mask mean: from a file to class indices uint8 [H, W], 255 where a pixel takes no part.

    index    the value is the class (palette PNGs too: VOC, CamVid); 255 and declared values take no part
    binary   below 128 is class 0, the rest class 1: masks of 0 and 255, also JPEGs of them; 0 and 1 are an error
    colors   each class has an RGB colour; a colour that belongs to none is an error
    instances   0 (or black) is class 0, every other number or colour an object: class 1

A mask may be drawn into the transparency of its picture: opaque where the object is.

The meaning is declared, never guessed: 255 is "no part" in one data set and "object" in the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError, unknown
from ...files import read_text
from ...mask_palette import IGNORE as IGNORE, IGNORE_COLOR, RGB
from ...text import series, warn
from .mask_colors import Colors, MaskFault, from_colors

FORMATS = ("index", "binary", "colors", "instances")
MAX_CLASSES = 255
IGNORED_NAMES = ("ignore", "void", "unlabeled")  # lines of a file of classes that name a colour of no class


class NoNumbers(MaskFault):
    """A mask that does not hold numbers of classes; what to do depends on who reads it."""

    kind = "numbers"


@dataclass(frozen=True)
class MaskFormat:
    """How the masks of a source are coded.

    ignore: raw values that take no part, beside 255. table: class of every raw value 0..255, for sources whose values
    are no class indices. colors: (RGB, class) pairs; class 255 = takes no part. declared: a person has named the kind.
    """

    kind: str = "index"
    ignore: tuple[int, ...] = ()
    table: tuple[int, ...] | None = None
    colors: tuple[tuple[RGB, int], ...] = ()
    declared: bool = False

    def __post_init__(self) -> None:
        if self.kind not in FORMATS:
            raise unknown("mask format", self.kind, FORMATS)
        if self.kind == "colors" and not self.colors:
            raise UserError(
                "Mask format 'colors' needs the colour of each class. Give the classes as a file with lines such as "
                "'sky #87ceeb'."
            )
        wrong = [v for v in self.ignore if not 0 <= v <= 255]
        if wrong:
            raise UserError(f"The ignored mask value {wrong[0]} is not in 0..255.")

    def class_colors(self) -> list[list[int]] | None:
        """The first colour of each class, in order, where masks are of colours."""
        first: dict[int, RGB] = {}
        for color, k in self.colors:
            first.setdefault(k, color)
        return [list(first[k]) for k in range(len(first.keys() - {IGNORE}))] if self.kind == "colors" else None


def decode_mask(image: Image.Image, coding: MaskFormat, num_classes: int, id: str) -> np.ndarray:
    """uint8 [H, W] of classes 0..num_classes-1 and 255. A UserError names the image and the offending value."""
    if coding.kind == "binary":
        return _from_binary(image, coding, id)
    if coding.kind in ("index", "instances") and image.format in ("JPEG", "MPO"):
        _refuse_blurred(image, id)
    if coding.kind == "instances":
        return _from_instances(image, coding, id)
    if coding.kind == "colors":
        return from_colors(image, coding.colors, num_classes, id)
    raw = one_channel(image, id)
    low, high = int(raw.min()), int(raw.max())
    if low < 0 or high > 255:
        raise _beyond(id, low if low < 0 else high, num_classes)
    raw = raw.astype(np.uint8)
    out = raw if coding.table is None else np.asarray(coding.table, np.uint8)[raw]
    if coding.ignore:
        out = np.where(np.isin(raw, coding.ignore), np.uint8(IGNORE), out)
    wrong = out[(out >= num_classes) & (out != IGNORE)]
    if len(wrong):
        raise _beyond(id, int(wrong.min()), num_classes)
    return out


def _refuse_blurred(image: Image.Image, id: str) -> None:
    """JPEG makes other numbers of the numbers along every border."""
    if np.ptp(np.asarray(image.convert("L"))):
        raise NoNumbers(
            f"The mask of image {id!r} is a JPEG, which blurs numbers into others.",
            "Give --mask-format binary for masks of 0 and 255, else save the masks as PNG where they were drawn.",
        )


def one_channel(image: Image.Image, id: str) -> np.ndarray:
    """The numbers [H, W] of a mask. Raises UserError for colours, fractions and a drawn transparency."""
    values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.ndim == 2 and np.issubdtype(values.dtype, np.integer):
        return values
    if image.mode == "F":
        if (values == np.round(values)).all():  # False of NaN
            return values.astype(np.int64)
        raise UserError(
            f"The mask of image {id!r} holds fractions or NaN, which are no class numbers. Save the masks as whole "
            "numbers."
        )
    values = _plain(image, id)
    if values.ndim == 2:
        return values
    raise NoNumbers(
        f"The mask of image {id!r} is of mode {image.mode}, not one channel of class indices.",
        "Give --mask-format colors with the colour of each class, or save the masks as indices.",
    )


def _plain(image: Image.Image, id: str, objects: bool = False) -> np.ndarray:
    """The numbers [H, W], also of gray written as RGB, else the colours [H, W, C], without a transparency.
    objects: they may be drawn on transparent black, which is no object either way."""
    values = np.asarray(image)
    if "A" in image.getbands():
        clear = values[..., -1] == 0
        if values[..., -1].min() != values[..., -1].max() and (not objects or values[clear].any()):
            raise NoNumbers(
                f"The mask of image {id!r} has a drawn transparency (mode {image.mode}), which is no class index.",
                "Give --mask-format binary if the object is what is opaque, or save the masks as indices.",
            )
        values = values[..., :-1]
    one = values.ndim == 3 and (values.shape[2] == 1 or (image.mode[:3] == "RGB" and (values == values[..., :1]).all()))
    return values[..., 0] if one else values


def _transparency(image: Image.Image, id: str) -> np.ndarray | None:
    """The object where it is drawn into the transparency; None where all is opaque alike."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    pixels = np.asarray(image.convert("RGBA"))
    opaque, bright = pixels[..., 3] >= 128, np.asarray(image.convert("RGB").convert("L")) >= 128
    if opaque.all() or not opaque.any():
        return None
    if bright.any() and not bright.all() and (bright != opaque).any():
        raise UserError(
            f"The mask of image {id!r} says one thing by its colours and another by its transparency. Save it as 0 and "
            "255 without transparency."
        )
    return opaque.astype(np.uint8)


def _from_instances(image: Image.Image, coding: MaskFormat, id: str) -> np.ndarray:
    values = _plain(image, id, objects=True)
    out = ((values != 0).any(-1) if values.ndim == 3 else values != 0).astype(np.uint8)
    return np.where(_ignored(image, coding, id), np.uint8(IGNORE), out)


def _ignored(image: Image.Image, coding: MaskFormat, id: str) -> np.ndarray:
    """bool [H, W], where the values are declared as ignored."""
    if not coding.ignore:
        return np.zeros((image.height, image.width), bool)
    value, has = coding.ignore[0], "is a JPEG, which blurs"
    if image.format not in ("JPEG", "MPO"):
        has = "has colours or a transparency instead of"
        try:
            if (values := _plain(image, id)).ndim == 2:
                return np.isin(values, coding.ignore)
        except NoNumbers:
            pass
    raise UserError(
        f"The mask of image {id!r} {has} the value {value} that is to be ignored. Leave out --mask-ignore, or save the "
        "masks as gray PNGs where they were drawn."
    )


def _from_binary(image: Image.Image, coding: MaskFormat, id: str) -> np.ndarray:
    """JPEG and soft edges give any gray, but with a bright one beside it; several values that are all dark are class
    numbers or colours, and the object would be lost."""
    ignored, drawn = _ignored(image, coding, id), _transparency(image, id)
    if drawn is not None:
        return np.where(ignored, np.uint8(IGNORE), drawn)
    gray, found = np.asarray(image.convert("L")), None
    counted = gray[~ignored] if coding.ignore else gray
    # one dark value alone is background: a JPEG may turn 0 into 1 or 2
    if counted.size and counted.min() < counted.max() < 128:
        raw = np.asarray(image)
        values = np.unique((raw if raw.ndim == 2 else gray)[~ignored])[:8].tolist()
        found = f"has nothing but the values {', '.join(map(str, values))}"
    elif image.mode == "P":
        rgb = np.asarray(image.convert("RGB"))
        unpainted = (np.asarray(image) == IGNORE) & (rgb == IGNORE_COLOR).all(2)  # on our page
        if (unpainted & ~ignored).any():
            raise UserError(
                f"The mask of image {id!r} is of class numbers, with pixels that nobody has painted, for which masks "
                "of format 'binary' have no value. Fill the rest (r) on the page of `hf-lowlabel label FOLDER --task "
                "segmentation --mask-format binary`, or remove the mask."
            )
        coloured = (np.ptp(rgb, axis=2) > 48) & (gray < 192)  # VOC's classes, not its pale border
        coloured &= ~ignored
        found = f"has the palette's colour {tuple(rgb[coloured][0].tolist())}" if coloured.any() else None
    if found:
        raise UserError(
            f"The mask of image {id!r} {found}, and a mask of format 'binary' has 0 and 255. Use --mask-format index "
            "if the values are class numbers, or save the masks as 0 and 255."
        )
    return np.where(ignored, np.uint8(IGNORE), (gray >= 128).astype(np.uint8))


def _beyond(id: str, value: int, num_classes: int) -> NoNumbers:
    return NoNumbers(
        f"The mask of image {id!r} has the value {value}; classes are 0..{num_classes - 1}, and 255 is ignored.",
        "Name more classes (--classes), leave the value out (--mask-ignore), for masks of 0 and 255 give --mask-format "
        "binary, for shades of gray --mask-format colors with the colour of each class, or give --instances if each "
        "number is one object."
        + (" If the numbers begin with 1, name before the others what 0 is." if value == num_classes else ""),
    )


def check_values(present: np.ndarray, coding: MaskFormat, count: int, name: str) -> None:
    """`present`: bool [256], which values the `count` labeled masks of a source hold together.

    Nothing but 0 and 255 is what a binary mask looks like when it is read as indices.
    """
    values = set(np.flatnonzero(present).tolist())
    if coding.kind == "index" and values == {0, IGNORE} and IGNORE not in coding.ignore:
        raise of_objects(count, name)
    if values <= {IGNORE}:
        raise UserError(
            f"There is no pixel of any class in {count} labeled masks of {name!r}. Correct the masks, or the values "
            "declared as ignored."
        )


def of_objects(count: int, name: str) -> UserError:
    return UserError(
        f"There is nothing but 0 and 255 in {count} masks of {name!r}, where 255 marks ignored pixels. "
        "Give --mask-format binary if 255 is the object, or --mask-ignore 255 if it is not."
    )


def check_size(mask_size: tuple[int, int], image_size: tuple[int, int], id: str, turned: bool = False) -> None:
    """(width, height) of both, of the image as it stands upright. turned: its orientation tag turns it."""
    if mask_size != image_size:
        if turned and mask_size == image_size[::-1]:
            raise UserError(
                f"The mask of image {id!r} is {mask_size[0]} x {mask_size[1]} px, as the file holds the image, which "
                "its orientation tag turns. Remove the tag if the image was labeled without it (exiftool -Orientation= "
                "FILE), or turn the mask too."
            )
        raise MaskFault(
            f"There is a mask of {mask_size[0]} x {mask_size[1]} px for image {id!r} of {image_size[0]} x "
            f"{image_size[1]} px.",
            "Resize the mask by nearest neighbour.",
        )


def make_coding(
    kind: str, names: Sequence[str], colors: Mapping[str, Sequence[RGB]] | None, ignore: Iterable[int]
) -> MaskFormat:
    """The coding a user declared. `colors` may name colours of no class beside those of all classes."""
    pairs = []
    if kind == "colors" and colors:
        missing = [n for n in names if n not in colors]
        if missing:
            raise UserError(
                f"There is no colour for class {missing[0]!r}, and masks of colours need one for each class. Add it "
                "to the file of classes."
            )
        pairs = [(color, k) for k, n in enumerate(names) for color in colors[n]]
        pairs += [(color, IGNORE) for n in colors if n in IGNORED_NAMES and n not in names for color in colors[n]]
        if ignored := [*ignore]:
            warn(
                f"Masks of colours have no value {ignored[0]} to ignore. Give the colour that takes no part a line in "
                f"the file of classes: '{IGNORED_NAMES[0]} #rrggbb'."
            )
        twice = [c for c, _ in pairs if [p for p, _ in pairs].count(c) > 1]
        if twice:
            raise UserError(f"The colour {twice[0]} stands for two classes. Give each its own.")
    return MaskFormat(kind, tuple(int(v) for v in ignore), None, tuple(pairs))


def read_classes(path: str | Path) -> tuple[list[str], Colors]:
    """(names, colours) from a text file: a class a line, in the order of its index; colours where masks have them.

    sky #87ceeb
    road 128 64 128
    road #81407f        another colour of the same class
    ignore #000000      a colour of no class
    """
    names, colors = list_classes(path)
    check_names(names)
    return names, colors


def list_classes(path: str | Path) -> tuple[list[str], Colors]:
    """`read_classes`, of a list that may not be done yet."""
    path = Path(path).expanduser()
    names, colors = list[str](), Colors()
    for line in read_text(path, "Give a text file of classes, one a line.").splitlines():
        name, color = parse_class(line)
        if not name or line.startswith("# label:"):
            continue
        if (name in names or name in colors) and (color is None or color in colors.get(name, [color])):
            raise UserError(f"The class {name!r} is twice in {path.name}. List each once, or each of its colours once.")
        if color is not None:
            colors.setdefault(name, []).append(color)
        if name not in names and not (name in IGNORED_NAMES and color is not None):
            names.append(name)
    return names, colors


def parse_class(line: str) -> tuple[str, RGB | None]:
    """("sky", (135, 206, 235)) from 'sky #87ceeb', 'sky, 135 206 235' or 'sky'."""
    text = line.strip()
    if found := re.fullmatch(r"(.*?:\d+,\d+,\d+):[^:]*:[^:]*", text):  # CVAT's labelmap.txt
        text = found[1]
    if found := re.fullmatch(r"(.*?)[\s,:]+#([0-9a-fA-F]{6})", text):
        code = int(found[2], 16)
        return found[1].strip(), (code >> 16, code >> 8 & 255, code & 255)
    if found := re.fullmatch(r"(.*?)[\s,:]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})", text):
        color = int(found[2]), int(found[3]), int(found[4])
        if max(color) > 255:
            raise UserError(f"The colour {color} of class {found[1]!r} has numbers above 255.")
        return found[1].strip(), color
    return text, None


def check_names(names: Sequence[str]) -> None:
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise UserError(
            f"There are {len(names)} classes ({series(names[:8])}); masks have 2 to {MAX_CLASSES} with different "
            "names. Correct the class names."
        )
