"""Which images the pictures are that a file of annotations names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from .annotated import Annotations
from .folders import SPLITS
from .table_files import ImageNames, plain_name
from .uploads import Uploads

HELD = ("train", "validation", "test")


class Pictures(ImageNames):
    """The images of a data set, and those of each split by the folders that they lie in."""

    def __init__(self, ids: Sequence[str], endings: frozenset[str]):
        super().__init__(ids, endings)
        self.splits: dict[str, ImageNames] = {}

    @cached_property
    def of_folder(self) -> dict[str, str | None]:
        return {folder: split_said(folder.split("/")) for folder in self.folders}

    def beside(self, part: Annotations, path: Path) -> ImageNames:
        """Those that a file of annotations may mean: of the split that its name or its folders say, where a folder of
        images is called so; else all."""
        own = [] if part.otherwise else [part.file.stem]  # else that of its picture
        split = split_said([*part.file.parent.relative_to(path).parts, *own])
        if split is None or split not in self.of_folder.values():
            return self
        if split not in self.splits:
            ids = [id for id in self.ids if self.of_folder[id.rpartition("/")[0]] == split]
            self.splits[split] = ImageNames(ids, self.endings)
        return self.splits[split]


def split_said(parts: Sequence[str]) -> str | None:
    """The split that the last of some names says which says one, as in instances_train2017; None for two of them."""
    for part in reversed(parts):
        words = re.findall(r"[^\W\d_]+", part.lower())
        said = {split for split in HELD for word in words if word in SPLITS[split]}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def why_not(name: str, part: Annotations, path: Path, every: Pictures, uploads: Uploads) -> str:
    """What to add to an error that there is no image of this name."""
    alike = sorted(every.beside(part, path).by_base.get(PurePosixPath(plain_name(name)).name, []))
    if len(alike) > 1:
        return (
            f" (several are called so: {' and '.join(map(repr, alike[:2]))}; write the folder into the names in "
            f"{part.file.name}, or call it as their split, as in instances_train.json)"
        )
    return uploads.why_not(plain_name(name))


def place_images(part: Annotations, path: Path, every: Pictures, uploads: Uploads) -> Iterator[tuple[str, str | None]]:
    """Each picture that a file names, with its id below `path`; None where it is not there."""
    names = list(part.images)
    for name, id in zip(names, places(part, path, names, every)):
        if id is None or PurePosixPath(id).name != PurePosixPath(plain_name(name)).name:
            candidates = uploads.candidates(plain_name(name))
            id = (candidates[0] if len(candidates) == 1 else None) if candidates else id
        yield name, id


def places(part: Annotations, path: Path, names: list[str], every: Pictures) -> list[str | None]:
    """The id below `path` of each picture that a file names: beside it, in images/ beside it, else wherever it is, else
    the one that is called as the file; of the file's own split, where it says one. A picture without a folder is looked
    for elsewhere only where no images lie beside the file."""
    known, out = every.known, list[str | None]()
    here = part.file.parent.relative_to(path).as_posix()
    here = "" if here == "." else f"{here}/"
    among_images = here[:-1] in every.folders
    plain = [plain_name(name) for name in names]
    scope = every.beside(part, path)
    elsewhere, _ = scope.match(plain)
    for name, other in zip(plain, elsewhere):
        base = PurePosixPath(name).name
        near = [f"{here}{name}", f"{here}images/{name}", name, f"{here}{base}", f"{here}images/{base}"]
        near += [f"images/{base}"] if "/" in name else []  # of another root
        other = None if here and among_images and "/" not in name else other
        out.append(next((id for id in near if id in known), other))
    for k, id in enumerate(out):
        base = plain[k].rpartition("/")[2]
        if id is None and len(base) > 9 and base[8] == "-":  # an upload of Label Studio
            out[k] = scope.match([base[9:]])[0][0]
        if out[k] is None and part.otherwise:
            found = (scope.match([name])[0][0] for name in elsewhere_called(here, part.otherwise, among_images))
            out[k] = next(filter(None, found), None)
    return out


def elsewhere_called(here: str, name: str, among_images: bool) -> Iterator[str]:
    """What a picture may be called whose file of annotations lies in the folder `here`: there, else with "images" in
    the place of one of these folders, or without it."""
    yield f"{here}{name}"
    folders = here.split("/")[:-1]
    for k in reversed(range(0 if among_images else len(folders))):
        yield "/".join([*folders[:k], "images", *folders[k + 1 :], name])
        yield "/".join([*folders[:k], *folders[k + 1 :], name])
