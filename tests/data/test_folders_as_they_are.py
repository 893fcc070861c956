"""Folders as people have them: spellings of splits, what systems and tools leave behind, files that are not read."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import Config, UserError, load_segmentation, load_source
from hf_lowlabel.data.files.folders import CONVERT
from hf_lowlabel.data.given_files import find_images
from hf_lowlabel.data.splits.split_roots import has_unlabeled_split
from hf_lowlabel.errors import MissingSplit
from hf_lowlabel.labeling.labels import Asked, read_labels
from hf_lowlabel.settings import resolve
from hf_lowlabel.tasks import get_task


def picture(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return path


def classes(root, *splits, names=("cat", "dog"), each=2):
    for split in splits or ("",):
        for name in names:
            for i in range(each):
                picture(root / split / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "train, test, asked",
    [
        ("Train", "Test", "test"),
        ("TRAINING", "TESTING", "test"),
        ("train", "VAL", "validation"),
        ("Train", "Dev", "dev"),
    ],
)
def test_splits_in_any_spelling(tmp_path, train, test, asked):
    classes(tmp_path, train, test)
    for split in ("train", asked):
        source = load_source(tmp_path, split=split)
        assert source.class_names == ["cat", "dog"] and source.ids[0] == "cat/0.png" and len(source) == 4


def test_only_splits_are_siblings(tmp_path):
    """A folder beside train/ and val/ adds no class."""
    classes(classes(tmp_path, "Train"), "backup/old", names=("bird", "fish"))
    classes(tmp_path, "val")
    assert load_source(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "UNLABELED"])
def test_unlabeled_is_no_class(tmp_path, name):
    classes(tmp_path / "a")
    picture(tmp_path / "a" / name / "x.png")
    source = load_source(tmp_path / "a")
    assert source.class_names == ["cat", "dog"] and sorted(source.labels.tolist()) == [-1, 0, 0, 1, 1]
    classes(tmp_path / "b", "train")
    picture(tmp_path / "b" / name / "x.png")
    assert has_unlabeled_split(tmp_path / "b") and load_source(tmp_path / "b").class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints", ".thumbnails"]
)
def test_folders_of_the_system_stay_out_for_training_and_prediction(tmp_path, name):
    classes(tmp_path)
    picture(tmp_path / name / "0.png")
    picture(tmp_path / "cat" / name / "1.png")
    assert load_source(tmp_path).class_names == ["cat", "dog"] and len(load_source(tmp_path)) == 4
    assert len(find_images(tmp_path)) == 4


@pytest.mark.parametrize("mark", ["run.json", "selection.json"])
def test_our_own_folders_stay_out_and_are_named(tmp_path, mark):
    classes(tmp_path)
    picture(tmp_path / "run1" / "predictions.png")
    (tmp_path / "run1" / mark).write_text("{}")
    with pytest.warns(UserWarning, match="run1 in .* left out"):
        source = load_source(tmp_path)
    assert source.class_names == ["cat", "dog"] and len(source) == 4


@pytest.mark.parametrize("ending", [".HEIC", ".dcm", ".CR2", ".nii", ".nii.gz", ".mp4", ".jxl"])
def test_pictures_that_are_not_read_are_counted_with_what_to_do(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("hf_lowlabel.data.pixels.images.plugins", dict)  # as where no package adds a format
    classes(tmp_path)
    for i in range(3):
        (tmp_path / "cat" / f"{i}{ending}").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.warns(UserWarning) as told:
        load_source(tmp_path)
    (said,) = [str(w.message) for w in told]
    assert said.startswith(f"3 {ending[1:].upper()} files are not read") and CONVERT[ending.lower()] in said


def test_a_name_that_is_no_text_is_left_out_and_named(tmp_path):
    classes(tmp_path)
    os.rename(os.fsencode(tmp_path / "cat/0.png"), os.fsencode(tmp_path / "cat") + b"/caf\xe9.png")
    with pytest.warns(UserWarning, match=r"caf.*Rename"):
        assert len(load_source(tmp_path)) == 3
    with pytest.warns(UserWarning, match="Rename"):
        assert len(find_images(tmp_path)) == 3


def metadata_of_all(tmp_path, column="label", values=("a", "b")):
    rows = [f"file_name,{column}"]
    for split in ("train", "Test"):
        for i in range(4):
            picture(tmp_path / split / f"{i}.png")
            rows.append(f"{split}/{i}.png,{values[i % 2]}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_one_table_for_all_splits(tmp_path):
    data = metadata_of_all(tmp_path)
    for split in ("train", "test"):
        source = load_source(data, split=split)
        assert source.labels.tolist() == [0, 1, 0, 1] and source.class_names == ["a", "b"]


def test_one_table_for_all_splits_of_several_classes(tmp_path):
    data = metadata_of_all(tmp_path, values=("a;b", "none"))
    config = Config.from_flat("finetune", {"dataset": str(data), "task": "multilabel"})
    assert get_task("multilabel").open(config.data).labels.tolist() == [[1, 1], [0, 0]] * 2


def test_a_table_that_names_nothing_of_the_split(tmp_path):
    data = metadata_of_all(tmp_path)
    (data / "metadata.csv").write_text("file_name,label\nTest/0.png,a\n")
    with pytest.raises(UserError, match="No row of metadata.csv in .* names an image of train/"):
        load_source(data)


def test_label_studios_csv_is_matched_by_the_names_of_its_uploads(tmp_path):
    """Its `id` counts tasks, which may be ids of other images."""
    task = Asked(dataset="x", fingerprint=None, files={"0000_7.png": "7", "0001_0.png": "0"})
    rows = [
        "annotation_id,choice,id,image",
        "9,red,0,/data/upload/1/0a1b2c3d-0000_7.png",
        "8,blue,7,/x/00000001-0001_0.png",
    ]
    (tmp_path / "out.csv").write_text("\n".join(rows) + "\n")
    assert read_labels(tmp_path / "out.csv", task, new_classes=True).labels == {"7": "red", "0": "blue"}


@pytest.mark.parametrize(
    "method, given", [("byol", dict(batch_size=1)), ("simclr", dict(batch_size=4, gradient_accumulation_steps=4))]
)
def test_one_image_a_forward_pass(method, given):
    with pytest.raises(UserError, match="leaves one image a forward pass"):
        resolve(Config.from_flat("pretrain", {"dataset": "digits", "method": method, **given}))


def test_nothing_is_said_of_a_folder_without_oddities(tmp_path):
    classes(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_source(tmp_path)


@pytest.mark.parametrize("ending", ["bmp", "tif", "ppm"])
@pytest.mark.parametrize("masks", [False, True])
def test_other_pixels_in_files_as_large_are_seen(tmp_path, ending, masks):
    """Uncompressed pictures of a size have one size in bytes, whatever they show."""

    def written(seed):
        random = np.random.default_rng(seed)
        for i in range(3):
            for kind in ("images", "masks") if masks else ("a",):
                path = tmp_path / kind / f"{i}.{'png' if kind == 'masks' else ending}"
                path.parent.mkdir(exist_ok=True)
                one = kind == "masks"
                values = np.eye(24, dtype=np.uint8) if one else random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(values).save(path)
        opened = load_segmentation(tmp_path) if masks else load_source(tmp_path)
        return opened.fingerprint

    first, again, other = written(0), written(0), written(1)
    assert first == again != other
    path = tmp_path / ("images" if masks else "a") / f"1.{ending}"
    before = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(before // 2)
        file.write(bytes(64))
    assert path.stat().st_size == before
    assert (load_segmentation(tmp_path) if masks else load_source(tmp_path)).fingerprint != other


def test_what_never_answers_is_not_looked_into(tmp_path):
    classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "9.bmp")
    assert len(load_source(tmp_path)) == 5


def put(root, *names):
    for name in names:
        picture(root / name)


def of(found):
    return {id: found.class_names[k] if k >= 0 else None for id, k in zip(found.ids, found.labels)}


def test_a_folder_around_the_classes_is_no_class(tmp_path):
    """Food-101 as it is unpacked was of one class, images."""
    names = [f"images/{name}/{i}.png" for name in ("pie", "soup") for i in range(3)]
    put(tmp_path, *names)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/train.txt").write_text("pie/0\npie/1\nsoup/0\nsoup/1\n")
    (tmp_path / "meta/test.txt").write_text("pie/2\nsoup/2\n")
    with pytest.warns(UserWarning, match="All images of .* lie in images/, and the folders in it are read as the cl"):
        found = load_source(tmp_path)
    assert of(found) == {name: name.split("/")[1] for name in names if name[-5] != "2"}
    assert of(load_source(tmp_path, split="test")) == {name: name.split("/")[1] for name in names if name[-5] == "2"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_classes_of_splits_that_have_a_folder_around_them(tmp_path):
    put(
        tmp_path,
        "train/data/images/cat/1.png",
        "train/data/images/dog/1.png",
        "val/data/images/cat/2.png",
        "val/data/images/emu/2.png",
    )
    found = load_source(tmp_path)
    assert found.class_names == ["cat", "dog", "emu"] and found.labels.tolist() == [0, 1]
    put(tmp_path, "val/dog/3.png")
    assert load_source(tmp_path).class_names == ["data", "dog"], "one split alone has a single class"


@pytest.mark.parametrize(
    "names, classes",
    [
        (["cat/1.png", "cat/2.png"], ["cat"]),  # one class, which is refused where it is learned
        (["cat/day/1.png", "cat/day/2.png"], ["cat"]),
        (["all/1.png", "all/cat/2.png"], ["all"]),
        (["cat/a/1.png", "cat/b/2.png", "dog/3.png"], ["cat", "dog"]),
        (["unlabeled/a/1.png", "unlabeled/b/1.png"], []),
        (["DCIM/101CANON/1.png", "DCIM/102CANON/2.png"], ["DCIM"]),  # of a camera
        (["cat/2019/1.png", "cat/2020/2.png"], ["cat"]),
        (["train/cat/indoor/1.png", "train/cat/outdoor/2.png"], ["cat"]),
        (["images/cat/a/1.png", "images/cat/b/2.png"], ["images"]),
    ],
)
def test_folders_that_are_around_no_classes(tmp_path, names, classes):
    put(tmp_path, *names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="All labeled images are of one class")
        assert load_source(tmp_path).class_names == classes


def test_a_class_below_a_folder_around_them_may_be_unlabeled_and_none_a_split(tmp_path):
    put(tmp_path, "data/cat/1.png", "data/dog/1.png", "data/unlabeled/1.png")
    with pytest.warns(UserWarning, match="lie in data/"):
        assert list(of(load_source(tmp_path)).values()) == ["cat", "dog", None]
    put(tmp_path, "data/test/1.png")
    with pytest.raises(UserError, match="test/ in 'data' beside cat, dog.* may be a split"):
        load_source(tmp_path)


@pytest.mark.parametrize("around", ["data", "archive/data"])
def test_folders_of_splits_in_a_folder_around_them_are_not_learned_from(tmp_path, around):
    """An archive with a folder around all had one class, data, and its validation images were learned from."""
    put(tmp_path, *(f"{around}/{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")))
    (tmp_path / "README.txt").write_text("Cats and dogs.")

    def several(path):
        return get_task("multilabel").open(Config.from_flat("finetune", {"dataset": str(path)}).data)

    for read in (load_source, several):
        assert read(tmp_path).ids == ["cat/1.png", "dog/1.png"]
    with pytest.raises(UserError, match="neither images/ nor"):
        load_segmentation(tmp_path, classes=["a", "b"])
    assert load_source(tmp_path).class_names == ["cat", "dog"] and len(load_source(tmp_path, split="val")) == 2
    assert load_source(tmp_path / around).class_names == ["cat", "dog"]
    (tmp_path / "train.csv").write_text(f"file_name,label\n{around}/train/cat/1.png,a\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_source(tmp_path).has_target.sum() == 1, "a table says what they are"
        with pytest.raises(MissingSplit):  # which runs ask for where there may be none
            load_source(tmp_path, split="test")


@pytest.mark.parametrize(
    "names, sorts",
    [
        (("2024-05-12", "2024-06-02 Müller"), True),
        (("20240512", "20240513"), True),
        (("12.05.2024", "3.6.2024 garden"), True),
        (("2023", "2024-05"), True),
        (("100CANON", "101CANON"), True),
        (tuple("0123456789"), False),
        (("100", "101", "1999999"), False),
        (("BMW X6 2012", "Audi A4 2010"), False),
        (("2024-05-12", "ants"), False),
    ],
)
def test_folders_by_date_are_no_classes_where_that_is_said(tmp_path, names, sorts):
    classes(tmp_path / "photos", names=names)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = load_source(tmp_path / "photos")
    assert any("--plain-folders" in str(one.message) for one in told) == sorts
    assert sorted(found.class_names) == sorted(names) and found.has_target.all()
    plain = load_source(tmp_path / "photos", plain_folders=True)
    assert plain.ids == found.ids and not plain.has_target.any() and not plain.class_names


def test_a_table_has_the_labels_of_folders_that_only_sort(tmp_path):
    classes(tmp_path, names=("2024-05-12", "2024-05-13"), each=1)
    (tmp_path / "labels.csv").write_text("file_name,label\n2024-05-12/0.png,ant\n")
    found = load_source(tmp_path, plain_folders=True)
    assert found.class_names == ["ant"] and found.labels.tolist() == [0, -1]
