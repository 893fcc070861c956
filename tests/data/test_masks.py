"""What the pixels of a mask mean, and every way in which a mask can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel.data.pixels.masks import MaskFormat, check_values, decode_mask, make_coding, parse_class, read_classes
from hf_lowlabel.errors import UserError


def gray(values, mode: str = "L") -> Image.Image:
    return Image.fromarray(np.asarray(values, np.uint8), mode)


def test_indices_and_ignored_values():
    image = gray([[0, 1, 2], [11, 255, 1]])
    out = decode_mask(image, MaskFormat(ignore=(11,)), 3, "a")
    assert out.dtype == np.uint8 and out.tolist() == [[0, 1, 2], [255, 255, 1]]


def test_palette_png_keeps_its_indices(tmp_path):
    image = gray([[0, 2], [1, 255]], "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [7] * 759)
    image.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as again:
        assert again.mode == "P"
        assert decode_mask(again, MaskFormat(), 3, "a").tolist() == [[0, 2], [1, 255]]


def test_table_applies_to_raw_values_and_ignored_ones_too():
    table = tuple(3 if v == 7 else 255 for v in range(256))
    assert decode_mask(gray([[7, 8, 255]]), MaskFormat(table=table), 4, "a").tolist() == [[3, 255, 255]]
    assert decode_mask(gray([[7, 8]]), MaskFormat(table=table, ignore=(7,)), 4, "a").tolist() == [[255, 255]]


def test_wide_and_boolean_masks():
    wide = Image.fromarray(np.array([[0, 2], [1, 255]], np.int32))
    assert decode_mask(wide, MaskFormat(), 3, "a").tolist() == [[0, 2], [1, 255]]
    with pytest.raises(UserError, match="mask of image 'a' has the value 300"):
        decode_mask(Image.fromarray(np.array([[300]], np.int32)), MaskFormat(), 3, "a")
    flags = Image.fromarray(np.array([[True, False]]))
    assert flags.mode == "1" and decode_mask(flags, MaskFormat(), 2, "a").tolist() == [[1, 0]]


def test_binary_masks_and_their_jpegs(tmp_path):
    values = np.zeros((32, 32), np.uint8)
    values[5:21, 7:22] = 255  # not along the 8 px blocks
    gray(values).save(tmp_path / "m.jpg", quality=60)
    with Image.open(tmp_path / "m.jpg") as image:
        assert len(np.unique(np.asarray(image))) > 2
        assert (decode_mask(image, MaskFormat("binary"), 2, "a") == (values > 0)).all()
    assert decode_mask(gray([[0, 127, 128, 255]]), MaskFormat("binary"), 2, "a").tolist() == [[0, 0, 1, 1]]


def test_class_numbers_and_palettes_are_not_binary():
    """Read as 0 and 255 they would be all background; black, white and soft or JPEG edges stay what they are."""
    voc = [0, 0, 0, 128, 0, 0, 192, 128, 128, 224, 224, 192, 255, 255, 255]
    for image, words in (
        (gray([[0, 1]]), "values 0, 1"),
        (gray([[0, 2, 100]]), "values 0, 2, 100"),
        (gray([[0, 1]], "P"), "values 0, 1"),
        (gray([[1, 3]], "P"), r"colour \(128, 0, 0\)"),
        (gray([[0, 2, 3]], "P"), r"colour \(192, 128, 128\)"),
        (gray([[0, 1]]).convert("RGB"), "values 0, 1"),
    ):
        if image.mode == "P":
            image.putpalette(voc)
        with pytest.raises(UserError, match=f"image 'a' has .*{words}, .*has 0 and 255.*--mask-format index"):
            decode_mask(image, MaskFormat("binary"), 2, "a")
    palette = gray([[0, 4]], "P")
    palette.putpalette(voc)
    for image, expected in (
        (palette, [[0, 1]]),
        (gray([[0, 0]]), [[0, 0]]),
        (gray([[2, 2]]), [[0, 0]]),
        (gray([[255, 255]]), [[1, 1]]),
        (gray([[0, 3, 90, 140, 250]]), [[0, 0, 0, 1, 1]]),
        (Image.fromarray(np.array([[False, True]])), [[0, 1]]),
    ):
        assert decode_mask(image, MaskFormat("binary"), 2, "a").tolist() == expected


def test_colors():
    coding = make_coding(
        "colors", ["sky", "road"], {"road": [(9, 8, 7)], "sky": [(0, 0, 255)], "ignore": [(1, 1, 1)]}, ()
    )
    rgb = np.array([[[0, 0, 255], [9, 8, 7]], [[1, 1, 1], [9, 8, 7]]], np.uint8)
    assert decode_mask(Image.fromarray(rgb), coding, 2, "a").tolist() == [[0, 1], [255, 1]]
    rgb[1, 1] = (9, 8, 6)
    with pytest.raises(UserError, match=r"mask of image 'a' has the colour \(9, 8, 6\).*declared"):
        decode_mask(Image.fromarray(rgb), coding, 2, "a")
    with pytest.raises(UserError, match="no colour for class 'sea'"):
        make_coding("colors", ["sky", "sea"], {"sky": [(0, 0, 255)]}, ())
    with pytest.raises(UserError, match="for two classes"):
        make_coding("colors", ["sky", "sea"], {"sky": [(0, 0, 255)], "sea": [(0, 0, 255)]}, ())


def test_values_beyond_the_classes_name_image_and_value():
    with pytest.raises(UserError, match=r"mask of image 'x/1.png' has the value 5; classes are 0..2, and 255"):
        decode_mask(gray([[0, 5, 7]]), MaskFormat(), 3, "x/1.png")


def test_rgb_masks_need_colors_unless_gray():
    rgb = np.repeat(np.array([[0, 1, 2]], np.uint8)[..., None], 3, 2)
    assert decode_mask(Image.fromarray(rgb), MaskFormat(), 3, "a").tolist() == [[0, 1, 2]]
    rgb[0, 0, 1] = 9
    with pytest.raises(UserError, match="mask of image 'a' is of mode RGB.*--mask-format colors"):
        decode_mask(Image.fromarray(rgb), MaskFormat(), 3, "a")


def test_masks_of_0_and_255_must_be_declared():
    present = np.zeros(256, bool)
    present[[0, 255]] = True
    with pytest.raises(UserError, match="nothing but 0 and 255 in 7 masks of 'mine'.*--mask-format binary"):
        check_values(present, MaskFormat(), 7, "mine")
    check_values(present, MaskFormat(ignore=(255,)), 7, "mine")
    present[1] = True
    check_values(present, MaskFormat(), 7, "mine")
    present[[0, 1]] = False
    with pytest.raises(UserError, match="no pixel of any class"):
        check_values(present, MaskFormat("binary"), 7, "mine")


def test_files_of_classes(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("sky #87ceeb\ntraffic light, 250 170 30\n\nignore #000000\n", encoding="utf-8")
    names, colors = read_classes(file)
    assert names == ["sky", "traffic light"]
    assert colors == {"sky": [(135, 206, 235)], "traffic light": [(250, 170, 30)], "ignore": [(0, 0, 0)]}
    file.write_text("background\nignore\n")
    assert read_classes(file) == (["background", "ignore"], {})  # a class of that name, where there are no colours
    for text, message in (
        ("a\na\n", "twice"),
        ("a #000001\nb\na #000001", "twice"),
        ("a #000001\nb\na", "twice"),
        ("a\n", "There are 1 classes"),
        ("a 1 2 300\nb", "above 255"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_classes(file)
    with pytest.raises(UserError, match="Give a text file of classes"):
        read_classes(tmp_path / "none.txt")
    assert parse_class("class 7") == ("class 7", None)


def test_unknown_formats():
    with pytest.raises(UserError, match="did you mean 'colors'"):
        MaskFormat("colours")
    with pytest.raises(UserError, match="needs the colour"):
        MaskFormat("colors")
    with pytest.raises(UserError, match="256 is not in 0..255"):
        MaskFormat(ignore=(256,))
