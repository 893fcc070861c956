"""Images to predict: files, folders, or images in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import UserError
from ..text import brief, warn
from .given_files import find_images, output_names
from .opening import open_dataset
from .pages import LOOKS, Depth, darkness, depth_of
from .pixels.encoded import of_tensor
from .pixels.images import BadImage, Range, decoding, of_array, open_image
from .sources.targets import ImagesAlone

Images = str | Path | Image.Image | np.ndarray | Iterable[Any]  # `TAKEN` says what of
TAKEN = (
    "Give files or folders of images, PIL images, uint8 arrays or tensors [H, W, 3] or [H, W], a list of such, or a "
    "datasets.Dataset with a column of images."
)


class Given(NamedTuple):
    """An image by the name that the answer has, a place of its own below an output folder, and how to open it."""

    name: Path
    place: str
    open: Callable[[], contextlib.AbstractContextManager[Image.Image]]


def given_images(images: Images) -> list[Given]:
    """The images in the order given; those in memory are called "image 0", "image 1", ..., rows of a table by their
    ids.

    Raises:
        UserError: there is none, or something among them is no image.
    """
    named, paths = list[tuple[Path, Callable]](), list[str | Path]()
    for at, item in enumerate(items(images)):
        if isinstance(item, (str, os.PathLike)):
            paths.append(Path(item))
            named += [(file, lambda file=file: open_image(file)) for file in find_images([Path(item)])]
        elif is_table(item):
            source = open_dataset(item, ImagesAlone())
            named += [(Path(id), partial(source.reader, i)) for i, id in enumerate(source.ids)]
        else:
            named.append((Path(f"image {at}"), partial(contextlib.nullcontext, picture(item, at))))
    if not named:
        raise UserError(f"There is no image to predict. {TAKEN}")
    below = output_names([name for name, _ in named], paths)
    return [Given(name, place, how) for (name, how), place in zip(named, below, strict=True)]


def look_at(given: list[Given], value_range: Range) -> None:
    """Warn of 16-bit images that come out dark, by a few of them; value_range: of the model."""
    values = list[Depth]()
    for i in np.unique(np.linspace(0, len(given) - 1, LOOKS).astype(int)):
        with contextlib.suppress(BadImage), decoding(), given[i].open() as image:
            values.append(depth_of(image))
    what = "the images to predict, as this model takes them,"
    if said := darkness(what, values, value_range, "train and predict with a model that was given"):
        warn(said)


def items(images: Images) -> list:
    if getattr(images, "ndim", 0) == 4:
        return [*images]
    if isinstance(of_tensor(images), (str, os.PathLike, Image.Image, np.ndarray)) or is_table(images):
        return [images]
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise UserError(f"Images cannot be read from {brief(images)}. {TAKEN}")
    return list(images)


def is_table(item: Any) -> bool:
    """Of `datasets` or pandas; neither is imported for the question."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(item).__mro__}
    return bool(kinds & {("datasets", "Dataset"), ("datasets", "IterableDataset"), ("pandas", "DataFrame")})


def picture(item: Any, at: int) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    item = of_tensor(item)
    if not isinstance(item, np.ndarray):
        raise UserError(f"Image {at} is {brief(item)}. {TAKEN}")
    return of_array(item, f"Image {at}")
