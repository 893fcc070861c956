"""Tables called as splits beside one folder of images, as Kaggle has them."""

import warnings

import pytest
from PIL import Image
from tiny_sets import bare, several

from hf_lowlabel import UserError, load_source
from hf_lowlabel.errors import MissingSplit


def kaggle(root, train="id_code,label", test="id_code", folder="images", ending=".png", **names):
    """Six images: 0 to 2 in train.csv, 4 and 5 in test.csv, 3 in none."""
    (root / folder).mkdir(exist_ok=True)
    for i in range(6):
        Image.new("RGB", (8, 8)).save(root / folder / f"p{i}.png")
    rows = [f"p{i}{ending},{'ab'[i % 2]}" for i in range(3)]
    (root / names.get("train_csv", "train.csv")).write_text("\n".join([train, *rows]) + "\n")
    cells = [f"p{i}{ending}" + ",a" * test.count(",") for i in (4, 5)]
    (root / names.get("test_csv", "test.csv")).write_text("\n".join([test, *cells]) + "\n")
    return root


@pytest.mark.parametrize("folder", ["images", "."])
@pytest.mark.parametrize("ending", [".png", ""])
@pytest.mark.parametrize("test", ["image_id", "image_id,label"])
@pytest.mark.parametrize("opened", [load_source, several])
def test_images_of_test_csv_are_no_training_images(tmp_path, folder, ending, test, opened):
    kaggle(tmp_path, "image_id,label", test, folder, ending)
    with pytest.warns(UserWarning, match="train.csv, test.csv say which images are of split 'train': 4 of 6"):
        source = opened(tmp_path)
    assert bare(source) == ["p0.png", "p1.png", "p2.png", "p3.png"] and source.class_names == ["a", "b"]
    with pytest.warns(UserWarning, match="are of split 'test': 2 of 6"):
        held = opened(tmp_path, split="test")
    assert bare(held) == ["p4.png", "p5.png"]
    assert held.has_target.all() if "," in test else not held.has_target.any() and held.class_names == []
    with pytest.raises(MissingSplit):
        opened(tmp_path, split="validation")


@pytest.mark.parametrize("table, split", [("val.csv", "validation"), ("Valid.csv", "val"), ("dev.csv", "dev")])
def test_in_any_spelling(tmp_path, table, split):
    kaggle(tmp_path, "file_name,label", "file_name,label", test_csv=table)
    assert len(load_source(tmp_path)) == 4 and bare(load_source(tmp_path, split=split)) == ["p4.png", "p5.png"]


def test_one_table_of_labels_and_a_list_of_test_images(tmp_path):
    kaggle(tmp_path, "file_name,label", "file_name", train_csv="labels.csv")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("p4.png,b\n")
    assert bare(load_source(tmp_path)) == ["p0.png", "p1.png", "p2.png", "p3.png"]
    held = load_source(tmp_path, split="test")
    assert bare(held) == ["p4.png", "p5.png"] and held.has_target.tolist() == [True, False]


@pytest.mark.parametrize("test", ["file_name", "file_name,label"])
def test_lists_beside_folders_of_classes(tmp_path, test):
    """The folders stay the classes of what no table gives a label."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "test.csv").write_text(f"{test}\ncat/1.png{',x' * test.count(',')}\n")
    source, held = load_source(tmp_path), load_source(tmp_path, split="test")
    assert source.ids == ["cat/0.png", "dog/0.png", "dog/1.png"] and source.labels.tolist() == [0, 1, 1]
    assert held.ids == ["cat/1.png"] and held.has_target.all()


def test_an_image_in_two_tables_is_refused(tmp_path):
    with (kaggle(tmp_path, "file_name,label", "file_name") / "test.csv").open("a") as file:
        file.write("p2.png\n")
    for split in ("train", "test"):
        with pytest.raises(UserError, match="'images/p2.png' is in train.csv and in test.csv"):
            load_source(tmp_path, split=split)


def test_tables_of_something_else_take_nothing_away(tmp_path):
    kaggle(tmp_path, "file_name,label", "file_name", ".")
    for name, content in {"test.csv": "question,answer\nx,y\n", "val.csv": "id,question\nq9,why\n"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "dev.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_source(tmp_path)) == 6


@pytest.mark.parametrize(
    "test, said",
    [
        ("image_name\np4.png\np5.png\n", "column 'image_name' of test.csv names images of split 'test'"),
        ("picture,width\np4,8\np5,8\n", "column 'picture' of test.csv names images of split 'test'"),
        ("p4.png\np5.png\n", "test.csv begins with p4.png, which are no names of columns"),
        ("file_name\ntest/p4.png\n", "1 file names in test.csv have no image, such as 'test/p4.png'"),
        ("file_name\np4.png\np5.jpeg\n", "1 file names in test.csv have no image, such as 'p5.jpeg'"),
    ],
)
@pytest.mark.parametrize("opened", [load_source, several])
def test_a_list_of_test_images_that_cannot_be_read_is_refused(tmp_path, test, said, opened):
    """Whichever split is asked for: its images would be learned from."""
    (kaggle(tmp_path, "file_name,label") / "test.csv").write_text(test)
    for split in ("train", "test"):
        with pytest.raises(UserError, match=said):
            opened(tmp_path, split=split)


def test_names_of_several_images_are_refused_and_those_without_one_may_be_passed_over(tmp_path):
    (kaggle(tmp_path, "file_name,label") / "test.csv").write_text("file_name\np4.png\ngone.png\n")
    with pytest.warns(UserWarning, match="1 file names in test.csv have no image and are passed over, such as 'gone"):
        assert bare(load_source(tmp_path, split="test", skip_missing=True)) == ["p4.png"]
    (tmp_path / "test.csv").write_text("file_name\np4.png\np5.png\n")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "p5.png")
    with pytest.raises(UserError, match="1 file names in test.csv have no image, such as 'p5.png'"):
        load_source(tmp_path)


def test_names_that_folders_of_two_splits_share(tmp_path):
    """Kaggle's train_images/ and test_images/, whose images are numbered in each."""
    for folder, numbers in {"train_images": range(4), "test_images": range(2, 6)}.items():
        (tmp_path / folder).mkdir()
        for i in numbers:
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "train.csv").write_text("file_name,label\n0.png,a\n1.png,b\n")
    (tmp_path / "test.csv").write_text("file_name\n" + "".join(f"{i}.png\n" for i in range(2, 6)))
    assert load_source(tmp_path).ids == [f"{i}.png" for i in range(4)]
    assert load_source(tmp_path, split="test").ids == [f"{i}.png" for i in range(2, 6)]


@pytest.mark.parametrize("table", ["train.csv", "metadata.csv"])
def test_a_table_without_labels_leaves_the_folders_their_classes(tmp_path, table):
    """One switch, or a column of splits, is no label."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{name}{i}.png")
    if table == "train.csv":
        (tmp_path / "train.csv").write_text("file_name,flash\ncat0.png,1\ncat1.png,0\ndog0.png,1\n")
        (tmp_path / "test.csv").write_text("file_name,flash\ncat2.png,1\ndog2.png,0\n")
    else:
        (tmp_path / "metadata.csv").write_text("file_name,split\ncat0.png,train\ncat2.png,test\ndog2.png,test\n")
    source, held = load_source(tmp_path), load_source(tmp_path, split="test")
    assert source.class_names == held.class_names == ["cat", "dog"]
    assert bare(source) == ["cat0.png", "cat1.png", "dog0.png", "dog1.png"] and source.labels.tolist() == [0, 0, 1, 1]
    assert bare(held) == ["cat2.png", "dog2.png"] and held.labels.tolist() == [0, 1]


def test_a_column_of_splits_in_the_table_of_all_counts_before_lists(tmp_path):
    kaggle(tmp_path, "file_name,label", "file_name")
    rows = [f"p{i}.png,a,{'test' if i < 2 else 'train'}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label,split", *rows]) + "\n")
    assert bare(load_source(tmp_path, split="test")) == ["p0.png", "p1.png"]
    assert len(load_source(tmp_path)) == 4


# ---- beside folders of splits ---------------------------------------------------------------------------------------
def in_folders(root, test="test"):
    """train/a/, train/b/ and, of Kaggle, test/ without classes."""
    for name in ("train/a/0.png", "train/b/1.png", *([f"{test}/8.png", f"{test}/9.png"] if test else [])):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


@pytest.mark.parametrize(
    "name, text",
    [
        ("test.csv", "id_code\n8\n9\n"),
        ("test.csv", "image_name,age\n8.png,3\n9.png,4\n"),
        ("test.csv", "8.png,3\n9.png,4\n"),
        ("Test.json", "{torn"),
        ("test.csv", 'file_name,age\n"8.png,3\n'),
    ],
)
def test_a_table_of_images_that_lie_in_their_splits_folder_is_no_hindrance(tmp_path, name, text):
    (in_folders(tmp_path) / name).write_text(text)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        source = load_source(tmp_path)
    assert source.ids == ["a/0.png", "b/1.png"] and source.class_names == ["a", "b"]
    torn = [one for one in told if f"{name} is not read for splits of images" in str(one.message)]
    assert bool(torn) == ("torn" in text or '"' in text)


def test_a_table_of_images_of_which_some_lie_elsewhere_is_refused(tmp_path):
    (in_folders(tmp_path) / "test.csv").write_text("image_name\n8.png\n1.png\n")
    with pytest.raises(UserError, match="The column 'image_name' of test.csv names images of split 'test'"):
        load_source(tmp_path)
    (tmp_path / "val.json").write_text("{torn")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match="val.json looks like .* and cannot be read"):
        load_source(tmp_path)


@pytest.mark.parametrize(
    "file, test",
    [
        ("test.csv", "file_name\n8.png\n9.png\n"),
        ("test.csv", "picture\n8.png\n"),
        ("test.csv", "8.png\n9.png\n"),
        ("val.txt", "test/8.png\ntest/9.png\n"),
    ],
)
@pytest.mark.parametrize("opened", [load_source, several])
def test_images_that_are_not_there_at_all_are_passed_over_beside_a_folder_for_training(tmp_path, test, file, opened):
    (in_folders(tmp_path, None) / "train.csv").write_text("file_name,label\ntrain/a/0.png,x\ntrain/b/1.png,y\n")
    (tmp_path / file).write_text(test)
    with pytest.warns(UserWarning, match=f"None of the . images of split .* that {file} names is there, such as"):
        source = opened(tmp_path)
    assert len(source) == 2 and source.class_names == ["x", "y"]
    (tmp_path / file).write_text("file_name\n8.png\ntrain/a/0.png\n" if file == "test.csv" else "8.png\na/0.png\n")
    with pytest.raises(UserError, match=f"1 file names in {file} have no image|is in train.csv and in"):
        opened(tmp_path)


def test_a_table_of_all_says_that_train_is_no_class(tmp_path):
    for name in ("train/a/0.png", "train/b/1.png", "extra/c/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a/0.png,x\ntrain/b/1.png,y\n")
    with pytest.warns(UserWarning, match="the images in extra beside them are left out"):
        assert load_source(tmp_path).class_names == ["x", "y"]
