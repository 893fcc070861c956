"""What is done for each image never goes through all images or all classes again."""

import difflib
import json
import random
import warnings

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import load_segmentation
from hf_lowlabel.data.files import table_files
from hf_lowlabel.data.splits.splits import Split, warn_without_label
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling import labels
from hf_lowlabel.selection.strategies import MOST_COMPARED, cells, identical
from hf_lowlabel.selection.verbs import Selection


class Unsearched(list):
    """A list in which nothing is looked for one by one."""

    def __contains__(self, item):
        raise AssertionError("a list of all classes is searched for every label")


def test_a_split_is_short_to_show_and_its_classes_are_not_searched():
    names = Unsearched(f"class {k}" for k in range(2000))
    split = Split("photos", names, {f"{k}.jpg": f"class {k % 1000}" for k in range(200_000)}, test=["t.jpg"])
    assert repr(split) == "Split('photos', labeled=200000, validation=0, test=1, classes=2000)"
    with pytest.warns(UserWarning, match="1000 of 2000 classes have no labeled image") as said:
        warn_without_label(split)
    assert len(str(said[0].message)) < 1500
    assert len(repr(Selection("to_label", [f"{k}.jpg" for k in range(10_000)], {"images": 3}))) < 100


def test_names_near_a_wrong_one_are_looked_for_as_often_as_they_are_shown(tmp_path, monkeypatch):
    asked = labels.Asked("photos", None, {f"{k:04d}.jpg": f"{k}.jpg" for k in range(400)}, class_names=["a", "b"])
    searched, real = [], difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", lambda *a, **k: searched.append(a[0]) or real(*a, **k))
    table = tmp_path / "labels.csv"
    table.write_text("file_name,label\n" + "".join(f"x{k}y.png,a\n" for k in range(400)))
    with pytest.raises(UserError, match="faults in labels.csv"):
        labels.read_labels(table, asked)
    assert 0 < len(searched) <= labels.SHOWN
    searched.clear()
    table.write_text("file_name,label\n" + "".join(f"{k:04d}.jpg,kind {k}\n" for k in range(400)))
    with pytest.raises(UserError, match=r"row 3: 'kind 1' \(1 labels\) is no class; did you mean 'kind 0'"):
        labels.read_labels(table, asked, classes=["kind 0", "b"])
    assert len(searched) <= labels.SHOWN


def test_copies_are_found_among_images_that_a_network_hardly_tells_apart():
    """A network that has collapsed puts all images into one cell of a coarse grid: they are not compared in pairs."""
    rng = np.random.default_rng(0)
    x = np.full((3000, 32), 32**-0.5, np.float32) + 4e-5 * rng.standard_normal((3000, 32)).astype(np.float32)
    x[2000:2500] = x[:500]
    first = identical(x)
    assert (first[2000:2500] == first[:500]).all() and (first[:500] <= np.arange(500)).all()
    place = x @ rng.standard_normal((32, 16)).astype(np.float32)
    found = list(cells(place, np.arange(len(x)), 5e-3, 0.0, 2e-4))
    for members in found:
        assert len(members) <= MOST_COMPARED or (place[members] == place[members[0]]).all()
    assert len(found) > 100


@pytest.mark.parametrize("kind", ["labelme", "labelme elsewhere", "yolo", "voc"])
def test_files_of_annotations_share_what_is_known_of_the_images(tmp_path, monkeypatch, kind):
    """A file for each image: the names of all images are looked through once, not for each file."""
    count, calls, real = 60, [], table_files.stem
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for i in range(count):
        Image.new("RGB", (16, 16)).save(tmp_path / f"images/{i}x.jpg")
        shape = {"label": "a", "shape_type": "polygon", "points": [[1, 1], [8, 1], [8, 8]]}
        content = {"imagePath": f"../images/{i}x.jpg", "shapes": [shape]}
        if kind == "yolo":
            (tmp_path / f"labels/{i}x.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
        elif kind == "voc":  # of boxes, beside which one image has an outline
            box = "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object>"
            (tmp_path / f"labels/{i}x.xml").write_text(f"<annotation><filename>/c/{i}</filename>{box}</annotation>")
        elif kind == "labelme":
            (tmp_path / f"images/{i}x.json").write_text(json.dumps(content | {"imagePath": f"{i}x.jpg"}))
        else:
            (tmp_path / f"labels/{i}x.json").write_text(json.dumps(content))
    if kind == "voc":
        Image.new("RGB", (16, 16)).save(tmp_path / "images/last.jpg")
        (tmp_path / "images/last.json").write_text(json.dumps(content | {"imagePath": "last.jpg"}))
    monkeypatch.setattr(table_files, "stem", lambda id: calls.append(id) or real(id))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_segmentation(tmp_path).has_target.all()
    assert len(calls) <= 3 * count


@pytest.mark.parametrize("name", ["/data/x/d{}/image.jpg", "D{}/image.jpg", "d{}/image", "e{}/image.jpg"])
def test_images_of_one_name_in_many_folders_are_not_all_looked_at(monkeypatch, name):
    ids, seen, real = [f"d{k}/image.jpg" for k in range(300)], [], table_files.longest_tail
    monkeypatch.setattr(table_files, "longest_tail", lambda n, ids, *f: seen.append(len(ids)) or real(n, ids, *f))
    found, _ = table_files.match_names([name.format(k) for k in range(300)], ids)
    assert found == (ids if not name.startswith("e") else [None] * 300) and max(seen) <= 2


@pytest.mark.parametrize("id", ["train/p{}/study1/view1.jpg", "s/p{}/1/001.png", "p{}/0001.png"])
@pytest.mark.parametrize("name", ["below/{}", "{}", "other {}"])
def test_images_of_one_name_and_one_folder_are_not_all_looked_at(monkeypatch, id, name):
    """CheXpert's train/patient00001/study1/view1_frontal.jpg: each name went through all of them."""
    count, seen, real = 200, [], table_files.longest_tail
    ids = [id.format(k) for k in range(count)]
    names = [name.format(one).replace("0001.png", "1.png").replace("001.png", "1.jpg") for one in ids]
    paths, path = [], table_files.PurePosixPath
    monkeypatch.setattr(table_files, "longest_tail", lambda n, ids, *f: seen.append(len(ids)) or real(n, ids, *f))
    monkeypatch.setattr(table_files, "PurePosixPath", lambda text: paths.append(text) or path(text))
    found, _ = table_files.match_names(names, ids)
    there = name != "other {}" and "1/001.png" not in id
    assert max(seen, default=0) <= table_files.FEW and len(paths) < 40 * count
    assert found == (ids if there else [None] * count)


def test_names_mean_the_same_images_however_many_there_are(monkeypatch):
    draw = random.Random(0)
    folders, words = ("a", "A", "b", "0", "c.d", ""), ("image", "Image", "1", "01", "im age", "im%20age", "x.y")

    def name(depth, endings):
        below = filter(None, (draw.choice(folders) for _ in range(draw.randint(0, depth))))
        return "/".join([*below, draw.choice(words) + draw.choice(endings)])

    for _ in range(300):
        ids = list({name(3, (".jpg", ".JPG", ".png")) for _ in range(draw.randint(1, 12))})
        names, answers = [name(4, (".jpg", ".png", "", ".txt")) for _ in range(4)], []
        for few in (0, 10**9):
            monkeypatch.setattr(table_files, "FEW", few)
            answers.append(table_files.match_names(names, ids))
        assert answers[0] == answers[1]
