"""Whether the images that were copied to be labeled are still those of their ids in the data."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..data.dataset import ImageDataset
from ..data.pixels.images import BadImage, load_rgb, open_image
from ..errors import UserError
from ..files import read_bytes
from ..text import listed
from .display import file_to_show
from .labels import Asked
from .other_rounds import beside

log = logging.getLogger("hf_lowlabel")


def is_copy(copy: Path, source: ImageDataset, i: int) -> bool:
    """Whether a file that `export` wrote is of image i."""
    try:
        if file := source.of_opened(i, file_to_show):
            return read_bytes(file) == read_bytes(copy)
        with open_image(copy) as image:
            return np.array_equal(np.asarray(load_rgb(image)), np.asarray(source.rgb(i)))
    except (OSError, UserError, BadImage):
        return False


def compared(place: Path, asked: Asked, source: ImageDataset) -> dict[str, bool]:
    """Id -> whether the copy in a folder to label shows the image of that id now; of those that both have."""
    at = {id: i for i, id in enumerate(source.ids)}
    copies = {id: place / "images" / file for file, id in asked.files.items() if id in at}
    return {id: is_copy(copy, source, at[id]) for id, copy in copies.items() if copy.is_file()}


def check_same(place: Path, source: ImageDataset) -> None:
    """UserError where ids mean other images than those labeled in a folder, or in another one of its loop.

    Ids that are numbers of rows mean others once one has moved, so that a single image tells; a few files of the same
    name were edited, or replaced, which a warning says.
    """
    for folder in (place, *beside(place)):
        asked = Asked.load(folder)
        if asked.fingerprint in (None, source.fingerprint):
            continue
        same = compared(folder, asked, source)
        others = [id for id, alike in same.items() if not alike]
        rows = all(id.isdecimal() for id in same)
        if not others:
            continue
        found = f"{len(others)} of the {len(same)} images of {folder} are others in {source.name!r} now: "
        if rows or 2 * len(others) > len(same):
            why = "rows have moved, or it is another split" if rows else "other files have their names"
            then = "Give the data as they were, with new rows at the end" if rows else "Put the images back"
            raise UserError(
                f"{found}{listed(others, 5)} ({why}). Labels would go to images that they were not given to. {then}, "
                "or label them anew."
            )
        log.warning("%s%s; their labels are kept", found, listed(others, 5))
