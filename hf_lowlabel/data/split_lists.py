"""Splits of images with masks from published lists of ids: text files with an image a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import UserError, unknown
from ..files import read_text
from .dataset import ImageDataset
from .splits import Split, manifest


def read_ids(path: str | Path) -> list[str]:
    """The first word of each line of a published list, in its order."""
    path = Path(path)
    lines = read_text(path, "Give a list of ids, a text file with one image a line.").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if not ids:
        raise UserError(f"The list of ids {path.name} is empty; it has one image a line.")
    if len(set(ids)) != len(ids):
        raise UserError(f"There are ids twice in {path.name}. List each once.")
    return ids


def match_ids(names: Sequence[str], source: ImageDataset) -> list[str]:
    """The source's ids for published names, which may be paths: "JPEGImages/2007_000032.jpg",
    "leftImg8bit/train/weimar/weimar_000085_000019_leftImg8bit.png". Matched whole, else by the bare file name."""
    known, bare = set(source.ids), {}
    for id in source.ids:
        bare.setdefault(key(id), []).append(id)
    out = []
    for name in names:
        if name in known:
            out.append(name)
            continue
        candidates = bare.get(key(name), [])
        if len(candidates) > 1:
            raise UserError(
                f"{len(candidates)} images in {source.name!r} are called {key(name)!r}. Write whole ids in the list, "
                f"such as {candidates[0]!r}."
            )
        if not candidates:
            raise unknown(f"image of the list in {source.name!r}", key(name), source.ids)
        out.append(candidates[0])
    return out


def key(name: str) -> str:
    return PurePosixPath(name).stem.removesuffix("_leftImg8bit")


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
