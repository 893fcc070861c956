"""Images with masks: which images there are, which have a mask, and what its pixels mean.

    load_segmentation("shapes")                                  the embedded set (shapes.py)
    load_segmentation("photos/", classes="classes.txt")          photos/images/, photos/masks/ (mask_folders.py)
    load_segmentation("VOCdevkit/VOC2012", split="train")        PASCAL VOC's own layout
    load_segmentation("cityscapes/", split="train")              Cityscapes' own layout
    load_segmentation("camvid/", classes=[...], mask_ignore=[11])   parquet or a Hub id: an image and a mask column

An image without a mask is an unlabeled image; it is never asked for one.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError, unknown
from .dataset import ImageDataset, JoinedReader, Reader, fingerprint, looks_like_hub_id, missing
from .images import DECODE_ERRORS, BadImage, load_rgb
from .masks import IGNORE, MaskFormat, check_names, check_size, decode_mask, make_coding, read_classes

MASK_COLUMNS = ("mask", "masks", "label", "annotation", "segmentation", "segmentation_mask", "semantic_mask", "gt")
SCANNED = 500  # masks looked at to count the classes of a source that names none


@dataclass
class SegmentationSource:
    """Like `ImageDataset`, with masks instead of classes: `image(i)` is PIL's, `mask(i)` uint8 [H, W] with 255 = no part."""

    name: str
    config: str | None
    split: str
    revision: str | None
    ids: list[str]
    has_mask: np.ndarray  # bool [N]
    class_names: list[str]  # in the order of their index
    coding: MaskFormat
    fingerprint: str  # sha256 over class names, ids, which have masks, and the sizes of all files
    license: str | None
    flip: bool  # a mirrored image with its mirrored mask is as good an example
    reader: Reader = field(repr=False)
    mask_reader: Reader | None = field(repr=False)

    def __post_init__(self) -> None:
        self.has_mask = np.asarray(self.has_mask, dtype=bool)
        if not self.ids:
            raise UserError(f"found no images in {self.name!r} (split {self.split!r}); expected at least one")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"the ids of {self.name!r} are not unique")
        check_names(self.class_names)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]: 0 where there is a mask, -1 where there is none; a mask has no single class."""
        return np.where(self.has_mask, 0, -1).astype(np.int64)

    def image(self, i: int) -> Image.Image:
        """Image i as PIL opens it; a file PIL cannot open is a `BadImage`."""
        try:
            return self.reader(int(i))
        except BadImage as error:
            raise BadImage(error.reason, self.ids[i]) from error

    def rgb(self, i: int) -> Image.Image:
        """Image i decoded, upright, RGB."""
        with self.image(i) as image:
            try:
                return load_rgb(image)
            except BadImage as error:
                raise BadImage(error.reason, self.ids[i]) from error

    def mask(self, i: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [H, W] of classes and 255. `size`: (width, height) of the image, checked where given."""
        if not self.has_mask[i]:
            raise UserError(
                f"found no mask of image {self.ids[i]!r} in {self.name!r}; expected one for a labeled "
                "image; fix: add the mask, or take the image out of the labeled ones"
            )
        try:
            with self.mask_reader(int(i)) as file:
                if size is not None:
                    check_size(file.size, size, self.ids[i])
                return decode_mask(file, self.coding, len(self.class_names), self.ids[i])
        except BadImage as error:
            raise UserError(f"found a mask of image {self.ids[i]!r} that cannot be read: {error.reason}") from error
        except UserError:
            raise
        except DECODE_ERRORS as error:
            raise UserError(f"found a mask of image {self.ids[i]!r} that cannot be read: {error}") from error

    def images(self) -> ImageDataset:
        """The images alone, without labels: what target pretraining sees."""
        none = np.full(len(self), -1, dtype=np.int64)
        return ImageDataset(
            name=self.name,
            config=self.config,
            split=self.split,
            revision=self.revision,
            ids=list(self.ids),
            labels=none,
            class_names=[],
            fingerprint=self.fingerprint,
            license=self.license,
            flip=self.flip,
            reader=self.reader,
        )

    def only(self, ids: Sequence[str]) -> SegmentationSource:
        """The images with these ids, in the order they have here."""
        known, wanted = set(self.ids), set(ids)
        for id in ids:
            if id not in known:
                raise unknown(f"image in {self.name!r}", id, self.ids)
        keep = np.array([i for i, id in enumerate(self.ids) if id in wanted])
        digest = hashlib.sha256("\n".join([self.fingerprint, *(self.ids[i] for i in keep)]).encode()).hexdigest()
        return replace(
            self,
            ids=[self.ids[i] for i in keep],
            has_mask=self.has_mask[keep],
            fingerprint=digest,
            reader=SubsetReader(self.reader, keep),
            mask_reader=SubsetReader(self.mask_reader, keep),
        )


class SubsetReader:
    def __init__(self, reader: Reader, keep: np.ndarray):
        self.reader, self.keep = reader, keep

    def __call__(self, i: int) -> Image.Image:
        return self.reader(int(self.keep[i]))


def join_images(labeled: SegmentationSource, unlabeled: ImageDataset | SegmentationSource) -> SegmentationSource:
    """Masks come from the first source, the second is raw images. Ids become "labeled/<id>" and "unlabeled/<id>"."""
    if not labeled.has_mask.any():
        raise UserError(
            f"found no mask in {labeled.name!r}; expected the first of the two sources to have some; fix: "
            f"swap them, or use {unlabeled.name!r} alone"
        )
    licenses = sorted({source.license for source in (labeled, unlabeled) if source.license})
    return SegmentationSource(
        name=f"{labeled.name}+{unlabeled.name}",
        split=f"{labeled.split}+{unlabeled.split}",
        config=None,
        revision=None,
        ids=[f"labeled/{id}" for id in labeled.ids] + [f"unlabeled/{id}" for id in unlabeled.ids],
        has_mask=np.concatenate([labeled.has_mask, np.zeros(len(unlabeled), dtype=bool)]),
        class_names=list(labeled.class_names),
        coding=labeled.coding,
        fingerprint=hashlib.sha256(f"{labeled.fingerprint}+{unlabeled.fingerprint}".encode()).hexdigest(),
        license=" and ".join(licenses) or None,
        flip=labeled.flip and unlabeled.flip,
        reader=JoinedReader(labeled.reader, len(labeled), unlabeled.reader),
        mask_reader=labeled.mask_reader,
    )


@dataclass(frozen=True)
class Declared:
    """What the user says about masks, as given: see `load_segmentation`."""

    classes: Sequence[str] | str | Path | None = None
    format: str | None = None
    ignore: Sequence[int] = ()

    def resolve(
        self, names: Sequence[str] | None, coding: MaskFormat | None, scan: Callable[[MaskFormat], int]
    ) -> tuple[list[str], MaskFormat]:
        """(class names, coding). A layout's own names and coding hold unless others are declared."""
        colors = None
        if isinstance(self.classes, (str, Path)):
            names, colors = read_classes(self.classes)
        elif self.classes is not None:
            names = [str(n) for n in self.classes]
            check_names(names)
        if coding is None or self.format or self.ignore:
            base = coding or MaskFormat()
            kind = self.format or base.kind
            made = make_coding(kind, names or [], colors, self.ignore)
            coding = replace(made, table=base.table if kind == base.kind else None)
        if names is None:
            names = ["background", "object"] if coding.kind == "binary" else [f"class {k}" for k in range(scan(coding))]
        return list(names), coding


def load_segmentation(
    dataset: str | Path,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
) -> SegmentationSource:
    """`dataset`: "shapes", a local folder or parquet file, or a Hub id; a local path wins.

    classes: class names in the order of their index, or a text file of them (masks.read_classes), with colours where
    masks are colours; None: the layout's own, else as many as the masks' values tell. mask_format: "index", "binary"
    or "colors". mask_ignore: raw mask values that take no part, beside 255.
    """
    from . import mask_folders, mask_tables, shapes

    declared = Declared(classes, mask_format, tuple(mask_ignore))
    name, path = str(dataset), Path(dataset).expanduser()
    if name == "shapes":
        if path.exists():
            warnings.warn("'shapes' means the embedded set; for the folder of that name write './shapes'", stacklevel=2)
        return shapes.shapes(split)
    if path.exists():
        if revision is not None:
            raise UserError(
                f"found revision {revision!r} for the local path {name!r}; expected none: only the Hub has "
                "revisions; fix: leave it out, or give a Hub id"
            )
        if mask_folders.layout(path) is not None or path.is_dir() and not mask_tables.is_table(path):
            return mask_folders.load_folder(path, split, declared)
        return mask_tables.load_parquet(path, config, split, image_column, mask_column, declared)
    if not looks_like_hub_id(name):
        raise missing(name, path)
    return mask_tables.load_hub(name, config, split, revision, image_column, mask_column, declared)


def build(
    name: str,
    split: str,
    ids: list[str],
    has_mask: np.ndarray,
    reader: Reader,
    mask_reader: Reader | None,
    sizes: Sequence[str],
    declared: Declared,
    *,
    names: Sequence[str] | None = None,
    coding: MaskFormat | None = None,
    config: str | None = None,
    revision: str | None = None,
    license: str | None = None,
) -> SegmentationSource:
    """The source, once its files are known. sizes: per image what the fingerprint knows of its files."""
    count = _Counter(ids, has_mask, mask_reader, name)
    class_names, coding = declared.resolve(names, coding, count)
    return SegmentationSource(
        name=name,
        config=config,
        split=split,
        revision=revision,
        ids=ids,
        has_mask=has_mask,
        class_names=class_names,
        coding=coding,
        fingerprint=fingerprint(ids, has_mask.astype(int), class_names, sizes),
        license=license,
        flip=True,
        reader=reader,
        mask_reader=mask_reader,
    )


class _Counter:
    """Classes of a source that names none: one more than the largest value in up to `SCANNED` of its masks."""

    def __init__(self, ids: list[str], has_mask: np.ndarray, mask_reader: Reader | None, name: str):
        self.ids, self.rows, self.mask_reader, self.name = ids, np.flatnonzero(has_mask), mask_reader, name

    def __call__(self, coding: MaskFormat) -> int:
        if not len(self.rows):
            raise UserError(
                f"found neither masks nor class names in {self.name!r}; expected one of them; fix: give classes"
            )
        top = 0
        for i in self.rows[:: -(-len(self.rows) // SCANNED)]:
            with self.mask_reader(int(i)) as file:
                values = decode_mask(file, coding, IGNORE, self.ids[i])
            top = max(top, int(values[values != IGNORE].max(initial=0)))
        if top == 0:
            raise UserError(
                f"found no mask value but 0 and 255 in {self.name!r}, where 255 marks pixels that take no "
                "part; expected several classes; fix: declare mask format 'binary' if 255 is the object, "
                "or give classes"
            )
        return top + 1
