"""classes.txt beside images/ and masks/: names of the masks, or a file of another program."""

import logging

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.pixels.masks import read_classes
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.tasks import get_task

CORNER = np.eye(24, dtype=np.uint8)


def masked(root, mask=CORNER):
    for i in range(2):
        for kind, values in (("images", np.full((24, 24), 100 + i, np.uint8)), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "content, why",
    [
        ("Stra\xdfe\nHaus\n".encode("latin-1"), "is not UTF-8 text"),
        ("road\nhouse\n".encode("utf-16"), "is not UTF-8 text"),
        (b"car\nroad\ncar\n", "'car' is twice"),
        (b"sky 900 1 1\nroad\n", "numbers above 255"),
        ("".join(f"name{i}\n" for i in range(300)).encode(), "names 300 classes"),
        (b"0,road\n1,house\n", "looks like a table, with '0,road'"),
        (b"road\t7\nhouse\t8\n", "looks like a table"),
        (b"0 road\n1 house\n", "looks like a table, with '0 road'"),
    ],
)
def test_a_file_of_another_program_does_not_stop_the_data(tmp_path, content, why):
    """It opens as without the file, and the names of a manifest hold."""
    root = masked(tmp_path / "data")
    (root / "classes.txt").write_bytes(content)
    with pytest.warns(UserWarning, match=f"classes.txt in 'data' is not used; --classes says .*{why}"):
        found = load_segmentation(root)
    assert found.class_names == ["class 0", "class 1"] and np.array_equal(found.mask(0), CORNER)
    Split(dataset="data", config=None, revision=None, seed=0, class_names=["a", "b"], labeled={}).save(
        tmp_path / "s.json"
    )
    with pytest.warns(UserWarning, match="is not used"):
        named = get_task("segmentation").open(DataArguments(str(root), split=str(tmp_path / "s.json")))
    assert named.class_names == ["a", "b"]
    assert load_segmentation(root, classes=["x", "y"]).class_names == ["x", "y"]  # and no warning


@pytest.mark.parametrize("how", [{"mask_format": "binary"}, {"instances": True}])
def test_two_things_are_not_called_by_three_names(tmp_path, how):
    root = masked(tmp_path / "data", CORNER * 255)
    (root / "classes.txt").write_text("person\ncar\ndog\n")
    with pytest.warns(UserWarning, match="is not used.* names 3 classes, and these masks tell two apart"):
        assert load_segmentation(root, **how).class_names == ["background", "object"]


def test_names_without_colours_are_not_those_of_masks_of_colours(tmp_path):
    root = masked(tmp_path / "data", np.stack([CORNER * 255] * 3, 2))
    (root / "classes.txt").write_text("person\ncar\n")
    with pytest.warns(UserWarning, match="is not used"), pytest.raises(UserError, match="Give the classes as a file"):
        load_segmentation(root, mask_format="colors")


@pytest.mark.parametrize("format", ["index", "binary", "colors"])
def test_that_names_are_taken_is_said_once(tmp_path, caplog, format):
    root = masked(tmp_path / "data", {"index": CORNER, "binary": CORNER * 255}.get(format, np.stack([CORNER] * 3, 2)))
    (root / "classes.txt").write_text("ground 0 0 0\nline 1 1 1\n")
    with caplog.at_level(logging.INFO, "hf_lowlabel"):
        for _ in range(2):
            assert load_segmentation(root, mask_format=format).class_names == ["ground", "line"]
        assert caplog.text.count("classes are called as in") == 1 and "classes.txt: ground, line" in caplog.text
        caplog.clear()
        load_segmentation(root, mask_format=format, classes=root / "classes.txt")
    assert "called" not in caplog.text and read_classes(root / "classes.txt")[0] == ["ground", "line"]
