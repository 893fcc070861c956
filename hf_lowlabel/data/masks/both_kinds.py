"""Pictures of masks and annotations in one data set, of which one kind alone is read."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from ...errors import UserError
from ...text import warn
from ..annotations.annotated import UNKNOWN, Annotations, Objects
from ..annotations.annotations import json_and_xml, outlines_in_text
from ..annotations.placing import Pictures, place_images
from ..files.folders import listing, path_inside
from ..files.uploads import Uploads
from ..pixels.images import EXTENSIONS
from .mask_files import MaskFiles


def pictures_count(path: Path, found: MaskFiles) -> bool:
    """Whether the masks of a split are its pictures of masks, and not what annotations draw.

    Args:
        path: the data set.
        found: the images of the split and their pictures of masks.

    Returns:
        False where there are no such pictures, and annotations.

    Raises:
        UserError: each kind has images of its own.
    """
    if found.masks and not any_annotations(path):
        return True
    drawn = outlined(path, found)
    alone = [id for id in drawn if id not in found.masks]
    if not found.masks:
        return not drawn
    mask = (found.mask_root / next(iter(found.masks.values())).path).relative_to(path).as_posix()
    if alone:
        raise UserError(
            f"In {path.name!r} {len(found.masks)} images have a picture of a mask, such as {mask}, and {len(alone)} "
            f"others have objects in files of annotations, such as {drawn[alone[0]]}: one kind alone is read. Take the "
            "pictures elsewhere to learn from the annotations, or the files of annotations to learn from the pictures."
        )
    if drawn:
        warn(
            f"The images in {path.name!r} have both pictures of masks, such as {mask}, and annotations, such as "
            f"{next(iter(drawn.values()))}: the pictures count. Take them elsewhere to learn from the annotations."
        )
    return True


def outlined(path: Path, found: MaskFiles) -> dict[str, str]:
    """Images of the split for which annotations draw an object, with the name of the file; the first alone where each
    image has a picture of its mask."""
    files, drawn = list(found.files.values()), dict[str, str]()
    inside = path_inside(path, found.images.root)
    all_have = len(found.masks) == len(files)
    with contextlib.suppress(*[UserError] if all_have else []):  # a fault in what nobody needs
        texts = outlines_in_text(path, found.images.root, files, skip_faults=True)
        parts = (part for part in itertools.chain(json_and_xml(path), texts) if some_drawn(part))
        first = next(parts, None)
        if first is None:  # nobody needs the names of the images
            return drawn
        every = Pictures([file.id for file in (listing(path) if inside else files)])
        ids, uploads = {f"{inside}{file.id}": id for id, file in found.files.items()}, Uploads(every.ids)
        batches = ([part] for part in itertools.chain([first], parts)) if all_have else [[first, *parts]]
        for part, name, id, _ in itertools.chain.from_iterable(place_images(b, path, every, uploads) for b in batches):
            if id in ids and is_drawn(part.images[name]):
                drawn[ids[id]] = part.file.name
                if all_have:
                    break
    return drawn


def any_annotations(folder: Path, deep: int = 3) -> bool:
    """Whether any file may hold some, so many folders down; it takes a tenth of looking for them."""
    below = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # one that nobody may read
        for entry in entries:
            ending = entry.name[entry.name.rfind(".") :].lower()
            if ending in (".json", ".xml", ".txt") and entry.name != "classes.txt":
                return True
            if ending not in EXTENSIONS and deep and entry.is_dir():
                below.append(folder / entry.name)
    return any(any_annotations(one, deep - 1) for one in below)


def some_drawn(part: Annotations) -> bool:
    return any(map(is_drawn, part.images.values()))


def is_drawn(objects: Objects) -> bool:
    return any(shape.label != UNKNOWN for shape in objects.shapes)
