"""What `datasets` and others hand over as people have it: formats, transforms, and columns of other programs."""

from __future__ import annotations

import warnings

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_lowlabel import UserError
from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_segmentation, load_source, open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.data.sources.streaming import Shards


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


# ---- columns --------------------------------------------------------------------------------------------------------
def as_table(columns: dict) -> datasets.Dataset:
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def encoded(make, count: int = 3) -> list[bytes]:
    return [make.encoded(make.picture(i)) for i in range(count)]


def test_columns_of_webdataset(make, tmp_path):
    """Its loader calls the class cls; another field of bytes is no image where one is declared."""
    columns = {"png": encoded(make), "cls": [1, 0, 1], "npy": [b"\x93NUMPY"] * 3, "__key__": ["a", "b", "c"]}
    table = as_table(columns).cast_column("png", datasets.Image())
    table.to_parquet(tmp_path / "t.parquet")
    for given in (table, tmp_path / "t.parquet"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = load_source(given)
        assert found.labels.tolist() == [1, 0, 1]
        assert np.array_equal(np.array(found.image(1)), np.array(make.picture(1)))
    bare = load_source(as_table({"jpg": [{"bytes": b, "path": None} for b in encoded(make)], "npy": [b"no image"] * 3}))
    assert np.array_equal(np.array(bare.image(1)), np.array(make.picture(1)))
    with pytest.raises(UserError, match=r"2 columns with images \(jpg, npy\)"):
        load_source(as_table({"jpg": encoded(make), "npy": [b"no image"] * 3}))


@pytest.mark.parametrize("kind", ["memory", "frame", "parquet"])
def test_a_table_without_a_known_column_of_labels_names_its_columns(make, tmp_path, kind):
    images = [{"bytes": b, "path": None} for b in encoded(make)]
    columns = {"image": images, "id": ["a", "b", "c"], "species": ["owl", "tit", "owl"], "big": [0, 1, 0]}
    given = as_table(columns) if kind == "memory" else pd.DataFrame(columns)
    if kind == "parquet":
        given = make.table(tmp_path / "t.parquet", columns["id"], **columns | {"label": None})
    with pytest.warns(
        UserWarning, match="unlabeled.*--label-column if one of species, big is it, or give --task multi"
    ):
        assert not load_source(given).has_target.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load_source(given, label_column="species").class_names == ["owl", "tit"]
        if kind != "parquet":
            assert len(given_images(given)) == 3  # whose labels nobody asks for
            load_source(as_table({"image": images, "id": ["a", "b", "c"], "__key__": ["a", "b", "c"]}))


def test_images_to_predict_may_have_any_labels(make):
    rows = rows_of(make, labels=[["x"], ["y"], [], ["x", "y"], [], ["y"]]).remove_columns("label")
    assert len(given_images(rows)) == len(rows)


STRUCTS = {
    "bytes alone": {},
    "more": {"path": "a.png", "sha": "1"},
    "a number": {"size": 3},
}


@pytest.mark.parametrize("kind", STRUCTS)
def test_encoded_images_beside_other_facts(make, tmp_path, kind):
    """As parquet that `datasets` did not write has them."""
    values = [{"bytes": b, **STRUCTS[kind]} for b in encoded(make)]
    make.table(tmp_path / "t.parquet", [0, 1, 0], image=None, photo=values, boxes=[{"size": 1}] * 3)
    opened = [load_source(tmp_path / "t.parquet"), load_source(as_table({"photo": values, "label": [0, 1, 0]}))]
    opened += [
        load_source(pd.DataFrame({"photo": values, "label": [0, 1, 0]})),
        Shards(tmp_path / "t.parquet").sample(3),
    ]
    for found in opened:
        assert np.array_equal(np.array(found.image(2)), np.array(make.picture(2)))


def test_views_of_text_and_bytes(make, tmp_path):
    """Types of Arrow that other programs write."""
    columns = {
        "photo": pa.array(encoded(make), pa.binary_view()),
        "id": pa.array(["x", "y", "z"], pa.string_view()),
        "label": pa.array(["b", None, "a"], pa.string_view()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    for found in (load_source(as_table(columns)), load_source(tmp_path / "t.parquet")):
        assert found.ids == ["x", "y", "z"] and found.labels.tolist() == [1, -1, 0] and found.class_names == ["a", "b"]
        assert np.array_equal(np.array(found.image(1)), np.array(make.picture(1)))
    stream = Shards(tmp_path / "t.parquet")
    assert [id for id, _ in stream.rows(0)] == ["x", "y", "z"]
    assert np.array_equal(np.array(stream.sample(3).image(1)), np.array(make.picture(1)))
