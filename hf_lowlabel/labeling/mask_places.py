"""Where the masks of a folder of images are, or will be: masks/ beside images/, or 1_mask.png beside 1.jpg, as training
reads them; and how one is read and written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..arguments import DataArguments
from ..data.annotations.annotations import find_drawn
from ..data.files.folder_names import IMAGE_FOLDERS, MASK_FOLDERS
from ..data.files.folders import ALIASES, holds_images, image_files, is_predicted, is_table, subfolders
from ..data.files.table_files import stem
from ..data.masks.mask_folders import find_files, layout, named, pair_roots
from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.images import Range, decoding, load_rgb, open_image, upright, upright_size
from ..data.pixels.mask_colors import Colors, MaskFault
from ..data.pixels.mask_kinds import is_painted
from ..data.pixels.masks import IGNORE, MaskFormat, NoNumbers, check_size, decode_mask, list_classes, make_coding
from ..data.splits.division import of_split, opened_as, read_division, split_of
from ..data.splits.split_roots import opened_folder
from ..errors import UserError
from ..evaluation.overlays import save_mask
from ..files import whole
from ..text import series
from .labels import Asked
from .next_steps import colored_by, painted_binary, why_not_mixed
from .predicted import predicted

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".gif": "GIF"}  # that keep class numbers
LAYOUTS = ("folder", "beside", None)  # that new masks are written into


class DrawnMasks(UserError):
    """Annotations of another tool draw the masks of a folder."""


@dataclass
class Place:
    """image: its file. mask: the file of its mask, which may not be there yet. colors: the file of the colours that it
    is to have, beside the numbers that the page gives it; None: nobody has said that the masks are of colours. binary:
    it is to have 0 and 255 once it is painted whole. numbers: somebody has said that it is of numbers."""

    image: Path
    mask: Path
    colors: Path | None = None
    binary: bool = False
    numbers: bool = False


def find_places(
    folder: Path, split: str = "train", selected: bool = False, mask_format: str | None = None
) -> dict[str, Place]:
    """Image id -> its files, in the order of the ids.

    Args:
        folder: of images, and of masks where there are some.
        split: which part of it.
        selected: `select` wrote it.
        mask_format: "binary" or "index", of a folder that `select` did not write; None: nobody has said it.

    Raises:
        UserError: there are no images, two of them have the same name but for the extension, the layout is one of a
            published data set, annotations of another tool draw the masks, or they lie beside the folder.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}. Give one of images, or what `hf-lowlabel select` wrote.")
    if not selected and is_predicted(folder):
        named = folder / CLASSES_FILE
        colors = named if named.is_file() and list_classes(named)[1] else None
        return {name: Place(image, mask, colors) for name, (image, mask) in predicted(folder).items()}
    if not selected:
        refuse_half(folder)
        opened_folder(folder, itself=True)  # masks and the names of their classes are written into it
    kind = layout(folder)
    if kind not in LAYOUTS:
        raise UserError(f"{str(folder)!r} is laid out as {kind}, which has its own masks. Give a folder of images.")
    division = None if selected else read_division(folder, skip_missing=True, masks=True)
    if kind is None:
        root, _, own = split_of(folder, split, division)
        every, known, masks = {file.id: file for file in image_files(root)}, dict[str, Path](), None
        kept = of_split(division, folder, root, list(every), split, own)
        files = {id: file for (id, file), here in zip(every.items(), kept) if here}
    else:
        found, own = opened_as(split, division, lambda name: find_files(folder, name))
        every = found.files
        found = found.only(of_split(division, folder, found.images.root, list(every), split, own))
        root, files = found.images.root, found.files
        known = {id: found.mask_root / file.path for id, file in found.masks.items()}
        masks = mask_root(folder, own, root, found.mask_root, bool(known)) if kind == "folder" else None
    if twice := [name for name, count in Counter(map(stem, files)).items() if count > 1]:
        raise UserError(
            f"Two images are called {twice[0]!r} but for their extension, by which masks are found. Rename one."
        )
    try:
        drawn = not selected and not known and find_drawn(folder, root, list(every.values()), None, False, True)
    except UserError as error:
        if root == folder:
            raise
        raise UserError(f"{error} To paint masks of the images all the same, give {str(root)!r} alone.") from error
    if drawn:
        raise DrawnMasks(
            f"The masks of {str(folder)!r} are drawn in a file of annotations, which masks painted on the page would "
            "take the place of. Draw those of further images with the tool they are from, into the same folder, where "
            "all of them are read."
        )
    asked, out = Asked.load(folder) if selected else None, {}
    colors, binary = (
        (colored_by(folder, asked), painted_binary(folder, asked)) if asked else (None, mask_format == "binary")
    )
    for id, file in files.items():
        path = PurePosixPath(file.path)
        new = root / path.with_name(f"{path.stem}_mask.png") if masks is None else masks / path.with_suffix(".png")
        out[id] = Place(root / file.path, known.get(id, new), colors, binary, mask_format == "index")
    return out


def refuse_half(dataset: Any) -> None:
    """UserError for the images of a pair of folders alone, beside which their masks would be given a second time.

    What is called as a folder of masks is none where it has no picture, and nothing in it can be read as masks, as
    labels/ of YOLO's boxes.
    """
    folder = Path(dataset).expanduser() if isinstance(dataset, (str, Path)) else None
    if folder is None or not folder.is_dir():
        return
    inside = folder.resolve()
    if inside.name.lower() in ALIASES and inside.parent.name.lower() in IMAGE_FOLDERS:  # images/train/
        inside = inside.parent
    of_masks = named(subfolders(inside.parent), MASK_FOLDERS) if inside.name.lower() in IMAGE_FOLDERS else []
    if of_masks and not any(map(holds_images, of_masks)):
        try:
            find_places(inside.parent)
        except DrawnMasks:
            pass
        except UserError:
            return
    if of_masks:
        raise UserError(
            f"The masks of {str(folder)!r} lie in {of_masks[0].name}/ beside {inside.name}/. Give the folder that both "
            f"are in, {str(inside.parent)!r}."
        )


def why_unpainted(data: DataArguments, images: Path | None = None) -> str:
    """Why no masks can be painted for data; "" where they can. images: to paint, which the words then name."""
    return why_not_mixed(vars(data), images) or why_not_painted(data.dataset, data.dataset_split)


def why_not_painted(dataset: Any, split: str = "train") -> str:
    """Why no painted mask can be put beside the images of a data set; "" where it can, or where this is no folder of
    images. Raises UserError where another folder is to be given."""
    path = Path(dataset).expanduser() if isinstance(dataset, (str, Path)) else None
    if path is None or not path.is_dir() or is_table(path):
        return ""
    refuse_half(path)
    try:
        find_places(path, split)
    except UserError as error:
        return str(error)
    return ""


def mask_root(folder: Path, split: str, images: Path, found: Path, any_masks: bool) -> Path | None:
    """The folder that new masks go to; None: beside the images, as those that are there already."""
    if found != images:
        return found
    if any_masks:
        return None
    parent = pair_roots(folder, split)[0].parent
    inner = parent != folder and parent.name.lower() in IMAGE_FOLDERS  # images/train/ has masks/train/
    return parent.parent / "masks" / images.name if inner else parent / "masks"


def read_rgb(file: Path, value_range: Range = None) -> np.ndarray:
    """uint8 [H, W, 3], upright; of more than 8 bits from `value_range`."""
    with open_image(file) as image:
        return np.asarray(load_rgb(image, value_range))


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) in px, upright."""
    with open_image(file) as image, decoding():
        return upright_size(image)


def read_mask(place: Place, names: list[str], colors: Colors) -> np.ndarray | None:
    """Classes uint8 [H, W], 255 where none; None where there is no mask.

    Args:
        place: where it is.
        names, colors: of the classes; colours that not all of them have mean nothing.

    Raises:
        UserError: it is no mask of class numbers or of those colours, means one thing by the ones and another by the
            others, or is of another size than the image.
    """
    if not place.mask.is_file():
        return None
    with open_image(place.mask) as opened, decoding():
        image = upright(opened)  # as training reads it
        check_size(image.size, image_size(place.image), place.image.name)
        try:
            found = decoded(image, place, coding_of(place, names, colors), max(1, len(names)))
        except NoNumbers as error:  # masks of one folder are all alike, and no flag says otherwise
            raise UserError(
                f"{error.what} A mask that is painted over or put beside the images has the number of a class at each "
                "pixel, in the order of classes.txt from 0, and 255 where nothing is painted. Save it so, in one "
                f"channel, name more classes, or move {place.mask.name} elsewhere."
            ) from error
        drawn_binary = (
            not (place.colors or place.binary or place.numbers)
            and image.mode != "P"
            and set(np.unique(found).tolist()) == {0, IGNORE}
        )
    if drawn_binary:
        raise UserError(
            f"The mask of {place.image.name} has nothing but 0 and 255, as masks of one object have. This page reads "
            "and writes class numbers (0, 1, ...; 255: not painted): save it as 0 and 1, or move it elsewhere."
        )
    return found


def decoded(image: Image.Image, place: Place, coding: MaskFormat, num_classes: int) -> np.ndarray:
    """Classes by number; by colour where masks are of colours, or this one cannot be of numbers."""
    read = partial(decode_mask, image, num_classes=num_classes, id=place.image.name)
    if place.binary:
        return read(MaskFormat() if is_painted(image) else MaskFormat("binary"))
    if place.colors is not None or coding.kind == "index":
        return read(coding)
    try:
        numbers = read(MaskFormat())
    except NoNumbers:
        if image.mode in ("RGB", "RGBA"):
            return read(coding)
        raise
    try:
        colored = read(coding)
    except MaskFault:
        return numbers
    if (colored != numbers).any():
        raise UserError(
            f"The mask of {place.image.name} says one thing by its numbers and another by its colours, which are those "
            f"of {CLASSES_FILE}. Save it as an RGB picture if the colours are right, or take the colours out of "
            f"{CLASSES_FILE} if the numbers are."
        )
    return numbers


def coding_of(place: Place, names: list[str], colors: Colors) -> MaskFormat:
    """How a mask is written. Raises UserError where masks are of colours, and not each of the classes has one."""
    missing = [name for name in names if name not in colors]
    if place.colors is None:
        every = [color for of in colors.values() for color in of]
        known = bool(names) and not missing and len(every) == len({*every})
        return make_coding("colors", names, colors, ()) if known else MaskFormat()
    if missing:
        raise UserError(
            f"The masks of the data are of colours, and {str(place.colors)!r} says none of {series(missing[:8])}. "
            f"Write it there, one class a line in the order of its number, such as '{missing[0]} #00ff00'."
        )
    return make_coding("colors", names, colors, ())


def stamp_of(place: Place) -> str:
    """Of the mask as it lies on the disk; "" where there is none."""
    try:
        found = place.mask.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"


def write_mask(place: Place, mask: np.ndarray, names: list[str], colors: Colors) -> None:
    """A palette picture of class numbers, whole or not at all, in the colours of the classes where each has one; none
    is left of a mask in which nothing is painted.

    Among masks of 0 and 255 one that is painted whole is such a mask; they have no value for a pixel that is not.
    It has the format that its name says. One that does not keep numbers, as JPEG and WebP, becomes PNG, and so does the
    name in `place`.
    """
    if (mask == IGNORE).all():
        place.mask.unlink(missing_ok=True)
        return
    format = FORMATS.get(place.mask.suffix.lower())
    with whole(place.mask) as part:
        if place.binary and mask.max() <= 1:
            Image.fromarray(255 * mask).save(part, format or "PNG")
        else:
            save_mask(mask, names, part, format or "PNG", declared=coding_of(place, names, colors).class_colors())
    if format is None:
        place.mask = with_ending(place.mask, ".png")


def with_ending(mask: Path, ending: str) -> Path:
    """A mask called as what it holds: by a rename, so that its image has one at any time. Returns its name."""
    named = mask.with_suffix(ending)
    return mask if mask.suffix.lower() == ending.lower() or named.exists() else mask.replace(named)
