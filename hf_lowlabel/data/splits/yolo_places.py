"""The places of splits in YOLO's data.yaml."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...files import read_text
from ...text import series, warn
from ...yaml_files import parsed
from ..files.folders import ALIASES, path_inside
from ..files.split_words import split_said
from ..files.table_files import plain_name
from .pool import Listed, Pool, files_ending
from .split_roots import OF_YOLO
from .text_lists import lines_of

LARGEST = 2**20  # bytes of a YAML file that is called otherwise
SPLIT_KEYS = re.compile(rf"(?:^|[{{,])[ \t]*['\"]?({'|'.join(ALIASES)})['\"]?\s*:", re.MULTILINE)


def in_yaml(path: Path, pool: Pool) -> Iterator[Listed]:
    """What YOLO's data.yaml says: a folder, a text file, or a list of them for each split, in the folder that it calls
    `path`, which may be of another machine. What lies in the folder of a split is known."""
    if (read := the_file(path, pool)) is None:
        return
    file, said = read
    found = [(*one, place_of(path, *one, pool)) for one in given_in(said)]
    places = [place for *_, place in found if place is not None]
    away = [f"{word}: {one}" for word, one, split, place in found if place is None and split != "train"]
    if away and len({id for place in places for _, id in place.found} - {None}) < len(pool.every.ids):
        warn(
            f"{file.name} says {series(away)}, which is not there, so that nothing is held out by it. Write where the "
            "images are, or take the line away."
        )
    if clash := next(((a, b) for a, b in itertools.combinations(places, 2) if cut_alike(a, b)), None):
        keys = " and ".join(f"{place.key}: {place.said}" for place in clash)
        warn(
            f"{file.name} is not read for splits of images: of its places {keys} there is {clash[0].where.name} alone, "
            "so that nothing is held out by them. Put the images of each split into a folder of its own."
        )
        return
    kept: list[Place] = []
    for place in sorted(places, key=order):
        if not any(place.twice(other) for other in kept):
            kept.append(place)
            refuse_in_training(file, place, pool)
    deepest = {place.where: len(place.where.parts) for place in kept if place.where.is_dir()}
    for place in kept:
        inner = [path_inside(path, one) for one in deepest if place.where in one.parents]
        beside = (*pool.in_splits, *inner)  # a folder in it is the place of another split
        found = [(name, id) for name, id in place.found if id is None or not id.startswith(beside)]
        if found:
            yield Listed(place.split, file, found, key=place.key)


def refuse_in_training(file: Path, place: Place, pool: Pool) -> None:
    """Raises UserError for a place of held-out images in the folder of training, all of which is learned from."""
    of_training = tuple(folder for folder in pool.in_splits if split_said([folder.rstrip("/")]) == "train")
    inside = [id for _, id in place.found if id is not None and of_training and id.startswith(of_training)]
    if place.split != "train" and inside:
        raise UserError(
            f"{file.name} says {place.key}: {place.said}, and {inside[0]!r} of it lies in the folder of training, all "
            f"of which is learned from ({len(inside)} such images). Move them into a folder {place.key}/ beside it, or "
            "take the line away."
        )


def given_in(said: dict[Any, Any]) -> list[tuple[str, str, str]]:
    """(key, one of the places that it says, split) of a file."""
    return [
        (word, one, split)
        for word, some in said.items()
        if isinstance(word, str) and word in ALIASES and (split := split_said([word]))
        for one in (some if isinstance(some, list) else [some])
        if isinstance(one, str)
    ]


def the_file(path: Path, pool: Pool) -> tuple[Path, dict[Any, Any]] | None:
    """data.yaml and what it says; else the only other file that says places of training and of a split which is held
    out, both of which are there."""
    named = [path / name for name in OF_YOLO if (path / name).is_file()][:1]
    found = []
    for file in named or [file for file in files_ending(path, (".yaml", ".yml")) if file.is_file()]:
        if (said := content(file, bool(named))) is not None:
            if named or {"train"} < {one[2] for one in given_in(said) if place_of(path, *one, pool) is not None}:
                found.append((file, said))
    if len(found) > 1:
        warn(
            f"{series(file.name for file, _ in found)} are not read for splits of images: only one file may say their "
            "places. Call the one that is meant data.yaml."
        )
    return found[0] if len(found) == 1 else None


def content(file: Path, tell: bool) -> dict[Any, Any] | None:
    """What a file of YAML says by its keys; None where it says nothing, with a warning of one that cannot be read."""
    try:
        if not tell and file.stat().st_size > LARGEST:
            return None
        text = read_text(file)
        if not tell and len({*SPLIT_KEYS.findall(text)}) < 2:  # of another program, or one of many beside images
            return None
        said = parsed(text, file.name)
    except UserError as error:
        if tell:
            warn(f"{file.name} is not read for splits of images: {' '.join(str(error).split())}")
        return None
    return said if isinstance(said, dict) else None


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
