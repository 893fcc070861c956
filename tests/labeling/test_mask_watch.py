"""The page for masks beside masks of other tools: found without reading the folder for each image, and kept as such."""

import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.data.pixels.images import open_image
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling import mask_watch
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_import import import_masks
from hf_lowlabel.labeling.mask_page import MaskSession
from hf_lowlabel.labeling.mask_places import find_places, read_mask
from hf_lowlabel.labeling.mask_watch import Watch

from .conftest import paint

NAMES = ("background", "disc")
ONES = np.ones((16, 16), np.uint8)


def send(page, file, mask=ONES):
    seen = page.load(file).stamp
    return page.save({"file": file, "stamp": seen}, zlib.compress(mask.tobytes()))


@pytest.mark.parametrize("inside", ["images", "images/deep", ""])
def test_an_unpainted_image_is_no_reason_to_read_the_folder(tmp_path, monkeypatch, inside):
    names = [f"{inside.partition('/')[2]}/{name}".lstrip("/") for name in paint(tmp_path / inside, 4)]
    page = MaskSession(tmp_path, classes=NAMES)
    with monkeypatch.context() as patch:
        patch.setattr(page, "found_places", None)
        for name in names[:3]:
            page.load(name)  # what it was asked for, as a browser does
            page.place(name), page.place(name)
            send(page, name)
            page.rename(page.classes[0], page.classes[0] + "s")
        send(page, names[0], ONES * 255)
        page.place(names[0])
    other = page.places[names[3]].mask
    other = other.with_name(f"{other.stem.removesuffix('_mask')}_gt.png")
    Image.fromarray(ONES).save(other)  # another tool
    assert page.place(names[3]).mask == other
    with monkeypatch.context() as patch:
        patch.setattr(page, "found_places", None)
        page.place(names[0])
    os.rename(other, other.with_name(names[0].rpartition("/")[2].replace(".png", "_seg.png")))
    assert page.place(names[0]).mask.name.endswith("_seg.png") and not page.place(names[3]).mask.exists()


def test_masks_in_a_folder_that_another_tool_makes(tmp_path):
    names = paint(tmp_path / "images", 2)
    page = MaskSession(tmp_path, classes=NAMES)
    (tmp_path / "labels").mkdir()
    Image.fromarray(ONES).save(tmp_path / "labels" / names[0])
    assert page.place(names[0]).mask == tmp_path / "labels" / names[0]
    (tmp_path / "masks").mkdir()
    for _ in range(2):  # until somebody has done what it says
        with pytest.raises(UserError, match="only one of them is read"):
            page.place(names[1])


def test_a_change_is_seen_whatever_the_time_of_its_folder_says(tmp_path, monkeypatch):
    """Of a folder that was changed just now the time may stay as it is; of one at rest it is enough."""
    (tmp_path / "a").mkdir()
    watch = Watch(tmp_path)
    before = (tmp_path / "a").stat()
    (tmp_path / "a" / "1.png").touch()
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watch.changed()
    for folder in (tmp_path, tmp_path / "a"):
        os.utime(folder, (1, 1))
    watch = Watch(tmp_path)
    monkeypatch.setattr(mask_watch, "listed", None)
    assert not watch.changed()
    (tmp_path / "a").rename(tmp_path / "b")
    os.utime(tmp_path, (1, 1))
    assert watch.changed()


ENDINGS = {"tif": "TIFF", "TIFF": "TIFF", "bmp": "BMP", "gif": "GIF", "png": "PNG", "webp": "PNG", "tga": "PNG"}


@pytest.mark.parametrize("ending, kind", ENDINGS.items())
@pytest.mark.parametrize("beside", [False, True])
def test_a_mask_stays_what_its_name_says(tmp_path, ending, kind, beside):
    names = paint(tmp_path if beside else tmp_path / "images", 2)
    first = tmp_path / "photo 00_mask" if beside else tmp_path / "masks" / "photo 00"
    first = first.with_suffix(f".{ending}")
    first.parent.mkdir(exist_ok=True)
    Image.fromarray(ONES).save(first, lossless=True)
    page, stamps = MaskSession(tmp_path, classes=[f"class {k}" for k in range(255)]), set()
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for _ in range(2):
        mask = np.flip(mask)
        said = send(page, names[0], mask)
        stamps.add(said["stamp"])
        (there,) = [place.mask for place in find_places(tmp_path).values() if place.mask.is_file()]
        with Image.open(there) as opened:
            assert opened.format == kind and there.suffix == (f".{ending}" if ending.upper()[:3] in kind else ".png")
        assert (read_mask(page.place(names[0]), page.classes, {}) == mask).all() and page.place(names[0]).mask == there
        assert len(list(first.parent.glob("photo 00*"))) == 1 + beside
        assert ("is photo 00" in said.get("note", "")) == (there != first and len(stamps) == 1)
    assert len(stamps) == 2
    send(page, names[0], mask | 255)
    assert not page.place(names[0]).mask.exists()


def test_masks_that_are_taken_over_keep_the_ending_of_their_format(tmp_path):
    names = paint(tmp_path / "data" / "images", 3)
    folder = tmp_path / "rounds" / "round-0" / "to_label"
    paint(folder / "images", 2)
    Asked("data", None, {name: name for name in names[:2]}, task="segmentation").save(folder)
    (folder / "classes.txt").write_text("background\ndisc\n")
    for ending in ("tif", "png"):  # painted elsewhere, and again on the page
        shutil.rmtree(folder / "masks", ignore_errors=True)
        (folder / "masks").mkdir()
        Image.fromarray(ONES * (ending == "tif")).save(folder / "masks" / f"photo 00.{ending}")
        import_masks(folder, tmp_path / "data", allow_missing=True, rounds=tmp_path / "rounds")
        (there,) = (tmp_path / "data" / "masks").iterdir()
        assert there.name == f"photo 00.{ending}" and open_image(there).format == {"tif": "TIFF", "png": "PNG"}[ending]
