"""The page for masks in data whose masks are of colours: what it writes has them, and is read by number too."""

import gzip
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.labels import Asked
from hf_lowlabel.labeling.mask_import import import_masks
from hf_lowlabel.labeling.mask_page import MaskSession, Shown
from hf_lowlabel.labeling.pages import session_of

from .conftest import paint

COLORED = "a #000000\nb #ff0000\n"
RGB = np.zeros((16, 16, 3), np.uint8)
RGB[:, 8:] = (255, 0, 0)
NUMBERS = (RGB[..., 0] > 0).astype(np.uint8)


@pytest.fixture
def photos(tmp_path):
    """Of which the first has a mask of colours, as it was drawn elsewhere."""
    names = paint(tmp_path / "photos" / "images", 3)
    (tmp_path / "photos" / "masks").mkdir()
    (tmp_path / "photos" / "classes.txt").write_text(COLORED)
    Image.fromarray(RGB).save(tmp_path / "photos" / "masks" / names[0])
    return tmp_path / "photos"


def shown(page, file):
    return np.frombuffer(gzip.decompress(page.load(file).content), np.uint8).reshape(16, 16)


def send(page, file, mask):
    page.save({"file": file, "stamp": page.load(file).stamp}, zlib.compress(np.asarray(mask, np.uint8).tobytes()))


def asks(photos, base, lines, **more):
    """A folder to label with the third of them."""
    names = paint(base / "out" / "images", 1)
    more = dict(class_names=["a", "b"], given=dict(dataset=str(photos))) | more
    Asked("photos", None, {names[0]: "photo 02.png"}, task="segmentation", **more).save(base / "out")
    (base / "out" / "classes.txt").write_text(lines)
    (base / "out" / "masks").mkdir()
    return base / "out"


def test_a_stroke_keeps_the_colours_of_the_data(photos):
    page = MaskSession(photos)
    assert (shown(page, "photo 00.png") == NUMBERS).all()
    half = np.where(np.arange(16)[:, None] < 8, NUMBERS, 255)
    send(page, "photo 00.png", 1 - NUMBERS)
    send(page, "photo 01.png", half)
    for how in (dict(mask_format="colors"), {}):
        data = load_segmentation(photos, classes=str(photos / "classes.txt"), **how)
        assert (data.mask(0) == 1 - NUMBERS).all() and (data.mask(1) == half).all()


def test_masks_of_numbers_are_read_whatever_colours_the_list_has(photos):
    (photos / "classes.txt").write_text("a\nb\n")
    (photos / "masks" / "photo 00.png").unlink()
    page = MaskSession(photos)
    send(page, "photo 01.png", NUMBERS)  # in the usual colours
    (photos / "classes.txt").write_text(COLORED)
    Image.fromarray(NUMBERS).save(photos / "masks" / "photo 02.png")
    for file in ("photo 01.png", "photo 02.png"):
        assert (shown(page, file) == NUMBERS).all()
        send(page, file, NUMBERS)
    data = load_segmentation(photos, classes=str(photos / "classes.txt"), mask_format="colors")
    assert (data.mask(1) == NUMBERS).all() and (data.mask(2) == NUMBERS).all()


def test_numbers_are_not_painted_among_colours_that_nobody_has_named(photos):
    (photos / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="are of colours, such as photo 00.png.*classes.txt, one a line, such as 'road"):
        MaskSession(photos)
    Image.fromarray(NUMBERS).save(photos / "masks" / "photo 01.png")  # said by another, which the page reads
    MaskSession(photos)
    (photos / "masks" / "photo 01.png").unlink()
    (photos / "classes.txt").write_text(COLORED)
    MaskSession(photos)


def test_a_mask_of_two_meanings_is_refused(photos):
    """A palette of another program, whose numbers are not those of the classes."""
    other = Image.fromarray(NUMBERS, mode="P")
    other.putpalette([255, 0, 0, 0, 0, 0])
    other.save(photos / "masks" / "photo 01.png")
    with pytest.raises(UserError, match="one thing by its numbers and another by its colours"):
        MaskSession(photos).load("photo 01.png")
    odd = RGB.copy()
    odd[0, 0] = (9, 9, 90)
    Image.fromarray(odd).save(photos / "masks" / "photo 01.png")
    with pytest.raises(UserError, match=r"the colour \(9, 9, 90\)"):
        MaskSession(photos).load("photo 01.png")


@pytest.mark.parametrize("name", ["ignore", "void", "unlabeled"])
def test_a_name_that_means_no_class_beside_colours_is_refused(photos, name):
    page, before = MaskSession(photos), (photos / "classes.txt").read_bytes()
    for call in (page.new_class, lambda name: page.rename("b", name)):
        with pytest.raises(UserError, match="is no class"):
            call(name)
    with pytest.raises(UserError, match="is no class"):
        MaskSession(photos, classes=["a", "b", name])
    assert (photos / "classes.txt").read_bytes() == before and page.classes == ["a", "b"]
    (photos / "classes.txt").write_text("a\nb\n")
    (photos / "masks" / "photo 00.png").unlink()
    assert MaskSession(photos).new_class(name)["classes"][2]["name"] == name


def test_further_classes_of_the_call_get_colours(photos):
    page = MaskSession(photos, classes=["a", "b", "c", "d"])
    page.begin()
    assert len({*page.colors} & {*"abcd"}) == 4 and len({color for of in page.colors.values() for color in of}) == 4
    send(page, "photo 00.png", NUMBERS + 2)
    data = load_segmentation(photos, classes=str(photos / "classes.txt"), mask_format="colors")
    assert (data.mask(0) == NUMBERS + 2).all()


def test_colours_stay_as_they_were_where_the_list_cannot_be_written(photos, monkeypatch):
    page = MaskSession(photos)

    def full(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr("hf_lowlabel.labeling.mask_page.write_text", full)
        for call in (lambda: page.new_class("c"), lambda: page.rename("b", "c")):
            with pytest.raises(OSError):
                call()
    send(page, "photo 01.png", NUMBERS)
    assert page.colors == {"a": [(0, 0, 0)], "b": [(255, 0, 0)]} and page.classes == ["a", "b"]


def test_a_list_without_colours_takes_none_from_the_folder_to_label(photos, tmp_path):
    (photos / "classes.txt").write_text("a\nb\nc\n")
    out = asks(photos, tmp_path, COLORED + "ignore #ffffff\n", given=dict(dataset=str(photos), mask_format="colors"))
    page = session_of(out, None, [], None, 400)
    assert page.classes == ["a", "b", "c"] and page.colors["b"] == [(255, 0, 0)] and "ignore" in page.colors
    with pytest.raises(UserError, match="says none of c"):  # and what to write there
        send(page, next(iter(page.places)), NUMBERS)
    (out / "classes.txt").write_text(COLORED)
    (photos / "classes.txt").write_text("a\nred\nc #0000ff\n")  # renamed there
    page = session_of(out, None, [], None, 400)
    assert page.colors == {"a": [(0, 0, 0)], "red": [(255, 0, 0)], "c": [(0, 0, 255)]}
    send(page, next(iter(page.places)), NUMBERS + 1)
    import_masks(out, photos)
    assert (photos / "classes.txt").read_text() == "a #000000\nred #ff0000\nc #0000ff\n"


def test_masks_that_were_painted_with_fewer_classes_are_taken_over(photos, tmp_path):
    (photos / "masks" / "photo 00.png").unlink()
    (photos / "classes.txt").unlink()
    out = asks(photos, tmp_path, COLORED, given=dict(dataset=str(photos), mask_format="colors"))
    page = session_of(out, None, [], None, 400)
    send(page, next(iter(page.places)), NUMBERS)
    (photos / "classes.txt").write_text(COLORED + "c #0000ff\n")  # another page has a class more
    split, _ = import_masks(out, photos)
    assert split.class_names == ["a", "b", "c"]
    data = load_segmentation(photos, classes=str(photos / "classes.txt"), mask_format="colors")
    assert (data.mask(2) == NUMBERS).all()


def test_a_run_from_before_a_class_was_renamed_is_looked_at(photos):
    (photos / "classes.txt").write_text("a #000000\nred #ff0000\n")
    only = {"photo 00.png": Shown("odd")}
    page = MaskSession(photos, classes=["a", "b"], only=only)
    assert page.classes == ["a", "red"] and (shown(page, "photo 00.png") == NUMBERS).all()
    with pytest.raises(UserError, match="The run has learned the numbers of b, a, and classes.txt") as error:
        (photos / "classes.txt").write_text(COLORED)
        MaskSession(photos, classes=["b", "a"], only=only)
    assert "--classes" not in str(error.value)
