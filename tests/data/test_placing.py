"""Pictures that annotations name with folders, and files of one picture each in folders of their own."""

import json
import warnings

import pytest
from PIL import Image
from tiny_sets import pictures

from hf_lowlabel import UserError, load_segmentation

POINTS = [[1, 1], [6, 1], [6, 6]]


def labelme(root, file, name):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps({"imagePath": name, "shapes": [{"label": "a", "points": POINTS}]}))


def coco(root, *names):
    a = [
        {"image_id": k, "category_id": 1, "segmentation": [[v for pair in POINTS for v in pair]]}
        for k in range(len(names))
    ]
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    content = {"images": images, "annotations": a, "categories": [{"id": 1, "name": "a"}]}
    (root / "all.json").write_text(json.dumps(content))


def cvat(root, *names):
    points = ";".join(f"{x},{y}" for x, y in POINTS)
    shapes = "".join(f'<image name="{n}"><polygon label="a" points="{points}"/></image>' for n in names)
    (root / "all.xml").write_text(f"<annotations>{shapes}</annotations>")


def studio(root, *names):
    value = {"points": [[12 * x, 12 * y] for x, y in POINTS], "polygonlabels": ["a"]}
    tasks = [
        {"data": {"image": f"/data/local-files/?d={n}"}, "annotations": [{"result": [{"value": value}]}]} for n in names
    ]
    (root / "all.json").write_text(json.dumps(tasks))


FILES = {"coco": coco, "cvat": cvat, "studio": studio}


def labeled(source):
    return [id for id, has in zip(source.ids, source.has_target) if has]


@pytest.mark.parametrize("images, labels", [("images/", "labels/"), ("", "labels/"), ("cams/", "json/")])
@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("path", ["../../{}b/1.jpg", "1.jpg", "..\\photos\\1.jpg"])
def test_labelme_of_a_deleted_picture_is_not_drawn_on_one_of_another_folder(tmp_path, images, labels, others, path):
    """b/1.jpg is gone, and a/1.jpg has no annotation; others: b/2.jpg is there."""
    pictures(tmp_path, f"{images}a/1.jpg", f"{images}a/2.jpg", *[f"{images}b/2.jpg"] * others)
    labelme(tmp_path, f"{labels}b/1.json", path.format(images))
    labelme(tmp_path, f"{labels}a/2.json", f"../../{images}a/2.jpg")
    with pytest.raises(UserError, match=r"1 images .* are not there.*1.jpg.*in another folder"):
        load_segmentation(tmp_path)
    assert [id[-7:] for id in labeled(load_segmentation(tmp_path, skip_missing=True))] == ["a/2.jpg"]


@pytest.mark.parametrize("path", ["../../images/b/1.jpg", "..\\..\\images\\b\\1.jpg"])
def test_labelme_knows_its_picture_by_the_folders_of_either_name(tmp_path, path):
    pictures(tmp_path, "images/a/1.jpg", "images/b/1.jpg")
    labelme(tmp_path, "json/any/first.json", path)
    assert labeled(load_segmentation(tmp_path))[0].endswith("b/1.jpg")


def test_labelme_that_was_moved_with_its_picture(tmp_path):
    pictures(tmp_path, "b/1.jpg", "a/2.jpg", "pics/3.jpg", "pics/4.jpg")
    labelme(tmp_path, "b/1.json", "..\\a\\1.jpg")
    labelme(tmp_path, "a/2.json", "2.jpg")
    labelme(tmp_path, "pics/json/3.json", "..\\3.jpg")
    labelme(tmp_path, "pics/json/4.json", "..\\photos\\4.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labeled(load_segmentation(tmp_path)) == ["a/2.jpg", "b/1.jpg", "pics/3.jpg", "pics/4.jpg"]


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize("place", ["", "images/"])
@pytest.mark.parametrize("there", ["cam1/1.png", "cam2/1.png"])
def test_a_picture_of_a_folder_is_not_one_without(tmp_path, tool, place, there):
    """cam2/4.png is gone, and 4.png is another picture: other names are found in their folders, or cam2/ has others."""
    pictures(tmp_path, f"{place}{there}", f"{place}4.png")
    FILES[tool](tmp_path, *(["cam1/1.png"] if there == "cam1/1.png" else []), "cam2/4.png")
    said = "1 images .*" if there == "cam1/1.png" else "None of the 1 images .*"
    with pytest.raises(UserError, match=said + "'cam2/4.png'.*there is '(images/)?4.png', in another folder"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize("place", ["", "images/"])
def test_pictures_that_left_their_folders_are_found_and_it_is_said(tmp_path, tool, place):
    pictures(tmp_path, f"{place}1.png", f"{place}4.png")
    FILES[tool](tmp_path, "cam1/1.png", "cam2/4.png")
    with pytest.warns(UserWarning, match="2 of 2 file names in the annotations .* by the end .* 'cam1/1.png' with"):
        assert load_segmentation(tmp_path).has_target.all()


def test_where_pictures_of_masks_count_nothing_is_said_of_names(tmp_path):
    pictures(tmp_path, "images/1.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8), 1).save(tmp_path / "masks" / "1.png")
    coco(tmp_path, "cam1/1.png")
    with pytest.warns(UserWarning) as said:
        assert load_segmentation(tmp_path, classes=["ground", "a"]).mask(0).all()
    assert not [w for w in said if "by the end" in str(w.message)]


@pytest.mark.parametrize("images, labels", [("images/{}", "labels/{}"), ("{}", "{}/json"), ("{}/images", "{}/labels")])
@pytest.mark.parametrize("there", [False, True])
def test_labelme_that_says_the_folder_its_picture_was_in_before(tmp_path, images, labels, there):
    """Moved into another split, both; where there is a picture of the name in the old folder, that is meant."""
    old, new = images.format("train"), images.format("val")
    pictures(tmp_path, f"{old}/1.jpg", f"{new}/2.jpg", f"{new}/3.jpg", *[f"{old}/2.jpg"] * there)
    labelme(tmp_path, f"{labels.format('val')}/2.json", f"../../{old}/2.jpg")
    labelme(tmp_path, f"{labels.format('val')}/3.json", "3.jpg")
    labelme(tmp_path, f"{labels.format('train')}/1.json", f"../../{old}/1.jpg")
    found = [id[-5:] for id in labeled(load_segmentation(tmp_path, split="val"))]
    assert found == ["3.jpg"] if there else ["2.jpg", "3.jpg"]
    assert [id[-5:] for id in labeled(load_segmentation(tmp_path))] == ["1.jpg"] + ["2.jpg"] * there
