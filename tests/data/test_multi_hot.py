"""Labels of several classes that are 0 and 1 for each class, and numbers of declared classes."""

from __future__ import annotations

import logging

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Features, List, Value

from hf_lowlabel import UserError, load_source
from hf_lowlabel.data.opening import open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.labeling.importing import import_labels

HOT = [[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]  # nothing has the last class


def read(data):
    return open_dataset(data, MultiLabelTargets())


@pytest.fixture
def table(make):
    """A `datasets.Dataset` with these columns beside images."""

    def made(features: dict, **columns) -> datasets.Dataset:
        count = len(next(iter(columns.values())))
        images = {"image": [make.picture(i) for i in range(count)]}
        return datasets.Dataset.from_dict(images | columns, features=Features({"image": datasets.Image()} | features))

    return made


def of_kind(kind: str, rows: list, table, make, folder):
    images = [make.picture(i) for i in range(len(rows))]
    if kind in ("int64", "bool", "float32"):
        values = [row and [np.dtype(kind).type(v).item() for v in row] for row in rows]
        return table({"labels": List(Value(kind), length=3 if kind == "float32" else -1)}, labels=values)
    if kind in ("frame of arrays", "pairs of arrays", "pairs of tensors"):
        form = torch.tensor if "tensors" in kind else np.array
        values = [row and form(row) for row in rows]
        return pd.DataFrame({"image": images, "label": values}) if "frame" in kind else list(zip(images, values))
    make.files(folder, [f"{i}.png" for i in range(len(rows))])
    texts = {"csv": str, "printed": lambda row: str(np.array(row, float)), "0;1": lambda row: ";".join(map(str, row))}
    lines = [f'{i}.png,"{texts[kind](row) if row is not None else ""}"' for i, row in enumerate(rows)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,labels", *lines]))
    return folder


KINDS = ["int64", "bool", "float32", "frame of arrays", "pairs of arrays", "pairs of tensors", "csv", "printed", "0;1"]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_0_and_1_are_a_class_each(kind, table, make, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_lowlabel"):
        found = read(of_kind(kind, [*HOT, None], table, make, tmp_path))
    assert found.class_names == ["0", "1", "2"] and found.labels.tolist() == [*HOT, [-1, -1, -1]]
    assert [r.getMessage() for r in caplog.records if "0 and 1 for each of 3 classes" in r.getMessage()]


def test_finished_labels_are_read_alike(make, tmp_path):
    images = make.files(tmp_path / "images", [f"{i}.png" for i in range(5)])
    lines = [f'{i}.png,"{row}"' for i, row in enumerate([*HOT, ""])]
    (tmp_path / "mine.csv").write_text("\n".join(["file_name,label", *lines]))
    split, _ = import_labels(tmp_path / "mine.csv", source=load_source(images), several=True)
    assert split.labeled == {"0.png": "1", "1.png": "0", "2.png": "none", "3.png": "0;1"}


def test_two_such_rows_of_an_image_contradict_each_other(table, make, tmp_path):
    """All classes of both would be the numbers 0 and 1."""
    of_kind("csv", HOT, table, make, tmp_path)
    rows = (tmp_path / "metadata.csv").read_text()
    (tmp_path / "metadata.csv").write_text(f'{rows}\n0.png,"{HOT[0]}"')
    assert read(tmp_path).labels.tolist() == HOT
    (tmp_path / "metadata.csv").write_text(f'{rows}\n0.png,"{HOT[1]}"')
    with pytest.raises(UserError, match="names '0.png' twice, and the rows contradict each other"):
        read(tmp_path)


@pytest.mark.parametrize("none", [-1, None])
def test_an_image_that_nobody_looked_at(none, table):
    found = read(table({"labels": List(Value("int64"))}, labels=[*HOT, [none] * 3]))
    assert found.labels.tolist() == [*HOT, [-1, -1, -1]]


NAMES = {
    "of different lengths": ([[0, 1], [0], [1], [1, 1, 0]], [[1, 1], [1, 0], [0, 1], [1, 1]]),
    "filled up with -1": ([[0, 1, -1], [0, -1, -1], [1, -1, -1]], [[1, 1], [1, 0], [0, 1]]),
    "one each": ([[0], [1], [1]], [[1, 0], [0, 1], [0, 1]]),
    "text": ([["0", "1"], ["1", "0"], ["0", "1"]], [[1, 1]] * 3),
}


@pytest.mark.parametrize("kind", NAMES)
def test_numbers_of_classes_stay_that(kind, table):
    lists, expected = NAMES[kind]
    found = read(table({"labels": List(Value("string" if kind == "text" else "int64"))}, labels=lists))
    assert found.class_names == ["0", "1"] and found.labels.tolist() == expected


@pytest.mark.parametrize(
    "lists, words",
    [
        ([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0]], r"The label \[0.3, 0.7, 0.0\] of image '0' holds shares between 0 and 1"),
        ([[0, 1], [1, 0], [0, 1]], r"The label \[0, 1\] of image '0' may name the classes 0 and 1, or say 0 and 1 of"),
        ([*HOT, []], r"The label \[\] of image '4' has 0 numbers, and others of .* have 3"),
        ([*(HOT * 3), [0, 1]], r"The label \[0, 1\] of image '12' has 2 numbers"),
        ([*HOT, [0, 1, -1]], r"say yes or no of some classes alone, such as that of image '4'"),
    ],
)
def test_lists_that_cannot_be_told_are_refused(lists, words, table):
    kind = Value("float64" if isinstance(lists[0][0], float) else "int64")
    with pytest.raises(UserError, match=words):
        read(table({"labels": List(kind)}, labels=lists))


# ---- declared classes -----------------------------------------------------------------------------------------------
def test_numbers_of_declared_classes_that_are_none(table):
    declared = {"labels": List(ClassLabel(names=["a", "b"]))}
    lists = [[-1], [0, None], [1, -1], [], None, [0, 1]]
    found = read(table(declared, labels=lists))
    assert found.class_names == ["a", "b"]
    assert found.labels.tolist() == [[-1, -1], [1, 0], [0, 1], [0, 0], [-1, -1], [1, 1]]
    plain = read(pd.DataFrame({"image": table(declared, labels=lists)["image"], "labels": lists}))
    assert plain.labels.tolist() == found.labels.tolist()


@pytest.mark.parametrize("number", [2, -2])
def test_a_number_of_no_declared_class_is_named(table, number):
    rows = table({"labels": List(ClassLabel(names=["a", "b"]))}, labels=[[0], [0, 1]])
    broken = datasets.Dataset.from_dict({"image": rows["image"], "labels": [[0], [0, number]]}).cast_column(
        "image", datasets.Image()
    )
    broken.info.features["labels"] = rows.features["labels"]
    with pytest.raises(UserError, match=f"Label {number} of image '1' is out of range. Labels are 0..1 for 2 declared"):
        read(broken)


def test_a_class_that_declares_yes_and_no(table):
    yes, no = ClassLabel(names=["yes", "no"]), ClassLabel(names=["no", "yes"])
    found = read(table({"cat": yes, "dog": no}, cat=[0, 1, -1, 1], dog=[1, 0, None, 1]))
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [[1, 1], [0, 0], [-1, -1], [0, 1]]


def test_columns_of_other_declared_classes_are_no_yes_and_no(table):
    kinds = {"animal": ClassLabel(names=["cat", "dog"]), "big": Value("int64")}
    with pytest.warns(UserWarning, match="columns not read: animal"):
        assert read(table(kinds, animal=[0, 1, 1], big=[1, 0, 1])).class_names == ["big"]


def test_one_declared_class_is_all_of_an_image(table):
    names = ["cat, dog", "a;b", "cat"]
    found = read(table({"label": ClassLabel(names=names)}, label=[1, 0, -1, None]))
    assert found.class_names == names
    assert found.labels.tolist() == [[0, 1, 0], [1, 0, 0], [-1, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize("nothing", ["none", "None"])
@pytest.mark.parametrize("one", [False, True])
def test_a_declared_class_that_says_that_none_applies_is_no_class(table, nothing, one):
    names = ClassLabel(names=["cat", nothing, "dog"])
    kind, labels = (names, [0, 1, 2, -1]) if one else (List(names), [[0, 2], [1], [2], None])
    with pytest.warns(UserWarning, match=f"The class '{nothing}' that column 'labels' .* is not one of the 2 to learn"):
        found = read(table({"labels": kind}, labels=labels))
    assert found.class_names == ["cat", "dog"]
    assert found.labels.tolist() == [[1, int(not one)], [0, 0], [0, 1], [-1, -1]]


def test_a_declared_class_and_none_contradict_each_other(table):
    with pytest.raises(UserError, match="says that no class applies .none. and names cat"):
        read(table({"labels": List(ClassLabel(names=["cat", "none"]))}, labels=[[0, 1], [0]]))
