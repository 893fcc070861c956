"""Using a trained model, whatever its task: `predict` on files. `evaluate` is in api/evaluating.py."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .data.caches.decoding import cores, in_threads
from .data.files.folders import CONVERT
from .data.given_files import place_of
from .data.given_images import Given, Images, given_images, look_at
from .data.pages import opened_pages
from .data.pixels.images import BadImage, decoding, load_rgb
from .distributed import barrier, is_main_process
from .errors import UserError, at_least
from .files import as_folder
from .missing_inputs import refuse_no_model, refuse_written
from .models.checkpoint_resolver import model_config
from .models.lending import given_back
from .progress import counted
from .table_writer import growing_table
from .tasks import get_task, of_model, with_threshold
from .tasks.base import Task
from .tasks.predicted_masks import alone, own_pictures, remove_pictures
from .text import brief

if TYPE_CHECKING:
    from .input_types import Model
else:  # its parts are not imported for their names alone
    Model = Any


log = logging.getLogger("hf_lowlabel")


class Predictions(NamedTuple):
    """Predictions for image files: `rows`, a dict each, and `skipped`, (file, why it could not be read)."""

    rows: list[dict]
    skipped: list[tuple[str, str]]

    def to_pandas(self):
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __repr__(self) -> str:
        return f"Predictions({len(self.rows)} images, {len(self.skipped)} skipped)"


@given_back
def predict(
    images: Images,
    model: Model,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    top: int = 1,
    batch_size: int = 64,
    device: str | None = None,
    revision: str | None = None,
    task: str | None = None,
    window: int | None = None,
    threshold: float | None = None,
    pages: bool = False,
) -> Predictions:
    """Predictions for image files and folders, or images in memory.

    One process of a launch may call it alone without `output`; with one all do, and the first writes.

    Args:
        images: files or folders, searched through; PIL images, uint8 arrays or tensors [H, W, 3] or [H, W], in the rows
            "image 0", "image 1", ...; several as one [N, H, W, 3] or a list of any of these; or a datasets.Dataset or
            DataFrame with a column of images, whose rows have their ids.
        model: a run folder, a finished run, a saved model, a Hub id at `revision`, or a model in memory.
        output: where to write as well: a .csv or .parquet of a classifier; a folder of a segmenter, with masks/,
            overlays/ and masks.csv. None: nothing is written.
        overwrite: an output that is there already may be replaced; of a segmenter's, masks and overlays that its
            masks.csv names go too, where they are of other images.
        top: classes listed for every image.
        batch_size: images at a time.
        device: "cpu" to leave a GPU alone; None: the best there is.
        task: the task that is expected.
        window: side in px of a sliding window (segmenters); None: whole images.
        threshold: probability above which a class is named (multi-label models); None: 0.5.
        pages: each page of a TIFF and frame of a GIF, file#1, file#2 ...; else the first alone.

    Returns:
        A row for each image in the order of the files: {"file", "class", "confidence"}, with top > 1 also {"class_2",
        "confidence_2", ...}; of a segmenter {"file", "confidence", "share_CLASS": ...}; and what was skipped.

    Raises:
        UserError: nothing can be read, the output is there already, or the model is of another task.
    """
    skipped: list[tuple[str, str]] = []
    where: dict[str, Any] = dict(output=output, overwrite=overwrite, device=device, revision=revision, task=task)
    how: dict[str, Any] = dict(top=top, batch_size=batch_size, window=window, threshold=threshold, pages=pages)
    return Predictions([*predictions(images, model, skipped, **where, **how)], skipped)


def predictions(
    images: Images,
    model: Model,
    skipped: list[tuple[str, str]],
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    top: int = 1,
    batch_size: int = 64,
    device: str | None = None,
    revision: str | None = None,
    task: str | None = None,
    window: int | None = None,
    threshold: float | None = None,
    pages: bool = False,
) -> Iterator[dict[str, Any]]:
    """The rows of `predict` one after the other, none of which is kept: the table of `output` is there after the last.
    What cannot be read is added to `skipped`; the rest, and what is raised, is as in `predict`.
    """
    at_least("batch_size", batch_size, 1)
    at_least("window", window, 1)
    model = as_folder(model)
    kind = with_threshold(task_of(model, task, revision), threshold)
    place = kind.check_output(output)
    refuse_written(place, overwrite)
    if place is not None:
        barrier()  # all of a launch have looked; the first one writes
    place = place if is_main_process() else None
    if place is not None and place.is_dir():
        own_pictures(place, kind.table_path(place))  # which raises where others are there
    if place is not None and place != Path(str(output)):
        log.warning(
            "a %s writes a folder: the table goes to %s, not to %s", kind.product, kind.table_path(place), output
        )
    asked = given_images(images)
    network = kind.load(model, revision, device)
    value_range = getattr(network.config, "value_range", None)
    look_at(asked, value_range)
    taken = {given.place for given in asked} if pages else set()

    def shown(given: Given) -> Iterator[tuple[Path, str, Any] | BadImage]:
        """The pages of a file, or what is wrong with it."""
        file = given.name
        try:
            with given.open() as image, decoding():
                for page, picture in opened_pages(image, pages):
                    made = kind.prepare(network, load_rgb(picture, value_range))
                    yield Path(f"{file}{page}"), place_of(given.place, page, taken), made
        except BadImage as e:
            yield BadImage(e.reason, str(file))

    def opened() -> Iterator[tuple[Path, str, Any]]:
        whole = in_threads(lambda one: [*shown(one)], asked, cores(), 2 * cores(), weight)
        ahead = map(shown, asked) if pages else whole
        for found in counted(ahead, "predicting", len(asked), late=False):
            for page in found:  # of a file of a thousand pages one is in memory
                if not isinstance(page, BadImage):
                    yield page
                    continue
                advice = CONVERT.get(Path(str(page.id)).suffix.lower())
                skipped.append((str(page.id), f"{page.reason}; {advice}" if advice else page.reason))

    rows = kind.predict(network, opened(), top=top, batch_size=batch_size, window=window, output=place)
    table = None if place is None else kind.table_path(place)
    in_folder = contextlib.nullcontext(set[str]()) if table in (None, place) else alone(place, table, overwrite)
    growing = contextlib.nullcontext(None) if table is None else growing_table(table)
    with in_folder as pictures, contextlib.closing(rows), growing as add:  # no thread writes after the lock
        any_read = False
        for row in rows:
            any_read = True
            if add is not None:
                add(row)
            pictures -= {row.get("mask"), row.get("overlay")}
            yield row
        if not any_read:
            file, why = skipped[0]
            raise UserError(f"None of {len(asked)} images could be read, for example {file}: {why}.")
        if place is not None:  # while the earlier table still names them
            remove_pictures(place, pictures)


def weight(_: Any, pages: list[tuple[Path, str, Any] | BadImage]) -> int:
    """Bytes of decoded pages."""
    return sum(page[2].nbytes for page in pages if not isinstance(page, BadImage))


def task_of(model: Model, asked: str | None = None, revision: str | None = None) -> Task:
    """The task of a model, by its own configuration.

    Raises:
        UserError: there is no such model, or it is of another task than `asked`.
    """
    if isinstance(model, (str, Path)):
        refuse_no_model(model)
        config = model_config(str(model), revision)
    else:
        known = getattr(model, "config", None)
        if not hasattr(known, "model_type"):
            raise UserError(
                f"{brief(model)} is no model with classes of its own. Give a run folder, a finished run, a saved "
                "model, a Hub id (org/name), or a model that create_classifier or create_segmenter made."
            )
        config = {**known.to_dict(), "model_type": known.model_type}
    found = of_model(config)
    if asked is not None and get_task(asked).name != found.name:
        raise UserError(
            f"This is a model for {found.name}, not for {asked}. Give --task {found.name}, or another --model."
        )
    return found
