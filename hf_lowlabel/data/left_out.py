"""What of a data set was not used."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..files import write_table
from .annotated import EMPTY
from .dataset import ImageDataset


def write_left_out(dataset: ImageDataset, path: Path) -> None:
    """What of the data was not used, and why: a table, where there is something to list."""
    if not dataset.left_out:
        return
    write_table(path, [{"name": name, "why": why} for name, why in dataset.left_out])
    empty = sum(why == EMPTY for _, why in dataset.left_out)
    lost = len(dataset.left_out) - empty
    said = [f"{lost} rows or objects of {dataset.name!r} are left out"] if lost else []
    said += [f"{empty} images that {dataset.name!r} lists have no object and count as unlabeled"] if empty else []
    warnings.warn(f"{'; '.join(said)}; {path} lists them.", stacklevel=3)
