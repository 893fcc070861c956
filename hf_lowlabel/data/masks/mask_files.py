"""The files of images and of their masks in one folder or in two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ...text import warn
from ..files.folders import FileReader, ImageFile, image_files, listing
from ..files.mask_names import SUFFIXES, masks_among, match_masks, strange_among
from ..files.table_files import stem
from ..pixels.masks import MaskFormat


class MaskFiles(NamedTuple):
    """Images and the masks of some of them. masks: id -> the file of its mask. names, format: the layout's own."""

    images: FileReader
    files: dict[str, ImageFile]  # by id, in order
    mask_root: Path
    masks: dict[str, ImageFile]
    names: list[str] | None = None
    format: MaskFormat | None = None
    strange: Sequence[str] = ()  # masks without an image

    def only(self, kept: Iterable[bool]) -> MaskFiles:
        """With some of the images: kept, one for each."""
        files = {id: file for (id, file), here in zip(self.files.items(), kept) if here}
        images = FileReader(self.images.root, [file.path for file in files.values()])
        return self._replace(images=images, files=files, masks={id: m for id, m in self.masks.items() if id in files})

    @property
    def mask_reader(self) -> FileReader:
        return FileReader(self.mask_root, [self.masks[id].path if id in self.masks else "" for id in self.files])

    def content(self) -> list[str]:
        """For the fingerprint: the prints of both files."""
        return [f"{f.print}/{self.masks[id].print if id in self.masks else 'none'}" for id, f in self.files.items()]


def mask_files(root: Path, files: dict[str, ImageFile], *more) -> MaskFiles:
    return MaskFiles(FileReader(root, [file.path for file in files.values()]), files, *more)


def in_two(images: Path, masks: Path, others: Sequence[Path] = ()) -> MaskFiles:
    """Of two folders. What is called among the images as the mask of one is neither. others: folders of images of other
    splits, whose masks lie in the same folder."""
    of_masks = listing(masks)
    if not of_masks:
        return within(images)
    files = {file.id: file for file in image_files(images)}
    own = {stem(file.id) for file in of_masks}
    if strays := strange_among(files, own):
        have = sum(1 for base in strays.values() if any(f"{base}{end}" in own for end in ("", *SUFFIXES)))
        warn(
            f"{len(strays)} files in {images.name!r} are left out, since they are called as masks of images beside "
            f"them, such as {min(strays)!r}: the masks are those in {masks.name!r}, which has one for {have} of these "
            "images. Move them there if they are masks, or rename them if they are images."
        )
    files = {id: file for id, file in files.items() if id not in strays}
    found, strange = match_masks([*files, *of_other_splits(images, files, masks, others)], of_masks, masks)
    return mask_files(images, files, masks, {id: mask for id, mask in found.items() if id in files})._replace(
        strange=strange
    )


def of_other_splits(images: Path, files: Collection[str], masks: Path, others: Sequence[Path]) -> list[str]:
    """The ids of the images in other folders. Raises UserError where one is called as one of `files`, since a mask may
    be of either."""
    ours, theirs = {stem(id): id for id in files}, dict[str, str]()
    for folder in others:
        for file in listing(folder):
            name = stem(file.id)
            if name in ours:
                one, other = (path.relative_to(masks.parent).as_posix() for path in (images, folder))
                raise UserError(
                    f"{one}/ and {other}/ in {str(masks.parent)!r} both have an image {name!r}, and {masks.name}/ is "
                    f"one folder for both. Put the masks of each split into a folder in {masks.name}/ that is called "
                    "as the split, or give the images other names."
                )
            theirs.setdefault(name, file.id)
    return list(theirs.values())


def within(root: Path) -> MaskFiles:
    """Of one folder, in which a mask is called as its image with one of `SUFFIXES` after it."""
    files = {file.id: file for file in image_files(root)}
    of_masks = [files.pop(id) for id in masks_among(files)]
    found, strange = match_masks(list(files), of_masks, root)
    return mask_files(root, files, root, found)._replace(strange=strange)


def strange_masks(found: MaskFiles) -> UserError:
    some = next(iter(found.files))
    return UserError(
        f"{len(found.strange)} masks in {str(found.mask_root)!r} are without an image, such as {found.strange[0]!r}. A "
        f"mask has its image's path, as in {stem(some)}.png or {stem(some)}_mask.png: rename or remove them, or give "
        "--skip-missing."
    )
