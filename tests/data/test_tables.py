from __future__ import annotations

import pickle
import zlib

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_lowlabel.data.dataset import fingerprint
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.errors import UserError


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "kind, words",
    [
        ("parquet", "Label {} of image '2' in column 'label' is out of range."),
        ("folder", "The label {} in column 'label' of metadata.parquet is no class."),
        ("memory", "The label {} is no class."),
    ],
)
def test_an_infinite_label_is_named(tmp_path, make, value, kind, words):
    labels = [0.0, 1.0, value]
    if kind == "parquet":
        given = make.table(tmp_path / "a.parquet", labels)
    else:
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
        pq.write_table(
            pa.table({"file_name": [f"{i}.png" for i in range(3)], "label": labels}), tmp_path / "metadata.parquet"
        )
        given = [(str(tmp_path / f"{i}.png"), labels[i]) for i in range(3)] if kind == "memory" else tmp_path
    with pytest.raises(UserError, match=words.format(value)):
        load_source(given)


def test_a_file_of_plain_columns(tmp_path, make):
    found = load_source(make.table(tmp_path / "birds.parquet", [1, 0, None, -1, 10]))
    assert found.name == "birds" and found.ids == ["0", "1", "2", "3", "4"]
    assert found.class_names == ["0", "1", "10"] and found.labels.tolist() == [1, 0, -1, -1, 2]
    for i in (0, 4):
        assert np.array_equal(np.array(found.image(i)), np.array(make.picture(i)))


def test_declared_features(tmp_path, make):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "ant"])})
    rows = {"img": [make.picture(i) for i in range(3)], "label": [1, -1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    found = load_source(tmp_path / "t.parquet")
    assert found.class_names == ["dog", "ant"] and found.labels.tolist() == [1, -1, 0]
    assert found.image(2).mode == "RGB" and np.array_equal(np.array(found.image(2)), np.array(make.picture(2)))


def test_a_folder_with_data_per_split(tmp_path, make):
    make.table(tmp_path / "data" / "train-00000-of-00002.parquet", ["cat", "dog"], seed=0)
    make.table(tmp_path / "data" / "train-00001-of-00002.parquet", ["owl"], seed=2)
    make.table(tmp_path / "data" / "val-00000-of-00001.parquet", ["dog"], seed=9)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    train = load_source(tmp_path)
    assert len(train) == 3 and train.class_names == ["cat", "dog", "owl"] and train.license == "mit"
    assert np.array_equal(np.array(train.image(2)), np.array(make.picture(2)))
    validation = load_source(tmp_path, split="validation")
    assert validation.split in ("val", "validation") and len(validation) == 1
    assert np.array_equal(np.array(validation.image(0)), np.array(make.picture(9)))
    assert validation.with_classes(train.class_names).labels.tolist() == [1]
    assert len(load_source(tmp_path, split="train[:2]")) == 2
    assert np.array_equal(np.array(load_source(tmp_path, split="train[1:]").image(1)), np.array(make.picture(2)))
    with pytest.raises(UserError, match="unknown split"):
        load_source(tmp_path, split="test")
    with pytest.raises(UserError, match="unknown config .* 'x'"):
        load_source(tmp_path, config="x")


def test_a_single_file_is_the_split_of_its_name(tmp_path, make):
    path = make.table(tmp_path / "test-0.parquet", [0, 1])
    assert len(load_source(path, split="test")) == 2
    with pytest.raises(UserError, match="single file.*is split test or train"):
        load_source(path, split="validation")


@pytest.mark.parametrize("name", ["id", "filename", "file_name"])
def test_ids_come_from_a_unique_column(tmp_path, make, name):
    def ids(file, values):
        return load_source(make.table(tmp_path / file, [0, 1], **{name: values})).ids

    assert ids("a.parquet", ["x.png", "y.png"]) == ["x.png", "y.png"]
    assert ids("b.parquet", ["x.png", "x.png"]) == ids("c.parquet", ["x.png", None]) == ["0", "1"]


def test_labels_of_any_kind(tmp_path, make):
    def read(name, values):
        found = load_source(make.table(tmp_path / f"{name}.parquet", values))
        return found.class_names, found.labels.tolist()

    assert read("text", ["b", "", None, "a"]) == (["a", "b"], [1, -1, -1, 0])
    assert read("floats", [3.0, float("nan"), 1.0, -1.0]) == (["1", "3"], [1, -1, 0, -1])
    assert read("bools", [True, False]) == (["False", "True"], [1, 0])
    with pytest.raises(UserError, match="Label -2 of image '1' in column 'label' is out of range"):
        read("negative", [0, -2])
    with pytest.raises(UserError, match="Label 0.5 .* out of range"):
        read("fraction", [0.5, 1.0])
    with pytest.raises(UserError, match="whole numbers, text or declared classes"):
        read("lists", [[1], [2]])


def test_a_declared_label_out_of_range(tmp_path, make):
    import pyarrow.parquet as pq

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    schema = datasets.Dataset.from_dict({"image": [], "label": []}, features=features).data.schema
    table = pq.read_table(make.table(tmp_path / "x.parquet", [0, 5])).replace_schema_metadata(schema.metadata)
    pq.write_table(table, tmp_path / "y.parquet")
    with pytest.raises(UserError, match="Label 5 of image '1' is out of range. Labels are 0..1"):
        load_source(tmp_path / "y.parquet")


def test_columns_are_found_or_asked_for(tmp_path, make):
    images = [{"bytes": make.encoded(make.picture(i)), "path": None} for i in (5, 6)]
    path = make.table(tmp_path / "a.parquet", [0, 1], image=None, photo=images)
    assert np.array_equal(np.array(load_source(path).image(0)), np.array(make.picture(5)))
    path = make.table(tmp_path / "b.parquet", [0, 1], image=None, photo=images, mask=images)
    with pytest.raises(UserError, match=r"2 columns with images \(photo, mask\)"):
        load_source(path)
    assert len(load_source(path, image_column="photo")) == 2
    with pytest.raises(UserError, match="image column 'phota': did you mean 'photo'"):
        load_source(path, image_column="phota")
    with pytest.raises(UserError, match="column 'label' is of type"):
        load_source(path, image_column="label")
    with pytest.raises(UserError, match="label column 'labels': did you mean 'label'"):
        load_source(path, image_column="photo", label_column="labels")
    raw = make.table(tmp_path / "c.parquet", [0, 1], image=[i["bytes"] for i in images], label=None)
    found = load_source(raw)
    assert found.labels.tolist() == [-1, -1] and found.image(1).size == (12, 10)
    with pytest.raises(UserError, match=r"0 columns with images \(none\) among label"):
        load_source(make.table(tmp_path / "d.parquet", [0], image=None))


def test_two_columns_of_classes_need_a_choice(tmp_path, make):
    kind = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"image": datasets.Image(), "fine_label": kind, "coarse_label": kind})
    rows = {"image": [make.picture(0)], "fine_label": [1], "coarse_label": [0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="fine_label, coarse_label. Name one"):
        load_source(tmp_path / "t.parquet")
    assert load_source(tmp_path / "t.parquet", label_column="fine_label").labels.tolist() == [1]


def test_rows_without_an_image_and_images_by_path(tmp_path, make):
    make.files(tmp_path / "t", ["far.png"])
    images = [None, {"bytes": None, "path": None}, {"bytes": None, "path": str(tmp_path / "t" / "far.png")}]
    found = load_source(make.table(tmp_path / "t" / "t.parquet", [0, 1, 0], image=images))
    for i in (0, 1):
        with pytest.raises(BadImage, match="the row has no image"):
            found.image(i)
    assert found.image(2).size == (12, 10)


def test_the_fingerprint_knows_the_data_not_the_place(tmp_path, make):
    one = load_source(make.table(tmp_path / "a" / "x.parquet", [0, 1]))
    same = load_source(make.table(tmp_path / "b" / "y.parquet", [0, 1]))
    other = load_source(make.table(tmp_path / "c" / "x.parquet", [0, 1], seed=5))
    relabeled = load_source(make.table(tmp_path / "d" / "x.parquet", [1, 0]))
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, relabeled.fingerprint}) == 3


def test_a_damaged_file_is_the_users_error(tmp_path, make):
    path = make.table(tmp_path / "t.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=f"'{path}' cannot be read"):
        load_source(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"'{path}' cannot be read: Parquet file size is 0"):
        load_source(path)


def test_a_reader_travels_to_workers(tmp_path, make):
    found = load_source(make.table(tmp_path / "t.parquet", [0, 1, 2]))
    found.image(0)
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(np.array(again.image(2)), np.array(make.picture(2)))


def test_no_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array([], kind), "label": pa.array([], pa.int64())}), tmp_path / "e.parquet")
    for given in (tmp_path / "e.parquet", tmp_path):
        with pytest.raises(UserError, match=f"There are no rows in '{given}'"):
            load_source(given)


@pytest.mark.parametrize("kind, mode", [("BMP", "RGB"), ("TIFF", "F"), ("TIFF", "CMYK"), ("TGA", "RGB"), ("PPM", "L")])
def test_uncompressed_images_with_equal_borders_are_other_data(tmp_path, make, kind, mode):
    """Of the same size and with the same last bytes, as row numbers for ids."""
    prints = []
    for seed in range(2):
        framed = Image.new("RGB", (200, 200))
        framed.paste(make.picture(seed), (90, 60))
        value = make.encoded(framed.convert(mode), kind)
        path = make.table(tmp_path / f"{seed}.parquet", [0], label=None, image=[{"bytes": value, "path": None}])
        in_memory = load_source([framed.convert(mode)])
        prints += [load_source(path).fingerprint, in_memory.fingerprint]
    assert prints[0] != prints[2] and prints[1] != prints[3]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_the_fingerprint_of_compressed_images_is_that_of_older_runs(tmp_path, make, kind):
    """Which would else not go on: size and checksum of the last 64 bytes."""
    values = [make.encoded(make.picture(seed), kind) for seed in range(2)]
    path = make.table(tmp_path / "t.parquet", [0, 0], label=None, image=[{"bytes": v, "path": None} for v in values])
    content = [f"{len(value)}:{zlib.crc32(value[-64:])}" for value in values]
    assert load_source(path).fingerprint == fingerprint(["0", "1"], [-1, -1], [], content)
