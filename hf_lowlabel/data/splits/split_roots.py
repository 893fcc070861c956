"""Which folder of a data set a split is, where there are folders of splits."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

from ...errors import MissingSplit, UserError, unknown
from ..files.folder_names import MASK_FOLDERS
from ..files.folders import (
    ALIASES,
    EXTENSIONS,
    SPLITS,
    UNLABELED,
    ending_of,
    holds_images,
    is_table,
    metadata_files,
    spellings,
    subfolders,
)
from ..files.split_words import OF_IMAGES, besides, called_as_split, split_said

SURE = {*SPLITS["validation"], *SPLITS["test"]} - {"valid", "dev", "eval"}  # which hardly are classes


def said_beside(folders: Collection[Path]) -> dict[Path, str]:
    """Those of folders that say a split beside other words or a number, as train2017/ and seg_test/, and another says
    training, or is held out, beside the same words: "test tube" may be a class. train2017/ alone is no class either."""
    known = {folder: split for folder in folders if (split := split_said([folder.name])) is not None}
    words = {folder: besides(folder.name, split) for folder, split in known.items()}
    there = [folder for folder in known if words[folder].isdisjoint(MASK_FOLDERS) and holds_images(folder)]
    if len(there) == 1 and called_as_split(there[0].name) == "train" and there[0].name.lower() not in ALIASES:
        others = (one for one in folders if one != there[0] and one.name.lower() not in MASK_FOLDERS)
        return {} if any(map(holds_images, others)) else {there[0]: "train"}
    sides = {(words[folder], known[folder] == "train") for folder in there}
    return {
        folder: known[folder]
        for folder in there
        if folder.name.lower() not in ALIASES and (words[folder], known[folder] != "train") in sides
    }


def called_folders(path: Path) -> dict[str, Path]:
    """The folders in a data set by their names in small letters, and by its split one of `said_beside`, where no other
    is called so."""
    folders = {entry.name.lower(): entry for entry in subfolders(path)[::-1]}  # of Test/ and test/ the first
    said = said_beside(folders.values())
    taken = [*said.values(), *(split for split in OF_IMAGES if not folders.keys().isdisjoint(SPLITS[split]))]
    if len({*taken}) < len(taken):
        return folders
    return {said.get(folder, name): folder for name, folder in folders.items()}


def split_folders(path: Path) -> tuple[dict[str, Path], list[str]]:
    """(name in small letters -> folder in a data set whose folders are splits, else nothing; those of them that hold
    images and are no split, where that had to be asked)."""
    folders = called_folders(path)
    train = next((folders[name] for name in SPLITS["train"] if name in folders), None)
    # A class may be called "train" (a locomotive): it is a split when it has folders of images or metadata of its own,
    # when there are no images beside it but in other splits, or when test or validation images are beside it.
    inside = subfolders(train) if train is not None else []
    nested = inside and (any(map(holds_images, inside)) or not holds_images(train))
    strays = sorted(folder.name for name, folder in folders.items() if name not in ALIASES and holds_images(folder))
    if nested or train is not None and metadata_files(train):
        return folders, strays
    splits = [folder for name, folder in folders.items() if name in ALIASES and name not in SPLITS[UNLABELED]]
    if not splits:
        return {}, []
    held_out = [folders[name] for kind in ("validation", "test") for name in SPLITS[kind] if name in folders]
    if strays and not (train in splits and holds_images(train) and any(map(holds_images, held_out))):
        return {}, []
    return folders, strays


def split_root(path: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of the split, and those of the other splits with classes: classes are those of all splits together."""
    folders, strays = split_folders(path)
    if not folders:
        if (below := sole_folder(path)) is not None:
            return split_root(below, split)
        refuse_held_among(path)
        only_train(path, split)
        return path, []
    if strays and split not in folders.keys() - ALIASES:  # one that is asked for by its name is a split
        refuse_classes(path, folders, strays)
        splits = " and ".join(f"{folders[name].name}/" for name in sorted(folders) if name in ALIASES)
        warnings.warn(
            f"{splits} in {path.name!r} are read as splits, and the images in {', '.join(strays[:5])} beside them are "
            "left out. Move them into the folder of a split; if all of these are classes, move all into one folder "
            "train/.",
            stacklevel=4,
        )
    for name in spellings(split):
        if name in folders:
            others = [key for key in folders if key in ALIASES and key != name and key not in SPLITS[UNLABELED]]
            return innermost(folders[name]), [innermost(folders[key]) for key in sorted(others)]
    raise unknown(f"split of {path.name!r}", split, folders, MissingSplit)


def sole_folder(path: Path) -> Path | None:
    """The folder of splits around which there are folders alone, as images/ of YOLO's or what an archive adds."""
    for _ in range(3):  # an archive has one or two around its own; a link in a circle has no end
        inside = [folder for folder in subfolders(path) if holds_images(folder)]
        if len(inside) != 1 or any(ending_of(file.name) in EXTENSIONS for file in path.iterdir()):
            return None
        path = inside[0]
        if sum(name in ALIASES for name in split_folders(path)[0]) > 1:
            return path
    return None


def innermost(folder: Path) -> Path:
    """The folder of the same name in a folder that holds nothing else, as archives of Kaggle are unpacked."""
    inside = subfolders(folder)
    if [one.name for one in inside] != [folder.name]:
        return folder
    return inside[0] if all(one == inside[0] or one.name.startswith(".") for one in folder.iterdir()) else folder


def refuse_classes(path: Path, folders: dict[str, Path], strays: list[str]) -> None:
    """UserError where train/ may be a class with folders in it: others are beside it, and nothing is held out."""
    train = next((folders[name] for name in SPLITS["train"] if name in folders), None)
    held = any(name in folders for name in (*SPLITS["validation"], *SPLITS["test"]))
    if train is None or held or metadata_files(train) or metadata_files(path, "train"):
        return
    raise UserError(
        f"{train.name}/ in {path.name!r} has folders of images in it, and {', '.join(strays[:5])} beside it: it may be "
        "the training split, or one class more. For the split, take the others elsewhere; if all of these are classes, "
        "move all of them into one folder train/."
    )


def refuse_held_among(path: Path) -> None:
    """UserError for a folder that is called as a split which is held out, beside folders of images that are no splits;
    a warning where its name may well be a class, or a table says the classes."""
    inside = [folder for folder in subfolders(path) if holds_images(folder)]
    said = said_beside(inside)
    held = [one.name for one in inside if (said.get(one) or called_as_split(one.name)) in ("validation", "test")]
    others = [one.name for one in inside if one.name.lower() not in ALIASES and one.name not in held]
    if "invalid" in map(str.lower, others):
        held = [name for name in held if name.lower() != "valid"]
    if not held or not others:
        return
    sure = [one.name for one in inside if one.name in held and (one in said or one.name.lower() in SURE)]
    what = f"{', '.join(f'{name}/' for name in sure or held)} in {path.name!r} beside {', '.join(others[:5])}"
    do = "For a split, move the others into one folder train/ beside it; else move all of them into train/."
    if sure and not metadata_files(path, "train"):
        raise UserError(f"{what} may be a split, whose images must not be learned from, or one class more. {do}")
    warnings.warn(f"{what} is read as one folder of images more, and not as a split. {do}", stacklevel=5)


def only_train(path: Path, split: str, inside: str = "") -> None:
    """Raises MissingSplit for another split than the one that a folder without splits is."""
    if split not in SPLITS["train"]:
        raise MissingSplit(
            f"There is no folder for split {split!r} in {str(path)!r}; it would be {split}/{inside} beside "
            f"train/{inside}. Use split 'train', or cut a test set out of it with test_fraction."
        )


def has_unlabeled_split(path: Path) -> bool:
    """Is there unlabeled/ beside train/, which is read only where it is asked for?"""
    if not path.is_dir() or split_folders(sole_folder(path) or path)[0].keys().isdisjoint(SPLITS[UNLABELED]):
        return False
    return not is_table(path)  # which looks through all names
