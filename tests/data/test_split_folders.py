"""Folders whose names say a split among other words are opened as splits, and classes are not."""

import json
import warnings

import pytest
from tiny_sets import pictures, several

from hf_lowlabel import load_segmentation, load_source
from hf_lowlabel.errors import MissingSplit, UserError
from hf_lowlabel.labeling.mask_places import find_places

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


def in_archive(root, *said):
    """Flat folders of splits in ds/, and files of (name, text)."""
    pictures(root, *(f"ds/{split}/{split}{i}.png" for split in ("train", "test") for i in range(3)))
    for name, text in said:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


TRAIN, TEST = "file_name,label\ntrain0.png,a\ntrain1.png,b\n", "file_name,label\ntest0.png,b\ntest1.png,a\n"
BOTH = "file_name,label\n" + "".join(f"{one}/{one}{i}.png,{'ab'[i]}\n" for one in ("train", "test") for i in (0, 1))


@pytest.mark.parametrize(
    "said",
    [
        [("ds/train.csv", TRAIN), ("ds/test.csv", TEST)],
        [("ds/metadata.csv", BOTH)],
        [("ds/metadata.csv", BOTH), ("README.txt", "Read me."), ("license.txt", "MIT"), ("docs/a.md", "x")],
    ],
)
def test_what_lies_in_the_folder_of_an_archive_is_read(tmp_path, said):
    """All images were unlabeled."""
    in_archive(tmp_path / "photos", *said)
    source = load_source(tmp_path / "photos")
    assert source.name == "photos" and source.ids == [f"train{i}.png" for i in range(3)]
    assert source.labels.tolist() == [0, 1, -1] and source.class_names == ["a", "b"]
    assert load_source(tmp_path / "photos", split="test").has_target.sum() == 2
    assert several(tmp_path / "photos").labels.tolist() == [[1, 0], [0, 1], [-1, -1]]


@pytest.mark.parametrize("folder", ["ds", "images"])
def test_lists_in_the_folder_of_an_archive_hold_images_out(tmp_path, folder):
    in_archive(tmp_path, ("ds/val.txt", "train/train0.png\n"))
    (tmp_path / "ds").rename(tmp_path / folder)
    for opened in (load_source, several):
        assert opened(tmp_path).ids == ["train1.png", "train2.png"]
        assert opened(tmp_path, split="val").ids == ["train0.png"]


def test_masks_in_the_folder_of_an_archive(tmp_path):
    pictures(tmp_path, *(f"ds/{s}/{kind}/{s}.png" for s in ("train", "test") for kind in ("images", "masks")))
    assert load_segmentation(tmp_path, classes=["a", "b"], split="test").ids == ["test.png"]


def test_lists_inside_that_are_unread_where_masks_are_painted_are_told(tmp_path):
    """Once masks lie beside the images, the folder that is given is opened itself, and the list was not read."""
    in_archive(tmp_path, ("ds/val.txt", "train/train0.png\n"))
    with pytest.warns(UserWarning, match="val.txt in ds/ may say labels or splits.* Give '.*ds'"):
        find_places(tmp_path)
    assert [*find_places(tmp_path / "ds")] == ["train1.png", "train2.png"]
    pictures(tmp_path, "ds/train/train0_mask.png")
    with pytest.warns(UserWarning, match="val.txt in ds/ may say labels or splits"):
        load_segmentation(tmp_path, classes=["a", "b"])
    (tmp_path / "ds/val.txt").unlink()
    assert len(find_places(tmp_path)) == len(load_segmentation(tmp_path, classes=["a", "b"])) == 3


@pytest.mark.parametrize("opened", [load_source, several])
def test_files_inside_that_are_unread_beside_those_outside_are_told(tmp_path, opened):
    in_archive(tmp_path, ("ds/metadata.csv", BOTH), ("splits.csv", "file_name,split\nds/train/train0.png,val\n"))
    with pytest.warns(UserWarning, match="metadata.csv in ds/ may say labels or splits, and is not read"):
        assert len(opened(tmp_path)) == 2 and opened(tmp_path, split="val").ids[0] == "ds/train/train0.png"
    (tmp_path / "splits.csv").unlink()
    assert len(opened(tmp_path)) == 3


@pytest.mark.parametrize(
    "name", ["environment.yml", ".gitlab-ci.yml", "sample_submission.csv", "logs/run1.json", "._labels.csv"]
)
def test_files_of_something_else_outside_do_not_hide_those_inside(tmp_path, name):
    (tmp_path / "logs").mkdir()
    in_archive(tmp_path, ("ds/metadata.csv", BOTH), (name, "a,b\n1,2\n"))
    assert load_source(tmp_path).has_target.sum() == 2 and len(load_source(tmp_path)) == 3


@pytest.mark.parametrize("name", ["info.json", "readme.xml", "._metadata.csv"])
def test_files_of_something_else_inside_cost_nothing(tmp_path, name):
    pictures(tmp_path, *(f"images/{split}/{i}.png" for split in ("train", "val") for i in "01"))
    rows = "".join(f"images/{s}/{i}.png,{'ab'[int(i)]},{s}\n" for s in ("train", "val") for i in "01")
    (tmp_path / "metadata.csv").write_text(f"file_name,label,split\n{rows}")
    (tmp_path / "images" / name).write_text("{}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*may say labels")
        assert load_source(tmp_path).labels.tolist() == [0, 1] and len(load_source(tmp_path, split="val")) == 2


def test_one_class_that_may_be_a_folder_around_the_classes_is_told(tmp_path):
    pictures(tmp_path, *(f"PetImages/{kind}/{i}.png" for kind in ("Cat", "Dog") for i in "01"))
    with pytest.warns(UserWarning, match="one class, 'PetImages', which is a folder with Cat, Dog in it. Give"):
        assert load_source(tmp_path).class_names == ["PetImages"]


@pytest.mark.parametrize("opened", [load_source, several])
def test_an_image_beside_the_only_folder_of_splits_is_asked_about(tmp_path, opened):
    """All was one class, images, with those for validation in it."""
    pictures(tmp_path, "._preview.png", "images/train/0.png", "images/val/1.png")
    assert opened(tmp_path).ids == ["0.png"]
    pictures(tmp_path, "preview.png")
    with pytest.raises(UserError, match="preview.png in .* lies beside the folder images/.* Give '.*images'"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "names, odd",
    [
        ("dev_board train_board cpu_board", "dev_board/, train_board/"),
        ("train_a test_a other", "test_a/, train_a/"),
        ("bullet_train bullet_test cat", "bullet_test/, bullet_train/"),
        ("train1 test1 other", "test1/, train1/"),
    ],
)
@pytest.mark.parametrize("opened", [load_source, several])
def test_two_classes_that_share_a_word_are_asked_about(tmp_path, names, odd, opened):
    """They were splits, and all other classes were left out."""
    pictures(tmp_path, *(f"{name}/{i}.png" for name in names.split() for i in "01"))
    with pytest.raises(UserError, match=f"^{odd} in .* beside {names.split()[-1]} may be splits, or classes"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        "seg_train/a/0 seg_train/b/1 seg_test/a/2 seg_pred/3",  # Intel's
        "train2017/0 train2017/1 val2017/2 unlabeled2017/3",  # COCO's
        "train_images/0 train_images/1 test_images/2 others/3",
    ],
)
def test_folders_beside_sure_splits_are_left_out(tmp_path, names):
    pictures(tmp_path, *(f"{name}.png" for name in names.split()))
    with pytest.warns(UserWarning, match="are read as splits, and the images in .* beside them are left out"):
        assert len(load_source(tmp_path)) == 2


@pytest.mark.parametrize("around", ["images", "archive"])
def test_folders_that_are_all_held_out_are_not_learned_from(tmp_path, around):
    pictures(tmp_path, *(f"{around}/{split}/{kind}/0.png" for split in ("val", "test") for kind in ("cat", "dog")))
    with pytest.raises(MissingSplit):
        load_source(tmp_path)
    assert load_source(tmp_path, split="test").class_names == ["cat", "dog"]
