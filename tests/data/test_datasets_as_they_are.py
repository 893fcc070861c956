"""What `datasets` hands over as people have it: formats and transforms."""

from __future__ import annotations

import warnings

import datasets
import numpy as np
import pytest

from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_segmentation, load_source, open_dataset
from hf_lowlabel.tasks.multilabel import MultiLabelTargets


def rows_of(make, **columns) -> datasets.Dataset:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    columns = {"image": [make.picture(i) for i in range(6)], "label": [0, 1, 2, 0, 1, 2]} | columns
    rest = {k: datasets.Sequence(datasets.Value("string")) for k in columns if k not in features}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features | rest))


def spoilt(batch: dict) -> dict:
    return {name: list(reversed(values)) for name, values in batch.items()}


FORMATS = {
    "torch": lambda d: d.with_format("torch"),
    "numpy": lambda d: d.with_format("numpy"),
    "pandas": lambda d: d.with_format("pandas"),
    "one column": lambda d: d.with_format("torch", columns=["label"]),
    "transform": lambda d: d.with_transform(spoilt),
}


@pytest.mark.filterwarnings("ignore:The transform of the Dataset")
@pytest.mark.parametrize("cut", ["select", "shuffle", "split"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_changes_neither_images_nor_labels(make, kind, cut):
    """Chosen rows are written out anew by `datasets`, which goes through the format."""
    every = FORMATS[kind](rows_of(make))
    order = [5, 1, 3] if cut != "shuffle" else np.random.default_rng(3).permutation(6).tolist()
    rows = {"select": every.select(order), "shuffle": every.shuffle(generator=np.random.default_rng(3))}.get(cut)
    found = load_source(rows if rows is not None else datasets.DatasetDict({"train": every.select(order)}))
    assert found.labels.tolist() == [k % 3 for k in order] and found.class_names == ["a", "b", "c"]
    for k, i in enumerate(order):
        assert np.array_equal(np.array(found.image(k)), np.array(make.picture(i)))


@pytest.mark.parametrize("cut", [False, True])
def test_a_transform_that_is_not_applied_is_said_once(make, cut):
    for given, count in ((rows_of(make).with_transform(spoilt), 1), (rows_of(make).with_format("torch"), 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_source(given.select([2, 0]) if cut else given)
        assert sum("transform of the Dataset is not applied" in str(w.message) for w in caught) == count


@pytest.mark.filterwarnings("ignore:The transform of the Dataset")
def test_masks_lists_of_classes_and_images_to_predict_are_read_without_it_too(make):
    masks = [make.picture(i, mode="1") for i in range(6)]
    plain = (
        rows_of(make)
        .remove_columns("label")
        .add_column("mask", [{"bytes": make.encoded(m), "path": None} for m in masks])
    )
    found = load_segmentation(plain.with_transform(spoilt).select([4, 0]), mask_format="binary")
    assert np.array_equal(found.mask(0), np.array(masks[4])) and np.array_equal(found.mask(1), np.array(masks[0]))
    several = rows_of(make, labels=[["x"], ["y"], [], ["x", "y"], [], ["y"]]).remove_columns("label")
    found = open_dataset(several.with_transform(spoilt).select([3, 1]), MultiLabelTargets())
    assert found.labels.tolist() == [[1, 1], [0, 1]]
    asked = given_images(rows_of(make).with_format("torch").select([5, 2]))
    for item, i in zip(asked, (5, 2), strict=True):
        with item.open() as image:
            assert np.array_equal(np.array(image), np.array(make.picture(i)))
