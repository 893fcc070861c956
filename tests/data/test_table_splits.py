"""Tables of one piece, with a column that says which split an image is of."""

import warnings
from dataclasses import replace

import datasets
import numpy as np
import pandas
import pytest
from PIL import Image

from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_segmentation, load_source, open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.data.sources.streaming import Shards
from hf_lowlabel.data.sources.targets import ImagesAlone
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.tasks import get_task

SPLITS = ["train", "train", "test", "Training", None, "val"]
LABELS = ["a", "b", "a", "a", "b", "b"]
KINDS = ["frame", "dataset", "classes", "dict of one", "parquet", "folder of parquet"]


@pytest.fixture
def of_kind(tmp_path, make):
    def table(kind, column="split", splits=SPLITS):
        count = len(splits)
        cells = {"image": [make.picture(i) for i in range(count)], "label": LABELS[:count], column: splits}
        cells["mask"] = [make.picture(i, mode="L").point(lambda v: v > 99) for i in range(count)]
        cells["id"] = [str(i) for i in range(count)]
        rows = datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())
        rows = rows.cast_column("mask", datasets.Image())
        if kind == "frame":
            return pandas.DataFrame(cells)
        if kind == "classes":
            known = ["test", "train", "val"]
            numbers = [None if s is None else known.index(s[:5].lower()) for s in splits]
            return (
                rows.remove_columns(column)
                .add_column(column, numbers)
                .cast_column(column, datasets.ClassLabel(names=known))
            )
        if kind == "dict of one":
            return datasets.DatasetDict({"train": rows})
        if "parquet" not in kind:
            return rows
        file = tmp_path / "data" / "all.parquet"
        file.parent.mkdir()
        rows.to_parquet(file)
        return file if kind == "parquet" else file.parent

    return table


@pytest.mark.parametrize("column", ["split", "Subset"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_other_splits_are_not_of_the_one_asked_for(of_kind, kind, column):
    data = of_kind(kind, column)
    with pytest.warns(UserWarning, match=rf"The column '{column}' of .* which images are of split 'train': 4 of 6"):
        assert load_source(data).ids == ["0", "1", "3", "4"]
    for split, ids in (("test", ["2"]), ("val", ["5"]), ("validation", ["5"])):
        found = load_source(data, split=split)
        assert found.ids == ids and found.split == split and found.has_target.all()
    assert load_segmentation(data, split="test", mask_format="index").ids == ["2"]
    assert open_dataset(data, MultiLabelTargets(), split="val").ids == ["5"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_that_no_row_is_of(of_kind, kind):
    data = of_kind(kind, splits=["train", "train", "val", "val", "train", "val"])
    with pytest.raises(MissingSplit):
        load_source(data, split="test")
    assert len(load_source(data, split="validation")) == 3


@pytest.mark.parametrize(
    "kind, word",  # classes need a label
    [(k, w) for k in KINDS for w in ("test", "unlabeled", "val") if (k, w) != ("classes", "unlabeled")],
)
def test_what_was_cut_out_of_a_table_is_taken_whole(of_kind, kind, word):
    """As frame[frame.split == "test"] is, whose column divides nothing any more."""
    data = of_kind(kind, splits=[word] * 6)
    with pytest.warns(
        UserWarning, match=f"The column 'split' of .* says '{word}' in all rows, so that it divides noth"
    ):
        assert len(load_source(data)) == 6
    with pytest.raises(MissingSplit, match=f"all are split 'train', and none is of split '{word}' beside it"):
        load_source(data, split=word)


@pytest.mark.parametrize("kind", [*KINDS, "test.parquet", "opened", "of a split"])
def test_no_test_set_is_made_of_training_images(of_kind, kind, caplog):
    """Whatever rows say that are all of one split: they were trained on, and tested on as published."""
    data = of_kind(kind if kind in KINDS else "parquet" if "." in kind else "dataset", splits=["test"] * 6)
    if kind == "test.parquet":
        data = data.rename(data.with_name(kind))
    elif kind == "opened":
        data = replace(load_source(data), split="test")
    elif kind == "of a split":
        data = datasets.Dataset(data.data, split=datasets.Split.TEST)
    task, given = get_task("classification"), DataArguments(dataset=data, test_fraction=0.34)
    chosen = task.choose_split(given, 0, task.open(given, "train"))
    assert ("is what is trained on: it is not the test set" in caplog.text) == (kind not in KINDS)
    assert chosen.published is None and len(chosen.split.labeled) == len(chosen.test_at) * 2 == 4
    assert not {*chosen.split.labeled} & {chosen.test.ids[i] for i in chosen.test_at}


def test_one_split_in_two_spellings_divides_nothing(of_kind):
    data = of_kind("frame", splits=["test", "Testing"] * 3)
    assert len(load_source(data)) == 6
    with pytest.raises(MissingSplit, match="divides nothing"):
        load_source(data, split="test")


def test_a_file_that_is_called_test_whose_rows_all_say_train(of_kind):
    file = of_kind("parquet", splits=["train"] * 6)
    with pytest.raises(MissingSplit, match="names no image of split 'test'"):
        load_source(file.rename(file.with_name("test.parquet")), split="test")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["nothing", "twice"])
def test_ids_are_those_among_all_rows(make, tmp_path, of_kind, kind, given):
    """Numbers of the rows that are left would be those of other images in data that is asked about whole."""
    data = of_kind(kind)
    if "parquet" in kind:
        data = datasets.Dataset.from_parquet(str(tmp_path / "data" / "all.parquet"))
    more = ["0", "1", "0", "3", "4", "5"]  # told apart among the rows of training alone
    for rows in data.values() if kind == "dict of one" else [data]:
        if kind == "frame":
            data = data.drop(columns="id") if given == "nothing" else data.assign(id=more)
        elif given == "nothing":
            rows = rows.remove_columns("id")
        else:
            rows = rows.remove_columns("id").add_column("id", more)
    if kind != "frame":
        data = datasets.DatasetDict({"train": rows}) if kind == "dict of one" else rows
    if "parquet" in kind:
        data = tmp_path / "all.parquet" if kind == "parquet" else tmp_path / "new"
        (tmp_path / "new").mkdir()
        rows.to_parquet(data if kind == "parquet" else data / "train.parquet")
    assert load_source(data).ids == ["0", "1", "3", "4"] and load_source(data, split="val").ids == ["5"]
    assert load_segmentation(data, mask_format="index").ids == ["0", "1", "3", "4"]
    every = open_dataset(data, ImagesAlone())
    assert every.ids == [str(i) for i in range(6)]
    assert np.array_equal(every.image(3), load_source(data).image(2))


@pytest.mark.parametrize("kind", ["frame", "parquet"])
@pytest.mark.parametrize("named, ids", [("abc", [*"abc"]), ("012", [*"345"])])
def test_ids_that_each_split_has_anew(of_kind, tmp_path, kind, named, ids):
    """Names are kept; numbers would be those of other rows in the whole table."""
    data = of_kind("frame", splits=["train"] * 3 + ["test"] * 3).assign(id=[*named] * 2)
    if kind == "parquet":
        rows = of_kind("dataset", splits=["train"] * 3 + ["test"] * 3).remove_columns("id")
        data = tmp_path / "all.parquet"
        rows.add_column("id", [*named] * 2).to_parquet(data)
    assert load_source(data).ids == [*named] and load_source(data, split="test").ids == ids


def test_paths_are_below_the_folder_that_all_rows_have_in_common(make, tmp_path):
    paths = []
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make.picture(0).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    frame = pandas.DataFrame({"path": paths, "label": ["a", "b", "a"], "split": ["train", "train", "test"]})
    assert load_source(frame).ids == ["a/0.png", "a/1.png"] and load_source(frame, split="test").ids == ["b/2.png"]
    assert open_dataset(frame, ImagesAlone()).ids == ["a/0.png", "a/1.png", "b/2.png"]


@pytest.mark.parametrize("column, flags", [("is_valid", [0, 1]), ("Is Test", [False, True]), ("is_train", [1, 0])])
@pytest.mark.parametrize("kind", ["frame", "dataset", "parquet"])
def test_a_column_of_yes_and_no_says_the_split(of_kind, kind, column, flags):
    given = of_kind(kind, column, [flags[i > 3] for i in range(6)])
    assert load_source(given).ids == [*"0123"]
    assert load_source(given, split="val" if column == "is_valid" else "test").ids == ["4", "5"]
    assert len(load_source(of_kind("frame", column, [True] * 6))) == 6, "of an image that is sound"


def test_a_column_of_another_name_that_says_splits_is_told(of_kind):
    for kind in ("frame", "classes"):
        with pytest.warns(
            UserWarning, match="'part' is not read as the split .* it says test, train, .*val, and all .* call it spl"
        ):
            load_source(of_kind(kind, "part", ["train", "test", "val"] * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_source(of_kind("frame", "part", ["train", "test", "bus"] * 2))
        load_source(of_kind("frame", "fold", ["0", "1", "2"] * 2))


@pytest.mark.parametrize("splits", [["0.5", "1.5"] * 3, [None] * 6, ["left"] * 6])
def test_a_column_that_says_something_else(of_kind, splits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_source(of_kind("frame", splits=splits))) == 6
    with pytest.warns(UserWarning, match="'split' is not read as the split of an image, since it says left, right[.]"):
        assert len(load_source(of_kind("frame", splits=["left", "right"] * 3))) == 6
    with pytest.warns(UserWarning, match="'split' is not read as the split of an image, since it says left too"):
        assert len(load_source(of_kind("dataset", splits=["left", *["train"] * 5]))) == 6


def test_data_with_splits_of_its_own_has_no_use_for_the_column(of_kind):
    rows = of_kind("dataset")
    both = datasets.DatasetDict({"train": rows.select(range(4)), "test": rows.select([4, 5])})
    with pytest.warns(
        UserWarning, match="'split' of the DatasetDict is not read: the data has splits of its own, .* test"
    ):
        assert len(load_source(both)) == 4
    with pytest.warns(UserWarning, match="rows of split 'test' say train, val"):
        assert len(load_source(both, split="test")) == 2


def test_the_slice_of_a_split_is_cut_before(of_kind):
    assert load_source(of_kind("parquet"), split="train[:3]").ids == ["0", "1"]


def test_a_model_is_asked_about_all_rows(of_kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [str(one.name) for one in given_images(of_kind("frame"))] == [str(i) for i in range(6)]


def test_streams_say_that_they_take_rows_of_every_split(of_kind):
    with pytest.warns(UserWarning, match="'split' of 'all.parquet' is not read with --sharded: rows .* are taken too"):
        Shards(of_kind("parquet"))


@pytest.mark.parametrize(
    "name, split", [("val", "val"), ("val", "dev"), ("Valid-0", "validation"), ("testing", "eval")]
)
def test_a_file_that_is_called_as_a_split_takes_any_word_for_it(of_kind, name, split):
    file = of_kind("parquet", splits=[split] * 6)
    file = file.rename(file.with_name(f"{name}.parquet"))
    assert len(load_source(file, split=split)) == 6 and len(load_source(file, split=f"{split}[:2]")) == 2
    assert Shards(file, split=split).count == 1
    with pytest.raises(MissingSplit, match="The single file .* is split .* not 'unlabeled'"):
        load_source(file, split="unlabeled")


@pytest.mark.parametrize("kind", ["frame", "dataset", "parquet"])
def test_rows_of_split_unlabeled_are_said_to_wait_for_their_option(of_kind, kind):
    data = of_kind(kind, splits=["train", "unlabeled", "test", "train", "Unlabeled", None])
    with pytest.warns(UserWarning, match="3 of 6. 2 more are of split 'unlabeled', which are read only where"):
        assert load_source(data).ids == ["0", "3", "5"]
    assert load_source(data, split="unlabeled").ids == ["1", "4"]


def test_data_with_splits_of_its_own_are_not_told_of_columns_that_may_say_some(recwarn):
    images = [Image.new("RGB", (8, 8), (i * 40, 0, 0)) for i in range(4)]
    some = datasets.Dataset.from_dict({"image": images, "label": ["a", "b"] * 2, "set": ["test"] * 4})
    load_source(datasets.DatasetDict(train=some, test=some.select([0, 1])), split="test")
    assert not any("is not read as the split" in str(one.message) for one in recwarn)
