"""Which images a saved model is scored on: its own test images, or those of other data."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path

import numpy as np

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits import Split
from ..errors import MissingSplit, UserError
from ..records import RunRecord
from ..text import in_memory
from .base import Task

log = logging.getLogger("hf_lowlabel")


def test_images(
    task: Task, data: DataArguments, names: list[str], split: str | None, own: Path | None
) -> tuple[ImageDataset, np.ndarray]:
    """(data set, positions of its test images): of a manifest, else of the data set's own test split."""
    manifest = split or (str(own) if own is not None and own.is_file() else None)
    chosen = Split.load(manifest) if data.test_dataset_split is None and manifest else None
    if chosen is not None:
        with contextlib.nullcontext() if chosen.test else contextlib.suppress(MissingSplit):
            images = task.open(data, "train", names)
            if split is None and is_elsewhere(chosen, images):
                return elsewhere(task, data, images, names, own)
            if chosen.test:
                at = chosen.resolve(images).test
                return chosen.answered(images, several=task.labeling == "classes"), at
    of_data = data.dataset if isinstance(data.dataset, (str, Path)) else in_memory(data.dataset)
    try:
        tested = task.test_dataset(data, names)
    except MissingSplit as error:
        raise MissingSplit(f"{error} Or give --dataset-split with another split.") from error
    if tested is None:
        raise MissingSplit(
            f"There is no labeled test or validation split in {of_data!r}. Give --dataset-split with another split, or "
            "--split with a manifest that has test images (of a model on the Hub: hub:ORG/NAME)."
        )
    images = task.shared(tested, names)
    indices = np.flatnonzero(task.match(images, names).has_target)
    if not len(indices):
        raise UserError(f"None of the images of {of_data!r} (split {images.split!r}) has a label to compare with.")
    if own is not None:
        tell_trained(own, images, indices)
    return images, indices


def is_elsewhere(own: Split, images: ImageDataset) -> bool:
    """Whether these are other data than those a model was trained on, and not the same with a change."""
    if own.fingerprint is None or own.fingerprint == images.fingerprint:
        return False
    return own.dataset != images.name or not {*own.test} <= {*images.ids}


def elsewhere(
    task: Task, data: DataArguments, images: ImageDataset, names: list[str], manifest: Path | None
) -> tuple[ImageDataset, np.ndarray]:
    """The test split of other data than the model's own, or all of its images that have a label.

    Of a copy of the model's own data, in another folder or of another size: its test images, or those it was not
    trained with. manifest: of the model.
    """
    tested = task.shared(task.test_dataset(data, names) or images, names)
    indices = np.flatnonzero(tested.has_target)
    if not len(indices):
        raise UserError(f"None of the images of {tested.name!r} (split {tested.split!r}) has a label to compare with.")
    if manifest is not None and is_copy(manifest, tested):
        own, ids = Split.load(manifest), [tested.ids[i] for i in indices]
        held, aside = {*own.test}, {*own.labeled, *own.validation}
        rest = indices[[id in held if held else id not in aside for id in ids]]
        rest = rest if len(rest) else indices  # other images may have these names
        log.warning(
            "%r has the names of the images that the model was trained with, as a copy of them has: evaluating on %s",
            tested.name,
            f"the {len(rest)} of its {len(indices)} labeled ones that it was not trained with"
            if len(rest) < len(indices)
            else "all labeled ones, of which results are too good where they are the same",
        )
        return tested, rest
    log.info("evaluating on %d images of %r (split %s)", len(indices), tested.name, tested.split)
    return tested, indices


def is_copy(manifest: Path, dataset: ImageDataset) -> bool:
    """Whether all ids are those of the data that the model beside this manifest was trained on."""
    path = manifest.with_name("run.json")
    data = RunRecord.from_json(path).data if path.is_file() else None
    return data is not None and data.ids_hash == dataset.ids_hash


def tell_trained(manifest: Path, dataset: ImageDataset, indices: np.ndarray) -> None:
    """Warn of images whose labels the model has been trained with, of which results say nothing."""
    own = Split.load(manifest) if manifest.is_file() else None
    if own is not None and (own.fingerprint == dataset.fingerprint or is_copy(manifest, dataset)):
        trained = sum(dataset.ids[i] in own.labeled for i in indices)
        if trained:
            warnings.warn(
                f"{trained} of the {len(indices)} images are labeled ones the model was trained with: results on "
                "them are too good. Give another --dataset-split.",
                stacklevel=5,
            )
