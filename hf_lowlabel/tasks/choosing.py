"""Which images a run learns from, and which it is tested on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..errors import UserError
from ..text import percent
from .data_classes import Chosen

log = logging.getLogger("hf_lowlabel")
DRAWN = "of the labeled images, held out"  # end of the words on a test set that nobody asked for


def choose_split(task: Any, data: DataArguments, seed: int, dataset: ImageDataset) -> Chosen:
    """Which images are labeled, and which are tested on.

    Without a manifest and a budget these are all the labels there are. The test set is the split that is named, else
    the manifest's own, else the data set's `test` (or `validation`) split if it has labels, else `test_fraction` of the
    labeled images.

    Raises:
        UserError: both a budget and a manifest are given, or they do not fit the data.
    """
    if data.split is not None and data.num_labels is not None:
        raise UserError("Give --num-labels N (a budget to draw) or --split split.json (a manifest): not both.")
    given = task.read_split(data, dataset) if data.split else None
    held_out = "held out by the manifest" if data.split else f"{percent(data.test_fraction, 0)} {DRAWN}"
    if given is not None:
        own = given.without_foreign(dataset)  # folders by day are no classes
        check_held(task.match(own, given.class_names), given, str(data.split))
    if given is not None and given.test and data.test_dataset_split is None:
        return Chosen(given, dataset, given.resolve(dataset).test, held_out, None)
    only_this = data.dataset_split != "train" and data.test_dataset_split is None
    other = None if only_this else task.test_dataset(data, dataset.class_names)
    asked = data.test_dataset_split is not None
    if other is not None and not asked and other.fingerprint == dataset.fingerprint:  # as of the one file test.parquet
        log.warning("split %r of %r is what is trained on: it is not the test set", other.split, other.name)
        other = None
    if given is None:
        given = task.draw_split(
            dataset,
            data.num_labels,
            seed=seed,
            class_balanced=data.class_balanced,
            validation=data.validation,
            test_fraction=0.0 if other is not None else data.test_fraction,
        )
    if other is None:
        return Chosen(given, dataset, given.resolve(dataset).test, held_out, None)
    at = np.flatnonzero(task.match(other, given.class_names).has_target)
    return Chosen(given, other, at, f"split {other.split!r}", other.split)


def check_held(dataset: ImageDataset, split: Split, where: str) -> None:
    """UserError where the data does not know the answer to an image that is held out: a manifest names it alone."""
    at = split.resolve(dataset)
    held = np.concatenate([at.validation, at.test])
    without = held[~dataset.has_target[held]]
    if len(without):
        raise UserError(
            f"{len(without)} of the {len(held)} images that {where} holds out have no label in {dataset.name!r}, such "
            f"as {dataset.ids[int(without[0])]!r}, so that nothing can be tested on them. Write the manifest "
            "again by `hf-lowlabel split --from` a table that has their labels, or hold none out."
        )
