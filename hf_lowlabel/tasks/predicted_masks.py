"""Segmenter output for image files: masks and overlays as pictures, and a row of a table for each image."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import nn

from ..data.caches.decoding import cores, in_threads
from ..data.files.folders import MASKS, OVERLAYS, ending_of
from ..data.pixels.images import EXTENSIONS
from ..errors import UserError
from ..evaluation import overlays
from ..evaluation.segmentation import segment
from ..files import filling, read_text, unmake, whole
from ..locks import open_alone
from .segmenters import seen

PIXELS = 1 << 20  # px of the images of a forward pass at most: their probabilities are float32, K to the pixel
# The levels of compression: overlays of two photos of 640 x 427 px take 55 and 68 ms, and 84 and 150 ms at Pillow's 6,
# for 1 % less. Those of masks cost the same.
LEVEL = 4
WRITING = ".predict"  # in the folder of masks, while they are written


class Segmented(NamedTuple):
    """An image uint8 [H, W, 3] with its classes uint8 [H, W] and their mean probability."""

    file: Path
    place: str  # of its pictures below the output folder
    pixels: np.ndarray
    mask: np.ndarray
    confidence: float


def mask_rows(
    model: nn.Module,
    images: Iterable[tuple[Path, str, np.ndarray]],
    names: Sequence[str],
    *,
    batch_size: int,
    window: tuple[int, int] | None,
    output: Path | None,
) -> Generator[dict[str, Any], None, None]:
    """A row for each image (file, its place below `output`, uint8 [H, W, 3]), in order; pictures are written on all
    cores while the network goes on."""
    declared = getattr(model.config, "class_colors", None)  # of the masks it learned from
    write = partial(written, names=names, declared=declared, output=output)
    found = segmented(model, images, batch_size, window)
    yield from in_threads(write, found, cores(), 2 * cores(), lambda image, _: 2 * image.pixels.nbytes)


def segmented(
    model: nn.Module, images: Iterable[tuple[Path, str, np.ndarray]], batch_size: int, window: tuple[int, int] | None
) -> Iterator[Segmented]:
    more = dict(window=window, long_side=getattr(model.config, "image_size"), **seen(model))  # noqa: B009
    for group in alike(images, batch_size):
        masks, confidences = segment(model, np.stack([pixels for _, _, pixels in group]), **more)
        for (file, place, pixels), mask, confidence in zip(group, masks, confidences, strict=True):
            yield Segmented(file, place, pixels, mask, float(confidence.mean()))


def alike(
    images: Iterable[tuple[Path, str, np.ndarray]], batch_size: int
) -> Iterator[list[tuple[Path, str, np.ndarray]]]:
    """Runs of images of one size, of `PIXELS` and `batch_size` at most; a larger image is one by itself."""
    group: list[tuple[Path, str, np.ndarray]] = []
    for image in images:
        shape = image[2].shape
        full = len(group) == batch_size or (len(group) + 1) * shape[0] * shape[1] > PIXELS
        if group and (full or group[0][2].shape != shape):
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def written(image: Segmented, names: Sequence[str], declared: overlays.Declared, output: Path | None) -> dict[str, Any]:
    """The row of an image, its mask and its overlay once they are there."""
    shares = np.bincount(image.mask.ravel(), minlength=len(names)) / image.mask.size
    row: dict[str, Any] = {"file": str(image.file)}
    if output is not None:
        row |= {"mask": f"masks/{image.place}", "overlay": f"overlays/{image.place}"}
        with whole(output / row["mask"], flush=False) as part:
            overlays.save_mask(image.mask, names, part, declared=declared)
        with whole(output / row["overlay"], flush=False) as part:
            covered = Image.fromarray(overlays.overlay(image.pixels, image.mask, names, declared))
            covered.save(part, "PNG", compress_level=LEVEL)
    row["confidence"] = round(image.confidence, 6)
    return row | {f"share_{k}": v for k, v in zip(names, shares.round(6).tolist(), strict=True)}


@contextlib.contextmanager
def alone(folder: Path, table: Path, overwrite: bool) -> Iterator[set[str]]:
    """No other call writes to the folder in here; gives the `own_pictures` of it. What is stopped leaves no pictures
    that no table names, and no empty folders.

    Raises:
        UserError: another one writes, or has written since it was looked and nothing may be replaced.
    """
    with filling(folder):
        own = own_pictures(folder, table)  # while what a killed call left in `WRITING` is there
        words = f"Another `predict` is writing to {str(folder)!r}. Wait for it, or give another --output."
        with open_alone(folder / WRITING, words):
            there = folders_of(folder)
            try:
                if table.exists() and not overwrite:
                    raise UserError(f"{folder} is there already. Give another --output, or --overwrite to replace it.")
                yield own
            except BaseException:
                for name in pictures_in(folder) - pictures_of(table):
                    (folder / name).unlink()
                unmake(sorted(folders_of(folder) - there, reverse=True))  # each thread leaves what another made
                raise
            finally:
                (folder / WRITING).unlink(missing_ok=True)


def folders_of(folder: Path) -> set[Path]:
    """Those of masks and overlays, and all below them."""
    return {path for kind in (MASKS, OVERLAYS) for path in (folder / kind).glob("**/") if path.is_dir()}


def pictures_in(folder: Path) -> set[str]:
    """All pictures in the folders of masks and overlays below `folder`."""
    found = (path for kind in (MASKS, OVERLAYS) for path in (folder / kind).glob("**/*"))
    return {path.relative_to(folder).as_posix() for path in found if ending_of(path.name) in EXTENSIONS}


def own_pictures(folder: Path, table: Path) -> set[str]:
    """The `pictures_of` the table; all that are there where a call was killed, which began with no others.

    Raises:
        UserError: there are other pictures, which may be painted masks or photos, or the table cannot be read.
    """
    own, there = pictures_of(table), pictures_in(folder)
    if (folder / WRITING).exists():
        return own | there
    if others := sorted(there - own):
        n = len(others)
        raise UserError(
            f"Where masks and overlays would go in {str(folder)!r}, there {'is' if n == 1 else 'are'} {n} "
            f"picture{'s' * (n > 1)} that `predict` did not write, for example {others[0]}. Give another --output."
        )
    return own


def pictures_of(table: Path) -> set[str]:
    """The masks and overlays that a table of an earlier call names, below its folder; none where there is no table.

    Raises:
        UserError: it cannot be read.
    """
    if not table.exists():
        return set()
    advice = "Remove it, or give another --output."
    try:
        rows = csv.DictReader(io.StringIO(read_text(table, advice), newline=""))
        named = {row.get(column) or "" for row in rows for column in ("mask", "overlay")}
    except csv.Error as error:
        raise UserError(f"{table} is no table of masks ({error}). {advice}") from error
    return {
        name for name in named if name.startswith(("masks/", "overlays/")) and ".." not in PurePosixPath(name).parts
    }


def remove_pictures(folder: Path, names: Iterable[str]) -> None:
    """Remove these of `pictures_of`, and the folders below `folder` that are empty then."""
    for name in names:
        if (folder / name).is_file():
            (folder / name).unlink()
            unmake(folder / above for above in PurePosixPath(name).parents if above.parts)
