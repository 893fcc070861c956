from __future__ import annotations

import gc
import json
import os
import pickle
import shutil

import datasets
import numpy as np
import pytest
from sklearn.datasets import load_digits

from hf_lowlabel.data.dataset import ArrayReader, ImageDataset
from hf_lowlabel.data.joining import join
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.data.splits.split_roots import has_unlabeled_split
from hf_lowlabel.errors import UserError


def source(labels, names, ids=None) -> ImageDataset:
    ids = ids or [f"{i}" for i in range(len(labels))]
    images = np.arange(len(labels) * 64, dtype=np.uint8).reshape(-1, 8, 8)
    return ImageDataset(
        "made", None, "train", None, ids, np.array(labels), names, "f" * 64, None, True, ArrayReader(images)
    )


def label_names(found: ImageDataset) -> dict[str, str | None]:
    return {id: found.class_names[k] if k >= 0 else None for id, k in zip(found.ids, found.labels)}


def write_rows(root, rows, name="metadata.csv"):
    if name.endswith(".jsonl"):
        text = "\n".join(json.dumps(row) for row in rows)
    else:
        text = "\n".join(",".join(row) for row in rows)
    (root / name).write_text(text + "\n", encoding="utf-8")


# squares


def test_squares_of_wide_and_of_tall_images():
    """Image i, square k at row i * count + k, from one end of the longer side to the other, whatever loader asks."""
    rng = np.random.default_rng(0)
    for shape in ((6, 12), (12, 6), (6, 6)):
        images = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
        whole = ImageDataset(
            "made",
            None,
            "train",
            None,
            ["a", "b"],
            np.array([0, 1]),
            ["x", "y"],
            "f" * 64,
            None,
            True,
            ArrayReader(images),
        )
        cut = pickle.loads(pickle.dumps(whole.in_squares(2)))
        assert cut.ids == ["a (1/2)", "a (2/2)", "b (1/2)", "b (2/2)"] and cut.labels.tolist() == [0, 0, 1, 1]
        for i in range(2):
            for k in range(2):
                part = images[i][k * (shape[0] - 6) :][:6, k * (shape[1] - 6) :][:, :6]
                assert (cut.decode(2 * i + k, 6).numpy() == part).all()
        assert (cut.in_squares(1).decode(3, 6) == cut.decode(3, 6)).all() and whole.in_squares(1) is whole


# digits


def test_digits_are_scikit_learns_scans():
    digits, expected = load_source("digits"), load_digits()
    assert len(digits) == 1797 and digits.class_names == list("0123456789") and not digits.flip
    assert np.array_equal(digits.labels, expected.target)
    got = np.stack([np.array(digits.image(i)) for i in range(0, 1797, 97)]).astype(np.float64)
    assert np.abs(got - expected.images[::97] * 255 / 16).max() <= 0.5
    assert digits.fingerprint == "3614fbd34d3e773589e0005763b2efaafdf794495b1dcc8ca7a9ef09e9363591"


def test_digits_have_one_split_and_win_over_a_folder(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="test_fraction"):
        load_source("digits", split="test")
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="./digits"):
        assert len(load_source("digits")) == 1797


# a source


def test_labels_out_of_range_are_named():
    with pytest.raises(UserError, match=r"Label 2 of image '1' and 1 more is out of range. Labels are 0..1"):
        source([0, 2, -2], ["a", "b"])
    with pytest.raises(ValueError, match="not unique"):
        source([0, 1], ["a", "b"], ids=["x", "x"])


def test_classes_are_matched_by_name():
    found = source([0, 1, -1, 2], ["cat", "dog", "owl"]).with_classes(["owl", "ant", "dog", "cat"])
    assert found.labels.tolist() == [3, 2, -1, 0] and found.class_names == ["owl", "ant", "dog", "cat"]
    assert source([0, -1], ["cat", "dog"]).with_classes(["cat"]).labels.tolist() == [0, -1]  # "dog" has no image
    with pytest.raises(UserError, match="'dog': did you mean 'dogs'"):
        source([0, 1], ["cat", "dog"]).with_classes(["cat", "dogs"])


def test_several_classes_an_image():
    found = source([[1, 0, 1], [-1, -1, -1], [0, 0, 0]], ["a", "b", "c"])
    assert found.labels.dtype == np.int8 and found.has_target.tolist() == [True, False, True]
    assert found.target(0).tolist() == [1, 0, 1] and found.target(1) is None
    assert repr(found) == "ImageDataset('made', split='train', images=3, labeled=2, classes=3)"
    other = found.with_classes(["c", "a", "new", "b"])
    assert other.labels.tolist() == [[1, 1, 0, 0], [-1] * 4, [0] * 4]
    with pytest.raises(UserError, match="unknown class in 'made' 'a'"):
        found.with_classes(["b", "c"])
    assert found.with_classes(["a", "c"]).labels.tolist() == [[1, 1], [-1, -1], [0, 0]]  # "b" has no image
    both = join(found, source([0, 1], ["x", "y"]))
    assert both.labels.dtype == np.int8 and both.labels[3:].tolist() == [[-1] * 3] * 2
    assert found.in_squares(2).labels[1].tolist() == [1, 0, 1] and not found.without_targets().has_target.any()
    assert set(make_split(found, 1).labeled.values()) == {None}
    for wrong in ([[2, 0, 0]], [[0, -1, 1]]):
        with pytest.raises(UserError, match="out of range. Labels are 0..1, or -1"):
            source(wrong, ["a", "b", "c"])


def test_join_takes_labels_from_the_first_and_images_from_both():
    labeled, raw = source([0, 1, -1], ["a", "b"]), source([1, 0], ["x", "y"])
    both = join(labeled, raw)
    assert both.ids == ["labeled/0", "labeled/1", "labeled/2", "unlabeled/0", "unlabeled/1"]
    assert both.labels.tolist() == [0, 1, -1, -1, -1] and both.class_names == ["a", "b"]
    assert np.array_equal(np.array(both.image(2)), np.array(labeled.image(2)))
    assert np.array_equal(np.array(both.image(4)), np.array(raw.image(1)))
    other = source([0, 1, -1], ["a", "b"])
    other.fingerprint, other.flip = "e" * 64, False
    assert join(labeled, other).fingerprint not in (both.fingerprint, join(other, labeled).fingerprint)
    assert both.flip and not join(labeled, other).flip
    assert len(pickle.loads(pickle.dumps(both))) == 5


def test_join_needs_a_label():
    with pytest.raises(UserError, match="Swap them"):
        join(source([-1, -1], []), source([0, 1], ["a", "b"]))


def test_joined_folders(tmp_path, make):
    make.files(tmp_path / "few", ["cat/1.png", "dog/2.png"])
    make.files(tmp_path / "photos", ["x.png", "deep/er/y.png"])
    raw = load_source(tmp_path / "photos")
    both = join(load_source(tmp_path / "few"), raw)
    assert both.class_names == ["cat", "dog"] and (both.labels >= 0).sum() == 2
    assert both.ids == ["labeled/cat/1.png", "labeled/dog/2.png", "unlabeled/deep/er/y.png", "unlabeled/x.png"]
    assert both.image(3).size == (12, 10)


# folders


def test_folders_are_classes(tmp_path, make):
    make.files(tmp_path, ["cat/2.png", "cat/10.png", "dog/a/b.png", "unlabeled/u.png", "loose.png", "cat/.hidden.png"])
    (tmp_path / "cat" / "notes.txt").write_text("not an image, not by its name either")
    found = load_source(tmp_path)
    assert label_names(found) == {
        "cat/10.png": "cat",
        "cat/2.png": "cat",
        "dog/a/b.png": "dog",
        "loose.png": None,
        "unlabeled/u.png": None,
    }
    assert found.name == tmp_path.name and found.split == "train" and found.flip
    assert found.image(1).size == (12, 10)


def test_numbered_folders_are_in_numeric_order(tmp_path, make):
    make.files(tmp_path, [f"{k}/x.png" for k in (10, 9, 2)])
    assert load_source(tmp_path).class_names == ["2", "9", "10"]


def test_a_flat_folder_has_no_labels(tmp_path, make):
    found = load_source(make.files(tmp_path, ["b.png", "a.png"]))
    assert found.ids == ["a.png", "b.png"] and found.labels.tolist() == [-1, -1] and found.class_names == []


def test_nothing_is_decoded_when_a_folder_is_loaded(tmp_path, make, monkeypatch):
    from PIL import Image

    make.files(tmp_path, ["cat/1.png", "dog/2.png"])
    (tmp_path / "cat" / "broken.jpg").write_text("no image")
    monkeypatch.setattr(Image, "open", None)
    assert len(load_source(tmp_path)) == 3


def test_split_folders_share_their_classes(tmp_path, make):
    make.files(tmp_path, ["train/dog/1.png", "train/cat/2.png", "val/dog/3.png", "val/ant/4.png"])
    train, validation = load_source(tmp_path), load_source(tmp_path, split="validation")
    assert train.class_names == validation.class_names == ["ant", "cat", "dog"]
    assert label_names(validation) == {"dog/3.png": "dog", "ant/4.png": "ant"}
    with pytest.raises(UserError, match="unknown split .* 'tset'.*train, val"):
        load_source(tmp_path, split="tset")


def test_a_class_may_be_called_train(tmp_path, make):
    found = load_source(make.files(tmp_path, ["train/1.png", "car/2.png"]))
    assert found.class_names == ["car", "train"] and len(found) == 2


def test_flat_split_folders(tmp_path, make):
    make.files(tmp_path, ["train/1.png", "test/2.png", "unlabeled/3.png"])
    assert load_source(tmp_path).ids == ["1.png"]
    assert load_source(tmp_path, split="unlabeled").ids == ["3.png"]


def test_folders_of_an_unlabeled_split_are_no_classes(tmp_path, make):
    make.files(tmp_path, ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "unlabeled/camera1/4.png"])
    assert load_source(tmp_path).class_names == load_source(tmp_path, split="test").class_names == ["cat", "dog"]
    assert load_source(tmp_path, split="unlabeled").ids == ["camera1/4.png"]
    assert has_unlabeled_split(tmp_path) and not has_unlabeled_split(tmp_path / "train")


def test_no_such_split_in_a_plain_folder(tmp_path, make):
    with pytest.raises(UserError, match="no folder for split 'test'.*test_fraction"):
        load_source(make.files(tmp_path, ["cat/1.png"]), split="test")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_with_empty_labels(tmp_path, make, name):
    make.files(tmp_path, ["a.png", "sub/b.png", "c.png", "not_listed.png", "d.png"])
    if name == "metadata.csv":
        rows = [("file_name", "label"), ("a.png", "cat"), ("sub/b.png", "dog"), ("c.png", ""), ("./d.png", "-1")]
    else:
        rows = [
            {"file_name": "a.png", "label": "cat"},
            {"file_name": "sub/b.png", "label": "dog"},
            {"file_name": "c.png", "label": None},
            {"file_name": "d.png"},
        ]
    write_rows(tmp_path, rows, name)
    assert label_names(load_source(tmp_path)) == {
        "a.png": "cat",
        "c.png": None,
        "d.png": None,
        "not_listed.png": None,
        "sub/b.png": "dog",
    }


def test_metadata_columns(tmp_path, make):
    make.files(tmp_path, ["a.png", "b.png"])
    write_rows(tmp_path, [("file_name", "species"), ("a.png", "cat"), ("b.png", "dog")])
    with pytest.warns(UserWarning, match="count as unlabeled.*if one of species is it"):
        assert (load_source(tmp_path).labels == -1).all()
    assert load_source(tmp_path, label_column="species").class_names == ["cat", "dog"]
    with pytest.raises(UserError, match="'specie': did you mean 'species'"):
        load_source(tmp_path, label_column="specie")
    write_rows(tmp_path, [("files_name", "label"), ("a.png", "cat")])
    with pytest.raises(UserError, match="'file_name': did you mean 'files_name'"):
        load_source(tmp_path)


def test_metadata_mistakes(tmp_path, make):
    make.files(tmp_path, ["a.png"])
    write_rows(tmp_path, [("file_name", "label"), ("a.png", "cat"), ("gone.png", "dog")])
    with pytest.raises(UserError, match="1 file names in metadata.csv have no image, such as 'gone.png'"):
        load_source(tmp_path)
    write_rows(tmp_path, [("file_name", "label"), ("a.png", "cat"), ("a.png", "dog")])
    with pytest.raises(UserError, match="'a.png' twice.*'cat' and as 'dog'"):
        load_source(tmp_path)
    write_rows(tmp_path, [{"file_name": "a.png"}], "metadata.jsonl")
    with pytest.raises(UserError, match="Keep one"):
        load_source(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text("{not json")
    with pytest.raises(UserError, match="cannot be read"):
        load_source(tmp_path)


def test_the_fingerprint_is_the_same_elsewhere_and_later(tmp_path, make):
    first = make.files(tmp_path / "here", ["cat/1.png", "dog/é.png"])
    there = tmp_path / "there" / "renamed"
    shutil.copytree(first, there)
    os.rename(there / "dog" / "é.png", there / "dog" / "e\u0301.png")  # as a Mac stores it
    os.utime(there / "cat" / "1.png", (1, 1))
    one, other = load_source(first), load_source(there)
    assert one.fingerprint == other.fingerprint and one.ids == other.ids == ["cat/1.png", "dog/é.png"]
    assert other.image(1).size == (12, 10)


@pytest.mark.parametrize("change", ["content", "label", "name", "more"])
def test_the_fingerprint_changes_with_the_data(tmp_path, make, change):
    before = load_source(make.files(tmp_path, ["cat/1.png", "dog/2.png"])).fingerprint
    if change == "content":
        (tmp_path / "cat" / "1.png").write_bytes(make.encoded(make.picture(7, 30, 30)))
    elif change == "label":
        (tmp_path / "cow").mkdir()
        os.rename(tmp_path / "dog" / "2.png", tmp_path / "cow" / "2.png")
    elif change == "name":
        os.rename(tmp_path / "dog" / "2.png", tmp_path / "dog" / "3.png")
    else:
        make.files(tmp_path, ["cat/0.png"])
    assert load_source(tmp_path).fingerprint != before


def test_links_in_a_circle(tmp_path, make):
    make.files(tmp_path, ["cat/1.png"])
    os.symlink(tmp_path, tmp_path / "cat" / "loop")
    assert load_source(tmp_path).ids == ["cat/1.png"]


def test_what_is_no_data_set(tmp_path, make):
    with pytest.raises(UserError, match="There are no images"):
        load_source(tmp_path)
    with pytest.raises(UserError, match="Did you mean '.*photos'"):
        make.files(tmp_path / "photos", ["1.png"])
        load_source(tmp_path / "photo")
    with pytest.raises(UserError, match="Give a folder of images or a .parquet file"):
        load_source(tmp_path / "photos" / "1.png")
    with pytest.raises(UserError, match="only the Hub has them"):
        load_source(tmp_path / "photos", revision="main")
    with pytest.raises(UserError, match="no config 'x' in the folder"):
        load_source(tmp_path / "photos", config="x")
    with pytest.raises(UserError, match="needs a table such as metadata.csv"):
        load_source(tmp_path / "photos", label_column="label")


def test_what_save_to_disk_leaves_is_no_folder_of_images(tmp_path):
    datasets.Dataset.from_dict({"label": [0]}).save_to_disk(tmp_path / "disk")
    with pytest.raises(UserError, match="what save_to_disk wrote. Pass datasets.load_from_disk"):
        load_source(tmp_path / "disk")


def test_a_file_that_goes_missing_is_a_bad_image(tmp_path, make):
    found = load_source(make.files(tmp_path, ["a.png", "b.png"]))
    (tmp_path / "b.png").unlink()
    with pytest.raises(BadImage, match="'b.png'.*No such file"):
        found.decode(1, 8)


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(tmp_path, on):
    was = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        load_source("digits")
        assert gc.isenabled() == on
        with pytest.raises(UserError):
            load_source(tmp_path)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was else gc.disable)()


def test_a_link_to_nothing_is_a_bad_image(tmp_path, make):
    make.files(tmp_path, ["cat/1.png", "dog/2.png"])
    os.symlink(tmp_path / "gone.png", tmp_path / "cat" / "link.png")
    found = load_source(tmp_path)
    assert found.ids == ["cat/1.png", "cat/link.png", "dog/2.png"]
    with pytest.raises(BadImage, match="'cat/link.png'.*No such file"):
        found.decode(1, 8)
