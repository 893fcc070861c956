"""Columns and tables that are called as those of splits or labels, and are of something else."""

import json
import warnings

import datasets
import pandas
import pytest
from tiny_sets import pictures

from hf_lowlabel import UserError, load_source
from hf_lowlabel.data.opening import open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.errors import MissingSplit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def table(root, name, *rows):
    (root / name).write_text("\n".join(rows) + "\n")
    return root


def told(path, text, **how):
    """(the source, how many warnings with a text there are)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source = load_source(path, **how)
    return source, sum(text in str(one.message) for one in said)


@pytest.mark.parametrize("column", ["usage", "Phase", "fold", "set", "data set"])
def test_a_column_that_often_says_something_else_is_not_told(tmp_path, column):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    table(tmp_path, "labels.csv", f"file_name,label,{column}", *(f"{i}.png,a,{'xy'[i % 2]}" for i in range(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_source(tmp_path)) == 4


def test_dev_and_eval_beside_training_are_splits(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    for first in ("train", ""):
        table(tmp_path, "labels.csv", "file_name,label,phase", f"0.png,a,{first}", "1.png,b,dev", "2.png,a,eval")
        assert load_source(tmp_path, split="eval").ids == ["2.png"] and "1.png" not in load_source(tmp_path).ids


FLAGS = "is_valid is_train phase usage split".split()


WHERE = ["metadata.csv", "train.csv", "train/metadata.csv", "frame", "parquet"]


@pytest.mark.parametrize("column, where", sorted({*zip(FLAGS, WHERE), *((FLAGS[2], one) for one in WHERE)}))
def test_the_label_column_that_is_asked_for_says_no_split(tmp_path, column, where):
    cells = ["train", "test"] if column in FLAGS[2:] else ["no", "yes"]
    cells *= 2
    folder = "train/" if "/" in where else ""
    pictures(tmp_path, *(f"{folder}{i}.png" for i in range(4)))
    if where in ("frame", "parquet"):
        images = [str(tmp_path / f"{i}.png") for i in range(4)]
        rows = datasets.Dataset.from_dict({"image": images, column: cells}).cast_column("image", datasets.Image())
        given = rows.to_pandas() if where == "frame" else tmp_path / "all.parquet"
        if where == "parquet":
            rows.to_parquet(given)
    else:
        given = table(tmp_path, where, f"file_name,{column}", *(f"{i}.png,{cell}" for i, cell in enumerate(cells)))
    source = load_source(given, label_column=column)
    assert source.class_names == sorted({*cells}) and len(source) == 4 and source.has_target.all()


def test_is_train_beside_other_classes_of_yes_and_no_is_a_class(tmp_path):
    names = "is_car", "is_bus", "is_train"
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    ticks = [[int(i % 3 == k) for k in range(3)] for i in range(6)]
    rows = (",".join([f"{i}.png", *map(str, row)]) for i, row in enumerate(ticks))
    table(tmp_path, "metadata.csv", f"file_name,{','.join(names)}", *rows)
    frame = pandas.DataFrame({"path": [str(tmp_path / f"{i}.png") for i in range(6)]})
    frame = frame.assign(**{name: [row[k] for row in ticks] for k, name in enumerate(names)})
    assert sorted(load_source(tmp_path).class_names) == sorted(names) and len(load_source(tmp_path)) == 6
    for given in (open_dataset(one, MultiLabelTargets()) for one in (tmp_path, frame)):
        assert sorted(given.class_names) == sorted(names) and len(given) == 6
    assert len(load_source(frame, label_column="is_car")) == 6
    held = frame.assign(is_valid=[0, 0, 0, 0, 1, 1])
    assert len(load_source(held, label_column="is_bus")) == 4, "one that is no class says it alone"
    held["is_train"] = 1 - held["is_valid"]
    assert len(open_dataset(held, MultiLabelTargets())) == 4


@pytest.mark.parametrize("column, least", [("is_valid", 4), ("Is Test", 5)])
def test_a_yes_of_most_images_is_no_split(tmp_path, column, least):
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = [f"{i}.png,{'ab'[i % 2]},{i < least}" for i in range(6)]
    table(tmp_path, "labels.csv", f"file_name,label,{column}", *rows)
    with pytest.warns(UserWarning, match=f"'{column}' is not read as the split .* yes of more than half of them"):
        assert len(load_source(tmp_path)) == 6
    rows = [f"{i}.png,{'ab'[i % 2]},{i < 3}" for i in range(6)]
    table(tmp_path, "labels.csv", f"file_name,label,{column}", *rows)
    assert len(load_source(tmp_path)) == 3


def counted(tmp_path, head, *cells, where="folder", text="not read", **how):
    """(the source, how many warnings there are with a text) of images with such cells in a table."""
    pictures(tmp_path, *(f"{i}.png" for i in range(len(cells))))
    if where == "folder":
        given = table(tmp_path, "labels.csv", f"file_name,{head}", *(f"{i}.png,{row}" for i, row in enumerate(cells)))
    else:
        rows = [[str(tmp_path / f"{i}.png"), *row.split(",")] for i, row in enumerate(cells)]
        given = pandas.DataFrame(rows, columns=["path", *head.split(",")])
    return told(given, text, **how)


@pytest.mark.parametrize("where", ["folder", "frame"])
@pytest.mark.parametrize("asked", [None, "label", "kind"])
def test_is_train_beside_other_flags_says_the_split_where_a_column_says_labels(tmp_path, where, asked):
    rows = [f"{'ab'[i % 2]},{int(i < 4)},{i % 2}" for i in range(6)]
    head = f"{asked or 'Label'},is_train,is_cropped"
    for split, count in {"train": 4, "test": 2}.items():
        source, said = counted(tmp_path, head, *rows, where=where, split=split, label_column=asked)
        assert len(source) == count and not said and source.class_names == ["a", "b"]
    source, said = counted(tmp_path, "note,is_train,is_cropped", *rows, where=where, text="'is_train' is not read")
    assert len(source) == 6 and said == 1, "it may be a class"
    assert len(counted(tmp_path, head, *rows, where=where, label_column="is_cropped")[0]) == 4, (
        "the one that is asked for"
    )
    rows = ["a,1,0", "a,1,0", "b,0,1", "b,0,1"]
    source, said = counted(tmp_path, "label,is_train,is_bus", *rows, where=where, text="'is_train' is not read")
    assert len(source) >= 4 and said == 1, "each image is of one of both"


@pytest.mark.parametrize("where", ["folder", "frame"])
@pytest.mark.parametrize("head", ["is_valid,is_test", "is_test,is_valid"])
def test_each_flag_is_judged_by_its_own_share(tmp_path, where, head):
    cells = "1,0 1,0 0,1 0,1 0,0 0,0".split()
    for split in ("train", "validation", "test"):
        source, said = counted(tmp_path, f"label,{head}", *(f"a,{one}" for one in cells), where=where, split=split)
        assert len(source) == 2 and not said
    cells = "1,0 1,0 1,0 1,0 0,1 0,0".split()
    assert len(counted(tmp_path, f"label,{head}", *(f"a,{one}" for one in cells), where=where)[0]) == 1
    cells = "1,0 1,0 1,0 1,0 1,1 0,1".split()
    source, said = counted(tmp_path, f"label,{head}", *(f"a,{one}" for one in cells), where=where)
    assert len(source) == 4 and said == 1, "the first may say that an image is sound, the second is a split"


@pytest.mark.parametrize("where", ["folder", "frame"])
def test_a_flag_of_most_images_beside_a_column_of_splits_is_not_told(tmp_path, where):
    cells = "train,1 train,1 train,1 test,1 test,1 train,0".split()
    source, said = counted(tmp_path, "label,split,is_valid", *(f"a,{one}" for one in cells), where=where)
    assert len(source) == 4 and not said


@pytest.mark.parametrize("cells", ["eval valid", "dev testing", "test", "Eval"])
@pytest.mark.parametrize("where", ["folder", "frame"])
@pytest.mark.parametrize("column", ["usage", "phase", "Data Set"])
def test_a_column_that_often_says_something_else_needs_training(tmp_path, column, where, cells):
    rows = [f"a,{cells.split()[i % (1 + cells.count(' '))]}" for i in range(4)]
    source, said = counted(tmp_path, f"label,{column}", *rows, where=where)
    assert len(source) == 4 and said == 1
    source, said = counted(tmp_path, f"label,{column}", *rows, "a,", where=where)
    assert len(source) == 1 and not said, "an empty cell is of training"


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "train.csv", "train_labels.csv", "train/metadata.csv"])
@pytest.mark.parametrize(
    "column, cells", [("is_valid", "1 1 1 0"), ("phase", "dev eval dev eval"), ("part", "train test train test")]
)
def test_a_column_that_is_not_read_is_told_once(tmp_path, name, column, cells):
    folder = "train/" if "/" in name else ""
    pictures(tmp_path, *(f"{folder}{i}.png" for i in range(4)))
    rows = (f"{i}.png,a,{cell}" for i, cell in enumerate(cells.split()))
    table(tmp_path, name, f"file_name,label,{column}", *rows)
    for _ in range(2):
        source, count = told(tmp_path, f"'{column}' is not read as the split")
        assert len(source) == 4 and count == 1


# ---- tables ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("column", ["folder", "subject", "case"])
@pytest.mark.parametrize("name", ["image_id", "id"])
def test_a_column_of_names_counts_before_one_of_folders(tmp_path, column, name):
    pictures(tmp_path, *(f"{'cat' if i < 4 else 'dog'}/00{i}.png" for i in range(8)))
    table(tmp_path, "test.csv", f"{column},{name}", "cat,003", "dog,007")
    assert load_source(tmp_path, split="test").ids == ["cat/003.png", "dog/007.png"]
    assert len(load_source(tmp_path)) == 6 and load_source(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize("head", ["folder,image_id", "subject", "case,id"])
def test_folders_that_are_all_there_are_not_held_out(tmp_path, head):
    """They are classes, whose images are called alike; a name beside them says which."""
    pictures(tmp_path, *(f"{name}/00{i}.png" for i in range(4) for name in ("cat", "dog")))
    table(tmp_path, "test.csv", head, *(f"{name}{',003' * head.count(',')}" for name in ("cat", "dog")))
    source, count = told(tmp_path, "test.csv is not read, though it may list the images of split 'test'")
    assert (len(source), count) == ((6, 0) if "," in head else (8, 1))
    if "," in head:
        assert load_source(tmp_path, split="test").ids == ["cat/003.png", "dog/003.png"]
    table(tmp_path, "test.csv", head, f"dog{',003' * head.count(',')}")
    assert load_source(tmp_path, split="test").ids == [f"dog/00{i}.png" for i in range(4)], "as of one patient"


def test_a_folder_and_a_file_name_say_an_image_together(tmp_path):
    pictures(tmp_path, *(f"{name}/00{i}.png" for i in range(4) for name in ("cat", "dog")))
    table(tmp_path, "test.csv", "folder,file_name", "cat,003.png")
    assert load_source(tmp_path, split="test").ids == ["cat/003.png"] and len(load_source(tmp_path)) == 7
    (tmp_path / "test.csv").write_text("folder,image_id\n")
    assert len(load_source(tmp_path)) == 8, "it says nothing yet"


def test_patients_in_both_tables_that_name_images(tmp_path):
    names = [f"p{k}_00{i}" for k in (1, 2) for i in range(3)]
    pictures(tmp_path, *(f"{name[:2]}/{name}.png" for name in names))
    rows = [f"{name[:2]},{name},{'ab'[int(name[-1]) % 2]}" for name in names]
    table(
        tmp_path, "train.csv", "patient_id,image_id,label", *(row for row, name in zip(rows, names) if name[-1] < "2")
    )
    table(tmp_path, "test.csv", "patient_id,image_id,label", *(row for row, name in zip(rows, names) if name[-1] > "1"))
    assert load_source(tmp_path, split="test").ids == ["p1/p1_002.png", "p2/p2_002.png"]
    assert load_source(tmp_path).class_names == ["a", "b"] and len(load_source(tmp_path)) == 4


@pytest.mark.parametrize("box", ["xmin,ymin", "bbox", "X_Min,y"])
@pytest.mark.parametrize("folder", ["images/", ""])
def test_tables_of_boxes_are_none_of_labels(tmp_path, box, folder):
    """TensorFlow's for detection: an image has a row for each object."""
    pictures(tmp_path, *(f"{folder}{i}.png" for i in range(4)))
    for split, numbers in {"train": "0012", "test": "33"}.items():
        rows = (f"{i}.png,{'ab'[k % 2]}{',1' * (box.count(',') + 1)}" for k, i in enumerate(numbers))
        table(tmp_path, f"{split}_labels.csv", f"filename,class,{box}", *rows)
    source, count = told(tmp_path, "train_labels.csv is not read as a table of labels, since it is one of boxes")
    assert len(source) == 3 and source.class_names == (["images"] if folder else []) and count == 1
    assert load_source(tmp_path, split="test").ids == [f"{folder}3.png"]


@pytest.mark.parametrize("name", ["train_labels.csv", "metadata_train.csv", "train_info.csv"])
def test_a_table_with_more_in_its_name_leaves_the_folders_their_classes(tmp_path, name):
    pictures(tmp_path, *(f"{split}/{of}/{of}{split}{i}.png" for split in ("train", "val") for of in "ab" for i in "01"))
    table(tmp_path, name, "file_name,label", "atrain0.png,x", "btrain0.png,y")
    for split in ("train", "val"):
        source, count = told(tmp_path, f"{name} is not read for labels of images: their labels are those", split=split)
        assert source.class_names == ["a", "b"] and source.has_target.all() and len(source) == 4
        assert count == (split == "train" and "info" not in name)
    if "info" not in name:
        assert load_source(tmp_path, label_column="label").class_names == ["x", "y"], "asked for"


def test_a_table_with_more_in_its_name_is_one_of_labels_where_no_folder_is(tmp_path):
    pictures(tmp_path, *(f"{folder}/{folder}{i}.png" for folder in ("train", "test") for i in range(3)))
    table(tmp_path, "train_labels.csv", "file_name,label", *(f"train{i}.png,{'ab'[i % 2]}" for i in range(3)))
    assert load_source(tmp_path).labels.tolist() == [0, 1, 0]
    table(tmp_path, "metadata.csv", "file_name,label", *(f"train/train{i}.png,{'xy'[i % 2]}" for i in range(3)))
    assert load_source(tmp_path).class_names == ["x", "y"], "the usual name counts first"
    (tmp_path / "metadata.csv").unlink()
    table(tmp_path / "train", "train_labels.csv", "filename,class,xmin", "train0.png,c,1")
    (tmp_path / "train_labels.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file_name,label\ntrain/train0.png,x\n")
    assert load_source(tmp_path).class_names == ["x"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("train_info.xlsx", "no workbook"),
        ("train_info.json", "{torn"),
        ("test_info.json", "{torn"),
        ("train_labels.xlsx", "no workbook"),
        ("test_ids.csv", 'id,width\n"3,4\n'),
        ("train_metadata.csv", "id,width,label\nq1,8,x\nq2,9,y\n"),
        ("train_metadata.csv", "id,width,label\n0,8,x\n17,9,y\n18,9,y\n"),
        ("test_metadata.csv", "id,width\n0,8\n17,9\n18,9\n"),
        ("train_metadata.csv", "question,answer\nq1,x\n"),
        ("train_labels.csv", "question,label\nq1,x\n"),
    ],
)
@pytest.mark.parametrize("folders", [True, False])
def test_files_with_more_in_their_names_are_no_hindrance(tmp_path, name, text, folders):
    pictures(tmp_path, *(f"{'cat/' if i % 2 else 'dog/'}{i}.png" if folders else f"{i}.png" for i in range(4)))
    (tmp_path / name).write_text(text)
    source, count = told(tmp_path, f"{name} is not read")
    assert len(source) == 4 and source.class_names == (["cat", "dog"] if folders else [])
    assert count
    (tmp_path / name).rename(tmp_path / f"t{name}")
    assert source.fingerprint == load_source(tmp_path).fingerprint, "as if it were not there"


@pytest.mark.parametrize("name", ["train_labels.csv", "metadata_train.csv"])
@pytest.mark.parametrize("folder", ["", "train/"])
def test_rows_too_many_of_a_table_with_more_in_its_name_are_left_out(tmp_path, name, folder):
    pictures(tmp_path, *(f"{folder}{i}.png" for i in range(3)))
    table(tmp_path, name, "file_name,label", "0.png,a", "1.png,b", "2.png,a", "gone.png,b")
    source, count = told(tmp_path, f"1 file names in {name} have no image and are passed over, such as 'gone.png'")
    assert source.labels.tolist() == [0, 1, 0] and count == 1
    with pytest.raises(UserError, match=f"1 file names in {name} have no image"):
        load_source(tmp_path, label_column="label")


def test_rows_too_many_of_held_out_images_are_left_out_where_a_folder_says_the_split(tmp_path):
    pictures(tmp_path, *(f"{split}/{split}{i}.png" for split in ("train", "test") for i in range(3)))
    table(tmp_path, "test_labels.csv", "file_name,label", "test0.png,a", "test1.png,b", "gone.png,b")
    assert len(load_source(tmp_path)) == 3
    source, count = told(tmp_path, "1 file names in test_labels.csv have no image and are passed over", split="test")
    assert source.has_target.tolist() == [True, True, False] and count
    for i in range(3):
        (tmp_path / f"test/test{i}.png").rename(tmp_path / f"train/test{i}.png")
    with pytest.raises(UserError, match="1 file names in test_labels.csv have no image"):
        load_source(tmp_path)


def test_two_tables_with_more_in_their_names_are_told(tmp_path):
    pictures(tmp_path, "0.png", "1.png")
    table(tmp_path, "train_labels.csv", "file_name,label", "0.png,a")
    (tmp_path / "train_labels.json").write_text('[{"file_name": "0.png", "label": "b"}]')
    source, count = told(tmp_path, "train_labels.csv and train_labels.json in ")
    assert len(source) == 2 and not source.has_target.any() and count


@pytest.mark.parametrize("folder", ["", "images/"])
@pytest.mark.parametrize("preview", ["test_set", "more/test_set"])
@pytest.mark.parametrize("column, name", [("file_name", "{}.png"), ("image_id", "{}"), ("picture", "{}.png")])
def test_a_table_that_an_image_is_called_as_lists_others(tmp_path, folder, preview, column, name):
    pictures(tmp_path, f"{preview}.png", *(f"{folder}{i}.png" for i in range(4)))
    table(tmp_path, "train_set.csv", "file_name,label", "0.png,a", "1.png,b")
    table(tmp_path, "test_set.csv", column, *(name.format(i) for i in (2, 3)))
    if column == "picture":
        with pytest.raises(UserError, match="The column 'picture' of test_set.csv names images of split 'test'"):
            load_source(tmp_path)
        return
    assert load_source(tmp_path, split="test").ids == [f"{folder}2.png", f"{folder}3.png"]
    assert len(load_source(tmp_path)) == 3


@pytest.mark.parametrize("folder", ["", "images/"])
@pytest.mark.parametrize("count", [4, 12])
def test_files_beside_each_image_list_no_split(tmp_path, folder, count):
    names = [f"{split}_{i:03}" for split in ("test", "train", "val") for i in range(count)]
    pictures(tmp_path, *(f"{folder}{name}.png" for name in names))
    for name in names:
        (tmp_path / f"{name}.json").write_text(json.dumps([{"patient": "p1", "age": 3}]))
    source, said = told(tmp_path, ".json")
    assert len(source) == len(names) and not said


def test_many_numbered_tables_are_told_at_once(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(14)))
    for i in range(12):
        table(tmp_path, f"test_{i}.csv", "file_name", f"{i}.png")
    source, count = told(tmp_path, "test_0.csv and 11 more tables in ")
    assert len(source) == 14 and count == 1
    with pytest.raises(MissingSplit):
        load_source(tmp_path, split="test")
    for i in range(2, 12):
        (tmp_path / f"test_{i}.csv").unlink()
    assert load_source(tmp_path, split="test").ids == ["0.png", "1.png"]


def test_a_weak_column_of_validation_and_test_alone_is_one_of_splits(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = "".join(f"{i}.png,a,{'test' if i < 2 else 'val'}\n" for i in range(6))
    (tmp_path / "metadata.csv").write_text(f"file_name,label,set\n{rows}")
    assert len(load_source(tmp_path, split="test")) == 2 and len(load_source(tmp_path, split="validation")) == 4
