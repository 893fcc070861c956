"""Which folder of a data set a split is, where there are folders of splits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from pathlib import Path

from ...errors import MissingSplit, UserError, unknown
from ...text import warn
from ..files.folder_names import MASK_FOLDERS
from ..files.folders import (
    ALIASES,
    OTHER_TABLES,
    SPLITS,
    UNLABELED,
    ending_of,
    holds_images,
    is_table,
    metadata_files,
    spellings,
    subfolders,
    walked,
)
from ..files.split_words import OF_IMAGES, besides, called_as_split, split_said, splits_in, words_in
from ..files.table_files import TABLES
from ..pixels.images import EXTENSIONS

SAYING = (*TABLES, *OTHER_TABLES, ".yaml", ".yml", ".xml")  # endings of files that may say labels or splits
SAYS = {*"annotation annotations imagesets instances label labels lists meta metadata split splits".split()}
OF_YOLO = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
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
        refuse_beside(path)
        refuse_held_among(path)
        only_train(path, split)
        return path, []
    if strays and split not in folders.keys() - ALIASES:  # one that is asked for by its name is a split
        refuse_classes(path, folders, strays)
        refuse_pair(path, folders, strays)
        splits = " and ".join(f"{folders[name].name}/" for name in sorted(folders) if name in ALIASES)
        warn(
            f"{splits} in {path.name!r} are read as splits, and the images in {', '.join(strays[:5])} beside them are "
            "left out. Move them into the folder of a split; if all of these are classes, move all into one folder "
            "train/."
        )
    for name in spellings(split):
        if name in folders:
            others = [key for key in folders if key in ALIASES and key != name and key not in SPLITS[UNLABELED]]
            return innermost(folders[name]), [innermost(folders[key]) for key in sorted(others)]
    raise unknown(f"split of {path.name!r}", split, folders, MissingSplit)


def way_to_splits(path: Path) -> list[Path]:
    """A data set, the only folder of images in it and so on, to that of folders of splits; [] where there is none."""
    way = [path]
    for _ in range(3):  # an archive has one or two around its own; a link in a circle has no end
        inside = [*itertools.islice(filter(holds_images, subfolders(way[-1])), 2)]  # of many classes not all
        if len(inside) != 1 or len(way) == 1 and split_folders(path)[0]:
            return []
        way.append(inside[0])
        splits = {name for name in split_folders(way[-1])[0] if name in ALIASES}
        if len(splits) > 1 and (splits <= SURE or not splits.isdisjoint(SPLITS["train"])):
            return way
    return []


def images_beside(way: list[Path]) -> list[str]:
    """The images that lie beside folders on the way to those of splits."""
    names = sorted(file.name for folder in way[:-1] for file in folder.iterdir())
    return [name for name in names if ending_of(name) in EXTENSIONS and not name.startswith(".")]


def sole_folder(path: Path) -> Path | None:
    """The folder of splits around which there are folders alone, as images/ of YOLO's or what an archive adds."""
    way = way_to_splits(path)
    return way[-1] if way and not images_beside(way) else None


def around_splits(path: Path) -> Path:
    """The folder in a data set that its folders of splits lie in, if there are any."""
    return sole_folder(path) or path


def refuse_beside(path: Path) -> None:
    """UserError for images beside the only folder of folders of splits, all of which would be learned from."""
    if beside := images_beside(way := way_to_splits(path)):
        raise UserError(
            f"{beside[0]} in {path.name!r} lies beside the folder {way[-1].name}/, which has folders of splits in it. "
            f"Give {str(way[-1])!r}, or move the image elsewhere."
        )


def opened_folder(path: Path, itself: bool = False) -> Path:
    """The folder to open for a data set: where folders of splits have others around them, the first on the way to them
    in which a file says something, which those in the next one then do not. itself: `path` in any case, since its masks
    are laid out in it."""
    if sole_folder(path) is None:
        return path
    way = way_to_splits(path)
    saying = [(folder, name) for folder in way if (name := what_says(folder)) is not None]
    opened = path if itself else saying[0][0] if saying else way[-1]
    if unread := next(((folder, name) for folder, name in saying if folder != opened), None):
        inner, name = unread
        warn(
            f"{name} in {inner.name}/ may say labels or splits, and is not read where {opened.name!r} is opened. Give "
            f"{str(inner)!r} to read it."
        )
    return opened


def what_says(folder: Path) -> str | None:
    """The name of a file in a folder, or of a folder of files without images in it, that by its name says labels or
    splits."""
    for file in sorted(folder.iterdir()):
        ending, says = ending_of(file.name), splits_in(file.stem)
        if ending in (".yaml", ".yml"):
            says = {"train"} if file.name in OF_YOLO else set()
        elif ending in SAYING:
            says |= words_in(file.stem) & SAYS
        if says and ending in (*SAYING, ".txt") and not file.name.startswith("."):
            return file.name
    for one in subfolders(folder):
        if (words_in(one.name) & SAYS or splits_in(one.name)) and not holds_images(one):
            files = (file for _, _, files in walked(one) for file in files)
            if any(ending_of(file) in (*SAYING, ".txt") for file in files):
                return f"{one.name}/"
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


def refuse_pair(path: Path, folders: dict[str, Path], strays: list[str]) -> None:
    """UserError where folders that say splits beside other words or a number may be two classes of several, as
    train_board/ and dev_board/ beside cpu_board/: no folder, table or annotation tells that they are splits."""
    pair = [folder for name, folder in folders.items() if name in ALIASES and folder.name.lower() not in ALIASES]
    odd = [one for one in pair if re.search(r"\d", one.name) or besides(one.name, split_said([one.name]) or "train")]
    others = [name for name in strays if words_in(name).isdisjoint(SPLITS[UNLABELED])]  # COCO's unlabeled2017/
    if not odd or not others or what_says(path) is not None:
        return
    if any(metadata_files(one) or any(map(holds_images, subfolders(one))) for one in odd):
        return
    raise UserError(
        f"{', '.join(sorted(f'{one.name}/' for one in odd))} in {path.name!r} beside {', '.join(others[:5])} may be "
        "splits, or classes like these. For splits, call them train/ and test/ or move the others elsewhere; else move "
        "all of them into train/."
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
    warn(f"{what} is read as one folder of images more, and not as a split. {do}")


def only_train(path: Path, split: str, inside: str = "") -> None:
    """Raises MissingSplit for another split than the one that a folder without splits is."""
    if split not in SPLITS["train"]:
        raise MissingSplit(
            f"There is no folder for split {split!r} in {str(path)!r}; it would be {split}/{inside} beside "
            f"train/{inside}. Use split 'train', or cut a test set out of it with test_fraction."
        )


def has_unlabeled_split(path: Path) -> bool:
    """Is there unlabeled/ beside train/, which is read only where it is asked for?"""
    if not path.is_dir() or split_folders(around_splits(path))[0].keys().isdisjoint(SPLITS[UNLABELED]):
        return False
    return not is_table(path)  # which looks through all names
