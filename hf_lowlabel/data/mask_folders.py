"""Folders of images with masks: our own layout, PASCAL VOC's, Cityscapes'.

    photos/images/a/1.jpg  photos/masks/a/1.png      a mask has its image's path, but for the extension; or 1_mask.png
    photos/train/images/   photos/test/images/ ...   per split; or photos/images/train/ with photos/masks/train/
    VOC2012/JPEGImages/  SegmentationClass[Aug]/  ImageSets/Segmentation/train.txt
    cityscapes/leftImg8bit/train/city/*_leftImg8bit.png  gtFine/train/city/*_gtFine_labelIds.png

Nothing is decoded here.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import MissingSplit, UserError, unknown
from .folders import SPLITS, FileReader, walk
from .masks import IGNORE, MaskFormat
from .segmentation import Declared, SegmentationSource, build

SUFFIXES = ("_mask", "_segmentation", "_label", "_labels", "_gt")  # what data sets append to a mask's name

VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
CITYSCAPES_CLASSES = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
]
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # labelIds of the classes
CITYSCAPES_TABLE = tuple(CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else IGNORE for v in range(256))


def layout(path: Path) -> str | None:
    """ "voc", "cityscapes", "folder" (images/ somewhere), or None."""
    if not path.is_dir():
        return None
    if (path / "JPEGImages").is_dir():
        return "voc"
    if (path / "leftImg8bit").is_dir():
        return "cityscapes"
    return "folder" if (path / "images").is_dir() or any(p.is_dir() for p in path.glob("*/images")) else None


def load_folder(path: Path, split: str, declared: Declared) -> SegmentationSource:
    kind = layout(path)
    if kind == "voc":
        return load_voc(path, split, declared)
    if kind == "cityscapes":
        return load_cityscapes(path, split, declared)
    if kind is None:
        raise UserError(
            f"found neither images/ nor JPEGImages/ nor leftImg8bit/ in {str(path)!r}; expected images/ "
            "with the images and masks/ with the masks; fix: sort them into these folders"
        )
    return load_pairs(path, split, declared)


def load_pairs(path: Path, split: str, declared: Declared) -> SegmentationSource:
    images, masks = pair_roots(path, split)
    found = listing(images)
    if not found:
        raise UserError(f"found no images in {str(images)!r}; expected files such as .jpg or .png")
    ids = [id for id, _, _ in found]
    of_image = match_masks(ids, listing(masks) if masks.is_dir() else [], masks)
    reader, sizes = FileReader(images, [name for _, name, _ in found]), [size for _, _, size in found]
    return files_source(path.resolve().name, split, ids, reader, sizes, masks, of_image, declared)


def pair_roots(path: Path, split: str) -> tuple[Path, Path]:
    """(folder of images, folder of masks) of a split."""
    names = (split, *SPLITS.get(split, ()))
    nested = {p.parent.name: p.parent for p in sorted(path.glob("*/images")) if p.is_dir()}
    if nested and not (path / "images").is_dir():
        for name in names:
            if name in nested:
                return nested[name] / "images", nested[name] / "masks"
        raise unknown(f"split of {path.name!r}", split, nested, MissingSplit)
    inside = {p.name for p in (path / "images").iterdir() if p.is_dir()}
    if inside and inside <= {alias for aliases in SPLITS.values() for alias in aliases}:
        for name in names:
            if name in inside:
                return path / "images" / name, path / "masks" / name
        raise unknown(f"split of {path.name!r}", split, inside, MissingSplit)
    if split not in SPLITS["train"]:
        raise MissingSplit(
            f"found no folder for split {split!r} in {str(path)!r}; expected {split}/images/ beside "
            "train/images/; fix: use split 'train', or cut a test set out of it with test_fraction"
        )
    return path / "images", path / "masks"


def listing(root: Path) -> list[tuple[str, str, int]]:
    """(id, relative path, bytes) of each image file, by id: the path in Unicode's NFC form."""
    return sorted((unicodedata.normalize("NFC", name), name, size) for name, size in walk(root))


def stem(id: str) -> str:
    return str(PurePosixPath(id).with_suffix(""))


def match_masks(ids: list[str], masks: list[tuple[str, str, int]], root: Path) -> dict[str, tuple[str, int]]:
    """id -> (path of its mask, bytes). A mask that belongs to no image, or two to one, is an error."""
    by_stem: dict[str, str] = {}
    for id in ids:
        if stem(id) in by_stem:
            raise UserError(
                f"found images {by_stem[stem(id)]!r} and {id!r}; expected names that differ before the "
                "extension, because masks are matched by it; rename one"
            )
        by_stem[stem(id)] = id
    out: dict[str, tuple[str, int]] = {}
    strange = []
    for mask, name, size in masks:
        keys = [stem(mask), *(stem(mask).removesuffix(s) for s in SUFFIXES if stem(mask).endswith(s))]
        id = next((by_stem[key] for key in keys if key in by_stem), None)
        if id is None:
            strange.append(mask)
        elif id in out:
            raise UserError(
                f"found two masks of image {id!r}, {out[id][0]!r} and {name!r}; expected one; remove the other"
            )
        else:
            out[id] = (name, size)
    if strange:
        raise UserError(
            f"found {len(strange)} masks in {str(root)!r} without an image, such as {strange[0]!r}; "
            f"expected the image's path, as in {stem(ids[0])}.png or {stem(ids[0])}_mask.png; rename or "
            "remove them"
        )
    return out


def files_source(
    name: str,
    split: str,
    ids: list[str],
    reader: FileReader,
    sizes: list[int],
    mask_root: Path,
    of_image: dict[str, tuple[str, int]],
    declared: Declared,
    **own,
) -> SegmentationSource:
    has_mask = np.array([id in of_image for id in ids])
    paths = [of_image[id][0] if id in of_image else "" for id in ids]
    content = [f"{size}/{of_image[id][1] if id in of_image else 'none'}" for id, size in zip(ids, sizes, strict=True)]
    return build(name, split, ids, has_mask, reader, FileReader(mask_root, paths), content, declared, **own)


def load_voc(path: Path, split: str, declared: Declared) -> SegmentationSource:
    """`split` is a list in ImageSets/Segmentation ("train", "val", "trainaug" where somebody put it), or "all" images.

    Masks come from SegmentationClassAug, the augmented set's 12031, where it is there, else from SegmentationClass.
    """
    lists = {p.stem: p for p in sorted((path / "ImageSets" / "Segmentation").glob("*.txt"))}
    masks = next((path / m for m in ("SegmentationClassAug", "SegmentationClass") if (path / m).is_dir()), None)
    if masks is None:
        raise UserError(f"found no SegmentationClass/ in {str(path)!r}; expected VOC's masks beside JPEGImages/")
    every = {stem(id): (name, size) for id, name, size in listing(path / "JPEGImages")}
    if split == "all":
        ids = sorted(every)
    else:
        name = next((n for n in (split, *SPLITS.get(split, ())) if n in lists), None)
        if name is None:
            raise unknown(
                f"split of {path.name!r} (lists in ImageSets/Segmentation)", split, [*lists, "all"], MissingSplit
            )
        ids = sorted(dict.fromkeys(lists[name].read_text(encoding="utf-8").split()))
    absent = [id for id in ids if id not in every]
    if absent:
        raise UserError(
            f"found {len(absent)} ids in the list {split!r} without an image in JPEGImages/, such as "
            f"{absent[0]!r}; expected all; add the images or fix the list"
        )
    of_image = {stem(id): (name, size) for id, name, size in listing(masks)}
    reader, sizes = FileReader(path / "JPEGImages", [every[id][0] for id in ids]), [every[id][1] for id in ids]
    return files_source(
        path.resolve().name,
        split,
        ids,
        reader,
        sizes,
        masks,
        of_image,
        declared,
        names=VOC_CLASSES,
        coding=MaskFormat(),
    )


def load_cityscapes(path: Path, split: str, declared: Declared) -> SegmentationSource:
    """19 classes out of labelIds. Ids are such as "weimar_000085_000019"; "test" has no published masks."""
    images, folders = path / "leftImg8bit", {p.name for p in (path / "leftImg8bit").iterdir() if p.is_dir()}
    name = next((n for n in (split, *SPLITS.get(split, ())) if n in folders), None)
    if name is None:
        raise unknown(f"split of {path.name!r}", split, folders, MissingSplit)
    found = {
        PurePosixPath(id).stem.removesuffix("_leftImg8bit"): (file, size) for id, file, size in listing(images / name)
    }
    masks, kinds = path / "gtFine" / name, {"_gtFine_labelIds": CITYSCAPES_TABLE, "_gtFine_labelTrainIds": None}
    files = listing(masks) if masks.is_dir() and name != "test" else []
    ending = next((k for k in kinds if any(stem(id).endswith(k) for id, _, _ in files)), "_gtFine_labelIds")
    of_image = {
        PurePosixPath(id).stem.removesuffix(ending): (file, size)
        for id, file, size in files
        if stem(id).endswith(ending)
    }
    ids = sorted(found)
    reader, sizes = FileReader(images / name, [found[id][0] for id in ids]), [found[id][1] for id in ids]
    return files_source(
        path.resolve().name,
        split,
        ids,
        reader,
        sizes,
        masks,
        of_image,
        declared,
        names=CITYSCAPES_CLASSES,
        coding=MaskFormat(table=kinds[ending]),
    )
