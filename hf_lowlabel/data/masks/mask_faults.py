"""Reports all unusable masks at once, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ...errors import UserError
from ..caches.decoding import cores, in_threads
from ..dataset import ImageDataset
from ..pixels.images import BadImage, decoding
from ..pixels.mask_colors import MaskFault
from ..pixels.mask_kinds import Kind, is_painted, kind_of
from ..pixels.masks import IGNORE, of_objects

LOOKED_AT = 1000  # masks; of more those between them are met when they are read
NAMED = 5


def check_masks(*parts: tuple[ImageDataset, np.ndarray]) -> None:
    """UserError for those of the masks of the images at some rows that cannot be read as they are declared, are of
    another size, or are of 0 and 255 among numbers; images without one, or that cannot be read themselves, are for
    others to say."""
    found = [error for dataset, rows in parts for error in faults(dataset, np.asarray(rows, dtype=np.int64))]
    refuse_masks(parts[0][0].name, found)
    refuse_mixed(*parts)


def faults(dataset: ImageDataset, rows: np.ndarray) -> list[UserError]:
    """What is wrong with the masks at these rows, in their order."""
    rows = some_of(dataset, rows)

    def look(i: int) -> UserError | None:
        try:
            size = dataset.size(i)
        except BadImage:
            return None
        return fault_of(lambda: dataset.mask(i, size))

    return [error for error in in_threads(look, rows.tolist(), cores(), 2 * cores()) if error is not None]


def some_of(dataset: ImageDataset, rows: np.ndarray) -> np.ndarray:
    """Up to `LOOKED_AT` of the rows that have a mask."""
    rows = rows[dataset.has_target[rows]] if dataset.masks is not None else rows[:0]
    return rows[:: -(-len(rows) // LOOKED_AT) or 1]


def refuse_mixed(*parts: tuple[ImageDataset, np.ndarray]) -> None:
    """UserError for masks of 0 and 255, alone or among others of numbers, as long as nobody has said that they are
    numbers: all of their objects would take no part. Numbers with 255 among them, but for those painted on our page,
    say it too."""
    seen: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for dataset, given in parts:
        coding = dataset.masks.format if dataset.masks is not None else None
        if coding is None or coding.kind != "index" or coding.declared or coding.table or IGNORE in coding.ignore:
            continue

        def look(i: int, dataset: ImageDataset = dataset) -> tuple[Kind, str]:
            try:
                with decoding(), dataset.masks.reader(i) as image:
                    kind = kind_of(image)
                    return Kind.NUMBERS if kind is Kind.BOTH and is_painted(image) else kind, dataset.ids[i]
            except BadImage:  # which `faults` tells
                return Kind.UNKNOWN, dataset.ids[i]

        rows = some_of(dataset, np.asarray(given, dtype=np.int64)).tolist()
        for kind, id in in_threads(look, rows, cores(), 2 * cores()):
            seen[kind].append(id)
    objects, numbers = seen[Kind.OBJECT], seen[Kind.NUMBERS]
    if objects and not numbers and not seen[Kind.BOTH]:
        raise of_objects(len(objects), parts[0][0].name)
    if objects and not seen[Kind.BOTH]:
        raise UserError(
            f"There are masks of two kinds in {parts[0][0].name!r}: {len(objects)} hold nothing but 0 and 255, such as "
            f"that of {objects[0]!r}, and {len(numbers)} numbers of classes, such as that of {numbers[0]!r}. Where "
            "masks are numbers, 255 takes no part: give --mask-format index if it does not. If it is the object, save "
            "all masks as 0 and 255 and give --mask-format binary, or all as numbers (0, 1, ...)."
        )


def fault_of(read: Callable[[], object]) -> UserError | None:
    try:
        read()
    except UserError as error:
        return error
    return None


def refuse_masks(name: str, found: Iterable[UserError | None]) -> None:
    """UserError for what is wrong with the masks of the data `name`: one by itself, of several the first ones, and what
    to do about the first of each kind."""
    faults = [error for error in found if error is not None]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines, told = [], set[str]()
        for error in faults[:NAMED]:
            kind = error.kind if isinstance(error, MaskFault) else ""
            lines.append(error.what if isinstance(error, MaskFault) and kind in told else str(error))
            told |= {kind} if kind else set()
        more = f"\n  ... and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise UserError(f"There are {len(faults)} faults in the masks of {name!r}:\n  " + "\n  ".join(lines) + more)
