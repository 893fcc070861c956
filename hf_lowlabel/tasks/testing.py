"""Images to score a saved model on: its own test images, or those of other data."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..arguments import DataArguments
from ..data.caches.decoding import cores, in_threads
from ..data.dataset import ImageDataset
from ..data.files.table_files import stem
from ..data.pixels.fingerprints import print_of_open
from ..data.pixels.images import BadImage
from ..data.splits.splits import Split
from ..distributed import barrier
from ..errors import MissingSplit, UserError
from ..models.quiet import unsaid
from ..records import Data, RunRecord
from ..text import in_memory, listed, warn
from ..yaml_files import read_yaml
from .base import Task
from .data_classes import as_path

log = logging.getLogger("hf_lowlabel")
UNKNOWN = "whether the model was trained with some of these images is not known: results on such are too good"


def report_folder(output: str | Path, overwrite: bool) -> Path:
    """Where an evaluation goes, which is not into a run and not over another one."""
    folder = Path(output)
    if (folder / "training.yaml").exists():
        raise UserError(f"{folder} is a run, whose metrics and pictures are its own. Give another --output.")
    if (folder / "metrics.json").exists() and not overwrite:
        raise UserError(f"{folder}/metrics.json is there already. Give another --output, or --overwrite to replace it.")
    barrier()  # all of a launch have looked; the first one writes
    return folder


def test_images(
    task: Task, data: DataArguments, names: list[str], split: str | Path | Split | None, own: Path | None
) -> tuple[ImageDataset, np.ndarray]:
    """(data set, positions of its test images): of a manifest, else of the data set's own test split, else of data that
    are not those of the model all that have a label."""
    manifest = split or (str(own) if own is not None and own.is_file() else None)
    chosen = Split.load(manifest) if data.test_dataset_split is None and manifest else None
    if chosen is not None:
        with contextlib.nullcontext() if split and chosen.test else contextlib.suppress(MissingSplit):
            images = task.open(data, "train", names)
            if split is None and is_elsewhere(chosen, images):
                images, indices = elsewhere(task, data, images, names, own)
                told = own is not None and (is_copy(own, images) or tell_trained(task, names, own, images, indices))
                if not told:
                    log.warning(UNKNOWN)
                return images, indices
            if chosen.test:
                at = chosen.resolve(images).test
                return chosen.answered(images, several=task.labeling == "classes"), at
    of_data = str(data.dataset) if isinstance(data.dataset, (str, Path)) else in_memory(data.dataset)
    try:
        tested = task.test_dataset(data, names, "--dataset-split")
    except MissingSplit as error:
        raise MissingSplit(f"{error} Or give --dataset-split with another split.") from error
    whole = None
    if tested is None and split is None:
        with contextlib.suppress(MissingSplit):
            whole = task.open(data, "train", names)
    if tested is None and (whole is None or is_own(own, whole) or not whole.has_target.any()):
        raise MissingSplit(
            f"There is no labeled test or validation split in {of_data!r}. Give --dataset-split with another split, or "
            "--split with a manifest that has test images (of a model on the Hub: hub:ORG/NAME). With "
            "--dataset-split train results on images it was trained with are too good."
        )
    images = task.shared(tested or whole, names)
    indices = np.flatnonzero(task.match(images, names).has_target)
    if not len(indices):
        raise UserError(f"None of the images of {of_data!r} (split {images.split!r}) has a label to compare with.")
    known = own is not None and tell_trained(task, names, own, images, indices)
    if tested is not None and own is not None and not known and images.split == "train":
        log.warning(UNKNOWN)
    if tested is None:
        more = "" if known else "; whether the model was trained with some of them is not known"
        log.warning(
            "%r has no test split: evaluating on all %d images that have a label%s", of_data, len(indices), more
        )
    return images, indices


def is_own(manifest: Path | None, dataset: ImageDataset) -> bool:
    """Whether these are the data that the model beside this manifest was trained on, as its run knows them."""
    data = data_of(manifest) if manifest is not None else None
    return data is not None and dataset.fingerprint == data.fingerprint


def data_of(manifest: Path) -> Data | None:
    """What the run beside a manifest says of the data it was trained on."""
    path = manifest.with_name("run.json")
    return RunRecord.from_json(path).data if path.is_file() else None


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
    data = data_of(manifest)
    return data is not None and data.ids_hash == dataset.ids_hash


def tell_trained(task: Task, names: list[str], manifest: Path, dataset: ImageDataset, indices: np.ndarray) -> bool:
    """Warn of images whose labels the model has been trained with, of which results say nothing; whether it is known.

    Of the same data by their ids. Of other data, such as the same folder with one photo more, by their files where
    those of the training images can still be read; else by their ids where the data are called the same.
    """
    own = Split.load(manifest) if manifest.is_file() else None
    if own is None:
        return False
    named = [dataset.ids[i] for i in indices if dataset.ids[i] in own.labeled]
    surely, trained, known, copies = True, len(named), None, list[str]()
    if own.fingerprint != dataset.fingerprint:
        known = trained_images(task, names, manifest, own)
        of = in_threads(partial(original, known, dataset), indices, cores(), 64) if known is not None else ()
        pairs = [(dataset.ids[i], id) for i, id in zip(indices, of) if id is not None]
        trained, copies = len(pairs), [f"{one} of {id}" for one, id in pairs if one != id]
        if not trained:
            surely = False
            if is_copy(manifest, dataset):
                trained = len(named)
            elif known is None and own.dataset == dataset.name:
                trained = sum(not stem(id).isdigit() for id in named)  # bare numbers are in any data
    if trained:
        such = f", such as {listed(copies, 3)}" if copies else ""
        kind = "copies of labeled ones" if len(copies) == trained else "labeled ones"
        among = f", {len(copies)} of them as copies{such}" if copies and len(copies) < trained else such
        warn(
            f"{trained} of the {len(indices)} images "
            + (
                f"are {kind} the model was trained with{among}: results on them are too good"
                if surely
                else "are called as labeled ones the model was trained with: results on them are too good where they "
                "are the same"
            )
            + ". Give another --dataset-split, or other images."
        )
    return bool(trained) or known is not None or own.fingerprint == dataset.fingerprint


class Trained(NamedTuple):
    """The labeled images of a run. files: `file_print` of each -> its id. named: where those of a name are in
    `dataset`."""

    dataset: ImageDataset
    files: dict[tuple[int, int], str]
    named: dict[str, list[int]]


def trained_images(task: Task, names: list[str], manifest: Path, own: Split) -> Trained | None:
    """Those of the run that a manifest is beside; None where its data can no longer be read."""
    path = manifest.with_name("training.yaml")
    said = read_yaml(path) if path.is_file() else {}
    place = as_path(said.get("dataset"))
    if place is None or not place.exists():
        return None
    known = {field.name for field in dataclasses.fields(DataArguments)}
    with contextlib.suppress(UserError), warnings.catch_warnings(), unsaid(log.name, logging.ERROR):
        warnings.simplefilter("ignore")  # the run has said it
        data = DataArguments(**{key: value for key, value in said.items() if key in known})
        images = task.open(data, names=names)
        labeled = np.flatnonzero([id in own.labeled for id in images.ids])
        if len(labeled):
            named: dict[str, list[int]] = {}
            for i in labeled.tolist():
                named.setdefault(stem(images.ids[i]), []).append(i)
            found = in_threads(partial(file_print, images), labeled, cores(), 64)
            return Trained(images, {one: images.ids[i] for one, i in zip(found, labeled) if one is not None}, named)
    return None


def original(known: Trained, dataset: ImageDataset, i: int) -> str | None:
    """The one of those that image i is, as a file or, where it is called as one, as a picture; None: it is none."""
    alike = [(known.dataset.ids[j], j) for j in known.named.get(stem(dataset.ids[i]), ())]
    if (id := known.files.get(file_print(dataset, i) or (0, 0))) is not None:
        return dataset.ids[i] if dataset.ids[i] in dict(alike) else id
    return next((id for id, j in alike if same_picture(known.dataset, j, dataset, i)), None)


def file_print(dataset: ImageDataset, i: int) -> tuple[int, int] | None:
    """(bytes, checksum of parts of them) of what image i is decoded from; None where there is no such thing."""
    with contextlib.suppress(BadImage, OSError, ValueError):
        with dataset.reader(i) as image:
            file = getattr(image, "fp", None)
            return None if file is None else print_of_open(file)
    return None


def same_picture(one: ImageDataset, i: int, other: ImageDataset, j: int) -> bool:
    """Whether two images have the same pixels; a blank one says nothing."""
    with contextlib.suppress(BadImage):
        if one.size(i) == other.size(j):
            a, b = np.asarray(one.rgb(i)), np.asarray(other.rgb(j))
            return np.array_equal(a, b) and not (a == a[:1, :1]).all()
    return False
