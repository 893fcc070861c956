"""Annotations of splits whose pictures have the same names, and folders of annotations that are links."""

import json

import numpy as np
import pytest
from tiny_sets import pictures

from hf_lowlabel import UserError, load_segmentation, load_source
from hf_lowlabel.data.splits import split_tables

SQUARES = {"train": [1, 1, 5, 1, 5, 5, 1, 5], "val": [4, 4, 8, 4, 8, 8, 4, 8], "test": [0, 0, 2, 0, 2, 2, 0, 2]}


def coco(file, names, square):
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    drawn = [{"image_id": k, "category_id": 1, "segmentation": [square]} for k in range(len(names))]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "a"}]}))


@pytest.mark.parametrize(
    "file, folder",
    [
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/{}/all.json", "images/{}"),
        ("{}.json", "{}/images"),
    ],
)
def test_coco_that_is_numbered_in_each_split(tmp_path, file, folder):
    for split in ("train", "val", "test"):
        pictures(tmp_path, *(f"{folder.format(split)}/{i}.png" for i in range(2)))
        coco(tmp_path / file.format(split), ["0.png"] if split == "test" else ["0.png", "1.png"], SQUARES[split])
    for split, square in SQUARES.items():
        source = load_segmentation(tmp_path, split=split)
        x, y = square[:2]
        assert source.mask(0)[y, x] == 1 and source.mask(0).sum() == (square[2] - x) ** 2
        assert source.has_target.tolist() == [True, split != "test"]


def test_the_name_of_a_picture_says_no_split(tmp_path):
    for split in ("train", "val"):
        pictures(tmp_path, f"images/{split}/cat_train_1.png")
        shape = {"label": "a", "points": np.reshape(SQUARES[split], (4, 2)).tolist()}
        (tmp_path / "json" / split).mkdir(parents=True)
        (tmp_path / "json" / split / "cat_train_1.json").write_text(
            json.dumps({"imagePath": "cat_train_1.png", "shapes": [shape]})
        )
    for split in ("train", "val"):
        x, y = SQUARES[split][:2]
        assert load_segmentation(tmp_path, split=split).mask(0)[y, x] == 1


def test_a_picture_that_its_split_lacks_is_not_that_of_another(tmp_path):
    pictures(tmp_path, "images/train/0.png", "images/val/5.png")
    coco(tmp_path / "annotations" / "instances_train.json", ["0.png", "5.png"], SQUARES["train"])
    with pytest.raises(UserError, match="1 images .* are not there, such as '5.png'. Put"):
        load_segmentation(tmp_path)
    assert not load_segmentation(tmp_path, split="val", skip_missing=True, classes=["ground", "a"]).has_target.any()


@pytest.mark.parametrize("names", [["0.png"], ["0.png", "other.png"]])
def test_several_pictures_of_a_name_are_called_so(tmp_path, names):
    pictures(tmp_path, "images/a/0.png", "images/b/0.png", "images/b/other.png")
    coco(tmp_path / "annotations" / "all.json", names, SQUARES["train"])
    with pytest.raises(
        UserError, match="several are called so: 'images/a/0.png' and 'images/b/0.png'; write the folder"
    ):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_a_linked_folder_of_annotations(tmp_path, inside):
    data = pictures(tmp_path / "data", "images/0.png", "images/1.png")
    real = data / "real" if inside else tmp_path / "elsewhere"
    coco(real / "all.json", ["0.png"], SQUARES["train"])
    (data / "annotations").symlink_to(real, target_is_directory=True)
    (real / "loop").symlink_to(real, target_is_directory=True)
    (data / "again").symlink_to(data / "annotations", target_is_directory=True)
    assert load_segmentation(data).has_target.tolist() == [True, False]


FOLDERS = ["images/train2017 images/val2017", "train_images val_images", "images/train_set images/val_set"]
FOLDERS += ["train2017 val2017", "images/train images/val", "data/training-imgs data/Validation-imgs"]


@pytest.mark.parametrize("folders", FOLDERS)
@pytest.mark.parametrize("opened", [load_segmentation, load_source])
@pytest.mark.parametrize("names", ["alike", "apart"])
def test_folders_that_say_splits_in_more_words(tmp_path, folders, opened, names):
    """Training had the images for validation, without a word."""
    train, val = folders.split()
    first = 0 if names == "alike" else 3
    pictures(tmp_path, *(f"{train}/{i}.png" for i in range(3)), *(f"{val}/{i + first}.png" for i in range(3)))
    coco(tmp_path / "annotations/instances_train2017.json", ["0.png", "1.png"], SQUARES["train"])
    coco(tmp_path / "annotations/instances_val2017.json", [f"{i + first}.png" for i in range(2)], SQUARES["val"])
    pictures(tmp_path, f"{train.replace('train', 'test')}/9.png")  # of which no file says anything
    for split, folder, count in (("train", train, 0), ("val", val, first), ("test", train.replace("train", "test"), 9)):
        source = opened(tmp_path, split=split)
        ids = [f"{folder}/{k}.png" for k in ([9] if split == "test" else range(count, count + 3))]
        assert len(source) == len(ids) and all(a.endswith(b) for a, b in zip(ids, source.ids)), split
        if opened is load_segmentation:
            assert source.has_target.tolist() == ([False] if split == "test" else [True, True, False])


def test_a_class_that_is_called_as_a_split_among_other_words_keeps_its_images(tmp_path):
    pictures(tmp_path, *(f"{folder}/{i}.png" for folder in ("test_tubes", "flasks") for i in range(3)))
    (tmp_path / "test.txt").write_text("test_tubes/0.png\n")
    source = load_source(tmp_path)
    assert len(source) == 5 and source.class_names == ["flasks", "test_tubes"]


def test_an_annotation_file_is_read_for_its_names_once(tmp_path, monkeypatch):
    pictures(tmp_path, *(f"images/{i}.png" for i in range(4)))
    coco(tmp_path / "annotations/instances_train.json", ["0.png", "1.png"], SQUARES["train"])
    coco(tmp_path / "annotations/instances_val.json", ["2.png"], SQUARES["val"])
    read, real = [], split_tables.read_text
    monkeypatch.setattr(split_tables, "read_text", lambda file: read.append(file.name) or real(file))
    assert len(load_source(tmp_path)) == 3 and load_source(tmp_path, split="val").ids == ["images/2.png"]
    assert sorted(read) == ["instances_train.json", "instances_val.json"]
    coco(tmp_path / "annotations/instances_val.json", ["2.png", "3.png"], SQUARES["val"])
    assert load_source(tmp_path, split="val").ids == ["images/2.png", "images/3.png"], "it has changed"
