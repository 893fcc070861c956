"""A column of splits in a table of any name, and by which names its rows mean images."""

import warnings

import numpy as np
import pytest
from PIL import Image
from tiny_sets import several

from hf_lowlabel import Config, UserError, load_segmentation, load_source
from hf_lowlabel.data.files.table_files import plain_name, read_table
from hf_lowlabel.data.splits import pool, split_columns
from hf_lowlabel.data.splits.division import read_division
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.tasks import get_task

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def pictures(root, *names, mode="RGB"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).convert(mode).save(root / name)
    return root


def table(root, name, *rows):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(rows) + "\n")
    return root


# ---- a table called as a split --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["train.csv", "Training.csv", "split.csv", "splits.csv"])
@pytest.mark.parametrize("folder", ["", "images/"])
@pytest.mark.parametrize("opened", [load_source, several, load_segmentation])
def test_the_column_of_a_table_that_is_called_train_or_splits_counts(tmp_path, name, folder, opened):
    pictures(tmp_path, *(f"{folder}{i}.png" for i in range(4)))
    if opened is load_segmentation:
        pictures(tmp_path, *(f"masks/{i}.png" if folder else f"{i}_mask.png" for i in range(4)), mode="L")
    table(tmp_path, name, "file_name,label,split", "0.png,a,train", "1.png,b,val", "2.png,a,test", "3.png,b,")
    found = {split: opened(tmp_path, split=split) for split in ("train", "validation", "test")}
    ids = {split: [id.rpartition("/")[2] for id in one.ids] for split, one in found.items()}
    assert ids == {"train": ["0.png", "3.png"], "validation": ["1.png"], "test": ["2.png"]}
    assert all(one.has_target.all() for one in found.values()), "labels of all splits stand in the one table"
    if opened is not load_segmentation:
        assert all(one.class_names == ["a", "b"] for one in found.values())


def test_a_split_that_the_column_of_train_csv_does_not_say_is_missing(tmp_path):
    pictures(tmp_path, "0.png", "1.png")
    table(tmp_path, "train.csv", "file_name,label,split", "0.png,a,train", "1.png,b,val")
    with pytest.raises(MissingSplit):
        load_source(tmp_path, split="test")


def test_rows_of_train_csv_that_are_for_validation_beside_a_test_csv(tmp_path):
    """Folds in Kaggle's train.csv, and its test.csv."""
    pictures(tmp_path, *(f"images/{i}.png" for i in range(5)))
    table(tmp_path, "train.csv", "file_name,label,split", "0.png,a,train", "1.png,b,val", "2.png,b,train")
    table(tmp_path, "test.csv", "file_name", "3.png", "4.png")
    ids = {split: load_source(tmp_path, split=split).ids for split in ("train", "val", "test")}
    assert ids == {
        "train": ["images/0.png", "images/2.png"],
        "val": ["images/1.png"],
        "test": ["images/3.png", "images/4.png"],
    }


@pytest.mark.parametrize(
    "train, val, said",
    [
        ("1.png,b,val", "2.png", "'1.png' is of split 'validation' .1 such images., and val.csv does not name it"),
        ("1.png,b,test", "1.png", "'1.png' is of split 'test'. val.csv says that it is of split 'validation'"),
        ("1.png,b,train", "1.png", "'1.png' is in train.csv and in val.csv"),
    ],
)
def test_a_column_and_a_table_of_a_split_that_contradict_each_other(tmp_path, train, val, said):
    pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    table(tmp_path, "train.csv", "file_name,label,split", "0.png,a,train", train)
    table(tmp_path, "val.csv", "file_name", val)
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=said):
            load_source(tmp_path, split=split)


def test_a_table_of_held_out_images_whose_column_says_another_split(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    table(tmp_path, "train.csv", "file_name,label", "0.png,a")
    table(tmp_path, "test.csv", "file_name,label,split", "1.png,b,test", "2.png,a,train")
    with pytest.raises(
        UserError, match="test.csv is called as split 'test', and its column 'split' says 'train' of '2"
    ):
        load_source(tmp_path)
    table(tmp_path, "test.csv", "file_name,label,split", "1.png,b,Testing", "2.png,a,")
    assert load_source(tmp_path, split="test").ids == ["1.png", "2.png"] and load_source(tmp_path).ids == ["0.png"]
    table(tmp_path, "test.csv", "id,split", "question 7,train")
    assert len(load_source(tmp_path)) == 3, "it is of something else"


def test_splits_csv_leaves_the_folders_their_classes(tmp_path):
    pictures(tmp_path, *(f"{'ab'[i % 2]}/{i}.png" for i in range(4)))
    table(tmp_path, "splits.csv", "file_name,split", "a/0.png,train", "b/1.png,train", "a/2.png,test", "b/3.png,test")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is not read as a table of labels")
        assert load_source(tmp_path, split="test").class_names == load_source(tmp_path).class_names == ["a", "b"]
    assert load_source(tmp_path).ids == ["a/0.png", "b/1.png"]


@pytest.mark.parametrize("name", ["split.csv", "Splits.csv"])
@pytest.mark.parametrize("folder", ["", "train2017/", "train/"])
def test_labels_in_splits_csv_are_no_labels_where_folders_are(tmp_path, name, folder):
    pictures(tmp_path, *(f"{folder}{('cat', 'dog')[i % 2]}/{i}.png" for i in range(4)))
    rows = [f"{folder}{('cat', 'dog')[i % 2]}/{i}.png,{i % 2},{i % 2},{('train', 'test')[i // 2]}" for i in range(4)]
    table(tmp_path, name, "path,class_id,label,split", *rows)
    for split in ("train", "test"):
        with pytest.warns(UserWarning, match=f"{name} is read for the splits of images alone: their labels are those"):
            source = load_source(tmp_path, split=split)
        assert source.class_names == ["cat", "dog"] and source.has_target.all() and len(source) == 2
        assert load_source(tmp_path, split=split, label_column="label").class_names == ["0", "1"]
    assert several(tmp_path).class_names == ["0", "1"], "folders say no several classes"


@pytest.mark.parametrize("name", ["split.csv", "splits.csv", "split.json", "splits.jsonl", "Split.xlsx"])
@pytest.mark.parametrize("opened", [load_source, several, load_segmentation])
def test_a_broken_table_of_splits_lists_nothing(tmp_path, name, opened):
    pictures(tmp_path, *(f"images/{i}.png" for i in range(3)))
    pictures(tmp_path, *(f"masks/{i}.png" for i in range(3 * (opened is load_segmentation))), mode="L")
    (tmp_path / name).write_bytes(b'a,b\n"torn,\xff\xfe\x00')
    with pytest.warns(UserWarning, match=f"{name} is not read for splits of images: "):
        assert len(opened(tmp_path)) == 3
    (tmp_path / name).rename(tmp_path / "train.csv")
    if opened is not load_segmentation:
        with pytest.raises(UserError, match="train.csv"):
            opened(tmp_path)


# ---- which images rows mean -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["labels.csv", "train.csv"])
@pytest.mark.parametrize("opened", [load_source, several])
def test_bare_names_that_folders_of_splits_share(tmp_path, name, opened):
    """The division was right, and the labels were refused."""
    pictures(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    rows = ["1.png,a,train", "2.png,b,train", "1.png,b,test", "2.png,a,test"]
    table(tmp_path, name, "filename,label,split", *rows)
    train, test = opened(tmp_path), opened(tmp_path, split="test")
    assert train.ids == test.ids == ["1.png", "2.png"] and train.class_names == ["a", "b"]
    labels = [one.labels if one.labels.ndim == 1 else one.labels.argmax(1) for one in (train, test)]
    assert [one.tolist() for one in labels] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("column", ["filepath", "image_name"])
def test_labels_by_the_column_of_names_that_the_splits_are_read_by(tmp_path, column):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [f"{i + 70},{i}.png,{'ab'[i % 2]},{'test' if i > 1 else 'train'}" for i in range(4)]
    table(tmp_path, "metadata.csv", f"id,{column},label,split", *rows)
    for split, ids in {"train": ["0.png", "1.png"], "test": ["2.png", "3.png"]}.items():
        source = load_source(tmp_path, split=split)
        assert source.ids == ids and source.labels.tolist() == [0, 1]


def test_an_image_of_the_name_in_a_folder_below_is_another(tmp_path):
    pictures(tmp_path, "train/1.png", "train/b/1.png", "train/2.png")
    table(tmp_path, "train/metadata.csv", "file_name,label,split", "1.png,a,test", "b/1.png,b,train", "2.png,a,")
    assert load_source(tmp_path).ids == ["2.png", "b/1.png"]
    assert load_source(tmp_path, split="test").ids == ["1.png"]


@pytest.mark.parametrize("opened", [load_source, several])
def test_unlabeled_of_roboflow_is_no_class(tmp_path, opened):
    pictures(tmp_path, *(f"train/{i}.png" for i in range(4)))
    rows = ["0.png, 1, 0, 0", "1.png, 0, 1, 0", "2.png, 0, 0, 1", "3.png, 1, 0, 0"]
    table(tmp_path, "train/_classes.csv", "filename, cat, dog, Unlabeled", *rows)
    source = opened(tmp_path)
    assert source.class_names == ["cat", "dog"] and source.has_target.tolist() == [True, True, False, True]


def test_other_columns_are_not_looked_through_for_names(tmp_path, monkeypatch):
    """Each of sixty columns was, at half a minute for 30,000 rows; and a table was read again for each question."""
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    more = ",".join(f"c{k}" for k in range(20))
    rows = [f"{i}.png,a,{('train', 'test')[i % 2]}," + ",".join(f"v{k}.png" for k in range(20)) for i in range(4)]
    table(tmp_path, "train.csv", f"file_name,label,split,{more}", *rows)
    names, read = [], []
    monkeypatch.setattr(split_columns, "plain_name", lambda cell: names.append(cell) or plain_name(cell))
    for module in (split_columns, pool):
        monkeypatch.setattr(module, "read_table", lambda file: read.append(file) or read_table(file))
    assert {*read_division(tmp_path).of.values()} == {"train", "test"}
    assert len(names) == 4 and len(read) == 1


@pytest.mark.parametrize("below", ["", "cat/", "a/b/"])
@pytest.mark.parametrize("top", ["images/", "mine/images/"])
def test_a_folder_of_held_out_images_that_no_table_names(tmp_path, top, below):
    """Beside train.csv and val.csv, images/test/<class>/ counted as training images."""
    names = [f"{top}{split}/{below}{split}_{i}.png" for split in ("train", "val", "test") for i in range(2)]
    pictures(tmp_path, *names)
    table(tmp_path, "train.csv", "file_name,label", f"{names[0]},a", f"{names[1]},b")
    table(tmp_path, "val.csv", "file_name,label", f"{names[2]},a", f"{names[3]},b")
    found = {split: load_source(tmp_path, split=split).ids for split in ("train", "validation", "test")}
    assert found == {"train": names[:2], "validation": names[2:4], "test": names[4:]}


def test_classes_that_are_called_as_splits_keep_the_split_above_them(tmp_path):
    names = [f"images/{split}/{kind}/{split}_{kind}.png" for split in ("train", "val") for kind in ("test", "other")]
    pictures(tmp_path, *names)
    table(tmp_path, "train.csv", "file_name,label", f"{names[0]},test", f"{names[1]},other")
    table(tmp_path, "val.csv", "file_name,label", f"{names[2]},test")
    assert load_source(tmp_path).ids == sorted(names[:2])
    assert {*load_source(tmp_path, split="validation").ids} >= {names[2]}


UNLABELED = r"2 more are of split 'unlabeled', which are read only where --unlabeled-dataset names the same data"


def test_rows_of_split_unlabeled_are_said_to_wait_for_their_option(tmp_path):
    """They vanished from training, where of a folder unlabeled/ the option was named."""
    pictures(tmp_path, *(f"{i}.png" for i in range(5)))
    rows = "0.png,a,train", "1.png,b,train", "2.png,,unlabeled", "3.png,,Unlabelled", "4.png,a,test"
    table(tmp_path, "metadata.csv", "file_name,label,split", *rows)
    with pytest.warns(UserWarning, match=UNLABELED):
        assert load_source(tmp_path).ids == ["0.png", "1.png"]
    given = dict.fromkeys(("dataset", "unlabeled_dataset"), str(tmp_path)) | {"unlabeled_dataset_split": "unlabeled"}
    joined = get_task("classification").open(Config.from_flat("finetune", given).data)
    assert joined.has_target.sum() == 2 and [id[-5:] for id in joined.ids[2:]] == ["2.png", "3.png"]
    with warnings.catch_warnings(record=True) as said:
        load_source(tmp_path, split="test")
    assert not any("unlabeled" in str(one.message) for one in said), "nothing is missing there"


@pytest.mark.parametrize(
    "head, train, held, split",
    [
        ("is_valid", "False", "True", "validation"),  # fastai's
        ("Is_Test", "0", "1", "test"),
        ("is_test", "", "x", "test"),
        ("is_train", "yes", "no", "test"),
        ("is_valid,is_test", "0,0", "0,1", "test"),
        ("is_test,is_valid", "0,0", "0,1", "validation"),
        ("fold", "train", "val", "validation"),
        ("data set", "training", "validation", "validation"),
        ("set", "trn", "tst", "test"),
        ("Usage", "Training", "PrivateTest", "test"),  # FER2013's
        ("Usage", "Training", "PublicTest", "validation"),
        ("split", "train", "holdout", "test"),
    ],
)
@pytest.mark.parametrize("opened", [load_source, several])
def test_words_and_flags_that_say_splits(tmp_path, head, train, held, split, opened):
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = [f"{i}.png,{'ab'[i % 2]},{held if i > 3 else train}" for i in range(6)]
    table(tmp_path, "labels.csv", f"file_name,label,{head}", *rows)
    assert opened(tmp_path).ids == [f"{i}.png" for i in range(4)]
    assert opened(tmp_path, split=split).ids == ["4.png", "5.png"]
    assert opened(tmp_path).class_names == ["a", "b"]


def test_flags_of_splits_are_no_classes_of_columns(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [f"{i}.png,{i % 2},{1 - i % 2},{int(i > 1)}" for i in range(4)]
    table(tmp_path, "metadata.csv", "file_name,cat,dog,is_valid", *rows)
    for opened in (load_source, several):
        assert opened(tmp_path).class_names == ["cat", "dog"] and len(opened(tmp_path)) == 2


@pytest.mark.parametrize(
    "column, cells, said",
    [
        ("subset", "learn check", "says check, learn"),
        ("usage", "train check", "says check too"),
        ("usage", "casual test", "says casual too"),
        ("phase", "dev eval", "says dev, eval"),
    ],
)
def test_a_column_in_words_that_are_not_known_is_told(tmp_path, column, cells, said):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    table(tmp_path, "labels.csv", f"file_name,label,{column}", *(f"{i}.png,a,{cells.split()[i > 2]}" for i in range(4)))
    with pytest.warns(UserWarning, match=f"'{column}' is not read as the split of an image, since it {said}"):
        assert len(load_source(tmp_path)) == 4


def test_a_flag_beside_a_column_of_splits_that_holds_out_less_is_told(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = ["0.png,a,train,0", "1.png,b,train,1", "2.png,a,test,1", "3.png,a,train,0"]
    table(tmp_path, "labels.csv", "file_name,label,split,is_test", *rows)
    with pytest.warns(UserWarning, match="The column 'split' says the split of an image, and 'is_test' is not read"):
        assert load_source(tmp_path).ids == ["0.png", "1.png", "3.png"]
    rows[1] = "1.png,b,train,0"
    table(tmp_path, "labels.csv", "file_name,label,split,is_test", *rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is not read")
        assert load_source(tmp_path).ids == ["0.png", "1.png", "3.png"]
