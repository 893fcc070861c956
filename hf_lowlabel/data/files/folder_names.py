"""Names of image folders, and of the mask folders beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from .folders import ALIASES

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "input", "inputs")
MASK_FOLDERS = tuple(
    "masks mask labels label annotations annotation gt groundtruth ground_truth segmentations segmentation ann_dir "
    "target targets".split()
)
PICTURES = {*IMAGE_FOLDERS, "jpegimages", "leftimg8bit"}  # VOC's and Cityscapes' too
DRAWN = {*MASK_FOLDERS, "segmentationclass", "segmentationclassaug", "segmentationobject", "gtfine", "gtcoarse"}
BESIDE_SPLIT = ("_masks", "_mask", "_labels", "_annotations", "_gt", "masks", "annot")  # train_masks/ beside train/


def is_of_masks(folders: Collection[str]) -> bool:
    """Whether folders of these names are images and their masks, and not classes."""
    names = {name.lower() for name in folders}
    return names <= PICTURES | DRAWN and bool(names & PICTURES and names & DRAWN) or bool(split_pairs(folders))


def in_mask_folders(files: Iterable[str], below: bool = False) -> set[str]:
    """Those of files (paths with "/") that lie in folders of masks beside folders of images; below: but for those at
    the top."""
    files = list(files)
    folders = list(map(PurePosixPath, {file.rpartition("/")[0] for file in files}))  # few for many files
    above = {folder: {folder, *folder.parents} for folder in folders}
    beside: dict[PurePosixPath, list[str]] = {}
    for one in {folder for every in above.values() for folder in every if folder.name}:
        beside.setdefault(one.parent, []).append(one.name)
    parents = [parent for parent in beside if parent.name or not below]
    of_masks = {parent / name for parent in parents for name in mask_folders_among(beside[parent])}
    hidden = {folder.as_posix() if folder.name else "" for folder in folders if above[folder] & of_masks}
    return {file for file in files if file.rpartition("/")[0] in hidden}


def mask_folders_among(folders: Collection[str]) -> list[str]:
    """Those of folders beside each other that hold the masks of images in another."""
    images = any(name.lower() in PICTURES for name in folders)
    masks = [name for name in folders if images and name.lower() in DRAWN]
    return [*masks, *split_pairs(folders).values()]


def split_pairs(folders: Iterable[str]) -> dict[str, str]:
    """Folder of a split -> that of its masks, as in train/ and train_masks/."""
    known = {name.lower(): name for name in folders}
    ends = [(name, known[name + end]) for name in known for end in BESIDE_SPLIT if name + end in known]
    return {known[name]: masks for name, masks in ends if name in ALIASES}
