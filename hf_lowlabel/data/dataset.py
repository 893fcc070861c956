"""A list of images by position: an id for each, a way to open it, and its target where one is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from ..errors import UserError, unknown
from ..text import series
from .pixels.images import BadImage, decode, decoding, load_rgb, turned, upright, upright_size
from .pixels.masks import MaskFormat, check_names, check_size, decode_mask

T = TypeVar("T")


class Reader(Protocol):
    """Opens image i (header only; may raise BadImage). Picklable: it travels to the workers of a loader."""

    def __call__(self, i: int) -> Image.Image: ...

    def ends(self, i: int) -> bytes:
        """How encoded image i begins and ends (`prints.ends_of`); b"" where the fingerprint is of all of it."""
        ...


class Origin(NamedTuple):
    """Where a data set comes from. name: a Hub id, "memory" or the last part of a path, never a machine's folders."""

    name: str
    split: str
    config: str | None = None
    revision: str | None = None  # commit sha on the Hub
    license: str | None = None


@dataclass
class Masks:
    """The masks of a data set. reader: opens the mask of image i. format: what the values of its pixels mean."""

    reader: Reader = field(repr=False)
    format: MaskFormat = field(default_factory=MaskFormat)


@dataclass(repr=False)
class ImageDataset:
    """Images by position, made by `open_dataset`: `ids`, `image(i)` and `target(i)`.

    name, config, split, revision, license: where they come from, see `Origin`. ids: stable and unique. labels: int64
    [N], the index of the class or -1 for none; int8 [N, K], 0 or 1 for each of K classes or a row of -1 for none; with
    masks int64 [N], 0 where there is one and -1 where not. class_names: of the labels, [] when nothing is labeled.
    fingerprint: sha256 over ids, labels, class names and the sizes of the files, the same on every machine. flip: a
    mirror image keeps its target. reader: opens image i. squares: how many rows each image stands in, see `in_squares`.
    images_print: the same without labels, classes and masks; not given: the fingerprint.
    left_out: (name, why) of labels, objects or files that were not used. value_range: see `images.grey16`. file_of:
    id of a page -> that of its file, of images that are pages.
    Raises UserError without any image, for labels out of range and for masks without at least two classes.
    """

    name: str
    config: str | None
    split: str
    revision: str | None
    ids: list[str]
    labels: np.ndarray
    class_names: list[str]
    fingerprint: str
    license: str | None
    flip: bool
    reader: Reader
    squares: int = 1
    masks: Masks | None = None
    left_out: Sequence[tuple[str, str]] = ()
    value_range: tuple[float, float] | None = None
    file_of: Mapping[str, str] = field(default_factory=dict)
    images_print: str = ""

    def __post_init__(self) -> None:
        self.images_print = self.images_print or self.fingerprint
        self.labels = np.asarray(self.labels)
        self.labels = self.labels.astype(np.int8 if self.labels.ndim == 2 else np.int64, copy=False)
        if not self.ids:
            raise UserError(f"There are no images in {self.name!r} (split {self.split!r}).")
        if len(self.labels) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids but {len(self.labels)} labels")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"the ids of {self.name!r} are not unique")
        if self.masks is not None:
            check_names(self.class_names)
        check_labels(self.labels, self.class_names, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return (
            f"ImageDataset({self.name!r}, split={self.split!r}, images={len(self)}, labeled={self.has_target.sum()}, "
            f"classes={len(self.class_names)}{', masks' if self.masks else ''})"
        )

    @property
    def ids_hash(self) -> str:
        """sha256 of the ids, which stay the same when labels come, and in a copy elsewhere."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def print_of(self, members: np.ndarray) -> str:
        """sha256 over what the pixels of images at these positions, int64, depend on: the images, whatever is said of
        them, and how deep values are read."""
        deep = "" if self.value_range is None else str(tuple(self.value_range))
        return hashlib.sha256((self.images_print + deep).encode() + members.astype("<i8").tobytes()).hexdigest()

    @property
    def has_target(self) -> np.ndarray:
        """bool [N]"""
        if self.labels.ndim == 1:
            return self.labels >= 0
        return (self.labels >= 0).all(1) & bool(self.class_names)

    def target(self, i: int) -> int | np.ndarray | None:
        """Of image i the class, or int8 [K] of several classes, or the mask as uint8 [H, W]; None where it has none."""
        if not self.has_target[i]:
            return None
        return self.mask(i) if self.masks else int(self.labels[i]) if self.labels.ndim == 1 else self.labels[i]

    def of_opened(self, i: int, function: Callable[[Image.Image], T]) -> T:
        """`function` of image i as it is opened, header only; a BadImage carries the id."""
        try:
            with decoding(), self.reader(int(i) // self.squares) as image:
                return function(image)
        except BadImage as error:
            raise BadImage(error.reason, self.ids[i]) from error

    def image(self, i: int) -> Image.Image:
        """Image i upright, in its own mode; decoded only when it has to be turned. Raises BadImage."""
        try:
            with decoding():
                image = self.reader(int(i) // self.squares)
                return upright(image) if turned(image) else image
        except BadImage as error:
            raise BadImage(error.reason, self.ids[i]) from error

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of image i in px, from its header. Raises BadImage."""
        return self.of_opened(i, upright_size)

    def rgb(self, i: int) -> Image.Image:
        """Image i decoded, upright, RGB. Raises BadImage."""
        return self.of_opened(i, lambda image: load_rgb(image, self.value_range))

    def decode(self, i: int, size: int, interpolation: str = "bilinear", squash: bool = False) -> torch.Tensor:
        """uint8 [3, size, size], the middle of image i or, of several squares, this one; `squash`: all of it, whatever
        its shape. Raises BadImage."""
        at = i % self.squares / (self.squares - 1) if self.squares > 1 else 0.5
        return self.of_opened(i, lambda image: decode(image, size, interpolation, at, self.value_range, squash))

    def mask(self, i: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [H, W] of classes, 255 where a pixel takes no part. `size`: (width, height) that it has to have."""
        if self.masks is None or self.labels[i] < 0:
            raise UserError(
                f"There is no mask of image {self.ids[i]!r} in {self.name!r}, and a labeled image needs one. "
                "Add the mask, or take the image out of the labeled ones."
            )
        try:
            with decoding(), self.masks.reader(int(i)) as file:
                picture = upright(file)
                if size is not None and picture.size != size:
                    check_size(picture.size, size, self.ids[i], self.of_opened(i, turned))
                return decode_mask(picture, self.masks.format, len(self.class_names), self.ids[i])
        except BadImage as error:
            raise UserError(f"The mask of image {self.ids[i]!r} cannot be read: {error.reason}") from error

    def with_classes(self, class_names: Sequence[str]) -> ImageDataset:
        """The same images with labels as indices into `class_names`: classes are matched by name, never by number.

        A class that is new here is 0 in a row of several classes. Masks hold numbers: their classes cannot change.
        """
        names = [str(name) for name in class_names]
        if self.masks is not None:
            if names != self.class_names:
                raise UserError(f"The classes of the masks in {self.name!r} are {series(self.class_names)}.")
            return self
        several = self.labels.ndim == 2
        used = (self.labels == 1).any(0).nonzero()[0] if several else np.unique(self.labels[self.labels >= 0])
        for k in used:
            if self.class_names[k] not in names:
                raise unknown(f"class in {self.name!r}", self.class_names[k], names)
        index = {name: k for k, name in enumerate(names)}
        if several:
            labels = np.where(self.has_target, 0, -1).astype(np.int8)[:, None].repeat(len(names), axis=1)
            for k, name in enumerate(self.class_names):
                if name in index:
                    labels[:, index[name]] = self.labels[:, k]
        else:
            table = np.array([index.get(name, -1) for name in self.class_names] + [-1], dtype=np.int64)  # last: none
            labels = table[self.labels]
        return replace(self, labels=labels, class_names=names)

    def only_classes(self, class_names: Sequence[str]) -> tuple[ImageDataset, dict[str, int]]:
        """(the images with those of their classes that are among `class_names`, {other class: images it has}).

        Names are compared as they are, else without regard to capitals. Raises UserError where none is among them.
        """
        spelled = {name.casefold(): name for name in class_names} | {name: name for name in class_names}
        of = {name: spelled.get(name, spelled.get(name.casefold())) for name in self.class_names}
        several, taken = self.labels.ndim == 2, [name for name in of.values() if name is not None]
        if self.masks is not None or not self.class_names or len(set(taken)) < len(taken):
            return self, {}
        if not taken:
            raise unknown(f"class in {self.name!r}", self.class_names[0], class_names)
        counts = (self.labels == 1).sum(0) if several else np.bincount(self.labels[self.labels >= 0], minlength=len(of))
        gone = {name: int(count) for (name, known), count in zip(of.items(), counts) if known is None}
        keep = np.array([known is not None for known in of.values()])
        if several:
            labels = self.labels[:, keep]
        else:
            index = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)  # the last one of -1
            labels = index[self.labels]
        return replace(self, labels=labels, class_names=taken), gone

    def in_squares(self, count: int) -> ImageDataset:
        """Each image as `count` squares spread evenly from one end of its longer side to the other: image i, square k
        at row i * count + k."""
        if count == 1:
            return self
        if self.masks is not None:
            raise ValueError("squares are cut from images without masks: call without_targets() first")
        ids = [f"{id} ({k + 1}/{count})" for id in self.ids for k in range(count)]
        return replace(self, ids=ids, labels=np.repeat(self.labels, count, axis=0), squares=count)

    def without_targets(self) -> ImageDataset:
        """The images alone."""
        return replace(self, labels=np.full(len(self), -1), class_names=[], masks=None)


def check_labels(labels: np.ndarray, class_names: Sequence[str], ids: Sequence[str]) -> None:
    several = labels.ndim == 2
    top = 2 if several else len(class_names)
    outside = (labels < -1) | (labels >= top)
    if several:
        if labels.shape[1] != len(class_names):
            raise ValueError(f"{labels.shape[1]} columns of labels for {len(class_names)} classes")
        outside = outside.any(1) | ((labels < 0).any(1) & (labels >= 0).any(1))
    wrong = np.flatnonzero(outside)
    if len(wrong):
        i = int(wrong[0])
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"Label {labels[i]} of image {ids[i]!r}{more} is out of range. Labels are 0..{top - 1}"
            f"{'' if several else f' for {len(class_names)} classes'}, or -1 for an image without a label. "
            "Correct the label column."
        )


def fingerprint(ids: Iterable[str], labels, class_names: Sequence[str], content: Iterable[int | str]) -> str:
    """sha256 over the class names and, per image, id, label (or row of labels) and size in bytes (or a hash)."""
    digest = hashlib.sha256(json.dumps(list(class_names), ensure_ascii=False).encode())
    for id, label, what in zip(ids, np.asarray(labels).astype(np.int64).tolist(), content, strict=True):
        digest.update(f"\n{id}\0{label}\0{what}".encode())
    return digest.hexdigest()


def make_dataset(
    origin: Origin,
    ids: list[str],
    labels: np.ndarray,
    class_names: list[str],
    content: Iterable[int | str],
    reader: Reader,
    *,
    flip: bool = True,
    masks: Masks | None = None,
) -> ImageDataset:
    """labels: as in ImageDataset; with masks bool [N], which images have one. content: what the fingerprint is to know
    of each image beside that, see `fingerprint`; with masks "of the image/of its mask"."""
    content = list(content)
    of_images = content if masks is None else [str(what).partition("/")[0] for what in content]
    return ImageDataset(
        **origin._asdict(),
        ids=ids,
        labels=labels if masks is None else np.where(labels, 0, -1),
        class_names=class_names,
        fingerprint=fingerprint(ids, labels, class_names, content),
        flip=flip,
        reader=reader,
        masks=masks,
        images_print=fingerprint(ids, np.full(len(ids), -1), [], of_images),  # as that of images without labels
    )


class ArrayReader:
    """Images that are in memory: uint8 [N, H, W] or [N, H, W, 3]."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __call__(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])

    def ends(self, i: int) -> bytes:
        return b""
