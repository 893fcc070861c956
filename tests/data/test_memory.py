"""Data sets that are handed over in memory: which images, ids, labels and fingerprints they give."""

from __future__ import annotations

import io
import shutil
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.caches.padded_cache import build_padded_cache
from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_segmentation, load_source, open_dataset
from hf_lowlabel.data.pixels.images import load_rgb
from hf_lowlabel.data.sources.several_targets import MultiLabelTargets
from hf_lowlabel.data.sources.streaming import Shards
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.errors import MissingSplit, UserError
from hf_lowlabel.tasks import get_task

FILES = ["cat/a.png", "dog/b.png", "dog/c.png"]


def same(found, make, count: int = 3) -> None:
    assert [found.name, found.config, found.revision] == ["memory", None, None] and len(found) == count
    for i in range(count):
        assert np.array_equal(np.array(found.image(i)), np.array(make.picture(i)))


def test_a_list_of_paths_and_labels(tmp_path, make):
    root = make.files(tmp_path / "here", FILES)
    pairs = [(root / "cat/a.png", "cat"), (str(root / "dog/b.png"), 7), (root / "dog/c.png", None)]
    found = load_source(pairs)
    same(found, make)
    assert found.ids == FILES and found.class_names == ["7", "cat"] and found.labels.tolist() == [1, 0, -1]
    shutil.copytree(root, tmp_path / "there")
    moved = [(str(path).replace("here", "there"), label) for path, label in pairs]
    assert load_source(moved).fingerprint == found.fingerprint
    assert load_source(pairs[:2]).fingerprint != found.fingerprint
    (tmp_path / "there/dog/b.png").write_bytes(make.encoded(make.picture(9, 40, 40)))
    assert load_source(moved).fingerprint != found.fingerprint

    plain = load_source([path for path, _ in pairs])
    same(plain, make)
    assert plain.ids == FILES and not plain.has_target.any() and plain.class_names == []
    assert load_source([str(root / "dog/b.png")]).ids == ["b.png"]


@pytest.mark.parametrize("kind", ["paths", "PIL", "bytes", "numbers and holes"])
def test_a_data_frame(tmp_path, make, kind):
    root = make.files(tmp_path, FILES)
    images = {
        "paths": [str(root / name) for name in FILES],
        "PIL": [make.picture(i) for i in range(3)],
        "bytes": [make.encoded(make.picture(i)) for i in range(3)],
        "numbers and holes": [root / name for name in FILES],
    }[kind]
    labels = [1, np.nan, 2] if kind == "numbers and holes" else ["cat", None, "dog"]
    frame = pd.DataFrame({"path" if kind == "paths" else "photo": images, "label": labels})
    found = load_source(frame)
    same(found, make)
    assert found.labels.tolist() == [0, -1, 1]
    assert found.class_names == (["1", "2"] if kind == "numbers and holes" else ["cat", "dog"])
    assert found.ids == (["0", "1", "2"] if kind in ("PIL", "bytes") else FILES)
    again = frame.copy()
    assert load_source(again).fingerprint == found.fingerprint
    again.loc[1, "label"] = again.loc[0, "label"]
    assert load_source(again).fingerprint != found.fingerprint
    assert not load_source(frame.drop(columns="label")).has_target.any()
    assert tmp_path.name not in "".join(found.ids) + found.name


def test_ids_of_a_data_frame_are_no_paths_of_this_machine(tmp_path, make):
    root = make.files(tmp_path, FILES)
    frame = pd.DataFrame({"image": [make.picture(i) for i in range(3)], "file_name": [str(root / f) for f in FILES]})
    assert load_source(frame).ids == ["0", "1", "2"]
    assert load_source(frame.assign(file_name=FILES)).ids == FILES
    mixed = frame.assign(label=["a", 3, True], image=[str(root / f) for f in FILES])
    assert load_source(mixed).class_names == ["3", "True", "a"] and load_source(mixed).ids == FILES
    turned = Image.new("RGB", (8, 4))
    turned.getexif()[274] = 6
    assert load_source(pd.DataFrame({"image": [turned]})).image(0).size == (4, 8)


def test_a_dataset_and_its_splits(tmp_path, make):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = {"image": [make.picture(i) for i in range(3)], "label": [1, -1, 0]}
    train = datasets.Dataset.from_dict(rows, features=features)
    found = load_source(train)
    same(found, make)
    assert found.class_names == ["x", "y"] and found.labels.tolist() == [1, -1, 0] and found.ids == ["0", "1", "2"]
    train.to_parquet(tmp_path / "t.parquet")
    assert load_source(tmp_path / "t.parquet").fingerprint == found.fingerprint
    assert load_source(train.select([2, 0])).labels.tolist() == [0, 1]

    both = datasets.DatasetDict({"train": train, "test": train.select([0])})
    assert len(load_source(both)) == 3 and len(load_source(both, split="test")) == 1
    assert load_source(both, split="test").split == "test"
    for data in (both, train, [str(tmp_path / "x.png")]):
        with pytest.raises(MissingSplit, match="split.*'validation'"):
            load_source(data, split="validation")
    assert len(load_source(datasets.DatasetDict({"val": train}), split="validation")) == 3


def test_images_of_a_dataset_that_are_files(tmp_path, make):
    root = make.files(tmp_path, FILES)
    paths = {"image": [str(root / name) for name in FILES]}
    for data in (
        datasets.Dataset.from_dict(paths),
        datasets.Dataset.from_dict(paths, features=datasets.Features({"image": datasets.Image()})),
    ):
        found = load_source(data)
        same(found, make)
        assert found.ids == FILES
    before = found.fingerprint
    (root / FILES[0]).write_bytes(make.encoded(make.picture(5, 30, 30)))
    assert load_source(data).fingerprint != before


def test_masks(tmp_path, make):
    root = make.files(tmp_path, ["photos/0.png", "photos/1.png"])
    for i in range(2):
        mask = Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12) % 3)
        mask.save(tmp_path / f"{i}.png")
    pairs = [(str(root / "photos/0.png"), str(tmp_path / "0.png")), (str(root / "photos/1.png"), None)]
    frame = pd.DataFrame({"image": [p for p, _ in pairs], "mask": [m for _, m in pairs]})
    for data in (pairs, frame):
        found = load_segmentation(data)
        same(found, make, 2)
        assert found.ids == ["0.png", "1.png"] and found.labels.tolist() == [0, -1] and len(found.class_names) == 3
        assert build_padded_cache(found, [0], masks=True).images.shape == (1, 4, 10, 12)
    alone = load_segmentation([p for p, _ in pairs], classes=["a", "b"])
    assert not alone.has_target.any() and make_split(found, 1).labeled == {"0.png": None}


@pytest.mark.parametrize("own, asked", [("validation", "val"), ("val", "validation"), ("test", "testing")])
def test_a_split_is_found_in_any_spelling(make, own, asked):
    """Folders, parquet, the Hub and a DatasetDict took either one."""
    rows = datasets.Dataset.from_dict({"image": [make.picture(0)], "label": ["a"]}, split=own)
    found = load_source(rows, split=asked)
    assert len(found) == 1 and len(load_source(found, split=own)) == 1
    kind = dict(features=rows.features, split=datasets.NamedSplit(own))
    stream = datasets.IterableDataset.from_generator(lambda: iter(rows), **kind)
    assert len(list(Shards(stream, split=asked).rows(0))) == 1
    other = "test" if own != "test" else "validation"
    for refused in (lambda: load_source(rows, split=other), lambda: load_source(found, split=other)):
        with pytest.raises(MissingSplit):
            refused()


def test_what_is_open_already(tmp_path, make):
    found = load_source(str(make.files(tmp_path, FILES)))
    assert load_source(found) is found
    with pytest.raises(MissingSplit, match="Open that split"):
        load_source(found, split="test")
    with pytest.raises(UserError, match="no config and no revision"):
        load_source(found, config="small")


def test_what_cannot_be_read(tmp_path, make):
    path = str(make.files(tmp_path, ["1.png"]) / "1.png")
    for data, message in (
        ({"image": []}, "cannot be read from a dict"),
        ([(path, "a", "b")], "images or .image, label. pairs, not"),
        ([3], "not .3, None"),
        ([], "no rows in 'memory'"),
        ([path, path], "'1.png' is given 2 times"),
        (pd.DataFrame({"label": [1]}), "0 columns with images"),
    ):
        with pytest.raises(UserError, match=message):
            load_source(data)
    with pytest.raises(UserError, match="no config and no revision"):
        load_source([path], revision="main")
    with pytest.raises(UserError, match="make_split takes an ImageDataset, not a list"):
        make_split([path], 1)


def arrays(make, gray=()):
    """RGB arrays, but gray ones at some places."""
    return [np.asarray(make.picture(i).convert("L" if i in gray else "RGB")) for i in range(3)]


@pytest.mark.parametrize("kind", ["frame", "pairs", "pictures", "alone"])
def test_arrays_and_pictures_in_memory(make, kind):
    """As a column, with labels, among paths, and without any label; ids are row numbers."""
    images = arrays(make, gray=[1]) if kind != "pictures" else [make.picture(i) for i in range(3)]
    labels = ["cat", None, "dog"]
    given = {"frame": pd.DataFrame({"image": images, "label": labels}), "alone": images}
    found = load_source(given.get(kind, list(zip(images, labels))))
    assert found.ids == ["0", "1", "2"] and found.labels.tolist() == ([-1] * 3 if kind == "alone" else [0, -1, 1])
    for i, image in enumerate(images):
        assert np.array_equal(np.asarray(found.image(i)), np.asarray(image))
    other = [*images[:2], images[0]]
    assert load_source(list(zip(other, labels))).fingerprint != load_source(list(zip(images, labels))).fingerprint


def test_masks_in_memory_are_arrays_too(make):
    """Of the numbers that numpy makes of comparisons and sums."""
    masks = [np.eye(24, dtype=bool), np.eye(24, dtype=np.int64) * 2, None]
    images = [np.full((24, 24, 3), i, np.uint8) for i in range(3)]
    frame = pd.DataFrame({"image": images, "mask": masks})
    for given in (list(zip(images, masks)), frame):
        found = load_segmentation(given, classes=["a", "b", "c"])
        assert found.has_target.tolist() == [True, True, False]
        assert np.array_equal(found.mask(0), np.eye(24)) and np.array_equal(found.mask(1), 2 * np.eye(24))


@pytest.mark.parametrize(
    "images, words",
    [
        (
            [np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3))],
            r"Image 1 is an array of float64 of the shape \(9, 9, 3\)",
        ),
        (
            [np.zeros((3, 9, 9), np.uint8)] * 2,
            r"Image 0 is an array of uint8 of the shape \(3, 9, 9\). Give uint8 arrays",
        ),
        (
            [torch.zeros(3, 9, 9).bfloat16()] * 2,
            r"array of float32 of .* of numbers from 0 to 1 \(255 \* x\).round\(\) as",
        ),
        ([Image.new("L", (9, 9)), 3], "Image 1 is 3. Give files"),
    ],
)
def test_what_is_no_image_in_a_column_is_said(images, words):
    with warnings.catch_warnings(), pytest.raises(UserError, match=words):
        warnings.simplefilter("error")
        load_source(pd.DataFrame({"image": images, "label": ["a", "b"]}))


def test_tensors_are_images_as_arrays_are():
    """With the channels last, or first where that cannot be mistaken."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 9, 3), dtype=np.uint8)
    last, first = torch.from_numpy(pixels), torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for made in (list, lambda images: pd.DataFrame({"image": [*images], "label": [*"aba"]})):
        assert len({load_source(made(images)).fingerprint for images in (pixels, last, first)}) == 1
    for images in (pixels, last, first, last[1], first[1]):
        given = given_images(images)
        assert len(given) == (3 if images.ndim == 4 else 1)
        with given[-1 if images.ndim == 4 else 0].open() as shown:
            assert np.array_equal(shown, pixels[2 if images.ndim == 4 else 1])
    gray = load_source([torch.zeros(8, 9, dtype=torch.uint8), torch.zeros(3, 9, 3, dtype=torch.uint8)])
    with gray.image(0) as a, gray.image(1) as b:
        assert a.size == (9, 8) and b.size == (9, 3)  # [H, W, 3] where both fit


def test_vectors_in_a_column_are_no_images(make):
    """As several classes stand in some tables."""
    frame = pd.DataFrame({"image": arrays(make), "several": [np.array([0, 1]), np.array([1, 0]), np.array([1, 1])]})
    assert len(load_source(frame)) == 3


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize("three", ["cat", 7, np.int64(7), np.array(7), torch.tensor(7), np.str_("cat"), 7.0, b"cat"])
def test_a_class_may_be_a_scalar_of_any_library(make, three, as_frame):
    if as_frame and isinstance(three, bytes):
        pytest.skip("bytes in a column are images")
    labels = [three, "dog", None]
    pairs = list(zip(arrays(make), labels))
    found = load_source(pd.DataFrame(pairs, columns=["image", "label"]) if as_frame else pairs)
    assert found.class_names == sorted(["dog", "cat" if isinstance(three, (bytes, str)) else "7"])
    assert (found.labels >= 0).tolist() == [True, True, False]


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize(
    "label, words",
    [
        (np.eye(3)[0], r"A label is an array of shape \(3,\); a class is text or a number"),
        (torch.tensor([0, 1]), "A label is a Tensor.*; a class is text or a number"),
        ([1, 0], r"The label \[1, 0\] is a list; a class is text or a number"),
        (b"\xff\xfe", "is a bytes; a class is text or a number"),
    ],
)
def test_what_is_no_class_is_said(make, label, words, as_frame):
    """Such as a row of ones and zeros, or a mask: its print was taken for a class."""
    pairs = [(image, label) for image in arrays(make)]
    with pytest.raises(UserError, match=rf"{words}|The label column 'label' is of type" if as_frame else words):
        load_source(pd.DataFrame({"image": arrays(make), "label": [label] * 3}) if as_frame else pairs)


@pytest.mark.parametrize(
    "column, cells",
    [
        ("boxes", [np.array([[1, 2, 300, 400]]), np.array([[1, 2, 30, 40], [2, 2, 2, 2]]), np.zeros((0, 4), int)]),
        ("embedding", [np.ones((2, 3), np.float32)] * 3),
        ("mask", [np.full((2, 2), 999)] * 3),  # of nobody who asks for classes
        ("tokens", [torch.zeros(2, 3)] * 3),
        ("notes", [["a", 1], {"b": 2}, None]),
        ("print", [2**70, 1, 2]),
    ],
)
def test_columns_beside_the_images_may_hold_anything(make, column, cells):
    """As annotations of objects and what networks said of the images stand beside the classes."""
    found = load_source(pd.DataFrame({"image": arrays(make), "label": ["a", None, "b"], column: cells}))
    assert found.class_names == ["a", "b"] and found.ids == ["0", "1", "2"]
    assert np.array_equal(np.asarray(found.image(1)), arrays(make)[1])
    if column != "mask":
        masks = {"image": arrays(make), "mask": [np.eye(24, dtype=int)] * 3, column: cells, "annotation": cells}
        assert load_segmentation(pd.DataFrame(masks), classes=["a", "b"]).has_target.all()


def test_images_of_arrays_are_found_under_any_name(make):
    columns = {"photo": arrays(make, gray=[0]), "label": ["a", "b", None]}
    assert load_source(pd.DataFrame(columns)).ids == ["0", "1", "2"]
    floats = {"rgb": [array.astype(float) for array in arrays(make)], "label": ["a", "b", None]}
    with pytest.raises(UserError, match="Image 0 is an array of float64"):
        load_source(pd.DataFrame(floats), image_column="rgb")


@pytest.mark.parametrize("kind", ["array", "picture", "bytes"])
@pytest.mark.parametrize("column", ["image", "path"])
def test_paths_and_pictures_stand_in_one_column(tmp_path, make, kind, column):
    root = make.files(tmp_path, ["0.png"])
    later = {"array": np.asarray, "picture": lambda image: image, "bytes": make.encoded}[kind](make.picture(1))
    frame = pd.DataFrame({column: [str(root / "0.png"), later, None], "label": ["a", "b", None]}).iloc[:2]
    found = load_source(frame)
    same(found, make, 2)
    assert found.class_names == ["a", "b"]
    masks = pd.DataFrame({"image": arrays(make)[:2], "mask": [str(root / "mask.png"), np.eye(24, dtype=int)]})
    Image.fromarray(np.eye(24, dtype=np.uint8)).save(root / "mask.png")
    assert np.array_equal(load_segmentation(masks).mask(0), load_segmentation(masks).mask(1))


def test_several_classes_that_are_an_array_of_arrays_are_refused(make):
    with pytest.raises(UserError, match=r"A label is an array of shape \(2, 2\)"):
        get_task("multilabel").open(DataArguments(pd.DataFrame({"image": arrays(make), "label": [np.eye(2)] * 3})))


@pytest.mark.parametrize("as_frame", [False, True])
def test_arrays_of_truth_values_are_black_and_white(make, as_frame):
    """What a comparison gives, as a mask of 0 and 255 and of numbers, and as a picture."""
    eye, images = np.eye(24, dtype=bool), arrays(make)
    pairs = [(image, eye[:, ::-1]) for image in images]
    given = pd.DataFrame(pairs, columns=["image", "mask"]) if as_frame else pairs
    for how in ({"mask_format": "binary"}, {"classes": ["a", "b"]}):
        assert np.array_equal(load_segmentation(given, **how).mask(0), eye[:, ::-1])
    pictures = pd.DataFrame({"image": [eye] * 2}) if as_frame else [eye] * 2
    assert np.array_equal(np.asarray(load_source(pictures).image(0).convert("L")), 255 * eye)
    assert np.array_equal(np.asarray(given_images([eye])[0].open().__enter__().convert("L")), 255 * eye)


@pytest.mark.parametrize("kind", [np.uint16, np.int64, np.int8])
def test_other_whole_numbers_make_masks_but_no_pictures(make, kind):
    """As pictures of 16 bits they would come out black."""
    values = np.eye(24, dtype=kind)
    for given in ([values], pd.DataFrame({"image": [values]}), pd.DataFrame({"path": ["x.png", values]})):
        with pytest.raises(UserError, match=f"Image [01] is an array of {values.dtype}"):
            load_source(given)
    with pytest.raises(UserError, match=f"Image 0 is an array of {values.dtype}"):
        given_images([values])
    assert np.array_equal(load_segmentation([(arrays(make)[0], values)]).mask(0), values)
    with pytest.raises(UserError, match="Mask 0 is an array of float64"):
        load_segmentation([(arrays(make)[0], values.astype(float))])


@pytest.mark.parametrize("mode", ["1", "L", "P", "I", "I;16", "F"])
def test_masks_and_pictures_of_pil_in_any_mode(make, mode):
    mask = Image.fromarray(np.eye(24, dtype=np.uint8) * (255 if mode == "1" else 1)).convert(mode)
    frame = pd.DataFrame({"image": arrays(make)[:1], "mask": [mask]})
    for given in (frame, [(arrays(make)[0], mask)]):
        assert np.array_equal(load_segmentation(given, classes=["a", "b"]).mask(0), np.eye(24))
    if mode != "F":
        for given in (pd.DataFrame({"image": [mask]}), [mask]):
            assert load_source(given).image(0).size == (24, 24)


@pytest.mark.parametrize("empty", [np.zeros((0, 4), np.uint8), np.zeros((4, 0, 3), np.uint8), Image.new("L", (0, 4))])
def test_an_image_without_pixels_is_said(make, empty):
    with pytest.raises(UserError, match=r"Image 1 has no pixels: its sides are \d x \d. Leave it out"):
        load_source([arrays(make)[0], empty])
    with pytest.raises(UserError, match="Mask 0 has no pixels"):
        load_segmentation([(arrays(make)[0], empty)])


@pytest.mark.parametrize("mode", ["HSV", "RGBa", "La", "I;16N", "CMYK", "LAB", "YCbCr", "PA", "RGBX", "I"])
def test_a_picture_of_any_mode_is_read(make, mode):
    """Those that no file has, beside the others."""
    between = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode)
    image = make.picture(0).convert(between) if between else make.picture(0)
    image = Image.new(mode, (12, 10), 7) if mode in ("LAB", "I;16N") else image.convert(mode)
    found = load_source([(image, "a"), (make.picture(1), "b")])
    with given_images([image])[0].open() as given:
        expected = np.asarray(load_rgb(given)).astype(int)
    assert abs(np.asarray(found.rgb(0)) - expected).max() <= (6 if mode == "HSV" else 0)  # HSV is made of whole numbers
    assert found.size(0) == (12, 10)


def test_a_picture_that_cannot_be_decoded_is_said(make):
    damaged = Image.open(io.BytesIO(make.encoded(make.picture(0, 200, 200))[:5000]))
    with pytest.raises(UserError, match="Image 1 of mode RGB cannot be read: .* Leave it out, or give it as RGB"):
        load_source([make.picture(0), damaged])


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_masks_may_be_tensors(make, kind):
    mask = torch.eye(24).to(kind)
    for given in ([(arrays(make)[0], mask)], pd.DataFrame({"image": arrays(make)[:1], "mask": [mask]})):
        assert np.array_equal(load_segmentation(given, classes=["a", "b"]).mask(0), np.eye(24))
    for wrong in (torch.eye(24), torch.eye(24).bfloat16(), torch.ones(1, 24, 24, dtype=torch.int64)):
        with pytest.raises(UserError, match="Mask 0 is an array of .* Give uint8 arrays"):
            load_segmentation([(arrays(make)[0], wrong)])


def test_rows_of_labels_may_be_tensors(make):
    frame = pd.DataFrame({"image": arrays(make), "labels": [torch.tensor(v) for v in ([0, 0, 1], [1, 0, 0], [0] * 3)]})
    found = open_dataset(frame, MultiLabelTargets())
    assert found.labels.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_a_slice_is_of_files(make, tmp_path):
    make.table(tmp_path / "t.parquet", list("aabb"))
    rows = datasets.Dataset.from_parquet(str(tmp_path / "t.parquet"))
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "t.parquet", tmp_path / "folder" / "train.parquet")
    for path in ("t.parquet", "folder"):
        cut = load_source(tmp_path / path, split="train[25%:75%]")
        assert cut.split == "train[25%:75%]" and cut.labels.tolist() == [0, 1]
    shutil.copy(tmp_path / "t.parquet", tmp_path / "test-0.parquet")
    assert len(load_source(tmp_path / "test-0.parquet", split="test[:1]")) == 1
    with pytest.raises(MissingSplit, match=r"is split train, not 'test\[:1\]'"):
        load_source(tmp_path / "t.parquet", split="test[:1]")
    for data in (rows, datasets.DatasetDict({"train": rows}), arrays(make)):
        with pytest.raises(
            UserError, match=r"'train\[:50%\]' of data in memory cannot be cut. Give the rows themselves"
        ):
            load_source(data, split="train[:50%]")
    with pytest.raises(UserError, match="cannot be cut"):
        Shards(datasets.IterableDatasetDict({"train": rows.to_iterable_dataset()}), split="train[:2]")
