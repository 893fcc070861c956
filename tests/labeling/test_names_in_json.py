"""Images in folders of their own, as JSON of Label Studio and of scripts names them."""

import json

import pytest
from PIL import Image

from hf_lowlabel.data.opening import load_source
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.label_studio import is_export
from hf_lowlabel.labeling.labels import Asked

IDS = ["001.png", "b/001.png", "c/002.png", "c/my cat.png"]


@pytest.fixture
def folder(tmp_path):
    photos(tmp_path, IDS)
    return tmp_path


def photos(folder, ids):
    for id in ids:
        (folder / "photos" / id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "#" + id.encode().hex()[:6]).save(folder / "photos" / id)


def read(folder, rows):
    path = folder / "mine.json"
    path.write_text(json.dumps(rows))
    return import_labels(path, source=load_source(folder / "photos"), new_classes=True)[1]


def labels_of(folder, rows):
    return read(folder, rows).labels


def task(name, key="image", **more):
    chosen = [{"type": "choices", "value": {"choices": ["dog"]}}]
    return {"data": {**more, key: name}, "annotations": [{"result": chosen}]}


@pytest.mark.parametrize("key", ["image", "photo"])
@pytest.mark.parametrize(
    "name, id",
    [
        ("/data/local-files/?d=photos/b/001.png", "b/001.png"),
        ("/data/local-files/?d=photos/001.png", "001.png"),
        ("/data/local-files/?d=photos%5Cb%5C001.png", "b/001.png"),
        ("https://bucket.org/photos/b/001.png?key=1", "b/001.png"),
        ("s3://bucket/c/002.png", "c/002.png"),
        ("/data/upload/1/0a1b2c3d-002.png", "c/002.png"),
        ("/data/local-files/?d=photos/c/my%20cat.png", "c/my cat.png"),
        ("002.png", "c/002.png"),
    ],
)
def test_the_folder_counts(folder, name, id, key):
    assert labels_of(folder, [task(name, key, text="seen by A. Smith")]) == {id: "dog"}
    assert labels_of(folder, [{key: name, "annotation_id": 3, "choice": "dog", "id": 1}]) == {id: "dog"}


@pytest.mark.parametrize("column", ["image", "image_path", "img", "id", "Image", "file_name"])
def test_a_plain_table_is_no_export(folder, column):
    folder_too = "" if column == "id" else "photos/"  # of a table that lies beside the folder
    rows = [{column: "b/001.png", "label": "dog"}, {column: f"{folder_too}c/002.png", "label": "cat"}]
    assert labels_of(folder, rows) == {"b/001.png": "dog", "c/002.png": "cat"}
    assert not is_export(folder / "mine.json")


def test_an_export_whose_first_task_says_little(folder):
    rows = [{"image": "b/001.png", "id": 1}, {"image": "c/002.png", "id": 2, "mine": {"choices": ["dog"]}}]
    (folder / "mine.json").write_text(json.dumps(rows))
    assert is_export(folder / "mine.json")


def test_a_name_of_two_images_is_none(tmp_path):
    photos(tmp_path, ["a/001.png", "b/001.png"])
    with pytest.raises(UserError, match="task 1: no image is 'x/001.png'"):
        labels_of(tmp_path, [task("/data/local-files/?d=x/001.png")])


def test_the_folder_that_all_names_lie_in_is_none_of_the_images(folder):
    """Of photos/001.png and photos/b/001.png the former is no picture of b/."""
    names = {"001.png": "001.png", "b/001.png": "b/001.png", "c/my%20cat.png": "c/my cat.png"}
    tasks = [task(f"/data/local-files/?d=all/photos/{name}") for name in names]
    assert labels_of(folder, tasks) == dict.fromkeys(names.values(), "dog")
    with pytest.raises(UserError, match="no image is 'gone/001.png'"):
        labels_of(folder, [task("/data/local-files/?d=gone/001.png"), task("/data/local-files/?d=b/001.png")])


def test_what_is_matched_loosely_is_said(folder):
    assert read(folder, [task("/data/local-files/?d=photos/b/001.png")]).notes[0] == (
        "1 file names are matched by the end they share with an image, such as 'photos/b/001.png' with 'b/001.png'"
    )


def test_the_names_that_select_wrote_need_no_remark(tmp_path):
    Asked("photos", None, {"0000_a.png": "x/a.png"}).save(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps([task("/data/local-files/?d=images/0000_a.png")]))
    _, found = import_labels(tmp_path / "mine.json")
    assert found.labels == {"x/a.png": "dog"} and not found.notes
