"""Matches the pictures named in an annotation file to images."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...text import warn
from ..files.folders import path_inside
from ..files.split_words import split_said
from ..files.table_files import ImageNames, folders_of, plain_name
from ..files.uploads import Uploads
from .annotated import Annotations


class Pictures(ImageNames):
    """The images of a data set, and those of each split by the folders that they lie in."""

    def __init__(self, ids: Sequence[str]):
        super().__init__(ids)
        self.splits: dict[str, ImageNames] = {}

    @cached_property
    def of_folder(self) -> dict[str, str | None]:
        return {folder: split_said(folder.split("/")) for folder in self.folders}

    @cached_property
    def parts(self) -> set[str]:
        """The names of all folders that images lie in."""
        return {name for folder in self.folders for name in folder.split("/")}

    def beside(self, part: Annotations, path: Path) -> ImageNames:
        """Those that a file of annotations may mean: of the split that its name or its folders say, where a folder of
        images is called so; else all."""
        own = [] if part.otherwise else [part.file.stem]  # else that of its picture
        split = split_said([*part.file.parent.relative_to(path).parts, *own])
        if split is None or split not in self.of_folder.values():
            return self
        if split not in self.splits:
            ids = [id for id in self.ids if self.of_folder[id.rpartition("/")[0]] == split]
            self.splits[split] = ImageNames(ids)
        return self.splits[split]


def why_not(name: str, part: Annotations, path: Path, every: Pictures, uploads: Uploads) -> str:
    """What to add to an error that there is no image of this name."""
    plain = plain_name(name)
    alike = sorted(every.beside(part, path).by_base.get(PurePosixPath(plain).name, []))
    if len(alike) > 1 and "/" not in plain:
        return (
            f" (several are called so: {' and '.join(map(repr, alike[:2]))}; write the folder into the names in "
            f"{part.file.name}, or call it as their split, as in instances_train.json)"
        )
    if alike:
        return f" (there is {alike[0]!r}, in another folder than {part.file.relative_to(path).as_posix()} says)"
    return uploads.why_not(plain)


class Place(NamedTuple):
    """Where a picture was found. how: WHOLE by its name or beside its file, OWN in the folder that its file's own one
    stands for, ABOVE in one with fewer folders, or END by the name without its folders. said: folders that the name
    and, of a file of one picture, the file lie in. own: those of them that tell the pictures of a file apart, or files
    of one picture."""

    id: str | None
    how: int
    said: frozenset[str]
    own: frozenset[str]


class Placed(NamedTuple):
    """A picture that a file names. id: below the data set; None where it is not there. loosely: its folders are not
    those of the name."""

    part: Annotations
    name: str
    id: str | None
    loosely: bool


WHOLE, OWN, ABOVE, END = range(4)


def place_images(parts: Sequence[Annotations], path: Path, every: Pictures, uploads: Uploads) -> Iterator[Placed]:
    """Each picture that files name.

    A name without its folders means a picture only where these do not contradict: where they are not those of other
    images, and no other picture of the file (of all files of one picture each) is found by its folder.
    """
    found = [
        (part, name, place) for part in parts for name, place in zip(part.images, find_pictures(part, path, every))
    ]
    groups: dict[Path | None, list[Place]] = {}
    for part, _, place in found:
        groups.setdefault(None if part.otherwise else part.file, []).append(place)
    common = {key: frozenset.intersection(*(place.own for place in group)) for key, group in groups.items()}
    kept = {
        key for key, group in groups.items() if any((p.own - common[key]) & folders_in(p.id) for p in group if p.id)
    }
    for part, name, (id, how, said, own) in found:
        key, plain = None if part.otherwise else part.file, plain_name(name)
        if id is not None and how != WHOLE:
            apart, folders = own - common[key], folders_in(id)
            lost = how != OWN and key in kept and apart and not apart & folders
            away = (said & every.parts) - folders
            if away and moved_along(part, id, path) and not own & away:
                away = {
                    one for other in every.by_base.get(plain.rpartition("/")[2], ()) for one in folders_in(other)
                } & away
            id = None if lost or away else id
        if id is None or PurePosixPath(id).name != PurePosixPath(plain).name:
            candidates = uploads.candidates(plain)
            id = (candidates[0] if len(candidates) == 1 else None) if candidates else id
        yield Placed(part, name, id, id is not None and how == END and "/" in plain)


def moved_along(part: Annotations, id: str, path: Path) -> bool:
    """Whether a file of one picture lies in a folder that is called as its picture's, in one inside that, or beside its
    images/: what it says of folders is of before, where no picture is there."""
    folder, here = PurePosixPath(id).parent, PurePosixPath(path_inside(path, part.file.parent))
    beside = bool(here.parent.name) and folder == here.parent / "images"
    return bool(part.otherwise and folder.name) and (beside or folder.name == here.name or folder == here.parent)


def tell_loose(placed: Sequence[Placed], path: Path) -> None:
    """A warning of pictures whose names have other folders than they."""
    if loose := [one for one in placed if one.loosely]:
        warn(
            f"{len(loose)} of {len(placed)} file names in the annotations of {path.name!r} are matched by the end they "
            f"share with an image, such as {loose[0].name!r} with {loose[0].id!r}."
        )


def folders_in(id: str) -> frozenset[str]:
    return frozenset(id.split("/")[:-1])


def find_pictures(part: Annotations, path: Path, every: Pictures) -> list[Place]:
    """The place below `path` of each picture that a file names: by its folders beside the file, in images/ beside it or
    wherever it is; of a file of one picture, by the folders of the file, where it may be called as the file; else by
    its name alone. It is of the file's own split, where it says one. A picture without a folder is looked for elsewhere
    only where no images lie beside the file."""
    known, out = every.known, list[Place]()
    here = path_inside(path, part.file.parent)
    among_images = here[:-1] in every.folders
    plain = [plain_name(name) for name in part.images]
    scope = every.beside(part, path)
    elsewhere, _ = scope.match(plain)
    for name, other in zip(plain, elsewhere):
        base, folders = name.rpartition("/")[2], list(folders_of(PurePosixPath(name)))
        own = folders_in(here) if part.otherwise else frozenset(folders)
        whole = [f"{here}{base}"] if part.otherwise else []
        whole += [posixpath.normpath(f"{here}{name}"), f"{here}images/{name}"]
        bare = [f"{here}{base}", f"{here}images/{base}", f"images/{base}"] if folders else []
        (bare if part.otherwise and not folders else whole).append(name)
        if folders and other is not None and other.split("/")[-2:-1] == folders[-1:]:
            whole.append(other)
        id, how = next((id for id in whole if id in known), None), WHOLE
        if id is None and part.otherwise:
            called = (c for word in (base, part.otherwise) for c in elsewhere_called(here, word, among_images))
            id = next(filter(None, (scope.match([c])[0][0] for c in called)), None)
            how = OWN if id is not None and id.count("/") == here.count("/") else ABOVE
        if id is None:
            other = None if here and among_images and not folders else other
            other = scope.match([base])[0][0] if other is None and folders and part.served else other
            id, how = next((id for id in bare if id in known), other), END
        if id is None and len(base) > 9 and base[8] == "-":  # an upload of Label Studio
            id, how = scope.match([base[9:]])[0][0], WHOLE
        out.append(Place(id, how, own | frozenset(folders), own))
    return out


def elsewhere_called(here: str, name: str, among_images: bool) -> Iterator[str]:
    """What a picture may be called whose file of annotations lies in the folder `here`: there, else with "images" in
    the place of one of these folders, or without it."""
    yield f"{here}{name}"
    folders = here.split("/")[:-1]
    for k in reversed(range(0 if among_images else len(folders))):
        yield "/".join([*folders[:k], "images", *folders[k + 1 :], name])
        yield "/".join([*folders[:k], *folders[k + 1 :], name])
