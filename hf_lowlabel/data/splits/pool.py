"""The images of a data set, among which the names in tables, lists and annotations of splits are looked for."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ...text import warn
from ..annotations.placing import Pictures
from ..files.folder_names import in_mask_folders
from ..files.folders import ALIASES, SPLITS, UNLABELED, is_text, listing, path_inside
from ..files.mask_names import masks_among
from ..files.split_words import called_as_split, split_said
from ..files.table_files import ImageNames, read_table, stem
from ..files.uploads import Uploads
from ..labels.columns import Rows
from .split_roots import split_folders


class Pool:
    """The images of a data set, of all splits, that names are looked for among."""

    def __init__(self, path: Path):
        self.path, self.tables = path, dict[Path, Rows]()
        self.of_split: dict[str, ImageNames] = {}

    def read(self, file: Path) -> Rows:
        """`read_table`, once for all that ask."""
        if file not in self.tables:
            self.tables[file] = read_table(file)
        return self.tables[file]

    @cached_property
    def every(self) -> Pictures:
        ids = [file.id for file in listing(self.path)]
        masks = {*masks_among(ids), *in_mask_folders(ids)}
        return Pictures([id for id in ids if id not in masks])

    @cached_property
    def uploads(self) -> Uploads:
        return Uploads(self.every.ids)

    @cached_property
    def in_splits(self) -> tuple[str, ...]:
        """What ids begin with in folders that are opened as splits, whatever the task."""
        folders = split_folders(self.path)[0]
        named = [folder for name, folder in folders.items() if name in ALIASES and name not in SPLITS[UNLABELED]]
        return tuple(path_inside(self.path, folder) for folder in named)

    @cached_property
    def all_in_splits(self) -> bool:
        return all(id.startswith(self.in_splits) for id in self.every.ids)

    @cached_property
    def has_training(self) -> bool:
        """Whether images for training lie in a folder that is called so."""
        return any(called_as_split(name) == "train" for folder in self.every.folders for name in folder.split("/"))

    def lie_in(self, split: str, ids: Sequence[str | None]) -> bool:
        """Whether all of some images lie in the folder that is opened as this split."""
        folders = tuple(folder for folder in self.in_splits if split_said([folder]) == split)
        return bool(ids) and all(id is not None and id.startswith(folders) for id in ids)

    @cached_property
    def above(self) -> dict[str, set[str]]:
        """The folders that images lie in or below, by their last names."""
        out: dict[str, set[str]] = {}
        for folder in self.every.folders:
            while folder and folder not in out.setdefault(folder.rpartition("/")[2], set()):
                out[folder.rpartition("/")[2]].add(folder)
                folder = folder.rpartition("/")[0]
        return out

    def below(self, name: str) -> list[str]:
        """The images in a folder and below it: of this path, or the only one whose path ends so."""
        name = name.strip("/")
        found = [one for one in self.above.get(name.rpartition("/")[2], ()) if f"/{one}".endswith(f"/{name}")]
        found = [name] if name in found else found
        if len(found) != 1:
            return []
        ids = self.every.ids  # sorted, and "0" follows "/"
        return list(ids[bisect_left(ids, f"{found[0]}/") : bisect_left(ids, f"{found[0]}0")])

    @cached_property
    def stems(self) -> set[str]:
        return {stem(id.rpartition("/")[2]) for id in self.every.ids}

    def match(self, names: Sequence[str], split: str) -> list[str | None]:
        """The id of each name: among the images in folders of this split, where there are some, else among those in no
        folder of another split that is held out, else among all."""
        if split not in self.of_split:
            said = {folder: split_said(folder.split("/")) for folder in self.every.folders}
            of_ids = [(id, said[id.rpartition("/")[0]]) for id in self.every.ids]
            own = [id for id, of in of_ids if of == split] or [id for id, of in of_ids if of in (None, "train")]
            self.of_split[split] = ImageNames(own) if len(own) < len(of_ids) else self.every
        found, _ = self.of_split[split].match(names)
        elsewhere = self.of_split[split] is not self.every
        lost = [name for name, id in zip(names, found) if id is None and elsewhere]
        rest = dict(zip(lost, self.every.match(lost)[0])) if lost else {}
        return [rest.get(name) if id is None else id for name, id in zip(names, found)]


class Listed(NamedTuple):
    """A file that lists images. found: (name, id, None where there is no single image) of each. labeled: it says their
    labels. key: the part of the file that says so."""

    split: str
    file: Path
    found: list[tuple[str, str | None]]
    labeled: bool = False
    key: str = ""

    @property
    def where(self) -> str:
        return f"{self.key}: of {self.file.name}" if self.key else self.file.name


def files_ending(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Those with one of the endings, of which there may be one beside each image: by their names alone."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(endings) and name[0] != ".")
    return [folder / name for name in names if is_text(name)]


def warn_list_unread(file: Path, split: str, why: str) -> None:
    warn(
        f"{file.parent.name}/{file.name} is not read, though it may list the images of split {split!r}, which must not "
        f"be learned from: {why}."
    )
