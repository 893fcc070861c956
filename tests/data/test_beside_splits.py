"""Which folders are splits, whatever lies beside them: runs, empty folders, other images, lists of splits."""

import warnings

import pytest
from PIL import Image
from tiny_sets import several

from hf_lowlabel import UserError, load_source


def picture(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return path


def flat(root, train="train", test="test", table=True):
    """Three images for training and three to test, and one table of all."""
    names = [f"{train}/{i}.png" for i in range(3)] + [f"{test}/t{i}.png" for i in range(3)]
    for name in names:
        picture(root / name)
    if table:
        (root / "labels.csv").write_text(
            "file_name,label\n" + "".join(f"{name},{'ab'[k % 2]}\n" for k, name in enumerate(names))
        )
    return root


def lay_beside(root, what):
    if what == "empty":
        (root / "runs").mkdir()
    elif what == "notes":
        (root / "docs").mkdir()
        (root / "docs" / "notes.txt").write_text("x")
    else:  # a run and what was chosen to label, with their pictures
        picture(root / "outputs" / "best" / "predictions.png")
        (root / "outputs" / "best" / "run.json").write_text("{}")
        picture(root / "outputs" / "round" / "images" / "0.png")
        (root / "outputs" / "round" / "selection.json").write_text("{}")


@pytest.mark.parametrize("what", ["empty", "notes", "run"])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("test", ["test", "Val"])
def test_a_folder_without_images_does_not_make_classes_of_splits(tmp_path, what, table, test):
    lay_beside(flat(tmp_path, test=test, table=table), what)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*made by this library")
        source, other = load_source(tmp_path), load_source(tmp_path, split=test.lower())
    assert source.ids == ["0.png", "1.png", "2.png"] and other.ids == ["t0.png", "t1.png", "t2.png"]
    assert source.class_names == (["a", "b"] if table else [])
    assert several(tmp_path).ids == source.ids


def test_a_folder_inside_that_holds_no_images_makes_no_split_of_a_class(tmp_path):
    """A locomotive: its folder holds images, and an empty one or a run, beside another class."""
    for name in ("bird/0.png", "train/0.png", "train/1.png", "train/run/predictions.png"):
        picture(tmp_path / name)
    (tmp_path / "train" / "run" / "run.json").write_text("{}")
    (tmp_path / "train" / "empty").mkdir()
    source = load_source(tmp_path)
    assert source.class_names == ["bird", "train"] and len(source) == 3


def test_a_class_called_train_beside_others(tmp_path):
    for name in ("bird/0.png", "train/0.png"):
        picture(tmp_path / name)
    assert load_source(tmp_path).class_names == ["bird", "train"]


def test_other_images_beside_flat_splits_are_named_and_left_out(tmp_path):
    picture(flat(tmp_path) / "extra" / "0.png")
    with pytest.warns(UserWarning, match="test/ and train/ in .* are read as splits, and the images in extra beside"):
        assert load_source(tmp_path).ids == ["0.png", "1.png", "2.png"]
    assert load_source(tmp_path, split="test").ids == ["t0.png", "t1.png", "t2.png"]


def test_a_column_of_splits_counts_where_other_images_lie_beside(tmp_path):
    picture(flat(tmp_path, table=False) / "extra" / "0.png")
    rows = ["train/0.png,a,train", "train/1.png,b,train", "extra/0.png,a,train", "test/t0.png,a,test"]
    rows += ["train/2.png,b,val", "test/t1.png,b,test", "test/t2.png,b,test"]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label,split", *rows]) + "\n")
    assert load_source(tmp_path).ids == ["extra/0.png", "train/0.png", "train/1.png"]
    assert load_source(tmp_path, split="validation").ids == ["train/2.png"]


@pytest.mark.parametrize(
    "first, second", [("test", "train"), ("train", "test"), ("val", "test"), ("test", ""), ("", "validation")]
)
def test_an_image_in_two_splits_of_a_table_is_refused(tmp_path, first, second):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    rows = ["file_name,label,split", "0.png,a,train", f"2.png,a,{first}", "1.png,b,test", f"2.png,a,{second}"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    for split in ("train", "test"):
        for opened in (load_source, several):
            with pytest.raises(UserError, match="labels.csv, row 5: '2.png' is of split .* in row 3. Keep one"):
                opened(tmp_path, split=split)


def test_rows_that_name_a_split_in_two_spellings_agree(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    rows = ["file_name,label,split", "0.png,a,train", "2.png,a,val", "1.png,b,test", "2.png,a,validation"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    assert load_source(tmp_path, split="val").ids == ["2.png"]


@pytest.mark.parametrize("table", ["train.csv", "train/metadata.csv"])
@pytest.mark.parametrize("name, there", [("test/2.png", False), ("/x/Val/2.png", False), ("/x/train/2.png", True)])
def test_a_name_in_another_split_is_no_image_of_this_one(tmp_path, table, name, there):
    flat(tmp_path, table=False)
    (tmp_path / table).write_text(f"file_name,label\n0.png,a\n{name},b\n")
    if there:
        assert load_source(tmp_path).labels.tolist() == [0, -1, 1]
    else:
        with pytest.raises(UserError, match="1 file names in .* have no image"):
            load_source(tmp_path)


def test_the_folder_that_one_is_in_has_its_name_in_messages(tmp_path, monkeypatch):
    """`--dataset .` and `..` are folders like others."""
    picture(tmp_path / "photos/1.png")
    run = tmp_path / "photos/runs/best"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for here, given in ((tmp_path / "photos", "."), (run.parent, "..")):
        monkeypatch.chdir(here)
        with pytest.raises(UserError, match="photos"):
            load_source(given, split="test")
        assert load_source(given).name == "photos"


@pytest.mark.parametrize("held", ["test", "Val", "validation", "testing"])
@pytest.mark.parametrize("inside", ["", "a/"])
def test_a_held_out_folder_beside_class_folders_is_asked_about(tmp_path, held, inside):
    """Its images were learned as one class more."""
    for folder in ("cat", "dog", held):
        picture(tmp_path / folder / f"{inside}0.png")
    for split in ("train", "test"):
        for opened in (load_source, several):
            with pytest.raises(UserError, match=f"{held}/ in .* beside cat, dog may be a split.*move the others into"):
                opened(tmp_path, split=split)
    (tmp_path / "train").mkdir()
    for folder in ("cat", "dog"):
        (tmp_path / folder).rename(tmp_path / "train" / folder)
    assert load_source(tmp_path).ids == [f"{folder}/{inside}0.png" for folder in ("cat", "dog")]
    (tmp_path / held).rename(tmp_path / "train" / held)
    assert load_source(tmp_path).class_names == sorted(["cat", "dog", held])


def test_a_folder_that_may_well_be_a_class_is_said(tmp_path):
    for folder in ("invalid", "valid"):
        picture(tmp_path / folder / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_source(tmp_path).class_names == ["invalid", "valid"]
    picture(tmp_path / "dev" / "0.png")
    with pytest.warns(UserWarning, match="dev/ in .* beside invalid is read as one folder of images more"):
        assert load_source(tmp_path).class_names == ["dev", "invalid", "valid"]


def test_folders_that_only_sort_the_images_of_a_table(tmp_path):
    picture(tmp_path / "monday" / "0.png")
    picture(tmp_path / "test" / "1.png")
    (tmp_path / "labels.csv").write_text("file_name,label\nmonday/0.png,a\ntest/1.png,b\n")
    with pytest.warns(UserWarning, match="test/ in .* beside monday is read as one folder of images more"):
        assert load_source(tmp_path).class_names == ["a", "b"]
    (tmp_path / "labels.csv").write_text("file_name,label,split\nmonday/0.png,a,\ntest/1.png,b,test\n")
    assert load_source(tmp_path).ids == ["monday/0.png"]


@pytest.mark.parametrize("opened", [load_source, several])
def test_a_class_called_train_that_has_folders_is_asked_about(tmp_path, opened):
    """The other classes vanished."""
    for folder in ("truck", "bus", "train"):
        for part in ("day", "night"):
            picture(tmp_path / folder / part / "0.png")
    with pytest.raises(UserError, match="train/ in .* has folders of images in it, and bus, truck beside it"):
        opened(tmp_path)
    (tmp_path / "all").mkdir()
    for folder in ("truck", "bus", "train"):
        (tmp_path / folder).rename(tmp_path / "all" / folder)
    (tmp_path / "all").rename(tmp_path / "train")
    assert load_source(tmp_path).class_names == ["bus", "train", "truck"]


@pytest.mark.parametrize("held", ["val", "Test"])
def test_other_images_beside_splits_with_classes_are_named_and_left_out(tmp_path, held):
    for folder in ("train", held, "train_extra"):
        for part in ("a", "b"):
            picture(tmp_path / folder / part / "0.png")
    with pytest.warns(UserWarning, match="are read as splits, and the images in train_extra beside them are left out"):
        assert load_source(tmp_path).ids == ["a/0.png", "b/0.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_source(tmp_path, split="train_extra")) == 2, "one may be asked for by its name"


def test_other_images_beside_a_folder_with_its_own_table(tmp_path):
    picture(tmp_path / "train" / "0.png")
    picture(tmp_path / "docs" / "figure.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n0.png,a\n")
    with pytest.warns(UserWarning, match="the images in docs beside them are left out"):
        assert load_source(tmp_path).class_names == ["a"]
