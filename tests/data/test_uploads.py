"""Exports of Label Studio whose images were uploaded: its server writes their names in its own way."""

import json
import unicodedata

import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation, load_source
from hf_lowlabel.data.files.uploads import Uploads, stored
from hf_lowlabel.data.labels.labels import LabelRules
from hf_lowlabel.labeling.importing import import_labels

NAMES = {  # as they are called -> as they stand in an export
    "cell 14.jpg": "0a1b2c3d-cell_14.jpg",
    "Zelle Nr. 1 (ä).JPG": "deadbeef-Zelle_Nr._1_%C3%A4.JPG",
    "scan #3.PNG": "00000000-scan_3.PNG",
    "plain.png": "12345678-plain.png",
}


def photos(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (40 * i, 0, 0)).save(root / name)
    return root


def export(path, names, value):
    results = [{"original_width": 16, "original_height": 12, **value}]
    tasks = [{"data": {"image": f"/data/upload/1/{name}"}, "annotations": [{"result": results}]} for name in names]
    path.write_text(json.dumps(tasks))
    return path


CLASS = {"type": "choices", "value": {"choices": ["cat"]}}
OUTLINE = {"value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["cat"]}}


def test_what_django_leaves_of_a_name():
    assert stored(" a b(1)+ü.tar.gz") == "a_b1ü.tar.gz"
    decomposed = unicodedata.normalize("NFD", "ä b.png")
    uploads = Uploads(["x/ä b.png", "0a1b2c3d-own.png", "own.png"])
    assert uploads.original("0a1b2c3d-" + stored(decomposed)) == "x/ä b.png" == uploads.original("0a1b2c3d-ä_b.png")
    assert uploads.original("0a1b2c3d-own.png") == "0a1b2c3d-own.png" and uploads.original("a_b.png") == "a_b.png"


def test_labels_of_uploads(tmp_path):
    source = load_source(photos(tmp_path / "photos", *NAMES))
    split, _ = import_labels(export(tmp_path / "e.json", NAMES.values(), CLASS), source=source)
    assert set(split.labeled) == set(NAMES)
    rows = "".join(f"/data/upload/1/{name},cat,{i}\n" for i, name in enumerate(NAMES.values()))
    (tmp_path / "e.csv").write_text("image,choice,annotation_id\n" + rows)
    assert set(import_labels(tmp_path / "e.csv", source=source)[0].labeled) == set(NAMES)


def test_masks_of_uploads(tmp_path):
    photos(tmp_path / "images", *NAMES)
    export(tmp_path / "export.json", NAMES.values(), OUTLINE)
    assert load_segmentation(tmp_path).has_target.all()


def test_names_that_are_stored_alike_are_told(tmp_path):
    source = load_source(photos(tmp_path / "photos", "a b.png", "a_b.png"))
    both = r".Label Studio stores 'a b.png' and 'a_b.png' under one name."
    with pytest.raises(UserError, match=both):
        import_labels(export(tmp_path / "e.json", ["0a1b2c3d-a_b.png"], CLASS), source=source)
    export(photos(tmp_path / "s/images", "a b.png", "a_b.png", "c.png").parent / "e.json", ["c.png"], OUTLINE)
    assert load_segmentation(tmp_path / "s").has_target.tolist() == [False, False, True]
    export(tmp_path / "s/e.json", ["c.png", "0a1b2c3d-a_b.png"], OUTLINE)
    with pytest.raises(UserError, match=both.replace("'a", "'images/a")):
        load_segmentation(tmp_path / "s")


def test_images_that_are_not_there_are_an_error_or_left_out_and_listed(tmp_path):
    names = ["0a1b2c3d-c_1.png", "0a1b2c3d-gone.png"]
    source = load_source(photos(tmp_path / "photos", "c 1.png"))
    path = export(tmp_path / "e.json", names, CLASS)
    with pytest.raises(UserError, match="task 2: no image is '/data/upload/1/0a1b2c3d-gone.png'"):
        import_labels(path, source=source)
    split, found = import_labels(path, source=source, rules=LabelRules(skip_missing=True))
    assert [*split.labeled] == ["c 1.png"]
    assert [name for name, _ in found.left_out] == [f"/data/upload/1/{names[1]}"]  # as the file has it
    export(photos(tmp_path / "s/images", "c 1.png").parent / "e.json", names, OUTLINE)
    with pytest.raises(UserError, match="1 images that .* draw objects for are not there, such as '0a1b2c3d-gone.png'"):
        load_segmentation(tmp_path / "s")
    source = load_segmentation(tmp_path / "s", skip_missing=True)
    assert source.has_target.all() and source.left_out == [(names[1], "there is no such image")]


def test_of_other_tools_too(tmp_path):
    photos(tmp_path / "images", "1.png")
    outline = [[0, 0, 9, 0, 9, 9]]
    images = [{"id": k, "file_name": f"{k}.png", "width": 16, "height": 12} for k in (1, 2, 3)]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}]}
    found = [{"id": k, "image_id": k, "category_id": 1, "segmentation": outline} for k in (1, 2)]
    (tmp_path / "a.json").write_text(json.dumps(content | {"annotations": found}))
    with pytest.raises(
        UserError, match="1 images that .* such as '2.png'. Put them beside the others, or give --skip-"
    ):
        load_segmentation(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(content | {"annotations": found[:1]}))  # listed, with nothing drawn
    assert load_segmentation(tmp_path).has_target.all()
