"""A person is shown what a network sees: one frame of an animation, deep images by their range."""

import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import load_source
from hf_lowlabel.data.images import open_image, to_rgb
from hf_lowlabel.data.pages import PageReader
from hf_lowlabel.selection.labeling import write_image


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

    pages = PageReader(reader, np.zeros(9, int), np.arange(9))
    for i in range(9):
        with pages(i) as image:
            image.load()
    assert len(opened) == 1
    pages(5)
    assert len(opened) == 2
