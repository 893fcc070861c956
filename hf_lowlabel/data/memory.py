"""Data sets that are in memory already: of `datasets`, of pandas, or a list of paths. Their name is "memory".

Ids are those of a column of ids, else paths relative to the folder they have in common, else row numbers: no folder of
this machine is in them. The fingerprint is that of the content, so that a run goes on with the same data given again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ..errors import MissingSplit, UserError
from ..text import brief
from .dataset import Origin
from .encoded import encoded_images
from .labels import label_text
from .tables import Table, find_split
from .targets import Targets

NAME = "memory"


def memory_table(dataset, targets: Targets, split: str, image_column: str | None) -> Table:
    """The table of a `datasets.Dataset` or DatasetDict, a DataFrame, or a list of paths or (path, target) pairs."""
    import datasets

    pandas, own = sys.modules.get("pandas"), "train"
    if isinstance(dataset, datasets.DatasetDict):
        rows, own = dataset[find_split(split, list(dataset), NAME)], split
    elif isinstance(dataset, datasets.Dataset):
        rows, own = dataset, str(dataset.split or own)
    elif pandas is not None and isinstance(dataset, pandas.DataFrame):
        rows = of_columns({str(name): frame_column(dataset[name]) for name in dataset.columns})
    elif isinstance(dataset, (list, tuple)):
        rows = of_list(dataset, targets)
    else:
        raise UserError(
            f"A data set cannot be read from a {type(dataset).__name__}. Give a Hub id, a path, a datasets.Dataset or "
            "DatasetDict, a pandas DataFrame, or a list of paths or of (path, label) pairs."
        )
    if split not in ("train", own):
        raise MissingSplit(
            f"There is no split {split!r} in a {type(dataset).__name__}: it is {own!r}. Give splits as a "
            "datasets.DatasetDict."
        )
    return Table(rows, Origin(NAME, split), image_column, None)


def of_columns(columns: dict):
    import datasets

    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def of_list(items: Sequence, targets: Targets):
    """Images, or pairs of an image and a target, where None is none; images are paths, of PIL, or arrays."""
    pairs = [item if isinstance(item, (list, tuple)) else (item, None) for item in items]
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], (str, Path, Image.Image, np.ndarray)):
            raise UserError(
                f"A list of images holds images or (image, label) pairs, not {brief(pair)}. An image is a path, a PIL "
                "image, or a uint8 array [H, W, 3] or [H, W]."
            )
    name, values = targets.pairs([value for _, value in pairs])
    return of_columns({"image": encoded_images([path for path, _ in pairs]), name: values})


def frame_column(series) -> pa.Array | pa.ChunkedArray:
    """Images encoded; mixed values as text."""
    values = [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]
    first = next((value for value in values if value is not None), None)
    of_dicts = isinstance(first, dict) and set(first) == {"bytes", "path"}
    if of_dicts or isinstance(first, (bytes, Path, Image.Image)) or len(getattr(first, "shape", ())) > 1:
        return encoded_images(values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([label_text(value) for value in values], pa.string())
