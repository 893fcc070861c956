"""Matches masks to images by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from ...errors import UserError
from ...text import warn
from ..pixels.images import EXTENSIONS
from .folders import ImageFile
from .table_files import stem

SUFFIXES = (
    "_mask",
    "_masks",
    "_segmentation",
    "_label",
    "_labels",
    "_gt",
    "-mask",
    "_seg",
)  # appended to a mask's name
MARKS = re.compile(  # of images and masks, before or after what they have in common
    r"^(images?|img|masks?|labels?|seg|gt)[_-](?=.)"
    r"|(?<=.)[_-](images?|img|rgb|masks?|labels?|labelids|lab|l|seg|segmentation|annotation|gt|groundtruth)$"
)


def masks_among(ids: Collection[str]) -> list[str]:
    """Those that are called as another with one of `SUFFIXES` after it."""
    return list(of_others(ids))


def of_others(ids: Collection[str]) -> dict[str, str]:
    """Each that is called as another with one of `SUFFIXES` after it -> the name of that one without its ending."""
    names = [stem(id) for id in ids]
    some = [(id, found) for id, name in zip(ids, names) if (found := without_suffix(name))]
    stems = Names(names if some else ())
    return {id: own for id, found in some if (own := next(filter(None, map(stems.get, found)), None)) is not None}


def without_suffix(name: str) -> list[str]:
    """A mask's name without each of `SUFFIXES` that it ends with, in any spelling: 1_Mask -> 1."""
    if not name.lower().endswith(SUFFIXES):  # nearly all, and there may be millions
        return []
    return [name[: -len(s)] for s in SUFFIXES if name[-len(s) :].lower() == s]


class Names:
    """Names by themselves, else without regard to capitals where only one is spelled so."""

    def __init__(self, names: Collection[str]):
        self.names, self.folded = set(names), dict[str, str | None]()
        for name in self.names:
            key = name.casefold()
            self.folded[key] = None if key in self.folded else name

    def get(self, name: str) -> str | None:
        return name if name in self.names else self.folded.get(name.casefold())


def strange_among(ids: Collection[str], masks: Collection[str]) -> dict[str, str]:
    """`of_others`, but for images that have a mask of their own in another folder, as the other has; masks: the names
    there without their endings."""
    return {id: base for id, base in of_others(ids).items() if not (stem(id) in masks and base in masks)}


def core(id: str) -> str:
    """The path of an image or a mask without its extension, capitals and what marks it as one or the other."""
    folder, _, name = stem(id).casefold().rpartition("/")
    name = stem(name) if name[len(stem(name)) :] in EXTENSIONS else name  # 1.jpg.png
    return f"{folder}/{MARKS.sub('', name)}"


def match_masks(ids: list[str], masks: list[ImageFile], root: Path) -> tuple[dict[str, ImageFile], list[str]]:
    """(id -> the file of its mask, masks that belong to no image). Two masks of one image are an error.

    What is left after names that are the same is matched without regard to capitals, then by what they have in common
    (`core`), where that is of one image and of one mask alone.
    """
    by_stem = {id[: id.rfind(".")]: id for id in ids}  # all have an ending
    if len(by_stem) < len(ids):
        twice = next(id for id in ids if by_stem[stem(id)] != id)
        raise UserError(
            f"The images {twice!r} and {by_stem[stem(twice)]!r} have the same name before the extension, by which "
            "masks are matched. Rename one."
        )
    out: dict[str, ImageFile] = {}
    strange = list[ImageFile]()
    for mask in masks:
        name = stem(mask.id)
        keys = [name, *(name.removesuffix(s) for s in SUFFIXES if name.endswith(s))]
        id = next((by_stem[key] for key in keys if key in by_stem), None)
        if id is None:
            strange.append(mask)
        elif id in out:
            raise UserError(f"There are two masks of image {id!r}, {out[id].path!r} and {mask.path!r}. Remove one.")
        else:
            out[id] = mask
    loose, known = dict[str, ImageFile](), Names(by_stem if strange else ())
    for mask in strange:
        name = stem(mask.id)
        key = next(filter(None, map(known.get, [name, *without_suffix(name)])), None)
        if key is not None and (id := by_stem[key]) not in out and id not in loose:
            loose[id] = mask
    placed = {mask.id for mask in loose.values()}
    rest = [mask for mask in strange if mask.id not in placed]
    cores = [(core(id), id) for id in ids if id not in out and id not in loose] if rest else []
    left, free, of_core = Counter(core(mask.id) for mask in rest), Counter(key for key, _ in cores), dict(cores)
    loose |= {of_core[key]: mask for mask in rest if left[key := core(mask.id)] == 1 and free[key] == 1}
    if loose:
        id, mask = next(iter(loose.items()))
        warn(
            f"{len(loose)} of {len(masks)} masks in {root.name!r} are matched by what their names have in common with "
            f"an image's, such as {mask.id!r} with {id!r}."
        )
    placed = {mask.id for mask in loose.values()}
    return out | loose, [mask.id for mask in strange if mask.id not in placed]
