"""Folders whose names are spelled in Unicode's NFD form, as a Mac hands them over, while ids are in NFC."""

import json
import unicodedata
import warnings

import pytest
from PIL import Image

from hf_lowlabel import load_segmentation

SHAPE = {"label": "cat", "points": [[0, 0], [4, 0], [4, 4], [0, 4]], "shape_type": "polygon"}
COCO = {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "category_id": 1, "id": 1, "image_id": 1}


def nfd(text):
    return unicodedata.normalize("NFD", text)


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 8), 1).save(path)


def coco(path, name):
    image = {"id": 1, "file_name": name, "width": 8, "height": 8}
    content = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [COCO]}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("tool", ["labelme", "coco"])
def test_annotations_beside_images_of_one_name(tmp_path, tool):
    for folder in ("é", "ü"):
        picture(tmp_path / nfd(folder) / "1.png")
        if tool == "coco":
            coco(tmp_path / nfd(folder) / "a.json", "1.png")
    if tool == "labelme":
        content = {"shapes": [SHAPE], "imagePath": "1.png", "imageWidth": 8, "imageHeight": 8}
        (tmp_path / nfd("ü") / "1.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = load_segmentation(tmp_path)
    assert source.ids == ["é/1.png", "ü/1.png"] and source.has_target.tolist() == [tool == "coco", True]


@pytest.mark.parametrize("masks", [False, True])
def test_a_split_that_is_asked_for_by_its_name(tmp_path, masks):
    """With pictures of masks too, which count."""
    for root in ("train", nfd("prüfung")):
        inner = "images" if masks else "cat"
        picture(tmp_path / root / inner / "1.png")
        if masks:
            picture(tmp_path / root / "masks/1.png", "L")
    coco(tmp_path / "a.json", f"{nfd('prüfung')}/{inner}/1.png")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        source = load_segmentation(tmp_path, split=nfd("prüfung"), classes=["background", "cat"] if masks else None)
    assert source.has_target.tolist() == [True]
    assert masks == any("both pictures of masks" in str(one.message) for one in told)
