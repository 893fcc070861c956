"""Opening a data set, whatever it is and wherever it lies.

load_source("digits")                                    the embedded set
load_source("photos/")                                   a folder (class_targets.py says which layouts)
load_source("cifar10.parquet"), load_source("cifar10/")  parquet, a file or a folder
load_source("org/name", config=..., revision=...)        a data set on the Hub
load_source(frame), load_source([("1.jpg", "cat"), ...]) in memory (memory.py)
load_segmentation("shapes")                              the embedded set with masks
load_segmentation("photos/", classes="classes.txt")      photos/images/, photos/masks/ (mask_folders.py), or VOC's or
                                                         Cityscapes' own layout
load_segmentation("camvid/", classes=[...])              parquet or a Hub id: an image and a mask column
join(load_source("labeled/"), load_source("photos/"))    labels here, raw images there
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import MissingSplit, UserError
from ..missing_inputs import refuse_missing_data
from ..text import warn
from .dataset import ImageDataset
from .files.folders import CONVERT, is_table
from .files.table_files import TABLES
from .labels.labels import NO_LABEL, LabelRules
from .pages import as_asked
from .sources.class_targets import ClassTargets
from .sources.mask_targets import MaskTargets
from .sources.memory import is_split, memory_table, refuse_nameless
from .sources.tables import open_hub, open_parquet
from .sources.targets import Targets
from .splits.split_roots import opened_folder


def open_dataset(
    dataset: Any,
    targets: Targets,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    value_range: Sequence[float] = (),
    pages: bool = False,
) -> ImageDataset:
    """The images of a data set, with their targets where they are known.

    Args:
        dataset: the name of an embedded set, a folder, a parquet file, a Hub id, a `datasets.Dataset` or DatasetDict, a
            pandas DataFrame with a column of paths, PIL images, uint8 arrays or encoded bytes, a list of such images or
            of (image, target) pairs, or an ImageDataset that is open already. A local path wins over a Hub id. A table
            of a file or of the Hub names no images outside its own folder.
        targets: how the targets are read: `ClassTargets`, `MaskTargets`, or another of that kind.
        config, revision: of a data set on the Hub.
        split: the part of the data set, such as "train" or "test".
        image_column: of tables; where it is not given, it is found, and when that is ambiguous the error names the
        choices.
        value_range: (black, white) of images of more than 8 bits; None given: 0 to 65535.
        pages: pages of a TIFF, frames of a GIF are images, held out together (`make_split`); else the first alone.

    Returns:
        The ImageDataset.

    Raises:
        MissingSplit: there is no such split.
        UserError: it cannot be read; the message says why and what to do.
    """
    with uncollected():
        return as_asked(opened(dataset, targets, config, split, revision, image_column), value_range, pages)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which looks through all there is again and again while a hundred thousand names
    come to stay: a tenth of a start."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def opened(
    dataset: Any,
    targets: Targets,
    config: str | None,
    split: str,
    revision: str | None,
    image_column: str | None,
) -> ImageDataset:
    """See `open_dataset`."""
    if not isinstance(dataset, (str, Path)):
        if config is not None or revision is not None:
            raise UserError("A data set in memory has no config and no revision. Leave them out.")
        if not isinstance(dataset, ImageDataset):
            return targets.table(memory_table(dataset, targets, split, image_column))
        if not is_split(split, dataset.split):
            raise MissingSplit(f"There is no split {split!r} in {dataset!r}. Open that split, and give what is opened.")
        return dataset
    name, path = str(dataset), Path(dataset).expanduser()
    refuse_nameless(name)
    if name in targets.embedded:
        if path.exists():
            warn(f"{name!r} means the embedded set; for the folder of that name write './{name}'")
        return targets.embedded[name](split)
    refuse_missing_data(name, targets.embedded)
    if not path.exists():
        how = targets.every_split, targets.label_column
        return targets.table(open_hub(name, config, split, revision, image_column, *how))
    if revision is not None:
        raise UserError(f"The local path {name!r} has no revision {revision!r}: only the Hub has them. Leave it out.")
    if not targets.lays_out(path) and is_table(path):
        how = targets.every_split, targets.label_column
        return targets.table(open_parquet(path, config, split, image_column, *how))
    check_folder(path, name, config, image_column)
    path = path.resolve() if path.name in ("", "..") else path  # messages name it
    opened = targets.folder(opened_folder(path, itself=targets.lays_out(path)), split)
    return replace(opened, name=path.resolve().name)


def check_folder(path: Path, name: str, config: str | None, image_column: str | None) -> None:
    if path.is_file():
        raise UserError(f"The file {name!r} is no data set. {instead_of_file(path)}")
    if (path / "dataset_dict.json").is_file() or all(
        (path / file).is_file() for file in ("state.json", "dataset_info.json")
    ):
        raise UserError(
            f"{name!r} holds what save_to_disk wrote. Pass datasets.load_from_disk({name!r}) itself, or for the "
            "command line write parquet: its to_parquet('data.parquet'), for each split one file."
        )
    if config is not None or image_column is not None:
        what = f"config {config!r}" if config is not None else f"image column {image_column!r}"
        raise UserError(f"There is no {what} in the folder of images {name!r}. Leave it out.")


def instead_of_file(path: Path) -> str:
    """What to give in place of a file that is no data set."""
    kind = path.suffix.lower()
    if kind in CONVERT and CONVERT[kind].startswith("unpack"):
        return "Unpack the archive, and give the folder."
    if kind in TABLES:
        return (
            f"Give the folder of the images, in which a table called metadata{kind} is found, or read this one with "
            "`hf-lowlabel split --dataset FOLDER --from FILE`."
        )
    return "Give a folder of images or a .parquet file."


def load_source(
    dataset: Any,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    value_range: Sequence[float] = (),
    pages: bool = False,
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    plain_folders: bool = False,
    no_label: Sequence[str] = NO_LABEL,
) -> ImageDataset:
    """Open images, with or without classes.

    Args:
        dataset: "digits", a folder, parquet (a file or a folder), a Hub id, or data in memory: a `datasets.Dataset`,
            DatasetDict, DataFrame, or a list of images or (image, class) pairs.
        config: configuration of a Hub data set.
        split: which part of it.
        revision: commit, tag or branch of a Hub data set.
        image_column: holds the image; None: detected.
        label_column: holds the class; None: detected.
        value_range, pages: as for `open_dataset`.
        skip_missing: leave out rows of a table that name no image, instead of an error.
        skip_conflicts: leave images unlabeled that a table gives two labels, instead of an error.
        plain_folders: folders only sort the images: none is a class.
        no_label: words in a table that mean no label.

    Raises:
        UserError: there is no such data, or it cannot be read.
    """
    rules = LabelRules(tuple(no_label), skip_missing, skip_conflicts, plain_folders=plain_folders)
    targets = ClassTargets(label_column, rules)
    where = dict(config=config, split=split, revision=revision, image_column=image_column)
    return open_dataset(dataset, targets, **where, value_range=value_range, pages=pages)


def load_segmentation(
    dataset: Any,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    instances: bool = False,
    skip_missing: bool = False,
    value_range: Sequence[float] = (),
    pages: bool = False,
) -> ImageDataset:
    """Open images with segmentation masks.

    Args:
        dataset: "shapes", a folder with images/ and masks/, parquet (a file or a folder), a Hub id, or data in memory.
        config: configuration of a Hub data set.
        split: which part of it.
        revision: commit, tag or branch of a Hub data set.
        image_column: holds the image; None: detected.
        mask_column: holds the mask; None: detected.
        classes: in the order of their values, or a text file of them; None: the layout's own, else counted.
        mask_format: encoding of masks: "index", "binary" or "colors"; None: that of the layout.
        mask_ignore: mask values to ignore, besides 255.
        instances: each value of a mask but 0 is one object, and all objects are of one class.
        skip_missing: leave out masks that belong to no image, instead of an error.
        value_range, pages: as for `open_dataset`.

    Raises:
        UserError: there is no such data, or it cannot be read.
    """
    given = mask_column, classes, mask_format, tuple(mask_ignore), instances
    targets = MaskTargets(*given, skip_missing=skip_missing)
    where = dict(config=config, split=split, revision=revision, image_column=image_column)
    return open_dataset(dataset, targets, **where, value_range=value_range, pages=pages)
