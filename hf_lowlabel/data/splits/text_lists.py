"""Text files that are called as splits, each a list of its images: val.txt, splits/test.txt, annotations/test.txt; and
the places of splits in YOLO's data.yaml."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ...files import read_text
from ..files.folders import ALIASES, subfolders
from ..files.split_words import is_called, split_said
from ..files.table_files import TABLES, plain_name
from .split_names import OF_ALL, split_named
from .split_tables import OF_TOOLS, Listed, Pool, files_ending, is_picture

OF_LISTS = ("splits", "split", "lists", "imagesets", "meta", *OF_TOOLS)  # folders of lists
OF_YOLO = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
FIRST = 50  # lines of a file that are looked at, which is no list by its name
BOX = re.compile(r"\d+(\s+[-+.\deE]+){4,}\s*")  # a line of YOLO's, and of no list


def in_lists(path: Path, pool: Pool) -> Iterator[Listed]:
    """What text files list that are called as splits, a line for an image, which more words may follow."""
    for folder in (path, *(one for one in subfolders(path) if one.name.lower() in OF_LISTS)):
        found = [part for file in files_ending(folder, (".txt",)) if (part := listed(file, pool)) is not None]
        yield from without_folds(found)
        for file in files_ending(folder, TABLES) if folder != path else ():
            if (split := split_said([file.stem])) not in (None, "train") and is_called(file.stem, split):
                tell_unread(file, split, f"tables are read in {path.name}/ itself")


def in_json(path: Path, pool: Pool) -> Iterator[Listed]:
    """What split.json or splits.json says: the names of the images of each split, or the split of each image."""
    for file in files_ending(path, (".json",)):
        if file.stem.lower() not in OF_ALL or not file.is_file():
            continue
        try:
            said = json.loads(read_text(file))
        except (UserError, ValueError, RecursionError):  # which is said where tables are looked for
            continue
        if not isinstance(said, dict) or not said:
            continue
        if each := all(isinstance(split, str) and split.strip().lower() in ALIASES for split in said.values()):
            said = {split: [name for name, of in said.items() if of == split] for split in said.values()}
        keys = [key for key in said if key.strip().lower() in ALIASES]
        if len(keys) < len(said) and "train" not in map(split_named, keys):  # a manifest of ours, or something else
            continue
        for key, some in ((key, said[key]) for key in keys):  # others are such as a seed
            split, names = split_named(key), some if isinstance(some, list) else []
            if not isinstance(some, list) or not all(isinstance(name, (str, int)) for name in names):
                if split != "train":
                    tell_unread(file, split, f"{key!r} in it is no list of names of images")
                continue
            plain = list(filter(None, map(plain_name, names)))
            found = list(zip(plain, pool.match(plain, split)))
            if any(id for _, id in found) or any(map(is_picture, plain)):
                yield Listed(split, file, found, key="" if each else key)
            elif plain and split != "train":
                tell_unread(file, split, f"no image is called {plain[0]!r}")


def in_yaml(path: Path, pool: Pool) -> Iterator[Listed]:
    """What YOLO's data.yaml says: a folder, a text file, or a list of them for each split, in the folder that it calls
    `path`, which may be of another machine. What lies in the folder of a split is known."""
    file = next((path / name for name in OF_YOLO if (path / name).is_file()), None)
    if file is None:
        return
    import yaml

    try:
        said = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, UserError, ValueError) as error:
        warnings.warn(f"{file.name} is not read for splits of images: {' '.join(str(error).split())}", stacklevel=6)
        return
    places = [
        place
        for word, some in (said.items() if isinstance(said, dict) else ())
        if isinstance(word, str) and word in ALIASES and (split := split_said([word]))
        for one in (some if isinstance(some, list) else [some])
        if isinstance(one, str) and (place := place_of(path, word, one, split, pool)) is not None
    ]
    if clash := next(((a, b) for a, b in itertools.combinations(places, 2) if cut_alike(a, b)), None):
        keys = " and ".join(f"{place.key}: {place.said}" for place in clash)
        warnings.warn(
            f"{file.name} is not read for splits of images: of its places {keys} there is {clash[0].where.name} alone, "
            "so that nothing is held out by them. Put the images of each split into a folder of its own.",
            stacklevel=6,
        )
        return
    kept: list[Place] = []
    for place in sorted(places, key=order):
        if not any(place.twice(other) for other in kept):
            kept.append(place)
    deepest = {place.where: len(place.where.parts) for place in kept if place.where.is_dir()}
    for place in kept:
        inner = [
            f"{unicodedata.normalize('NFC', one.relative_to(path).as_posix())}/"
            for one in deepest
            if place.where in one.parents
        ]
        beside = (*pool.in_splits, *inner)  # a folder in it is the place of another split
        found = [(name, id) for name, id in place.found if id is None or not id.startswith(beside)]
        if found:
            yield Listed(place.split, file, found, key=place.key)


class Place(NamedTuple):
    """A place of data.yaml. key, said: what stands there. where: the folder or list that it is here. cut: without some
    of its first folders. found: as in `Listed`."""

    key: str
    split: str
    said: str
    where: Path
    cut: bool
    found: list[tuple[str, str | None]]

    def twice(self, other: Place) -> bool:
        """Whether this says no more than another place: the same images, which were learned from or are held out."""
        held = "train" not in (self.split, other.split)
        return self.where == other.where or held and {*self.found} == {*other.found}


def cut_alike(one: Place, other: Place) -> bool:
    """Whether two places that were different ones, of different splits, are the same here."""
    differ = one.split != other.split and plain_name(one.said) != plain_name(other.said)
    return differ and one.where == other.where and (one.cut or other.cut)


def order(place: Place) -> tuple[bool, bool]:
    """Which of the splits that have the same images they are of: training, as in examples that are tested as learned,
    else the one that the folder is called as."""
    return place.split != "train", split_said([place.where.name]) != place.split


def place_of(path: Path, key: str, said: str, split: str, pool: Pool) -> Place | None:
    """A place of data.yaml here: the folder of images or the list of its longest end that is one."""
    parts = [part for part in plain_name(said).split("/") if part not in ("", ".", "..")]
    for k in range(len(parts)):
        there = path.joinpath(*parts[k:])
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            if there.is_dir() and (ids := [id for id in pool.every.ids if id.startswith(f"{'/'.join(parts[k:])}/")]):
                return Place(key, split, said, there, k > 0, [(id, id) for id in ids])
            if there.is_file() and there.suffix.lower() == ".txt":
                return Place(key, split, said, there, k > 0, lines_of(there, split, pool))
    return None


def listed(file: Path, pool: Pool) -> Listed | None:
    """What a text file lists; None where it is no list of a split. One that might be of images which are held out is
    told."""
    split = split_said([file.stem])
    if (
        split is None
        or file.stem in pool.stems
        or not file.is_file()
        or split == "train"
        and not is_called(file.stem, split)
    ):
        return None
    if not is_called(file.stem, split):
        if names_images(file, split, pool):
            tell_unread(file, split, f"its name says more; call it {split}.txt if that is meant")
        return None
    found = lines_of(file, split, pool)
    first = [name for name, _ in found]
    return Listed(split, file, found) if any(id for _, id in found) or any(map(is_picture, first)) else None


def names_images(file: Path, split: str, pool: Pool) -> bool:
    """Whether the first lines of a text file, which may be notes or a long log, all mean an image."""
    try:
        with open(file, encoding="utf-8-sig") as lines:
            few = [plain_name(line) for line in itertools.islice(lines, FIRST) if line.strip()]
    except (OSError, UnicodeDecodeError):  # no list
        return False
    pairs = [(line, plain_name(re.split(r"[\s,;]", line)[0])) for line in few]
    of_boxes = all(map(BOX.fullmatch, few))
    return not of_boxes and all(match_lines([line], [word], split, pool)[0] is not None for line, word in pairs)


def lines_of(file: Path, split: str, pool: Pool) -> list[tuple[str, str | None]]:
    """(name, id) of each line; none of a file of boxes."""
    lines = [plain_name(line) for line in read_text(file).splitlines() if line.strip()]
    if all(map(BOX.fullmatch, lines)):
        return []
    first = [plain_name(re.split(r"[\s,;]", line)[0]) for line in lines]
    return list(zip(first, match_lines(lines, first, split, pool)))


def without_folds(found: Sequence[Listed]) -> list[Listed]:
    """The lists of a folder without those of several divisions (train1.txt, test1.txt, train2.txt ...), which put an
    image into different splits."""
    words = [re.sub(r"\d+", "", part.file.stem.lower()) for part in found]
    numbered = [part for part, word in zip(found, words) if words.count(word) > 1]
    of: dict[str, str] = {}
    contradict = any(of.setdefault(id, part.split) != part.split for part in numbered for _, id in part.found if id)
    if not contradict:
        return list(found)
    warnings.warn(
        f"{numbered[0].file.name} to {numbered[-1].file.name} in {numbered[0].file.parent.name}/ are not read: they "
        f"are {len(numbered)} lists of several divisions, and nothing is held out by them. Keep the lists of one.",
        stacklevel=7,
    )
    return [part for part in found if part not in numbered]


def tell_unread(file: Path, split: str, why: str) -> None:
    warnings.warn(
        f"{file.parent.name}/{file.name} is not read, though it may list the images of split {split!r}, which must not "
        f"be learned from: {why}.",
        stacklevel=7,
    )


def match_lines(lines: Sequence[str], first: Sequence[str], split: str, pool: Pool) -> list[str | None]:
    """The id that each line of a list means by its first word, or as a whole where an image is called so, with blanks.
    Both are looked for only where one is not found: there may be a line for each of many images."""

    def with_blanks(line: str, word: str) -> bool:
        return line in pool.every.known or not is_picture(word) and line.rpartition("/")[2] in pool.every.by_base

    whole = [with_blanks(line, word) for line, word in zip(lines, first)]
    found = pool.match([line if one else word for line, word, one in zip(lines, first, whole)], split)
    lost = [k for k, id in enumerate(found) if id is None and lines[k] != first[k]]
    for k, id in zip(lost, pool.match([first[k] if whole[k] else lines[k] for k in lost], split) if lost else ()):
        found[k] = id
    return found
