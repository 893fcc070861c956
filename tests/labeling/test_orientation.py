"""Pictures that do not lie in their file as they stand: shown as training reads them, or turned by ourselves."""

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hf_lowlabel import load_source
from hf_lowlabel.data.pixels.images import open_image, turned as is_turned, upright_size
from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.labeling.mask_places import find_places, image_size, read_mask, read_rgb
from hf_lowlabel.labeling.same_images import is_copy
from hf_lowlabel.labeling.to_label import write_image

from .conftest import opened
from .test_page import browser, serving  # noqa: F401

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
FORMATS = ("jpg", "png", "webp", "avif")


def exif(value: int, kind: int = 3) -> bytes:
    """A tag of orientation alone; kind 3: 16 bits, 4: 32 bits."""
    return b"Exif\0\0II" + struct.pack("<HIHHHIII", 42, 8, 1, 0x112, kind, 1, value, 0)


def save(path, more):
    """A picture of 40 x 20 px, white at the left."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = 255
    if "xmp" in more and path.suffix == ".png":
        more = {"pnginfo": PngInfo()}
        more["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}), **more)


TURNS = {
    "exif": {"exif": exif(6)},
    "long": {"exif": exif(6, kind=4)},
    "xmp": {"xmp": XMP.encode()},
    "bad": {"exif": exif(9)},
    "none": {},
}


@pytest.fixture
def turned(tmp_path):
    for name, more in TURNS.items():
        for ending in FORMATS:
            save(tmp_path / "photos" / f"{ending}-{name}.{ending}", more)
    return tmp_path / "photos"


def test_the_size_of_a_mask_is_that_of_the_picture_that_training_reads(turned):
    for file in turned.iterdir():
        assert image_size(file)[::-1] == read_rgb(file).shape[:2]


def test_what_not_every_browser_turns_is_shown_as_png(turned):
    page = MaskSession(turned, classes=["a", "b"])
    for file in turned.iterdir():
        content, upright = page.get("/images/" + file.name, {}).content, read_rgb(file)
        as_it_is = content == file.read_bytes()
        assert as_it_is == (file.stem.split("-")[1] in ("bad", "none") or file.name == "jpg-exif.jpg"), file.name
        if not as_it_is:
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), upright)
        assert page.load(file.name).sides == f"{upright.shape[1]} x {upright.shape[0]}"


def test_images_to_label_are_upright_and_known_again(turned, tmp_path):
    source = load_source(turned)
    for i in range(len(source)):
        copy = tmp_path / write_image(source, i, tmp_path, i)
        with open_image(copy) as image:
            by_browsers = source.ids[i] == "jpg-exif.jpg"
            assert is_turned(image) == by_browsers and upright_size(image) == source.size(i)
        assert is_copy(copy, source, i)
    old = tmp_path / "old.webp"  # of a version that copied it as it is
    old.write_bytes((turned / "webp-exif.webp").read_bytes())
    assert is_copy(old, source, source.ids.index("webp-exif.webp"))


def test_a_mask_with_an_orientation_is_turned_as_in_training(tmp_path):
    save(tmp_path / "images" / "a.webp", TURNS["exif"])
    (tmp_path / "masks").mkdir()
    stored = np.zeros((20, 40), np.uint8)
    stored[:, :10] = 1
    Image.fromarray(stored).save(tmp_path / "masks" / "a.png", exif=exif(6))
    found = read_mask(find_places(tmp_path)["a.webp"], ["a", "b"], {})
    assert found.shape == (40, 20) and (found[:10] == 1).all() and (found[10:] == 0).all()


def test_a_mask_lies_where_it_was_painted(turned, browser):  # noqa: F811
    """On white: the side of the picture that it is on depends on who turned it."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    for file in turned.glob("*"):
        if file.stem not in ("jpg-exif", "jpg-long", "webp-exif", "png-xmp", "avif-exif"):
            file.unlink()
    with serving(turned, lambda folder: MaskSession(folder, classes=["a", "b"])) as server:
        page = browser.new_page(bypass_csp=True)
        opened(page, server.url)
        for file in server.session.places:
            expect(page.locator("#id")).to_have_text(file)
            page.wait_for_function("() => !locked")
            assert page.inner_text("#problem") == ""
            page.evaluate(
                """() => { const c = document.createElement('canvas'), x = c.getContext('2d'); c.width = mask.width;
                c.height = mask.height; x.drawImage($('image'), 0, 0);
                const {data} = x.getImageData(0, 0, c.width, c.height);
                change(() => mask.where(i => data[4 * i] > 128, 1)); }"""
            )
            expect(page.locator("#saved")).to_have_text("saved")
            painted, white = (
                read_mask(server.session.places[file], ["a", "b"], {}) == 1,
                read_rgb(turned / file)[..., 0] > 128,
            )
            assert np.array_equal(painted, white) and 190 < white.sum() < 210, file
            page.keyboard.press("ArrowRight")
        page.close()


def test_an_image_that_the_browser_turns_otherwise_takes_no_strokes(turned, browser, monkeypatch):  # noqa: F811
    from playwright.sync_api import expect

    raw = lambda image: turned / image.filename  # noqa: E731
    monkeypatch.setattr("hf_lowlabel.labeling.display.file_to_show", raw)
    with serving(turned, lambda folder: MaskSession(folder, classes=["a", "b"])) as server:
        page = browser.new_page()
        opened(page, server.url)
        at = list(server.session.places).index("webp-exif.webp")
        page.evaluate(f"go({at})")
        expect(page.locator("#problem")).to_have_text(re.compile("as 40 x 20 px, and training reads 20 x 40 px"))
        assert page.evaluate("locked")
        page.close()
