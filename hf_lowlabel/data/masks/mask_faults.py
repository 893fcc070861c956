"""Reports all unusable masks at once, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ...errors import UserError
from ..caches.decoding import cores, in_threads
from ..dataset import ImageDataset
from ..pixels.images import BadImage
from ..pixels.mask_colors import MaskFault

LOOKED_AT = 1000  # masks; of more those between them are met when they are read
NAMED = 5


def check_masks(*parts: tuple[ImageDataset, np.ndarray]) -> None:
    """UserError for those of the masks of the images at some rows that cannot be read as they are declared, or are of
    another size; images without one, or that cannot be read themselves, are for others to say."""
    found = [error for dataset, rows in parts for error in faults(dataset, np.asarray(rows, dtype=np.int64))]
    refuse_masks(parts[0][0].name, found)


def faults(dataset: ImageDataset, rows: np.ndarray) -> list[UserError]:
    """What is wrong with the masks at these rows, in their order."""
    rows = rows[dataset.has_target[rows]] if dataset.masks is not None else rows[:0]

    def look(i: int) -> UserError | None:
        try:
            size = dataset.size(i)
        except BadImage:
            return None
        return fault_of(lambda: dataset.mask(i, size))

    some = rows[:: -(-len(rows) // LOOKED_AT) or 1].tolist()
    return [error for error in in_threads(look, some, cores(), 2 * cores()) if error is not None]


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
