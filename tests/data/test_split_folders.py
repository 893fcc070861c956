"""Folders whose names say a split among other words are opened as splits, and classes are not."""

import json
import warnings

import pytest
from PIL import Image

from hf_lowlabel import Config, load_segmentation, load_source
from hf_lowlabel.errors import MissingSplit, UserError
from hf_lowlabel.tasks import get_task


def pictures(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def several(path, split="train"):
    config = Config.from_flat("finetune", {"dataset": str(path), "task": "multilabel", "dataset_split": split})
    return get_task("multilabel").open(config.data)


FOLDERS = ["training_set test_set", "seg_train seg_test", "train_images test_images", "train2017 test2017"]
FOLDERS += ["trainset testset", "Train-Data holdout", "train test_images", "xray_training xray_tst"]


@pytest.mark.parametrize("folders", FOLDERS)
@pytest.mark.parametrize("opened", [load_source, several])
def test_folders_of_splits_among_other_words(tmp_path, folders, opened):
    """They were two classes, and test images were learned from."""
    train, test = folders.split()
    pictures(
        tmp_path, *(f"{folder}/{kind}/{i}.png" for folder in (train, test) for kind in ("cat", "dog") for i in "01")
    )
    for split in ("train", "test"):
        source = opened(tmp_path, split=split)
        assert source.ids == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"], split
    assert load_source(tmp_path).class_names == ["cat", "dog"]
    with pytest.raises(MissingSplit):
        opened(tmp_path, split="val")


def test_flat_folders_whose_table_is_of_training_alone(tmp_path):
    """Cassava's."""
    pictures(tmp_path, *(f"train_images/{i}.png" for i in range(3)), *(f"test_images/{i}.png" for i in (7, 8)))
    (tmp_path / "train.csv").write_text("image_id,label\n0.png,a\n1.png,b\n2.png,a\n")
    source = load_source(tmp_path)
    assert source.ids == ["0.png", "1.png", "2.png"] and source.labels.tolist() == [0, 1, 0]
    assert load_source(tmp_path, split="test").ids == ["7.png", "8.png"]


@pytest.mark.parametrize("opened", [load_source, load_segmentation])
def test_folders_of_years_of_which_one_has_annotations(tmp_path, opened):
    pictures(tmp_path, *(f"{split}2017/{i}.png" for i, split in enumerate(("train", "train", "val", "test"))))
    said = {"images": [{"id": i, "file_name": f"{i}.png"} for i in (0, 1)]}
    said |= {"categories": [{"id": 1, "name": "a"}]}
    said |= {"annotations": [{"image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(said))
    assert opened(tmp_path).ids == ["0.png", "1.png"]
    assert opened(tmp_path, split="val").ids == ["2.png"] and opened(tmp_path, split="test").ids == ["3.png"]


CLASSES = ["train test_tube", "training_shoes test_tube", "train car bus test_drive", "train_station fire_station"]
CLASSES += ["train training_shoes", "valid_ticket old_ticket", "train_masks2 test_tubes cat"]


@pytest.mark.parametrize("names", CLASSES)
def test_classes_whose_names_have_such_words_stay_classes(tmp_path, names):
    pictures(tmp_path, *(f"{name}/{i}.png" for name in names.split() for i in "01"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_source(tmp_path).class_names == sorted(names.split())


def test_two_folders_of_one_split_are_asked_about(tmp_path):
    pictures(tmp_path, *(f"{kind}_{split}/0.png" for kind in ("cat", "dog") for split in ("train", "test")))
    for opened in (load_source, several):
        with pytest.raises(UserError, match="cat_test/, dog_test/ in .* beside cat_train, dog_train may be a split"):
            opened(tmp_path)


def test_a_folder_of_test_images_beside_no_training_is_told(tmp_path):
    pictures(tmp_path, "cat/0.png", "dog/0.png", "test_images/0.png")
    with pytest.warns(UserWarning, match="test_images/ in .* beside cat, dog is read as one folder of images more"):
        load_source(tmp_path)


def test_a_folder_of_a_year_alone_is_no_class(tmp_path):
    source = load_source(pictures(tmp_path, "train2017/cat/0.png", "train2017/dog/1.png"))
    assert source.ids == ["cat/0.png", "dog/1.png"] and source.class_names == ["cat", "dog"]


@pytest.mark.parametrize("opened", [load_source, several])
def test_splits_in_the_only_folder_of_images(tmp_path, opened):
    """YOLO's images/ without a data.yaml: images for validation were learned from."""
    pictures(tmp_path, "images/train/0.png", "images/train/1.png", "images/val/2.png")
    (tmp_path / "labels").mkdir()
    assert opened(tmp_path).ids == ["0.png", "1.png"] and opened(tmp_path, split="val").ids == ["2.png"]


@pytest.mark.parametrize("opened", [load_source, several])
def test_folders_that_an_archive_has_twice(tmp_path, opened):
    """Kaggle's training_set/training_set/cats/."""
    for split in ("training_set", "test_set"):
        pictures(tmp_path, *(f"{split}/{split}/{kind}/{split}.png" for kind in ("cats", "dogs")))
    assert opened(tmp_path).ids == ["cats/training_set.png", "dogs/training_set.png"]
    assert opened(tmp_path, split="test").ids == ["cats/test_set.png", "dogs/test_set.png"]
    assert load_source(tmp_path).class_names == ["cats", "dogs"]
