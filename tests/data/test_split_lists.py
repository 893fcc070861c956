"""Published lists of images: lines with blanks, dots in ids, more words on a line."""

import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.data.splits.split_lists import split_from_lists


def source(root, *names):
    """Images with masks."""
    for name in names:
        image, mask = root / "images" / name, (root / "masks" / name).with_suffix(".png")
        for path, value in ((image, 90), (mask, 1)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value).save(path)
    return load_segmentation(root, classes=["a", "b"])


def listed(root, data, *lines):
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return list(split_from_lists(data, root / "list.txt").labeled)


@pytest.mark.parametrize(
    "line, id",
    [
        ("a b0.png", "a b0.png"),
        ("my cat 1", "my cat 1.png"),
        ("  my cat 1  ", "my cat 1.png"),
        ("images/my cat 1.png", "my cat 1.png"),
        ("my data/x.jpg", "x.jpg"),
        ("x", "x.jpg"),
        ("x 1", "x.jpg"),
        ("x.jpg masks/a.png", "x.jpg"),
        ("images/x.jpg masks/y.png", "x.jpg"),  # of two images the first
        ("scan.0", "scan.0.png"),
        ("scan.0.png", "scan.0.png"),
        ("scan.1.PNG", "scan.1.png"),
        ("deep/z", "deep/z.png"),
    ],
)
def test_a_line_is_one_image(tmp_path, line, id):
    names = ("a b0.png", "my cat 1.png", "x.jpg", "y.jpg", "scan.0.png", "scan.1.png", "deep/z.png")
    assert listed(tmp_path, source(tmp_path, *names), line) == [id]


@pytest.mark.parametrize("line", ["scan.0", "scan.tar", "my cat 2", "cat"])
def test_what_is_no_image_is_not_taken_for_one(tmp_path, line):
    data = source(tmp_path, "scan.png", "my cat 1.png")
    with pytest.raises(UserError, match=f"unknown image of the list in .* '{line}'"):
        listed(tmp_path, data, line)


def test_one_image_by_two_lines_is_refused(tmp_path):
    data = source(tmp_path, "my cat 1.png", "x.png")
    assert listed(tmp_path, data, "my cat 1", "x 1") == ["my cat 1.png", "x.png"]
    with pytest.raises(UserError, match="names the image 'x.png' twice: 'x 1' and 'images/x.png'"):
        listed(tmp_path, data, "x 1", "images/x.png")


def test_voc_lists_of_photos_with_blanks(tmp_path):
    for name in ("my cat 1", "my cat 2", "b", "scan.0"):
        for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (8, 8), 1).save(tmp_path / folder / f"{name}.{ending}")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("my cat 1\nb 1\n")
    (lists / "val.txt").write_text("my cat 2 \nscan.0\n")
    names = ["a", "b"]
    assert load_segmentation(tmp_path, classes=names).ids == ["b", "my cat 1"]
    assert load_segmentation(tmp_path, split="val", classes=names).ids == ["my cat 2", "scan.0"]
    (lists / "train.txt").write_text("my cat 3\n")
    with pytest.raises(UserError, match="without an image in JPEGImages/, such as 'my cat 3'"):
        load_segmentation(tmp_path, classes=names)
