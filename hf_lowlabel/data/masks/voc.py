"""PASCAL VOC's folders as VOC and others fill them: which photos a list names, and what the masks' values mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...errors import UserError
from ...files import read_text
from ...text import warn
from ..files.folders import ALIASES, SPLITS
from ..pixels.images import BadImage, open_image
from ..pixels.masks import MaskFormat, make_coding, read_classes
from ..splits.split_lists import ByName, readings

VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
NUMBER = re.compile(r"[-+]?\d*\.?\d*")  # or a sign alone


def listed_photos(file: Path, photos: ByName) -> list[str]:
    """The ids in a list, each once: of whole lines, else of their words that are photos, where the first is one. What
    stands after a photo is no other where a bare number is among it, such as VOC's 1 and -1 for a class."""
    found: dict[str, None] = {}
    for line in filter(None, map(str.strip, read_text(file).splitlines())):
        first, *rest = line.split()
        name = next((name for name in readings(line) if photos.called(name) is not None), None)
        if name is None:
            found[line] = None
        elif name != first or any(map(NUMBER.fullmatch, rest)):
            found[photos.called(name)] = None
        else:
            found |= dict.fromkeys(id for id in map(photos.called, [first, *rest]) if id is not None)
    return list(found)


def refuse_two_lists(lists: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError for a photo in two of the lists for training, validation and test."""
    seen: dict[str, tuple[str, str]] = {}
    for name, ids in lists.items():
        kind = next((kind for kind in ("train", "validation", "test") if name.lower() in SPLITS[kind]), None)
        for id in ids if kind is not None else ():
            other, before = seen.setdefault(id, (name, kind))
            if before != kind:
                raise UserError(
                    f"{id!r} is in {other}.txt and in {name}.txt of ImageSets/Segmentation. Keep one of them: an image "
                    "that is tested on must not be learned from."
                )


def sole_list(lists: Collection[str], split: str, path: Path) -> str | None:
    """The list that is the training split though it is not called so: the one there is, or "all" where there is
    none."""
    if split not in SPLITS["train"] or len(lists) > 1 or any(name.lower() in ALIASES for name in lists):
        return None
    name = next(iter(lists), "all")
    what = f"{name}.txt is the one list" if lists else "There is no list"
    so = f"the photos in it are those of the split {split!r}" if lists else f"all photos are of the split {split!r}"
    warn(f"{what} in ImageSets/Segmentation of {path.name!r}: {so}.")
    return name


def tell_unlisted(lists: dict[str, list[str]], every: Collection[str], path: Path) -> None:
    """Photos that no list names are in no split."""
    named = {id for ids in lists.values() for id in ids}
    if rest := [id for id in every if id not in named]:
        warn(
            f"{len(rest)} of {len(every)} photos in JPEGImages/ of {path.name!r} are in no list of "
            f"ImageSets/Segmentation and are not used, such as {min(rest)!r}. Give --dataset-split all to take all."
        )


def meaning(path: Path, ids: Collection[str], mask: Path | None) -> tuple[list[str] | None, MaskFormat]:
    """(names, format) of masks: of labelmap.txt, as CVAT writes it, where there is one; else VOC's own names where the
    photos are VOC's, and none for those of others. mask: one of them."""
    file = path / "labelmap.txt"
    if file.is_file():
        names, colors = read_classes(file)
        return names, make_coding("colors" if is_coloured(mask) else "index", names, colors, ())
    ours = all(re.fullmatch(r"\d{4}_\d{6}", id) for id in ids)
    of_2007 = "voc" in path.resolve().name.lower() and all(re.fullmatch(r"\d{6}", id) for id in ids)
    return VOC_CLASSES if ids and (ours or of_2007) else None, MaskFormat()


def is_coloured(mask: Path | None) -> bool:
    """Whether a mask holds colours, of a palette too, by what its file says of itself."""
    if mask is None:
        return True
    try:
        with open_image(mask) as image:
            return image.mode in ("RGB", "RGBA", "P")
    except BadImage:
        return True  # reading it says what is wrong
