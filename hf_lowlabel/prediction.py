"""Using a trained model, whatever its task: `evaluate` on labeled images, `predict` on files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from .arguments import DataArguments
from .data.dataset import write_left_out
from .data.folders import CONVERT, walk
from .data.image_cache import workers_are_there
from .data.images import BadImage, decoding, load_rgb, open_image
from .data.mask_folders import mask_folders_among
from .data.mask_names import masks_among
from .data.pages import opened_pages
from .distributed import interactive
from .errors import MissingSplit, UserError, at_least
from .files import filling, write_json, write_table
from .models.checkpoint_resolver import model_config
from .records import RunRecord
from .tasks import get_task, of_model
from .tasks.base import Task
from .tasks.testing import test_images
from .yaml_files import read_yaml

if TYPE_CHECKING:
    from .api.types import Model
else:  # its parts are not imported for their names alone
    Model = Any

log = logging.getLogger("hf_lowlabel")


class Predictions(NamedTuple):
    """What a model says of image files: `rows`, a dict each, and `skipped`, (file, why it could not be read)."""

    rows: list[dict]
    skipped: list[tuple[str, str]]

    def to_pandas(self):
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __repr__(self) -> str:
        return f"Predictions({len(self.rows)} images, {len(self.skipped)} skipped)"


def evaluate(
    model: Model,
    dataset: Any,
    *,
    dataset_split: str | None = None,
    split: str | None = None,
    dataset_config: str | None = None,
    dataset_revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    no_label: Sequence[str] = (),
    skip_missing: bool = False,
    skip_conflicts: bool = False,
    value_range: Sequence[float] = (),
    pages: bool = False,
    mask_column: str | None = None,
    classes: Sequence[str] = (),
    mask_format: str | None = None,
    mask_ignore: Sequence[int] = (),
    instances: bool = False,
    window: int | None = None,
    output: str | Path | None = None,
    device: str | None = None,
    task: str | None = None,
    max_bad: float = 0.01,
) -> dict[str, Any]:
    """Metrics of a saved model on the labeled images of a data set.

    Which images: those of `dataset_split` if given; else the test images of the manifest `split` or of the model's own
    split.json; else the data set's split "test" (for masks also "validation"). Classes are matched by name.

    Args:
        model: a run folder, a saved model, a Hub id, or a model in memory; its task is known by its configuration.
        dataset: a path, a Hub id, or data in memory, as for `finetune`.
        dataset_config, dataset_revision, image_column, label_column, pages: as for `finetune`.
        no_label, skip_missing, skip_conflicts: as for `finetune`.
        value_range: of images of more than 8 bits; left out, that of the model.
        mask_column, classes, mask_format, mask_ignore, instances: what masks mean; left out, as the run `model` was
            trained.
        window: side in px of a window that slides over images of a segmenter; None: whole images.
        output: folder for metrics.json and pictures.
        device: "cpu" to leave a GPU alone; None: the best there is.
        task: the task that is expected.
        max_bad: share of unreadable images that is left out.

    Returns:
        Numbers by name; see `classification_metrics`, `segmentation_metrics` and `multilabel_metrics`.

    Raises:
        UserError: no such model or data, other classes, nothing to evaluate on, or another task than expected.
    """
    at_least("window", window, 1)
    kind = task_of(model, task)
    network = kind.load(model, device=device)
    names = kind.names_of(network)
    given = dict(
        label_column=label_column,
        mask_column=mask_column,
        classes=list(classes),
        mask_format=mask_format,
        mask_ignore=list(mask_ignore),
        instances=instances,
    )
    data = DataArguments(
        dataset=dataset,
        dataset_config=dataset_config,
        dataset_revision=dataset_revision,
        image_column=image_column,
        no_label=list(no_label),
        skip_missing=skip_missing,
        skip_conflicts=skip_conflicts,
        value_range=list(value_range) or getattr(network.config, "value_range", []),
        pages=pages,
        test_dataset_split=dataset_split,
        max_bad=max_bad,
        **(declared(model, given, kind)),
    )
    refuse_foreign(data, kind)
    own = Path(model, "split.json") if isinstance(model, (str, Path)) else None
    try:
        images, indices = test_images(kind, data, names, split, own)
    except MissingSplit as error:
        raise MissingSplit(f"{error}{known_of(model)}") from error
    folder = None if output is None else Path(output)
    with workers_are_there():
        held = kind.held(network, data, images, indices, names, "test")
        with contextlib.nullcontext() if folder is None else filling(folder):
            metrics = kind.evaluate(network, held, names, window=window, folder=folder)
    if folder is not None:
        write_left_out(images, folder / "left_out.csv")
        write_json(folder / "metrics.json", metrics)
    return metrics


def known_of(model: Model) -> str:
    """What a run folder says of a model that was trained without test images, after a blank."""
    record = Path(model, "run.json") if isinstance(model, (str, Path)) else None
    if record is None or not record.is_file():
        return ""
    return "".join(
        f" {line}" for line in RunRecord.from_json(record).advice if line.startswith("No image is tested on")
    )


def declared(model: Model, given: dict[str, Any], task: Task) -> dict[str, Any]:
    """What is said of labels and masks; nothing said: as the run folder was trained."""
    said = {k: v for k, v in given.items() if v}
    if said or not isinstance(model, (str, Path)) or not Path(model, "training.yaml").is_file():
        return said
    trained = read_yaml(Path(model, "training.yaml"))
    return {k: trained[k] for k in given if trained.get(k) and k in task.takes}


def refuse_foreign(data: DataArguments, task: Task) -> None:
    for name in ("mask_column", "classes", "mask_format", "mask_ignore", "instances"):
        if getattr(data, name) and name not in task.takes:
            raise UserError(f"{name} says what masks mean, and this is for a {task.product}. Leave it out.")


def predict(
    images: str | Path | Sequence[str | Path],
    model: Model,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    top: int = 1,
    batch_size: int = 64,
    device: str | None = None,
    revision: str | None = None,
    task: str | None = None,
    window: int | None = None,
    pages: bool = False,
) -> Predictions:
    """What a model says of image files and folders.

    Args:
        images: files or folders, searched through.
        model: a run folder, a saved model, a Hub id at `revision`, or a model in memory.
        output: where to write as well: a .csv or .parquet of a classifier; a folder of a segmenter, with masks/,
        overlays/
            and masks.csv. None: nothing is written.
        overwrite: an output that is there already may be replaced.
        top: classes listed for every image.
        batch_size: images at a time.
        device: "cpu" to leave a GPU alone; None: the best there is.
        task: the task that is expected.
        window: side in px of a sliding window (segmenters); None: whole images.
        pages: each page of a TIFF and frame of a GIF, file#1, file#2 ...; else the first alone.

    Returns:
        A row for each image in the order of the files: {"file", "class", "confidence"}, with top > 1 also {"class_2",
        "confidence_2", ...}; of a segmenter {"file", "confidence", "share_CLASS": ...}; and what was skipped.

    Raises:
        UserError: nothing can be read, the output is there already, or the model is of another task.
    """
    at_least("batch_size", batch_size, 1)
    at_least("window", window, 1)
    kind = task_of(model, task, revision)
    place = kind.check_output(output)
    if place is not None and place.exists() and not overwrite:
        raise UserError(f"{place} is there already. Give another --output, or --overwrite to replace it.")
    files = find_images(images)
    network = kind.load(model, revision, device)
    skipped: list[tuple[str, str]] = []
    value_range = getattr(network.config, "value_range", None)

    def opened() -> Iterator[tuple[Path, str, Image.Image]]:
        bar = tqdm(files, desc="predicting", unit="img", disable=not interactive())
        for file, name in zip(bar, places(files, images), strict=True):
            try:
                with open_image(file) as image, decoding():
                    for page, shown in opened_pages(image, pages):
                        place = Path(name)
                        picture = load_rgb(shown, value_range)
                        yield Path(f"{file}{page}"), place.with_stem(f"{place.stem}{page}").as_posix(), picture
            except BadImage as e:
                advice = CONVERT.get(file.suffix.lower())
                skipped.append((str(file), f"{e.reason}; {advice}" if advice else e.reason))

    rows = list(kind.predict(network, opened(), top=top, batch_size=batch_size, window=window, output=place))
    if not rows:
        file, why = skipped[0]
        raise UserError(f"None of {len(files)} images could be read, for example {file}: {why}.")
    if place is not None:
        write_table(kind.table_path(place), rows)
    return Predictions(rows, skipped)


def task_of(model: Model, asked: str | None = None, revision: str | None = None) -> Task:
    """The task of a model, by its own configuration.

    Raises:
        UserError: there is no such model, or it is of another task than `asked`.
    """
    if isinstance(model, (str, Path)):
        is_id = "/" in str(model) and not str(model).startswith((".", "~", "/"))
        if not Path(model).is_dir() and not is_id:
            raise UserError(
                f"There is no model {str(model)!r}. Give a run folder, a saved model or a Hub id (org/name)."
            )
        config = model_config(str(model), revision)
    else:
        config = {**model.config.to_dict(), "model_type": model.config.model_type}
    found = of_model(config)
    if asked is not None and get_task(asked).name != found.name:
        raise UserError(
            f"This is a model for {found.name}, not for {asked}. Give --task {found.name}, or another --model."
        )
    return found


def find_images(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Image files, folders searched through as training does, in a stable order."""
    found: list[Path] = []
    for name in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(path / file for file in without_masks(path, [file for file, _ in walk(path)]))
            if not inside:
                raise UserError(f"There is no image in the folder {name}. Give one with files such as .jpg or .png.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"There is no file or folder {str(name)!r}. Give images or folders of images.")
    return found


def without_masks(folder: Path, files: list[str]) -> list[str]:
    """The files without masks: those beside their images, and folders of them beside folders of images."""
    masks = set(masks_among(files))
    folders = {parent for file in files for parent in PurePosixPath(file).parents if parent.name}
    beside: dict[PurePosixPath, list[str]] = {}
    for one in folders:
        beside.setdefault(one.parent, []).append(one.name)
    of_masks = {parent / name for parent, names in beside.items() for name in mask_folders_among(names)}
    masks |= {file for file in files if of_masks & {*PurePosixPath(file).parents}}
    if masks:
        log.warning(
            "%d files in %s are masks of images beside them and are left out, such as %s; name such files to predict "
            "them",
            len(masks),
            folder,
            min(masks),
        )
    return [file for file in files if file not in masks]


def places(files: Sequence[Path], images: str | Path | Sequence[str | Path]) -> list[str]:
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
