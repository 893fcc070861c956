"""Where images come from: a list of ids with labels where they are known, and a way to open each image.

load_source("digits")                                    the embedded set
load_source("photos/")                                   a folder (folders.py says which layouts)
load_source("cifar10.parquet"), load_source("cifar10/")  parquet, a file or a folder (tables.py)
load_source("org/name", config=..., revision=...)        a data set on the Hub (tables.py)
join(load_source("labeled/"), load_source("photos/"))    labels here, raw images there
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from ..errors import UserError, in_memory, unknown
from .images import BadImage, decode

EMBEDDED = ("digits",)


class Reader(Protocol):
    """Opens image i of a source (header only; may raise BadImage). Picklable: it travels to the workers of a loader."""

    def __call__(self, i: int) -> Image.Image: ...


@dataclass
class ImageDataset:
    """Images by position: `ids`, `labels` and `image(i)`; made by `load_source`.

    Raises UserError without any image. name, config, split, revision: where they come from. class_names: of the labels.
    fingerprint: of ids, labels, class names and image sizes. license: as the source states it. flip: whether mirror images
    keep their class. reader: opens image i. squares: how many rows each image stands in, see `in_squares`.
    """

    name: str  # the Hub id, "digits", or the last part of a local path: no machine's folders get into a manifest
    config: str | None
    split: str
    revision: str | None  # commit sha on the Hub
    ids: list[str]  # stable and unique
    labels: np.ndarray  # int64 [N], index into class_names; -1 = unlabeled
    class_names: list[str]  # empty when nothing is labeled
    fingerprint: str  # sha256 over ids, labels, class names and the sizes of the images: the same on every machine
    license: str | None
    flip: bool  # a horizontal mirror image keeps the label
    reader: Reader = field(repr=False)
    squares: int = 1

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels, dtype=np.int64)
        if not self.ids:
            raise UserError(f"found no images in {self.name!r} (split {self.split!r}); expected at least one")
        if len(self.labels) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids but {len(self.labels)} labels")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"the ids of {self.name!r} are not unique")
        check_labels(self.labels, self.class_names, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, i: int) -> Image.Image:
        """Image i as PIL opens it: its own mode, pixels not yet decoded. A file PIL cannot open is a `BadImage`."""
        try:
            return self.reader(int(i) // self.squares)
        except BadImage as error:
            raise BadImage(error.reason, self.ids[i]) from error

    def decode(self, i: int, size: int, interpolation: str = "bilinear") -> torch.Tensor:
        """uint8 [3, size, size], the middle of the image or, of several squares, this one; a `BadImage` carries the id."""
        at = i % self.squares / (self.squares - 1) if self.squares > 1 else 0.5
        with self.image(i) as image:
            try:
                return decode(image, size, interpolation, at)
            except BadImage as error:
                raise BadImage(error.reason, self.ids[i]) from error

    def with_classes(self, class_names: Sequence[str]) -> ImageDataset:
        """The same images with labels as indices into `class_names`: classes are matched by name, never by number."""
        names = [str(name) for name in class_names]
        used = [self.class_names[k] for k in np.unique(self.labels[self.labels >= 0])]
        for name in used:
            if name not in names:
                raise unknown(f"class in {self.name!r}", name, names)
        index = {name: k for k, name in enumerate(names)}
        table = np.array([index.get(name, -1) for name in self.class_names] + [-1], dtype=np.int64)  # last: unlabeled
        return replace(self, labels=table[self.labels], class_names=names)

    def in_squares(self, count: int) -> ImageDataset:
        """Each image as `count` squares spread evenly from one end of its longer side to the other: image i, square k at
        row i * count + k."""
        if count == 1:
            return self
        ids = [f"{id} ({k + 1}/{count})" for id in self.ids for k in range(count)]
        return replace(self, ids=ids, labels=np.repeat(self.labels, count), squares=count)

    def without_labels(self) -> ImageDataset:
        return replace(self, labels=np.full(len(self), -1, dtype=np.int64), class_names=[])


def check_labels(labels: np.ndarray, class_names: Sequence[str], ids: Sequence[str]) -> None:
    wrong = np.flatnonzero((labels < -1) | (labels >= len(class_names)))
    if len(wrong):
        i = int(wrong[0])
        raise UserError(
            f"found label {labels[i]} of image {ids[i]!r}{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''} out "
            f"of range; expected 0..{len(class_names) - 1} for {len(class_names)} classes, or -1 for an image without "
            "a label; fix the label column"
        )


def fingerprint(
    ids: Iterable[str], labels: Iterable[int], class_names: Sequence[str], content: Iterable[int | str]
) -> str:
    """sha256 over the class names and, per image, id, label and size in bytes (or a hash of the content)."""
    digest = hashlib.sha256(json.dumps(list(class_names), ensure_ascii=False).encode())
    for id, label, what in zip(ids, labels, content, strict=True):
        digest.update(f"\n{id}\0{int(label)}\0{what}".encode())
    return digest.hexdigest()


class ArrayReader:
    """Images that are in memory: uint8 [N, H, W] or [N, H, W, 3]."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __call__(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])


class JoinedReader:
    def __init__(self, first: Reader, count: int, second: Reader):
        self.first, self.count, self.second = first, count, second

    def __call__(self, i: int) -> Image.Image:
        return self.first(i) if i < self.count else self.second(i - self.count)


def join(labeled: ImageDataset, unlabeled: ImageDataset) -> ImageDataset:
    """One source out of two: the labels come from the first, the second is raw images, whatever labels it may have.

    Ids become "labeled/<id>" and "unlabeled/<id>".
    """
    if not (labeled.labels >= 0).any():
        raise UserError(
            f"found no label in {labeled.name!r}; expected the first of the two sources to have some; "
            f"fix: swap them, or use {unlabeled.name!r} alone"
        )
    licenses = sorted({source.license for source in (labeled, unlabeled) if source.license})
    return ImageDataset(
        name=f"{labeled.name}+{unlabeled.name}",
        config=None,
        split=f"{labeled.split}+{unlabeled.split}",
        revision=None,
        ids=[f"labeled/{id}" for id in labeled.ids] + [f"unlabeled/{id}" for id in unlabeled.ids],
        labels=np.concatenate([labeled.labels, np.full(len(unlabeled), -1, dtype=np.int64)]),
        class_names=list(labeled.class_names),
        fingerprint=hashlib.sha256(f"{labeled.fingerprint}+{unlabeled.fingerprint}".encode()).hexdigest(),
        license=" and ".join(licenses) or None,
        flip=labeled.flip and unlabeled.flip,
        reader=JoinedReader(labeled.reader, len(labeled), unlabeled.reader),
    )


def load_source(
    dataset: str | Path,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageDataset:
    """`dataset`: "digits", a local folder, a parquet file or folder, or a Hub id. A local path wins over a Hub id.

    `split` is the part of the data set, such as "train" or "test". `config` and `revision` belong to the Hub, `image_column` and `label_column` to tables and metadata files; where
    they are not given, they are found, and when that is ambiguous the error names the choices.
    """
    from . import digits, folders, tables

    if not isinstance(dataset, (str, Path)):
        raise in_memory(dataset)
    name, path = str(dataset), Path(dataset).expanduser()
    if name in EMBEDDED:
        if path.exists():
            warnings.warn(
                f"{name!r} means the embedded set; for the folder of that name write './{name}'", stacklevel=2
            )
        return digits.digits(split)
    if path.exists():
        if revision is not None:
            raise UserError(
                f"found revision {revision!r} for the local path {name!r}; expected none: only the Hub has "
                "revisions; fix: leave it out, or give a Hub id"
            )
        if folders.is_table(path):
            return tables.load_parquet(path, config, split, image_column, label_column)
        if path.is_file():
            raise UserError(f"found the file {name!r}; expected a folder of images or a .parquet file")
        if (path / "dataset_dict.json").is_file() or all(
            (path / file).is_file() for file in ("state.json", "dataset_info.json")
        ):
            raise UserError(
                f"found what save_to_disk wrote in {name!r}; expected parquet or images; fix: "
                f"datasets.load_from_disk({name!r}), then its to_parquet('data.parquet'), for each split one file"
            )
        if config is not None or image_column is not None:
            what = f"config {config!r}" if config is not None else f"image column {image_column!r}"
            raise UserError(f"found {what} for the folder of images {name!r}; expected none; fix: leave it out")
        return folders.load_folder(path, split, label_column)
    if not looks_like_hub_id(name):
        raise missing(name, path)
    return tables.load_hub(name, config, split, revision, image_column, label_column)


def looks_like_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(name).suffix == ".parquet":
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def missing(name: str, path: Path) -> UserError:
    here = path.parent if path.parent.is_dir() else Path()
    known = [str(here / entry.name) for entry in here.iterdir()] if here.is_dir() else []
    return unknown("data set (no such path, and not a Hub id)", name, [*known, *EMBEDDED])


__all__ = ["ArrayReader", "Reader", "ImageDataset", "check_labels", "fingerprint", "join", "load_source"]
