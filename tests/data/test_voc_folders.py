"""Folders laid out as PASCAL VOC's by others: CVAT's exports, classes of one's own."""

import warnings

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import Config, UserError, load_segmentation
from hf_lowlabel.data.masks.voc import VOC_CLASSES
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.tasks import get_task

LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:250,50,83::\nnucleus:51,221,255::\n"
COLORS = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
TRUE = np.zeros((12, 16), np.uint8)
TRUE[2:10, 2:14] = 1
TRUE[4:6, 4:6] = 2


def written(kind):
    if kind == "RGB":
        return Image.fromarray(COLORS[TRUE])
    image = Image.fromarray(TRUE)
    if kind == "P":
        image = Image.fromarray(TRUE).convert("P")
        image.putpalette(COLORS.ravel().tolist())
    return image


def voc(root, kind="P", lists=None, labelmap="", ids=("a", "b", "c"), masked=2):
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for k, id in enumerate(ids):
        Image.new("RGB", (16, 12), "gray").save(root / f"JPEGImages/{id}.jpg")
        if k < masked:
            written(kind).save(root / f"SegmentationClass/{id}.png")
    for name, named in (lists or {}).items():
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(named) + "\n")
    if labelmap:
        (root / "labelmap.txt").write_text(labelmap)
    return root


@pytest.mark.parametrize("kind", ["RGB", "P", "L"])
def test_names_and_colours_of_cvat(tmp_path, kind):
    root = voc(tmp_path, kind, {"train": ["a", "b", "c"]}, LABELMAP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = load_segmentation(root)
    assert source.class_names == ["background", "cell", "nucleus"] and (source.mask(0) == TRUE).all()


def test_names_of_cvat_may_be_given_in_another_order(tmp_path):
    root = voc(tmp_path / "photos", "RGB", {"train": ["a"]}, LABELMAP)
    order = ["nucleus", "background", "cell"]
    (tmp_path / "classes.txt").write_text("\n".join(order))
    for given in (order, tmp_path / "classes.txt"):
        assert (load_segmentation(root, classes=given).mask(0) == np.array([1, 2, 0])[TRUE]).all()
    with pytest.raises(UserError, match="no colour for class 'core'"):
        load_segmentation(root, classes=["background", "cell", "core"])
    (tmp_path / "classes.txt").write_text(LABELMAP.replace("cell", "plasma"))
    assert load_segmentation(root, classes=tmp_path / "classes.txt").class_names[1] == "plasma"


@pytest.mark.parametrize("name", ["default", "trainaug", "all_of_them"])
def test_the_one_list_is_that_of_the_training_images(tmp_path, name):
    root = voc(tmp_path, lists={name: ["a", "b"]})
    with pytest.warns(UserWarning) as said:
        source = load_segmentation(root, classes=["x", "y", "z"])
    texts = " ".join(str(warning.message) for warning in said)
    assert f"{name}.txt is the one list in ImageSets/Segmentation" in texts and source.ids == ["a", "b"]
    assert "1 of 3 photos in JPEGImages/" in texts and "--dataset-split all" in texts
    with pytest.raises(MissingSplit):
        load_segmentation(root, split="test", classes=["x", "y", "z"])


def test_without_a_list_all_photos_are_for_training(tmp_path):
    with pytest.warns(UserWarning, match="There is no list in ImageSets/Segmentation"):
        assert load_segmentation(voc(tmp_path), classes=["x", "y", "z"]).ids == ["a", "b", "c"]


@pytest.mark.parametrize("lists", [{"val": ["a"]}, {"one": ["a"], "two": ["b"]}])
def test_lists_that_may_mean_another_split_are_not_taken(tmp_path, lists):
    with pytest.raises(MissingSplit, match="known: all, "):
        load_segmentation(voc(tmp_path, lists=lists), classes=["x", "y", "z"])


@pytest.mark.parametrize(
    "name, ids, theirs",
    [
        ("photos", ("2007_000032", "2011_003271"), True),
        ("VOC2007", ("000032", "000063"), True),
        ("photos", ("000032", "000063"), False),
        ("VOC2012", ("2007_000032", "mine"), False),
        ("photos", ("a", "b"), False),
    ],
)
def test_the_names_of_voc_are_for_its_own_photos(tmp_path, name, ids, theirs):
    root = voc(tmp_path / name, lists={"train": ids}, ids=ids)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source = load_segmentation(root)
    assert source.class_names == (VOC_CLASSES if theirs else ["class 0", "class 1", "class 2"])
    assert any("Name the classes with --classes, or in labelmap.txt" in str(w.message) for w in said) is not theirs


def test_pretraining_on_photos_without_names_says_nothing_of_them(tmp_path):
    root = voc(tmp_path, lists={"train": ["a", "b", "c"]})
    data = Config.from_flat("pretrain", {"dataset": str(root), "task": "segmentation"}).data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(get_task("segmentation").open_images(data)) == 3


@pytest.mark.parametrize("flag", ["1", "-1", "0", "+"])
def test_numbers_after_a_photo_are_no_photos(tmp_path, flag):
    root = voc(
        tmp_path,
        lists={"train": [f"c {flag}", f"a  {flag}"], "val": ["1", "-1", "0", "+"]},
        ids=("c", "a", "1", "-1", "0", "+"),
    )
    assert load_segmentation(root, classes=["x", "y", "z"]).ids == ["a", "c"]


@pytest.mark.parametrize(
    "lines",
    [
        ["/JPEGImages/a.jpg /SegmentationClass/a.png", "/JPEGImages/b.jpg /SegmentationClass/b.png"],
        ["JPEGImages/a.jpg", "b.jpg"],
        ["a b"],
        ["a.jpg b.jpg"],
        ["JPEGImages/a.jpg 1", "b 0.5"],
    ],
)
def test_lists_name_photos_as_published_lists_do(tmp_path, lines):
    root = voc(tmp_path, lists={"train": lines, "val": ["c"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_segmentation(root, classes=["x", "y", "z"]).ids == ["a", "b"]


def test_a_photo_that_a_list_lacks_is_an_error(tmp_path):
    with pytest.raises(UserError, match="1 ids in the list 'train' are without an image .* such as 'd 1'"):
        load_segmentation(voc(tmp_path, lists={"train": ["a", "d 1"]}), classes=["x", "y", "z"])


@pytest.mark.parametrize("held", ["val", "Test", "validation"])
def test_a_photo_in_the_lists_of_two_splits(tmp_path, held):
    root = voc(tmp_path, lists={"train": ["a", "b"], held: ["JPEGImages/b.jpg", "c"], "trainval": ["a", "b", "c"]})
    with pytest.raises(UserError, match="'b' is in .*txt and in .*txt of ImageSets/Segmentation. Keep one of them"):
        load_segmentation(root, classes=["x", "y", "z"])
    assert len(load_segmentation(root, split="all", classes=["x", "y", "z"])) == 3


def test_photos_of_one_name_in_two_folders_of_a_list(tmp_path):
    root = voc(tmp_path, lists={"train": ["c.jpg"]}, ids=("a",))
    for folder in ("s", "t"):
        (root / "JPEGImages" / folder).mkdir()
        Image.new("RGB", (16, 12)).save(root / f"JPEGImages/{folder}/c.jpg")
    with pytest.raises(UserError, match="2 photos in JPEGImages/ are called 'c'. Write whole ids"):
        load_segmentation(root, classes=["x", "y", "z"])
