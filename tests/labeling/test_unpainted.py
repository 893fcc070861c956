"""Images beside which no painted mask can be put: said before anything is chosen or painted, and nothing is lost."""

import json
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_places import find_places
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.ladder.rounds import loop

from .conftest import paint

SQUARE = [[2, 2], [12, 2], [12, 12], [2, 12]]


def labelme(folder, names):
    for name in names:
        shape = {"label": "disc", "points": SQUARE, "shape_type": "polygon"}
        said = {"version": "5", "imagePath": name, "imageHeight": 16, "imageWidth": 16, "shapes": [shape]}
        (folder / name).with_suffix(".json").write_text(json.dumps(said))


def coco(folder, names):
    images = [{"id": k, "file_name": name, "width": 16, "height": 16} for k, name in enumerate(names)]
    corners = [[float(v) for point in SQUARE for v in point]]
    objects = [{"id": k, "image_id": k, "category_id": 1, "segmentation": corners} for k in range(len(names))]
    said = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "_annotations.coco.json").write_text(json.dumps(said))


@pytest.mark.parametrize("tool", [labelme, coco])
def test_masks_that_annotations_draw_are_not_painted_over(tmp_path, monkeypatch, backbone, caplog, capsys, tool):
    monkeypatch.chdir(tmp_path)
    names = paint(tmp_path / "lm", 8)
    tool(tmp_path / "lm", names[:4])
    argv = ["--task", "segmentation", "--model", backbone, "--dataset", "lm", "--device", "cpu"]
    assert main(["select", *argv, "--budget", "2", "--output", "out"]) == 0
    out, err = capsys.readouterr()
    assert "with the tool they are from" in err + caplog.text and "hf-lowlabel label" not in out
    asked = Asked.load("out")
    assert not {*asked.files.values()} & {*names[:4]} and "disc" in asked.class_names  # those that are drawn are known
    assert main(["label", "out", "--no-browser"]) == 2 and "into the same folder" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "out")  # from where nobody knows where the images are
    assert main(["label", ".", "--no-browser"]) == 2 and "no painted mask" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["label", "lm", "--task", "segmentation", "--no-browser"]) == 2
    with pytest.raises(UserError, match="into the same folder"):
        loop("lm", backbone, "rounds", task="segmentation", device="cpu")
    for file in (tmp_path / "lm").glob("*.json"):
        file.unlink()
    assert session_of("out", None, [], None, 4).asked == asked  # where nothing is in the way any more


@pytest.mark.parametrize("inside", ["images", "images/train", "imgs"])
def test_masks_that_lie_beside_the_folder_are_not_given_twice(tmp_path, monkeypatch, backbone, capsys, inside):
    monkeypatch.chdir(tmp_path)
    names = paint(tmp_path / "photos" / inside, 4)
    masks = tmp_path / "photos" / inside.replace("images", "masks").replace("imgs", "masks")
    masks.mkdir(parents=True)
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(masks / names[0])
    folder, whole = f"photos/{inside}", repr(str(tmp_path / "photos"))
    argv = ["--task", "segmentation", "--model", backbone, "--device", "cpu"]
    assert main(["select", *argv, "--dataset", folder, "--budget", "2", "--output", "out"]) == 2
    assert whole in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["label", folder, "--task", "segmentation", "--no-browser"]) == 2
    assert whole in capsys.readouterr().err
    assert main(["loop", folder, *argv, "--output-dir", "rounds"]) == 2 and whole in capsys.readouterr().err
    assert main(["auto", "--dataset", folder, *argv, "--output-dir", "run"]) == 2
    assert whole in capsys.readouterr().err
    assert [p.mask.is_file() for p in find_places(tmp_path / "photos").values()] == [True, False, False, False]
    assert main(["select", *argv, "--dataset", "photos", "--budget", "2", "--output", "out"]) == 0
    monkeypatch.setattr("hf_lowlabel.labeling.pages.serve", lambda *_: None)
    assert main(["label", "out", "--no-browser"]) == 0
    (masks / names[0]).unlink()
    assert main(["split", "--task", "segmentation", "--from", "out", "--dataset", folder]) == 2


def yolo(base, inside, line):
    names = paint(base / "images" / inside, 2)
    (base / "labels" / inside).mkdir(parents=True)
    for name in names:
        (base / "labels" / inside / name).with_suffix(".txt").write_text(line)


@pytest.mark.parametrize("inside", ["", "train"])
def test_boxes_beside_the_images_are_no_masks(tmp_path, inside):
    yolo(tmp_path / "boxes", inside, "0 0.5 0.5 0.2 0.2\n")
    images = tmp_path / "boxes" / "images"
    for folder in (images, images / inside):
        places = find_places(folder)
        assert {place.mask.parent for place in places.values()} == {images / inside} and len(places) == 2
    with pytest.raises(UserError, match=f"draw no object.*To paint masks .* give '{images / inside}' alone"):
        find_places(tmp_path / "boxes")
    page = session_of(images, "segmentation", ["a", "b"], None, 4)
    page.save({"file": next(iter(page.places))}, zlib.compress(np.eye(16, dtype=np.uint8).tobytes()))
    assert load_segmentation(images, classes=["a", "b"]).has_target.tolist() == [True, False]


@pytest.mark.parametrize("inside", ["", "train"])
def test_outlines_beside_the_images_are_their_masks(tmp_path, inside):
    yolo(tmp_path / "seg", inside, "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(UserError, match="lie in labels/ beside images/"):
        find_places(tmp_path / "seg" / "images" / inside)
    paint(tmp_path / "new" / "images", 1)
    (tmp_path / "new" / "masks").mkdir()  # which are to come
    with pytest.raises(UserError, match="lie in masks/ beside images/"):
        find_places(tmp_path / "new" / "images")
