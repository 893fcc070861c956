"""Pictures as people have them: 10 to 14 bits, floats, pages and frames, formats that packages add."""

import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from hf_lowlabel import Config, UserError, evaluate, finetune, load_segmentation, load_source, predict
from hf_lowlabel.data.caches.image_cache import build_cache
from hf_lowlabel.data.pages import look
from hf_lowlabel.data.pixels.images import open_image, plugins, read_endings, upright, upright_size
from hf_lowlabel.tasks import get_task

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


def save(path, pixels, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


def pixels(source, i=0):
    return np.asarray(source.rgb(i))[..., 0]


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_in_many_are_said_and_stretched_when_asked(tmp_path, ending, bits):
    top = 2**bits - 1
    save(tmp_path / f"0.{ending}", (RAMP * (top // 63)).astype(np.uint16))
    with pytest.warns(UserWarning, match=f"come out dark.*--value-range 0 {top}"):
        look(load_source(tmp_path))
    source = load_source(tmp_path, value_range=[0, top])
    assert np.abs(pixels(source) - RAMP * 255 / 63).max() <= 255 * 63 / top + 1
    assert (source.decode(0, 8)[0].numpy() == pixels(source)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(source)


def test_all_sixteen_bits_are_as_they_were(tmp_path):
    save(tmp_path / "0.png", (RAMP * 1040).astype(np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(load_source(tmp_path))
    assert (pixels(load_source(tmp_path)) == (RAMP.astype(int) * 1040 + 128) // 257).all()


@pytest.mark.parametrize("dtype, low, high", [(np.float32, 0, 1), (np.float32, -5, 20), (np.int32, 0, 100_000)])
def test_floats_and_long_numbers_are_read_with_a_range(tmp_path, dtype, low, high):
    values = (low + RAMP / 63 * (high - low)).astype(dtype)
    save(tmp_path / "0.tif", values)
    with pytest.raises(UserError, match="--value-range"):
        load_source(tmp_path).rgb(0)
    expected = (values.astype(float) - low) / (high - low) * 255
    assert np.abs(pixels(load_source(tmp_path, value_range=[low, high])) - expected).max() <= 0.51


@pytest.mark.parametrize("wrong", [[5], [9, 3], [1, 1], [0, 1, 2]])
def test_what_is_no_range(tmp_path, wrong):
    save(tmp_path / "0.png", RAMP.astype(np.uint8))
    with pytest.raises(UserError, match="two values, the black one first"):
        load_source(tmp_path, value_range=wrong)


def test_a_model_knows_the_range_it_was_trained_with(tmp_path):
    for k, name in enumerate("ab"):
        for i in range(4):
            save(tmp_path / f"d/{name}/{i}.png", (RAMP.repeat(4, 0).repeat(4, 1) * (20 + 40 * k) + i).astype(np.uint16))
    settings = dict(method="supervised", model="test_resnet", from_scratch=True, batch_size=2, max_steps=1)
    run = finetune(
        str(tmp_path / "d"),
        num_labels=4,
        class_balanced=True,
        value_range=[0, 4095],
        output_dir=str(tmp_path / "run"),
        **settings,
    )
    one = predict(tmp_path / "d/a/0.png", run.folder, top=2).rows[0]
    eight = tmp_path / "eight.png"
    Image.fromarray(pixels(load_source(tmp_path / "d", value_range=[0, 4095]))).save(eight)
    other = predict(eight, run.folder, top=2).rows[0]
    assert {k: v for k, v in one.items() if k != "file"} == {k: v for k, v in other.items() if k != "file"}
    assert evaluate(run.folder, str(tmp_path / "d"), dataset_split="train")["images"] == 8


def stack(path, count, size=(8, 8), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.new("L", size, 40 * (k + 1)) for k in range(count)]
    first.save(path, save_all=True, append_images=rest, **more)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_pages_and_frames_are_said_and_are_images_when_asked(tmp_path, ending):
    stack(tmp_path / f"cat/0.{ending}", 3)
    stack(tmp_path / f"dog/1.{ending}", 1)
    source = load_source(tmp_path)
    assert len(source) == 2 and pixels(source).mean() == pytest.approx(40, abs=3)
    with pytest.warns(UserWarning, match=f"'cat/0.{ending}' has 3.*--pages"):
        look(source)
    source = load_source(tmp_path, pages=True)
    assert source.ids == [f"cat/0.{ending}#1", f"cat/0.{ending}#2", f"cat/0.{ending}#3", f"dog/1.{ending}"]
    assert source.file_of == {id: f"cat/0.{ending}" for id in source.ids[:3]}
    for streaming in (False, True):
        assert build_cache(source, [0, 3], size=8, streaming=streaming).file_of == source.file_of
    assert source.labels.tolist() == [0, 0, 0, 1] and source.fingerprint != load_source(tmp_path).fingerprint
    assert [round(float(pixels(source, i).mean()) / 40) for i in range(4)] == [1, 2, 3, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(source)


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("kind, more", [("u1", {}), ("u1", {"compression": "tiff_lzw"}), ("u1", {"big_tiff": True}),
    ("<u2", {}), (">u2", {"compression": "tiff_deflate"}), ("u1", {"exif": 6})])  # fmt: skip
def test_any_page_of_a_stack_is_read_alone(tmp_path, monkeypatch, kind, more, place):
    """Not those before it, which takes minutes of a stack of a thousand pages; turned as it says."""
    if "exif" in more:
        more = {"exif": Image.Exif()}
        more["exif"][274] = 6
    values = np.random.default_rng(0).integers(0, 250, (9, 12, 20)).astype(kind)
    first, *rest = map(Image.fromarray, values)
    first.save(tmp_path / "0.tif", save_all=True, append_images=rest, **more)
    expected = []
    for i in range(9):
        with open_image(tmp_path / "0.tif") as image:
            image.seek(i)
            expected.append((upright_size(image), np.asarray(upright(image))))
    data = pd.DataFrame({"image": [(tmp_path / "0.tif").read_bytes()]}) if place == "memory" else tmp_path
    source, read, load = load_source(data, pages=True), [], ImageFileDirectory_v2.load
    monkeypatch.setattr(ImageFileDirectory_v2, "load", lambda tags, file: read.append(1) or load(tags, file))
    times = set()
    for i in (8, 1, 5, 0, 8):
        read.clear()
        assert source.size(i) == expected[i][0] and np.array_equal(np.asarray(source.image(i)), expected[i][1])
        times.add(len(read))
    assert max(times) - min(times) <= 1 and min(times) > 0  # 7 more for page 8 than for page 1 if all are walked


def test_pages_of_masks_are_those_of_the_images(tmp_path):
    stack(tmp_path / "images/0.tif", 2)
    first, second = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(first).save(tmp_path / "masks/0.tif", save_all=True, append_images=[Image.fromarray(second)])
    source = load_segmentation(tmp_path, classes=["a", "b"], pages=True)
    assert [source.mask(i).mean() for i in range(2)] == [0, 1]
    Image.fromarray(first).save(tmp_path / "masks/0.tif")
    with pytest.raises(UserError, match="has 2 pages, and its mask 1"):
        load_segmentation(tmp_path, classes=["a", "b"], pages=True)


def test_a_run_says_what_it_sees(tmp_path):
    stack(tmp_path / "cat/0.tif", 3)
    config = Config.from_flat("finetune", {"dataset": str(tmp_path)})
    with pytest.warns(UserWarning, match="--pages"):
        get_task("classification").open(config.data)


@pytest.fixture
def added(monkeypatch):
    """As where packages add formats to Pillow."""
    from importlib.util import find_spec

    called = []
    for name, register in (("pillow_heif", "register_heif_opener"), ("pillow_jxl", "none")):
        module = types.ModuleType(name)
        setattr(module, register, lambda: called.append(1))
        monkeypatch.setitem(sys.modules, name, module)
    there = lambda name: name in ("pillow_heif", "pillow_jxl") or find_spec(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", there)
    plugins.cache_clear()
    yield called
    monkeypatch.undo()
    plugins.cache_clear()


def test_formats_that_packages_add(added):
    assert {".heic", ".heif", ".jxl"} <= read_endings() and added


def test_heic_where_its_reader_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    save(tmp_path / "0.heic", np.full((64, 64, 3), 200, np.uint8))
    source = load_source(tmp_path)
    assert source.ids == ["0.heic"] and abs(float(pixels(source).mean()) - 200) < 5


def test_jxl_where_its_reader_is_installed(tmp_path):
    pytest.importorskip("pillow_jxl")
    save(tmp_path / "0.jxl", np.full((64, 64, 3), 200, np.uint8))
    assert abs(float(pixels(load_source(tmp_path)).mean()) - 200) < 5


def test_pages_are_predicted_when_asked(tmp_path):
    for name in "ab":
        for i in range(3):
            save(tmp_path / f"d/{name}/{i}.png", np.full((32, 32), 60 * i, np.uint8))
    settings = dict(method="supervised", model="test_resnet", from_scratch=True, batch_size=2, max_steps=1)
    run = finetune(str(tmp_path / "d"), num_labels=4, image_size=32, output_dir=str(tmp_path / "run"), **settings)
    stack(tmp_path / "s.tif", 3, (32, 32))
    (tmp_path / "x.heic").write_bytes(b"x")
    files = [tmp_path / "s.tif", tmp_path / "d/a/0.png", tmp_path / "x.heic"]
    found = predict(files, run.folder, pages=True)
    assert [row["file"].rsplit("/", 1)[-1] for row in found.rows] == ["s.tif#1", "s.tif#2", "s.tif#3", "0.png"]
    assert "pillow-heif" in found.skipped[0][1]
    with Image.open(tmp_path / "s.tif") as opened:  # a caller's: asked again it answers the same
        opened.seek(1)
        for _ in range(2):
            again = predict([opened], run.folder, pages=True).rows
            assert [row["confidence"] for row in again] == [row["confidence"] for row in found.rows[:3]]
            assert opened.tell() == 1
    assert len(predict(files, run.folder).rows) == 2
