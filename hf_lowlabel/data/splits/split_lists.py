"""Splits of images with masks from published lists of ids: text files with an image a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from ...errors import UserError, unknown
from ...files import read_text
from ..dataset import ImageDataset
from ..pixels.images import EXTENSIONS
from .splits import Split, manifest


def read_ids(path: str | Path) -> list[str]:
    """The lines of a published list, in its order: each an image, with more words after it in some."""
    path = Path(path)
    lines = read_text(path, "Give a list of ids, a text file with one image a line.").splitlines()
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"The list of ids {path.name} is empty; it has one image a line.")
    if len(set(ids)) != len(ids):
        raise UserError(f"There are ids twice in {path.name}. List each once.")
    return ids


def match_ids(names: Sequence[str], source: ImageDataset) -> list[str]:
    """The source's ids for published names, which may be paths: "JPEGImages/2007_000032.jpg",
    "leftImg8bit/train/weimar/weimar_000085_000019_leftImg8bit.png". The whole line counts, else its first word; each
    matched whole, else by the bare file name."""
    by_name = ByName(dict.fromkeys(source.ids), f"images in {source.name!r}", "the list")
    lines = dict[str, str]()  # id -> the line that names it
    for line in names:
        id = next((name for name in readings(line) if name in by_name.every), None)
        if id is None:
            id = next((id for name in readings(line) if (id := by_name.called(name)) is not None), None)
        if id is None:
            raise unknown(f"image of the list in {source.name!r}", bare_name(readings(line)[0]), source.ids)
        if id in lines:
            raise UserError(f"The list names the image {id!r} twice: {lines[id]!r} and {line!r}. List each once.")
        lines[id] = line
    return list(lines)


class ByName:
    """The ids of images, to be found by their names in lists: whole, else by the bare file name. images, lists: what
    they are called in an error."""

    def __init__(self, every: Collection[str], images: str, lists: str):
        self.every, self.images, self.lists, self.bare = every, images, lists, dict[str, list[str]]()
        for id in every:
            self.bare.setdefault(bare_name(id), []).append(id)

    def called(self, name: str) -> str | None:
        """The image of this name. Raises UserError where there are several."""
        found = [name] if name in self.every else self.bare.get(bare_name(name), [])
        if len(found) > 1:
            raise UserError(
                f"{len(found)} {self.images} are called {bare_name(name)!r}. Write whole ids in {self.lists}, such as "
                f"{found[0]!r}."
            )
        return found[0] if found else None


def readings(line: str) -> list[str]:
    """What may be the image of a line: all of it, or its first word. Where the last word begins in another folder, as
    in "images/1.jpg masks/2.png", all of it is no name."""
    first = line.split()[0]
    whole = line == first or " " in PurePosixPath(line).name or "\t" in PurePosixPath(line).name
    return [line, first] if whole else [first, line]


def bare_name(name: str) -> str:
    """The bare name of an image, without the ending of an image file alone: a dot may be part of an id."""
    path = PurePosixPath(name)
    return (path.stem if path.suffix.lower() in EXTENSIONS else path.name).removesuffix("_leftImg8bit")


def split_from_lists(
    source: ImageDataset,
    labeled: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
) -> Split:
    """The manifest of published lists: the images on `labeled` have their masks used, all others are unlabeled."""
    parts = [match_ids(read_ids(path), source) if path is not None else [] for path in (labeled, validation, test)]
    return manifest(source, dict.fromkeys(parts[0]), validation=parts[1], test=parts[2])
