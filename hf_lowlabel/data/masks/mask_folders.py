"""Folders of images with masks: our own layout, PASCAL VOC's, Cityscapes'.

    photos/images/a/1.jpg  photos/masks/a/1.png      a mask has its image's path, but for the extension; or 1_mask.png
    photos/train/images/   photos/test/images/ ...   per split; or photos/images/train/ with photos/masks/train/;
                                                     photos/masks/ may be one folder for all splits
    photos/1.jpg           photos/1_mask.png         beside each other
    photos/train/          photos/train_masks/       per split, beside each other
    VOC2012/JPEGImages/  SegmentationClass[Aug]/  ImageSets/Segmentation/train.txt  labelmap.txt
    cityscapes/leftImg8bit/train/city/*_leftImg8bit.png  gtFine/train/city/*_gtFine_labelIds.png

The folders may have other usual names (`IMAGE_FOLDERS`, `MASK_FOLDERS`) in any spelling. Nothing is decoded here.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ...errors import MissingSplit, UserError, unknown
from ..files.folder_names import IMAGE_FOLDERS, MASK_FOLDERS, split_pairs
from ..files.folders import ALIASES, holds_images, in_any_case, is_text, listing, spellings, subfolders
from ..files.mask_names import of_others
from ..files.table_files import stem
from ..pixels.masks import IGNORE, MaskFormat
from ..splits.split_lists import ByName
from ..splits.split_roots import only_train, split_root
from .mask_files import MaskFiles, in_two, mask_files, within
from .voc import listed_photos, meaning, refuse_two_lists, sole_list, tell_unlisted

CITYSCAPES_CLASSES = (
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle"
).split(", ")
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # labelIds of the classes
CITYSCAPES_TABLE = tuple(CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else IGNORE for v in range(256))


def layout(path: Path) -> str | None:
    """ "voc", "cityscapes", "folder" (images/ somewhere), "beside" (1.jpg and 1_mask.png), or None."""
    if not path.is_dir():
        return None
    if in_any_case(path, "JPEGImages").is_dir():
        return "voc"
    if in_any_case(path, "leftImg8bit").is_dir():
        return "cityscapes"
    inside = subfolders(path)
    if split_pairs(folder.name for folder in inside):
        return "pairs"
    if named(inside, IMAGE_FOLDERS) or any(named(subfolders(folder), IMAGE_FOLDERS) for folder in inside):
        return "folder"
    below = (folder for parent in inside for folder in subfolders(parent))
    return "beside" if any(map(has_mask_beside, itertools.chain([path], inside, below))) else None


def named(folders: list[Path], names: Collection[str]) -> list[Path]:
    """Those of the folders that have one of these names in any spelling."""
    return [folder for folder in folders if folder.name.lower() in names]


def has_mask_beside(folder: Path) -> bool:
    """Whether some file in the folder is named as the mask of another in it."""
    return bool(of_others([file.name for file in folder.iterdir() if is_text(file.name) and file.name[0] != "."]))


def find_files(path: Path, split: str) -> MaskFiles:
    """The images of a split and their masks, whichever layout it is. Raises UserError, and MissingSplit."""
    kind = layout(path)
    if kind is None:
        raise UserError(
            f"There is neither images/ nor JPEGImages/ nor leftImg8bit/ in {str(path)!r}. Put the images into images/ "
            "and their masks into masks/, or a mask 1_mask.png beside each image 1.jpg; or paint masks of photos that "
            f"have none by `hf-lowlabel loop {shlex.quote(str(path))} --task segmentation`."
        )
    return {"voc": voc, "cityscapes": cityscapes, "folder": pairs, "beside": beside, "pairs": beside_split}[kind](
        path, split
    )


def pairs(path: Path, split: str) -> MaskFiles:
    images, masks = pair_roots(path, split)
    if masks is None:
        return within(images)
    shared = masks.parent == path != images.parent
    return in_two(images, masks, other_images(path, images) if shared else ())


def beside_split(path: Path, split: str) -> MaskFiles:
    found = split_pairs(folder.name for folder in subfolders(path))
    known = {folder.name for folder in subfolders(path) if folder.name.lower() in ALIASES}
    name = split_name(split, known, path)
    return in_two(path / name, path / found[name]) if name in found else within(path / name)


def beside(path: Path, split: str) -> MaskFiles:
    root, _ = split_root(path, split)
    return within(root)


def pair_roots(path: Path, split: str) -> tuple[Path, Path | None]:
    """(folder of images, folder of masks where there is one) of a split; the latter may be one for all splits."""
    inside = subfolders(path)
    images = one_folder(inside, IMAGE_FOLDERS, path)
    if images is None:
        nested = {p.name: p for p in inside if named(subfolders(p), IMAGE_FOLDERS)}
        root = nested[split_name(split, nested, path)]
        own = one_folder(subfolders(root), MASK_FOLDERS, root)
        return one_folder(subfolders(root), IMAGE_FOLDERS, root), own or masks_of_split(
            [folder for folder in named(inside, MASK_FOLDERS) if holds_images(folder)], split, path
        )
    parts = {p.name: p for p in subfolders(images)}
    if parts and {name.lower() for name in parts} <= ALIASES:
        return parts[split_name(split, parts, path)], masks_of_split(inside, split, path)
    only_train(path, split, "images/")
    return images, one_folder(inside, MASK_FOLDERS, path)


def masks_of_split(inside: list[Path], split: str, path: Path) -> Path | None:
    """The folder of a split in the folder of masks, else that itself where it has none of any split."""
    masks = one_folder(inside, MASK_FOLDERS, path)
    known = {p.name: p for p in subfolders(masks)} if masks is not None else {}
    if masks is None or not any(name.lower() in ALIASES for name in known):
        return masks
    return next((known[name] for name in spelled(split, known)), None)


def other_images(path: Path, images: Path) -> list[Path]:
    """The folders of images of the other splits, where `images` is that of one: train/images/ or images/train/."""
    if images.name.lower() in IMAGE_FOLDERS:
        found = [folder for part in subfolders(path) for folder in named(subfolders(part), IMAGE_FOLDERS)]
    else:
        found = [folder for folder in subfolders(images.parent) if folder.name.lower() in ALIASES]
    return [folder for folder in found if folder != images]


def one_folder(folders: list[Path], names: Collection[str], path: Path) -> Path | None:
    """The one of the folders that has one of these names. Raises UserError for two."""
    found = named(folders, names)
    if len(found) > 1:
        said = " and ".join(f"{folder.name}/" for folder in found)
        raise UserError(f"There are {said} in {str(path)!r}, and only one of them is read. Take the others elsewhere.")
    return found[0] if found else None


def split_name(split: str, known: Collection[str], path: Path, kind: str = "") -> str:
    """The spelling of the split among `known`."""
    if found := spelled(split, known):
        return found[0]
    raise unknown(f"split of {path.name!r}{kind}", split, known, MissingSplit)


def spelled(split: str, known: Collection[str]) -> list[str]:
    """Those of `known` that mean the split, in any spelling."""
    return [name for alias in spellings(split) for name in known if name.lower() == alias.lower()]


def voc(path: Path, split: str) -> MaskFiles:
    """`split` is a list in ImageSets/Segmentation ("train", "val", "trainaug" where somebody put it), or "all" images;
    one list of another name is that of the training images, and so are all images where there is no list.

    Masks come from SegmentationClassAug, the augmented set's 12031, where it is there, else from SegmentationClass.
    """
    photos, folder = in_any_case(path, "JPEGImages"), in_any_case(in_any_case(path, "ImageSets"), "Segmentation")
    of_masks = [in_any_case(path, name) for name in ("SegmentationClassAug", "SegmentationClass")]
    masks = next((folder for folder in of_masks if folder.is_dir()), None)
    if masks is None:
        raise UserError(f"There is no SegmentationClass/ with VOC's masks beside JPEGImages/ in {str(path)!r}.")
    every = {stem(file.id): file for file in listing(photos)}
    called = ByName(every, "photos in JPEGImages/", "the lists")
    lists = {p.stem: listed_photos(p, called) for p in sorted(folder.glob("*.[tT][xX][tT]"))}
    name = sole_list(lists, split, path) or split_name(
        split, [*lists, "all"], path, " (lists in ImageSets/Segmentation)"
    )
    ids = sorted(every if name == "all" else lists[name])
    absent = [id for id in ids if id not in every]
    if absent:
        raise UserError(
            f"{len(absent)} ids in the list {name!r} are without an image in JPEGImages/, such as {absent[0]!r}. Add "
            "the images, or correct the list."
        )
    if name != "all":
        refuse_two_lists(lists)
        tell_unlisted(lists, every, path)
    of_image = {stem(file.id): file for file in listing(masks)}
    first = next((masks / of_image[id].path for id in ids if id in of_image), None)
    files = {id: every[id] for id in ids}
    return mask_files(photos, files, masks, of_image, *meaning(path, ids, first))


def cityscapes(path: Path, split: str) -> MaskFiles:
    """19 classes out of labelIds. Ids are such as "weimar_000085_000019"; "test" has no published masks."""
    images = in_any_case(path, "leftImg8bit")
    name = split_name(split, {p.name for p in images.iterdir() if p.is_dir()}, path)
    files = {PurePosixPath(file.id).stem.removesuffix("_leftImg8bit"): file for file in listing(images / name)}
    masks, kinds = (
        in_any_case(path, "gtFine") / name,
        {"_gtFine_labelIds": CITYSCAPES_TABLE, "_gtFine_labelTrainIds": None},
    )
    found = listing(masks) if masks.is_dir() and name != "test" else []
    ending = next((k for k in kinds if any(stem(file.id).endswith(k) for file in found)), "_gtFine_labelIds")
    of_image = {
        PurePosixPath(file.id).stem.removesuffix(ending): file for file in found if stem(file.id).endswith(ending)
    }
    files = dict(sorted(files.items()))
    return mask_files(images / name, files, masks, of_image, CITYSCAPES_CLASSES, MaskFormat(table=kinds[ending]))
