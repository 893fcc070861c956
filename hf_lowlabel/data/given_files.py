"""Files and folders given by name: the images among them, and a place of its own below an output for each."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import UserError
from ..missing_inputs import or_a_model, refuse_missing_images
from ..text import brief
from .files.folder_names import in_mask_folders
from .files.folders import MASKS, is_predicted, walk
from .files.mask_names import masks_among

log = logging.getLogger("hf_lowlabel")


def find_images(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Image files, folders searched through as training does, in a stable order.

    Raises:
        UserError: there is no such file, or something else than a path is given.
    """
    found: list[Path] = []
    one = isinstance(paths, (str, os.PathLike)) or not isinstance(paths, Iterable)
    for name in [paths] if one else paths:
        if not isinstance(name, (str, os.PathLike)):
            raise UserError(f"Image files cannot be read from {brief(name)}. Give files or folders of images.")
        refuse_missing_images([name])
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(path / file for file in without_masks(path, [file.path for file in walk(path)]))
            if not inside:
                raise UserError(
                    f"There is no image in the folder {name}. Give one with files such as .jpg or .png."
                    f"{or_a_model(path)}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{str(name)!r} is neither a file nor a folder. Give images or folders of images.")
    return found


def without_masks(folder: Path, files: list[str]) -> list[str]:
    """The files without masks: those that `predict` wrote, those beside their images, and folders of them beside
    folders of images."""
    wrote = functools.cache(lambda above: is_predicted(folder / above))
    files = [file for file in files if not any(map(wrote, above_masks(file)))]
    masks = {*masks_among(files)} | in_mask_folders(files)
    if masks:
        log.warning(
            "%d files in %s are masks of images beside them and are left out, such as %s; name such files to predict "
            "them",
            len(masks),
            folder,
            min(masks),
        )
    return [file for file in files if file not in masks]


def above_masks(file: str) -> list[str]:
    """The folders above folders called masks on the way to a file."""
    names = file.split("/")[:-1]
    return ["/".join(names[:k]) for k, name in enumerate(names) if name == MASKS]


def output_names(files: Sequence[Path], images: str | Path | Sequence[str | Path]) -> list[str]:
    """A .png of its own below an output folder for each file: its path inside the folder it was found in."""
    given = [Path(os.path.expanduser(p)) for p in ([images] if isinstance(images, (str, Path)) else images)]
    roots = [path for path in given if path.is_dir()]
    taken: dict[str, int] = {}  # name -> the number that its next double gets
    out: list[str] = []
    for file in files:
        root = next((r for r in roots if file.is_relative_to(r)), file.parent)
        name = candidate = file.relative_to(root).with_suffix(".png")
        while candidate.as_posix() in taken:
            k = taken[name.as_posix()]
            taken[name.as_posix()] = k + 1
            candidate = name.with_stem(f"{name.stem}-{k}")
        taken[candidate.as_posix()] = 2
        out.append(candidate.as_posix())
    return out


def place_of(name: str, page: str, taken: set[str]) -> str:
    """The place of a page of the file whose own place is `name`, which no other in `taken` has; it is added there."""
    if not page:
        return name
    whole, k = Path(name), 2
    found = whole.with_stem(f"{whole.stem}{page}")
    while found.as_posix() in taken:
        found, k = whole.with_stem(f"{whole.stem}{page}-{k}"), k + 1
    taken.add(found.as_posix())
    return found.as_posix()
