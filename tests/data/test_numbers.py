"""Labels that are numbers, wherever labels are read: whole ones, measurements, numbers of the images."""

import warnings

import pandas as pd
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_source
from hf_lowlabel.data.labels.numbers import of_numbers
from hf_lowlabel.data.opening import open_dataset
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.labeling.importing import import_labels
from hf_lowlabel.labeling.labels import Asked, read_labels

COUNT = 12


@pytest.fixture
def photos(tmp_path):
    for i in range(COUNT):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def rows(labels):
    return "file_name,label\n" + "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels))


def beside(photos, labels, several=False):
    (photos / "metadata.csv").write_text(rows(labels))
    return open_dataset(photos, MultiLabelTargets()) if several else load_source(photos)


def given(photos, labels, several=False):
    (photos.parent / "mine.csv").write_text(rows(labels))
    return import_labels(photos.parent / "mine.csv", source=load_source(photos), several=several)[0]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("read", [beside, given])
@pytest.mark.parametrize("write", ["0.37{}1", "0,{}37", "{}.5", "1e-{}", "-3.25{}"])
def test_measurements_are_no_classes(photos, read, several, write):
    labels = [write.format(k) for k in range(1, COUNT + 1)]
    with pytest.raises(UserError, match="label.* holds 12 numbers with 12 different values, such as .*: measurements"):
        read(photos, labels, several)
    with pytest.raises(UserError, match="measurements, not classes"):
        read(photos, [*labels[:8], *labels[:4]], several)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("read", [beside, given])
def test_whole_numbers_are_read_as_such(photos, read, several):
    for labels, names in (
        (["0.0", "1.0", "2.0", "", "nan", "10.0"], ["0", "1", "2", "10"]),
        (["0.0", "1", "-1.0", "1.0"], ["0", "1"]),
        (["0.5", "1.0", "1.5", "0.5"], ["0.5", "1", "1.5"]),
        (["v1", "1.0", "2.0"], ["1.0", "2.0", "v1"]),
    ):
        assert read(photos, labels, several).class_names == names


def test_classes_that_are_known_keep_their_names(photos):
    for name in ("1.0", "2.0"):
        (photos / name).mkdir()
        Image.new("RGB", (8, 8)).save(photos / name / "a.png")
    (photos.parent / "mine.csv").write_text("file_name,label\n1.0/a.png,1.0\n0.png,2.0\n")
    assert import_labels(photos.parent / "mine.csv", source=load_source(photos))[0].class_names == ["1.0", "2.0"]
    task = Asked("photos", None, {"0.png": "0.png"})
    (photos.parent / "labels.csv").write_text("file_name,label,skipped\n0.png,2.0,\n")  # as our page wrote it
    assert read_labels(photos.parent / "labels.csv", task, new_classes=True).labels == {"0.png": "2.0"}


def test_several_numbers_of_an_image(photos):
    assert beside(photos, ["1.0;2.0", "2", "none"], True).class_names == ["1", "2"]
    (photos / "metadata.csv").unlink()
    assert given(photos, ["1.0;2.0", "2", "3.0"], True).labeled["0.png"] == "1;2"


@pytest.mark.parametrize("read", [beside, given])
def test_numbers_of_the_images_are_said(photos, read):
    with pytest.warns(UserWarning, match="each of the 12 labels is another number, such as 1007, so that no class"):
        read(photos, [1007 + 3 * k for k in range(COUNT)])


def test_a_label_for_each_class_and_classes_by_half_are_nobodys_fault(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(beside(photos, range(COUNT)).class_names) == COUNT  # one image of each class
        assert beside(photos, ["0.5", "1.5", "2.5"] * 4).class_names == ["0.5", "1.5", "2.5"]
        assert not of_numbers([["0.1"], ["0.2"]], "a column")


def test_a_table_in_memory():
    images = [Image.new("RGB", (8, 8)) for _ in range(COUNT)]
    frame = pd.DataFrame({"image": images, "label": [f"0.{k}7" for k in range(COUNT)]})
    with pytest.raises(UserError, match="The column 'label' holds 12 numbers"):
        load_source(frame)
