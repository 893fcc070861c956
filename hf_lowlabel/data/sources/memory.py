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

from ...errors import MissingSplit, Nameless, UserError
from ...text import brief, warn, was_in_memory
from ..dataset import Origin
from ..files.folders import spellings
from ..labels.labels import label_text
from ..pixels.encoded import encoded_images, of_tensor
from ..splits.table_splits import rows_of_split
from .tables import IMAGE_COLUMNS, PATH_COLUMNS, Table, find_split
from .targets import Targets

NAME = "memory"


def memory_table(dataset, targets: Targets, split: str, image_column: str | None) -> Table:
    """The table of a `datasets.Dataset` or DatasetDict, a DataFrame, or a list of paths or (path, target) pairs."""
    import datasets

    refuse_slice(split)
    pandas, own, rows = sys.modules.get("pandas"), "train", None
    of_splits = isinstance(dataset, datasets.DatasetDict)
    if isinstance(dataset, datasets.Dataset):
        rows, own = dataset, str(dataset.split or own)
    elif pandas is not None and isinstance(dataset, pandas.DataFrame):
        rows = of_frame({str(name): cells(dataset[name]) for name in dataset.columns}, targets, image_column)
    elif isinstance(dataset, (list, tuple)):
        rows = of_list(dataset, targets)
    elif isinstance(dataset, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise UserError(
            "An IterableDataset is read as it comes, which only pretrain does, with sharded. Give a Dataset, as "
            "load_dataset without streaming gives it and Dataset.from_list makes it."
        )
    elif not of_splits:
        raise UserError(
            f"A data set cannot be read from a {type(dataset).__name__}. Give a Hub id, a path, a datasets.Dataset or "
            "DatasetDict, a pandas DataFrame, or a list of paths or of (path, label) pairs."
        )
    kind, stored = type(dataset).__name__, as_stored(rows) if rows is not None else None

    def opened(one: str):
        if stored is None:
            return as_stored(dataset[find_split(one, list(dataset), NAME)])
        if not is_split(one, own):
            raise MissingSplit(
                f"There is no split {one!r} in a {kind}: it is {own!r}. Give splits as a datasets.DatasetDict, or in a "
                "column called split."
            )
        return stored

    several, every, label = of_splits and len(dataset) > 1, targets.every_split, targets.label_column
    part = rows_of_split(opened, split, f"the {kind}", several, every, label)
    return Table(part, Origin(NAME, split), image_column, None)


def is_split(asked: str, own: str) -> bool:
    """Whether a split that is asked for is the one that data in memory is, in any spelling; "train" means any."""
    return not {"train", own}.isdisjoint(spellings(asked))


def refuse_slice(split: str) -> None:
    """Raises UserError for a part of a split, which files and the Hub have."""
    if "[" in split:
        raise UserError(
            f"The split {split!r} of data in memory cannot be cut. Give the rows themselves, as Dataset.select or "
            "IterableDataset.take makes them."
        )


def refuse_nameless(name: str) -> None:
    """Raises Nameless for what stands in training.yaml of a run whose data was in memory."""
    if was_in_memory(name):
        raise Nameless(
            f"The data of this run was {name}, which is not in its folder. Give the data itself, in Python; a command "
            "opens again only what a run read from files."
        )


def as_stored(rows):
    """The rows of a `datasets.Dataset` as they are kept, whatever its format or transform would make of them."""
    if rows.format["type"] == "custom":
        warn(
            "The transform of the Dataset is not applied: images and labels are read as they are stored. Write what it "
            "makes of them with Dataset.map if that is meant."
        )
    return rows.with_format(None)


def of_columns(columns: dict):
    import datasets

    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def of_list(items: Sequence, targets: Targets):
    """Images, or pairs of an image and a target, where None is none; images are paths, of PIL, arrays or tensors."""
    if len(items) == 2 and len(getattr(items[0], "shape", ())) == 4:
        raise UserError(
            f"Images and labels are given apart, {brief(items[0])} and {brief(items[1])}. Give pairs: list(zip(X, Y))."
        )
    pairs = [item if isinstance(item, (list, tuple)) else (item, None) for item in items]
    for pair in pairs:
        if len(pair) != 2 or not isinstance(of_tensor(pair[0]), (str, Path, Image.Image, np.ndarray)):
            raise UserError(
                f"A list of images holds images or (image, label) pairs, not {brief(pair)}. An image is a path, a PIL "
                "image, or a uint8 array or tensor [H, W, 3] or [H, W], of a tensor also [3, H, W]."
            )
    name, values = targets.pairs([value for _, value in pairs])
    return of_columns({"image": encoded_images([path for path, _ in pairs]), name: values})


def cells(series) -> list:
    return [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]


def of_frame(columns: dict[str, list], targets: Targets, image_column: str | None):
    """The columns of images and masks encoded, by their names; others as they are, mixed values as text."""
    called = (image_column,) if image_column is not None else (*IMAGE_COLUMNS, *PATH_COLUMNS)
    image, mask = picture_column(columns, called), picture_column(columns, targets.mask_names())
    label, encoded = targets.label_in(columns), {}
    for name, values in columns.items():
        if name in (image, mask) and any(map(is_pixels_or_file, values)) or name != label and hold_pictures(values):
            encoded[name] = encoded_images(values, masks=name == mask)
    return of_columns(
        {name: encoded[name] if name in encoded else plain(values, name == label) for name, values in columns.items()}
    )


def picture_column(columns: dict[str, list], names: Sequence[str]) -> str | None:
    """The first of `names` that holds pictures, or text, which may be their paths."""
    return next(
        (name for name in names if any(isinstance(v, str) or is_pixels_or_file(v) for v in columns.get(name, ()))), None
    )


def is_pixels_or_file(value) -> bool:
    """What is meant as a picture in a column of pictures, good or not."""
    return is_encoded(value) or len(getattr(value, "shape", ())) > 1


def is_encoded(value) -> bool:
    of_dict = isinstance(value, dict) and (isinstance(value.get("bytes"), bytes) or set(value) == {"bytes", "path"})
    return of_dict or isinstance(value, (bytes, Path, Image.Image))


def hold_pictures(values: list) -> bool:
    """Whether a column is of pictures whatever it is called: other arrays may be boxes, or what a network said."""
    there = [value for value in values if value is not None]
    arrays = [value for value in there if isinstance(value, np.ndarray) and value.dtype == np.uint8]
    colours = any(value.ndim == 3 and value.shape[2] == 3 for value in arrays)
    return bool(there) and (is_encoded(there[0]) or colours and len(arrays) == len(there))


def plain(values: list, labels: bool) -> pa.Array:
    values = [v.tolist() if hasattr(v, "detach") and len(v.shape) == 1 else v for v in values]  # of PyTorch
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([label_text(v) if labels or is_scalar(v) else str(v) for v in values], pa.string())


def is_scalar(value) -> bool:
    return not isinstance(value, (list, tuple, dict)) and not getattr(value, "shape", ())
