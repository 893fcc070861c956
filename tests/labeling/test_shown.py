"""A person is shown what a network sees: one frame of an animation, deep images by their range."""

import base64
import io
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel import load_source
from hf_lowlabel.data.pages import PageReader
from hf_lowlabel.data.pixels.images import open_image, to_rgb
from hf_lowlabel.errors import UserError
from hf_lowlabel.hub.export import inputs_of
from hf_lowlabel.hub.export_int8 import calibration
from hf_lowlabel.labeling.contact_sheet import thumbnail
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.labeling.to_label import write_image
from hf_lowlabel.tasks.deployment import Deployment


def frames(count=3):
    """Each differs from the one before in a few pixels, so that an animation stores no more than those."""
    out, pixels = [], np.zeros((24, 24, 3), np.uint8)
    for k in range(count):
        pixels[2 * k : 2 * k + 4, k : k + 9] = (90 * k % 256, 255 - 70 * k % 256, 30)
        out.append(Image.fromarray(pixels.copy()))
    return out


def animate(path, count=3, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = frames(count)
    first.save(path, save_all=True, append_images=rest, **more)


KINDS = {
    "gif": dict(disposal=0),
    "kept.gif": dict(disposal=1),
    "cleared.gif": dict(disposal=2),
    "webp": dict(lossless=True),
    "png": {},
    "tif": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pages", [True, False])
def test_a_person_labels_the_frame_that_a_network_sees(tmp_path, kind, pages):
    animate(tmp_path / f"photos/a.{kind}", **KINDS[kind])
    source = load_source(tmp_path / "photos", pages=pages)
    assert len(source) == (3 if pages else 1)
    for i in range(len(source)):
        name = write_image(source, i, tmp_path, i)
        with Image.open(tmp_path / name) as shown:
            assert getattr(shown, "n_frames", 1) == 1
            assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(source.rgb(i)))


def test_a_frame_that_is_turned_is_no_animation_either(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    animate(tmp_path / "photos/a.webp", lossless=True, exif=exif)
    source = load_source(tmp_path / "photos")
    with Image.open(tmp_path / write_image(source, 0, tmp_path, 0)) as shown:
        assert getattr(shown, "n_frames", 1) == 1
        assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(source.rgb(0)))


def test_one_picture_is_copied_as_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    for ending in ("jpg", "png", "gif", "webp", "bmp"):
        frames()[2].save(tmp_path / f"photos/a.{ending}")
    frames()[1].save(tmp_path / "photos/other.png", "TIFF")  # which browsers do not show, whatever it is called
    source = load_source(tmp_path / "photos", pages=True)
    for i, id in enumerate(source.ids):
        same = (tmp_path / write_image(source, i, tmp_path, i)).read_bytes() == (tmp_path / "photos" / id).read_bytes()
        assert same == (id != "other.png")


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_any_order_are_those_of_the_file(tmp_path, kind):
    animate(tmp_path / f"a.{kind}", 9, **KINDS[kind])
    animate(tmp_path / f"b.{kind}", 7, **KINDS[kind])
    source = load_source(tmp_path, pages=True)
    wanted = []
    for name, count in ((f"a.{kind}", 9), (f"b.{kind}", 7)):
        for k in range(count):
            with open_image(tmp_path / name) as image:
                image.seek(k)
                wanted.append(np.asarray(to_rgb(image)))
    order = [*range(16), *range(16), *reversed(range(16)), *random.Random(0).sample(range(16), 16)]
    same = lambda i: np.array_equal(np.asarray(source.rgb(i)), wanted[i])  # noqa: E731
    assert all(map(same, order))
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(same, order * 4))
    again = pickle.loads(pickle.dumps(source.reader))  # as it travels to the workers of a loader
    assert all(np.array_equal(np.asarray(again(i).convert("RGB")), wanted[i]) for i in order)


def test_frames_in_order_open_an_animation_once(tmp_path):
    animate(tmp_path / "a.gif", 9)
    opened = []

    def reader(i):
        opened.append(i)
        return open_image(tmp_path / "a.gif")

    pages = PageReader(reader, np.zeros(9, int), np.arange(9), np.zeros(9, int))
    for i in range(9):
        with pages(i) as image:
            image.load()
    assert len(opened) == 1
    pages(5)
    assert len(opened) == 2


def deep(folder, id, kind):
    """A picture of values up to 4095 in a file of more than 8 bits; these, from 0 to 255."""
    values = np.random.default_rng(0).integers(0, 4096, (40, 40))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(kind)).save(folder / id)
    return (values * 255 / 4095 + 0.5).astype(np.uint8)


DEEP = [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.float32), ("a.tif", np.int32)]


@pytest.mark.parametrize("id, kind", DEEP)
def test_a_deep_image_is_shown_by_its_range(tmp_path, id, kind):
    wanted = deep(tmp_path / "photos", id, kind)
    source = load_source(tmp_path / "photos", value_range=[0, 4095])
    with Image.open(tmp_path / write_image(source, 0, tmp_path, 0)) as shown:
        assert shown.mode == "RGB" and np.array_equal(np.asarray(shown)[..., 0], wanted)
    small = Image.open(io.BytesIO(base64.b64decode(thumbnail(source, 0).partition(",")[2])))
    assert abs(np.asarray(small).mean() - wanted.mean()) < 3


@pytest.mark.parametrize("id, kind", DEEP)
def test_the_page_for_masks_shows_a_deep_image_by_its_range(tmp_path, id, kind):
    wanted = deep(tmp_path / "photos", id, kind)
    page = session_of(tmp_path / "photos", "segmentation", ["a", "b"], None, 4, value_range=[0, 4095])
    shown = Image.open(io.BytesIO(page.get(f"/images/{id}", {}).content))
    assert np.array_equal(np.asarray(shown)[..., 1], wanted)
    seen = []
    page.once("pieces", {"file": id}, lambda image: seen.append(image) or np.zeros(1))
    assert np.array_equal(seen[0][..., 2], wanted)
    assert "--value-range 0 4095 " in page.next_command()


def test_the_range_of_a_model_is_that_of_the_page(tmp_path, monkeypatch):
    deep(tmp_path, "a.png", np.uint16)
    known = SimpleNamespace(names=["a", "b"], value_range=(0.0, 4095.0))
    monkeypatch.setattr("hf_lowlabel.labeling.mask_page.Segmenter", lambda model: known)
    page = session_of(tmp_path, "segmentation", [], "run", 4)
    assert page.value_range == (0, 4095)
    page = session_of(tmp_path, "segmentation", [], "run", 4, value_range=[0, 255])
    assert page.value_range == (0, 255)
    with pytest.raises(UserError, match="black one first"):
        session_of(tmp_path, "segmentation", [], None, 4, value_range=[9, 1])


def test_the_page_for_masks_shows_one_frame(tmp_path):
    animate(tmp_path / "a.gif")
    frames()[0].save(tmp_path / "b.png")
    page = session_of(tmp_path, "segmentation", ["a", "b"], None, 4)
    with Image.open(io.BytesIO(page.get("/images/a.gif", {}).content)) as shown:
        assert getattr(shown, "n_frames", 1) == 1
        assert np.array_equal(np.asarray(shown), np.asarray(frames()[0]))
    assert page.get("/images/b.png", {}).content == (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").unlink()
    assert page.get("/images/b.png", {}) is None


def test_what_an_export_is_compared_on_is_read_by_the_range_of_the_model(tmp_path):
    wanted = deep(tmp_path, "a.tif", np.float32)
    seen = []
    facts = {"value_range": [0, 4095]}
    plan = Deployment(
        lambda picture: seen.append(np.asarray(picture)) or torch.zeros(1), 8, None, facts, "", "", (0, 4095)
    )
    inputs_of(plan, [tmp_path / "a.tif"])
    list(calibration(None, plan, None, [tmp_path / "a.tif"]))
    assert len(seen) == 2 and all(np.array_equal(one[..., 0], wanted) for one in seen)
