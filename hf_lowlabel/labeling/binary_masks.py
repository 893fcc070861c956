"""Masks that the page does not paint unless somebody says so: it paints numbers of classes, which cannot lie among
those of 0 and 255, nor among those of colours."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.images import BadImage, decoding, open_image
from ..data.pixels.mask_colors import Colors
from ..data.pixels.mask_kinds import Kind, is_painted, kind_of
from ..data.pixels.masks import IGNORE
from ..errors import UserError, unknown
from .mask_places import Place, read_mask, write_mask

log = logging.getLogger("hf_lowlabel")
FORMATS = ("index", "binary")
OF_ONE = ["background", "object"]  # as `finetune` names them where nobody does
ENOUGH = 20  # masks of one kind, and none of numbers, say what a folder has


def check_format(mask_format: str | None, folder: Path, unsaid: bool) -> None:
    """UserError for what is no format that the page paints; unsaid: nobody has said before what the masks are."""
    if mask_format is None:
        return
    if mask_format not in FORMATS:
        raise unknown("mask format", mask_format, FORMATS)
    if not unsaid:
        raise UserError(
            f"What the masks of {str(folder)!r} are is known, and --mask-format is for a folder of images that a "
            "person puts masks beside. Leave it out."
        )


def is_numbered(mask: Path) -> bool:
    """Whether a mask is there that was written here with class numbers; one that cannot be read was not."""
    if not mask.is_file():
        return False
    try:
        with open_image(mask) as image:
            return is_painted(image)
    except BadImage:
        return False


def without_numbers(place: Place, names: list[str], colors: Colors) -> bool:
    """A mask of class numbers, as `predict` writes, becomes one of 0 and 255, if it is painted whole: among these it
    could not be read. Whether it was one."""
    mask = read_mask(place, names, colors) if is_numbered(place.mask) else None
    if mask is None or (mask == IGNORE).any():
        return False
    write_mask(place, mask, names, colors)
    return True


def refuse_unlike(folder: Path, places: Iterable[Place], colored: bool) -> None:
    """UserError where the masks of a folder look like those of 0 and 255, or of colours, and nobody has said what they
    are: beside masks of numbers training would take objects for pixels that nobody has painted, or read nothing.
    colored: the classes have colours."""
    found: dict[Kind, list[str]] = {Kind.OBJECT: [], Kind.COLORS: []}
    for place in places:
        if place.mask.is_file() and not (place.colors or place.binary or place.numbers):
            try:
                with open_image(place.mask) as image, decoding():
                    kind = Kind.UNKNOWN if is_painted(image) else kind_of(image)
            except BadImage:  # which the page says when it comes to it
                continue
            if kind in (Kind.NUMBERS, Kind.BOTH):
                return
            if kind in found:
                found[kind].append(place.mask.name)
            if sum(map(len, found.values())) == ENOUGH:
                break
    objects, colors = found.values()
    if colors and not objects and not colored:
        raise UserError(
            f"The masks in {str(folder)!r} are of colours, such as {colors[0]}, and the page paints numbers of "
            f"classes, which cannot lie among them. Write the classes with their colours into "
            f"{folder / CLASSES_FILE}, one a line, such as 'road #804080': the page then paints in these."
        )
    if objects:
        raise UserError(
            f"The masks in {str(folder)!r} look like masks of 0 and 255, such as {objects[0]}, and the page paints "
            "numbers of classes (0, 1, ...; 255: not painted), which cannot lie among them. Give --mask-format binary "
            "if 255 is the object: the page then paints 0 and 255 too. Give --mask-format index if 255 takes no part."
        )


def all_without_numbers(places: Collection[Place], names: list[str], colors: Colors) -> None:
    """`without_numbers` of every mask that can be read; the page says of the others what is wrong with them."""
    done = 0
    for place in places:
        with suppress(UserError):
            done += place.binary and without_numbers(place, names, colors)
    if done:
        log.warning("%d masks were of class numbers, and are of 0 and 255 now, as the others", done)


def half_painted(places: Iterable[Place]) -> str:
    """Words on the masks that no training reads yet: of 0 and 255, and not painted whole; "" where there are none."""
    open_ = [place.mask.name for place in places if place.binary and is_numbered(place.mask)]
    if not open_:
        return ""
    them = f"{len(open_)} of them are" if len(open_) > 1 else "1 of them is"
    return f" ({them} not painted whole, and stops training, such as {open_[0]}: r fills the rest)"
