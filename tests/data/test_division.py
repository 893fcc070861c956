"""Which image is of which split is decided once, for all splits and tasks, whatever says it beside the folders."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from tiny_sets import bare, pictures, several

from hf_lowlabel import UserError, load_segmentation, load_source
from hf_lowlabel.data.files.table_files import ImageNames
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.labeling.mask_places import find_places

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAMES = [f"{i}.png" for i in range(6)]
COLUMN = "file_name,split\n" + "".join(f"{i}.png,{'test' if i > 3 else 'train'}\n" for i in range(6))


def masks(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / name)


def coco(file, names, drawn=True):
    out = {"images": [{"id": k, "file_name": name} for k, name in enumerate(names)]}
    if drawn:
        outline = [[1, 1, 5, 1, 5, 5, 1, 5]]
        found = [{"image_id": k, "category_id": 1, "segmentation": outline} for k in range(len(names))]
        out |= {"annotations": found, "categories": [{"id": 1, "name": "a"}]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(out))


def check(root, opened, held="test"):
    """0 to 3 are for training, 4 and 5 are held out, in whatever way this is said."""
    assert bare(opened(root)) == ["0.png", "1.png", "2.png", "3.png"]
    assert bare(opened(root, split=held)) == ["4.png", "5.png"]
    for split in {"test", "validation"} - {held}:
        with pytest.raises(MissingSplit):
            opened(root, split=split)


# ---- masks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["images/", ""])
@pytest.mark.parametrize("said", ["column", "tables", "lists", "a table", "splits/"])
def test_masks_follow_what_says_the_splits(tmp_path, folder, said):
    pictures(tmp_path, *(f"{folder}{name}" for name in NAMES))
    masks(tmp_path, *(f"masks/{i}.png" if folder else f"{i}_mask.png" for i in range(6)))
    texts = {
        "column": {"metadata.csv": COLUMN},
        "tables": {"train.csv": "file_name\n0.png\n1.png\n", "test.csv": "file_name\n4.png\n5.png\n"},
        "a table": {"test.csv": "file_name\n4.png\n5.png\n"},
        "lists": {"train.txt": "0.png\n1.png\n2.png\n3.png\n", "test.txt": "4.png\n5.png\n"},
        "splits/": {"splits/test.txt": "4\n5\n", "splits/train.txt": "0\n1\n2\n3\n"},
    }
    for name, text in texts[said].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    check(tmp_path, load_segmentation)
    assert load_segmentation(tmp_path).has_target.all() and load_segmentation(tmp_path, split="test").mask(1)[1, 1] == 1
    assert sorted(find_places(tmp_path)) == NAMES[:4], "nobody is asked to paint a test image"


@pytest.mark.parametrize("file", ["annotations/instances_{}.json", "{}.json", "annotations/{}/all.json"])
@pytest.mark.parametrize("folder", ["images/", ""])
@pytest.mark.parametrize("held", ["test", "val"])
def test_a_file_of_annotations_for_each_split(tmp_path, file, folder, held):
    pictures(tmp_path, *(f"{folder}{name}" for name in NAMES))
    coco(tmp_path / file.format("train"), NAMES[:4])
    coco(tmp_path / file.format(held), NAMES[4:])
    held = "validation" if held == "val" else held
    check(tmp_path, load_segmentation, held)
    assert load_segmentation(tmp_path).has_target.all() and load_segmentation(tmp_path, split=held).has_target.all()
    check(tmp_path, load_source, held)


def test_test_images_that_are_named_without_objects(tmp_path):
    """COCO's image_info_test.json."""
    pictures(tmp_path, *(f"images/{name}" for name in NAMES))
    coco(tmp_path / "annotations" / "instances_train.json", NAMES[:3])
    coco(tmp_path / "annotations" / "image_info_test.json", NAMES[4:], drawn=False)
    check(tmp_path, load_segmentation)
    assert load_segmentation(tmp_path).has_target.tolist() == [True, True, True, False]


def test_one_file_of_all_images_makes_no_split(tmp_path):
    pictures(tmp_path, *NAMES)
    coco(tmp_path / "test.json", NAMES)
    assert len(load_segmentation(tmp_path)) == 6


@pytest.mark.parametrize("opened", [load_segmentation, load_source, several])
def test_lists_of_yolo(tmp_path, opened):
    pictures(tmp_path, *(f"images/{name}" for name in NAMES))
    (tmp_path / "labels").mkdir()
    for i in range(6):
        (tmp_path / "labels" / f"{i}.txt").write_text("0 0.1 0.1 0.6 0.1 0.6 0.6\n")
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: train.txt\nval: val.txt\n")
    (tmp_path / "train.txt").write_text("".join(f"./images/{i}.png\n" for i in range(4)))
    (tmp_path / "val.txt").write_text("./images/4.png\n./images/5.png\n")
    check(tmp_path, opened, "validation")


TORN = {
    "Latin-1": {"metadata.csv": "file_name,name\n0.png,Ä\n".encode("latin-1")},
    "ragged": {"metadata.csv": b"file_name,age\n0.png,3,4\n"},
    "of training": {"train.csv": b"file_name,age\n0.png,3,4\n"},
    "two lists of classes": {"labels.csv": b"name,r,g,b\na,1,2,3\n", "labels.json": b'{"0": "a"}'},
}


@pytest.mark.parametrize("said", TORN)
@pytest.mark.parametrize("folder", ["", "train/"])
def test_tables_that_masks_are_not_read_from(tmp_path, said, folder):
    pictures(tmp_path / folder, *(f"images/{name}" for name in NAMES))
    masks(tmp_path / folder, *(f"masks/{name}" for name in NAMES))
    for name, content in TORN[said].items():
        (tmp_path / folder / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert load_segmentation(tmp_path).has_target.all()
    told = [str(one.message) for one in told if "is not read for splits of images" in str(one.message)]
    assert bool(told) == (said != "two lists of classes")
    assert sorted(find_places(tmp_path)) == NAMES


def test_masks_beside_two_tables_called_labels_follow_the_one_with_splits(tmp_path):
    pictures(tmp_path, *(f"images/{name}" for name in NAMES))
    masks(tmp_path, *(f"masks/{name}" for name in NAMES))
    (tmp_path / "labels.csv").write_text(COLUMN)
    (tmp_path / "labels.json").write_text('{"0": "a"}')
    check(tmp_path, load_segmentation)
    (tmp_path / "labels.json").write_text('[{"file_name": "0.png", "split": "test"}]')
    with pytest.raises(UserError, match="Both labels.csv and labels.json in .* have a column of splits"):
        load_segmentation(tmp_path)


def with_masks(path, *names):
    pictures(path, *(f"images/{name}" for name in names))
    masks(path, *(f"masks/{name}" for name in names))
    return path


NO_FILES = {"patient": "patient,split,age", "id": "id,split,age"}


@pytest.mark.parametrize("named", NO_FILES)
def test_a_column_of_splits_beside_no_names_of_files(tmp_path, named):
    """It is asked for a column of their names, and not to correct what is none, nor to call it so."""
    with_masks(tmp_path, *NAMES)
    (tmp_path / "metadata.csv").write_text(f"{NO_FILES[named]}\nP17,train,30\nP18,test,40\n")
    said = "no column names their files.* Add a column file_name with the name of the file in each row"
    with pytest.raises(UserError, match=said):
        load_segmentation(tmp_path)
    (tmp_path / "metadata.csv").write_text(f"{NO_FILES[named]}\nP17,train,30\nP18,,40\n")
    assert len(load_segmentation(tmp_path)) == 6, "it holds nothing out"


@pytest.mark.parametrize("opened", [load_segmentation, load_source])
def test_held_out_names_of_a_column_that_are_passed_over_are_told(tmp_path, opened):
    with_masks(tmp_path, *NAMES) if opened is load_segmentation else pictures(tmp_path, *NAMES)
    for name, first in {"id": "P17", "file_name": "gone.png"}.items():
        (tmp_path / "metadata.csv").write_text(f"{name},split,age\n{first},test,40\n0.png,train,50\n")
        with pytest.raises(UserError, match=f"1 file names in metadata.csv have no image, such as '{first}'"):
            opened(tmp_path)
    (tmp_path / "metadata.csv").write_text("id,split,age,label\nP17,test,40,a\nP18,train,50,b\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(opened(tmp_path, skip_missing=True)) == 6
    assert "1 file names in metadata.csv have no image and are passed over, such as 'P17'" in str(
        [str(one.message) for one in told]
    )


def test_held_out_names_in_the_table_of_a_split_are_not_passed_over_beside_masks(tmp_path):
    with_masks(tmp_path / "train", *NAMES)
    (tmp_path / "train" / "metadata.csv").write_text("file_name,split\n0.png,train\ngone.png,test\n")
    with pytest.raises(UserError, match="1 file names in metadata.csv have no image, such as 'gone.png'"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("column", ["sat_image_path", "picture"])
def test_names_of_files_in_a_column_of_another_name(tmp_path, column):
    """DeepGlobe's, whose image_id is not what the files are called."""
    pictures(tmp_path, *(f"all/{name}" for name in NAMES))
    masks(tmp_path, *(f"all/{i}_mask.png" for i in range(6)))
    rows = [f"{i + 200},{'test' if i > 3 else 'train'},all/{i}_mask.png,all/{i}.png" for i in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join([f"image_id,split,mask_path,{column}", *rows]) + "\n")
    check(tmp_path, load_segmentation)
    assert sorted(id.rpartition("/")[2] for id in find_places(tmp_path)) == NAMES[:4]


def test_a_table_called_test_whose_ids_are_not_names_of_files(tmp_path):
    with_masks(tmp_path, *NAMES)
    (tmp_path / "test.csv").write_text("image_id,picture\n204,images/4.png\n205,images/5.png\n")
    with pytest.raises(UserError, match="The column 'picture' of test.csv names images of split 'test'"):
        load_segmentation(tmp_path)
    (tmp_path / "test.csv").write_text("image_id,file_name\n204,images/4.png\n205,images/5.png\n")
    check(tmp_path, load_segmentation)


def test_two_lists_of_classes_in_a_split_with_masks_beside_its_images(tmp_path):
    pictures(tmp_path / "train", *NAMES)
    masks(tmp_path / "train", *(f"{i}_mask.png" for i in range(6)))
    for name, content in TORN["two lists of classes"].items():
        (tmp_path / "train" / name).write_bytes(content)
    assert load_segmentation(tmp_path).has_target.all()


def test_a_torn_table_of_test_images_is_refused_beside_masks_too(tmp_path):
    pictures(tmp_path, *(f"images/{name}" for name in NAMES))
    masks(tmp_path, *(f"masks/{name}" for name in NAMES))
    (tmp_path / "test.csv").write_bytes(b"file_name,age\n0.png,3,4\n")
    with pytest.raises(UserError, match="test.csv: row 2 has more cells"):
        load_segmentation(tmp_path)


def test_classes_are_not_read_beside_a_torn_table_or_two(tmp_path):
    pictures(tmp_path, *(f"{'ab'[i % 2]}/{name}" for i, name in enumerate(NAMES)))
    for said in ("Latin-1", "ragged", "two lists of classes"):
        for name, content in TORN[said].items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is not UTF-8|has more cells|both labels.csv and labels.json"):
            load_source(tmp_path)
        (tmp_path / "metadata.csv").unlink(missing_ok=True)


# ---- classes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("line", ["{}", "{} 1", "{},1"])
def test_lists_beside_folders_of_classes(tmp_path, line):
    pictures(tmp_path, *(f"{'ab'[i % 2]}/{name}" for i, name in enumerate(NAMES)))
    (tmp_path / "test.txt").write_text("".join(line.format(f"{'ab'[i % 2]}/{i}.png") + "\n" for i in (4, 5)))
    check_names = {split: sorted(bare(load_source(tmp_path, split=split))) for split in ("train", "test")}
    assert check_names == {"train": NAMES[:4], "test": NAMES[4:]}
    assert load_source(tmp_path).class_names == load_source(tmp_path, split="test").class_names == ["a", "b"]


@pytest.mark.parametrize("line", ["/home/me/d/{}", "/home/me/d/{} 3", "/home/me/d/{} /home/me/masks/{}"])
def test_lines_of_a_list_are_looked_for_once(tmp_path, monkeypatch, line):
    """Names with other folders before them take long: they were looked for up to four times each."""
    names = [f"{'ab'[i % 2]}/{name}" for i, name in enumerate(NAMES)]
    pictures(tmp_path, *names)
    for file, some in {"train.txt": names[:4], "val.txt": names[4:]}.items():
        (tmp_path / file).write_text("".join(line.format(name, name) + "\n" for name in some))
    asked, real = [], ImageNames.loosely
    monkeypatch.setattr(ImageNames, "loosely", lambda self, name: asked.append(name) or real(self, name))
    assert sorted(bare(load_source(tmp_path))) == NAMES[:4]
    assert len(asked) == len(names)


def test_names_with_blanks_in_lists(tmp_path):
    """Also where the first word is the name of another image, and where more words follow."""
    held = ["my photo.png", "cat 1.png", "far/dog 2.png", "Bird 3.PNG", "0.png", "1 b.png"]
    pictures(tmp_path, *held, "my.png", "cat.png", "far/dog.png", "bird.png", "1.png")
    lines = ["my photo.png", "cat 1", "/home/me/far/dog 2.png", "bird 3.png", "0.png 7", "1 b"]
    (tmp_path / "test.txt").write_text("\n".join(lines) + "\n")
    assert sorted(load_source(tmp_path, split="test").ids) == sorted(held)


def test_texts_that_are_no_lists_say_nothing(tmp_path):
    pictures(tmp_path, *NAMES, "test.png")
    (tmp_path / "test.txt").write_text("0 0.5 0.5 0.1 0.1\n")  # the boxes of test.png
    (tmp_path / "val.txt").write_text("accuracy 0.9\n")
    assert len(load_source(tmp_path)) == 7


@pytest.mark.parametrize("folder, held", [("train/", "val"), ("train/", "test"), ("train/images/", "test")])
def test_a_column_takes_images_out_of_a_folder(tmp_path, folder, held):
    pictures(tmp_path, *(f"{folder}{name}" for name in NAMES))
    rows = [f"{folder}{i}.png,{'ab'[i % 2]},{held if i > 3 else 'train'}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label,split", *rows]) + "\n")
    check(tmp_path, load_source, "validation" if held == "val" else held)
    source, other = load_source(tmp_path), load_source(tmp_path, split=held)
    assert source.labels.tolist() == [0, 1, 0, 1] and other.labels.tolist() == [0, 1]
    assert source.ids[0].rpartition("/")[0] == other.ids[0].rpartition("/")[0], "ids of both begin in one folder"
    assert bare(several(tmp_path, held)) == NAMES[4:] and bare(several(tmp_path)) == NAMES[:4]


def test_a_column_of_the_table_in_the_folder_of_a_split(tmp_path):
    pictures(tmp_path, *(f"train/{name}" for name in NAMES))
    rows = [f"{i}.png,a,{'test' if i > 3 else ''}" for i in range(6)]
    (tmp_path / "train" / "labels.csv").write_text("\n".join(["file_name,label,split", *rows]) + "\n")
    check(tmp_path, load_source)
    check(tmp_path, several)


@pytest.mark.parametrize("label", ["", ",label"])
def test_tables_of_splits_beside_folders_of_splits(tmp_path, label):
    """val.csv takes its images out of train/, whose folders are the classes where no table has labels."""
    pictures(tmp_path, *(f"train/{'ab'[i % 2]}/{name}" for i, name in enumerate(NAMES)), "test/a/6.png", "test/b/7.png")
    for name, numbers in {"train.csv": range(3), "val.csv": (4, 5)}.items():
        rows = [f"train/{'ab'[i % 2]}/{i}.png" + (f",{'cd'[i % 2]}" if label else "") for i in numbers]
        (tmp_path / name).write_text("\n".join([f"file_name{label}", *rows]) + "\n")
    source, held = load_source(tmp_path), load_source(tmp_path, split="validation")
    assert sorted(bare(source)) == NAMES[:4] and sorted(bare(held)) == NAMES[4:]
    assert source.class_names == held.class_names == (["c", "d"] if label else ["a", "b"])
    assert held.has_target.all() and len(load_source(tmp_path, split="test")) == 2


@pytest.mark.parametrize("row, asked", [("test/6.png,train", "train"), ("train/4.png,test", "test")])
@pytest.mark.parametrize("opened", [load_source, several])
def test_an_image_that_lies_in_the_folder_of_another_split_is_named(tmp_path, row, asked, opened):
    pictures(tmp_path, *(f"train/{name}" for name in NAMES), "test/6.png", "test/7.png")
    rows = ["train/0.png,train", "test/7.png,test", row]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,split", *rows]) + "\n")
    name = row.partition(",")[0]
    with pytest.raises(
        UserError, match=f"{name!r} is of split {asked!r} .1 such images., and it does not lie in {asked}/"
    ):
        opened(tmp_path, split=asked)


def test_images_beside_splits_that_a_column_does_not_name_stay_where_they_are(tmp_path):
    pictures(tmp_path, "train/0.png", "train/1.png", "test/2.png", "test/3.png", "extra/4.png")
    (tmp_path / "labels.csv").write_text("file_name,label,split\ntrain/0.png,a,train\nextra/4.png,b,test\n")
    assert load_source(tmp_path).ids == ["train/0.png", "train/1.png"]
    assert load_source(tmp_path, split="test").ids == ["extra/4.png", "test/2.png", "test/3.png"]


def test_an_image_in_two_splits_of_what_lies_in_different_folders(tmp_path):
    pictures(tmp_path, *(f"train/{name}" for name in NAMES))
    (tmp_path / "train" / "labels.csv").write_text("file_name,label,split\n0.png,a,train\n4.png,a,test\n")
    (tmp_path / "val.csv").write_text("file_name\ntrain/4.png\n")
    with pytest.raises(UserError, match="val.csv says that 'train/4.png' is of split 'validation'. The column 'split'"):
        load_source(tmp_path)
    (tmp_path / "val.csv").unlink()
    (tmp_path / "train" / "labels.csv").write_text("file_name,label,split\n4.png,a,train\n4.png,a,test\n")
    with pytest.raises(UserError, match="labels.csv, row 3: 'train/4.png' is of split 'test' here"):
        load_source(tmp_path)


def test_a_column_that_holds_nothing_out_leaves_it_to_the_lists(tmp_path):
    pictures(tmp_path, *NAMES)
    (tmp_path / "metadata.csv").write_text("file_name,label,split\n0.png,a,train\n1.png,b,train\n")
    (tmp_path / "test.csv").write_text("file_name\n4.png\n5.png\n")
    check(tmp_path, load_source)


@pytest.mark.parametrize("word", ["unlabeled", "Unlabelled"])
@pytest.mark.parametrize("opened", [load_source, several, load_segmentation])
def test_rows_that_a_column_calls_unlabeled_are_not_of_training(tmp_path, opened, word):
    pictures(tmp_path, *(f"images/{name}" for name in NAMES))
    if opened is load_segmentation:
        masks(tmp_path, *(f"masks/{name}" for name in NAMES))
    rows = [f"images/{i}.png,{'ab'[i % 2]},{('train', 'test', word)[i // 2]}" for i in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,split", *rows]) + "\n")
    assert bare(opened(tmp_path)) == NAMES[:2]
    assert bare(opened(tmp_path, split="test")) == NAMES[2:4]
    assert bare(opened(tmp_path, split="unlabeled")) == NAMES[4:]


def test_a_torn_table_of_a_split_that_is_not_asked_for(tmp_path):
    pictures(tmp_path, "train/0.png", "test/1.png")
    (tmp_path / "test" / "metadata.csv").write_text('file_name,label\n"1.png,a\n')
    assert load_source(tmp_path).ids == ["0.png"]
    with pytest.raises(UserError, match="metadata.csv"):
        load_source(tmp_path, split="test")


@pytest.mark.parametrize("opened", [load_source, several, load_segmentation])
def test_a_folder_called_test_of_which_a_column_says_more(tmp_path, opened):
    """What the column does not name stays where its folder says; nothing is asked, then, nor by the task."""
    pictures(tmp_path, "cam/0.png", "cam/1.png", "test/2.png", "test/3.png")
    if opened is load_segmentation:
        coco(tmp_path / "all.json", ["cam/0.png", "cam/1.png", "test/2.png", "test/3.png"])
    (tmp_path / "metadata.csv").write_text("file_name,label,split\ncam/0.png,a,train\ntest/2.png,b,test\n")
    assert opened(tmp_path).ids == ["cam/0.png", "cam/1.png"]
    assert opened(tmp_path, split="test").ids == ["test/2.png", "test/3.png"]


@pytest.mark.parametrize("held", ["val", "test"])
def test_a_list_takes_images_out_of_a_folder_with_its_year(tmp_path, held):
    pictures(tmp_path, *(f"train2017/{name}" for name in NAMES))
    coco(tmp_path / "annotations" / "instances_train2017.json", NAMES)
    (tmp_path / f"{held}.txt").write_text("4.png\n5.png\n")
    check(tmp_path, load_segmentation, "validation" if held == "val" else held)


@pytest.mark.parametrize("said", [{"test.txt": "a/4.png\nb/5.png\n"}, {"metadata.csv": COLUMN}])
@pytest.mark.parametrize("opened", [load_source, several])
def test_unlabeled_images_beside_classes_stay_for_training(tmp_path, said, opened):
    pictures(tmp_path, *(f"{'ab'[i % 2]}/{name}" for i, name in enumerate(NAMES)), "unlabeled/7.png")
    for name, text in said.items():
        (tmp_path / name).write_text(text)
    assert sorted(bare(opened(tmp_path))) == [*NAMES[:4], "7.png"]
    assert sorted(bare(opened(tmp_path, split="test"))) == NAMES[4:]
