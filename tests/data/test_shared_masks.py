"""One folder of masks for the images of all splits."""

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.errors import MissingSplit

LAYOUTS = ["images/{}", "{}/images"]


def shared(root, layout, masks=("t0", "t1", "v0"), folder="masks"):
    """Three training images, two to validate, one to test; masks of some."""
    names = {"train": ("t0", "t1", "t2"), "val": ("v0", "v1"), "test": ("x0",)}
    for split, every in names.items():
        for name in every:
            image = root / layout.format(split) / f"{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(image)
    (root / folder).mkdir()
    for k, name in enumerate(masks):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(root / folder / f"{name}.png")
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [None, ["a", "b", "c"]])
def test_masks_are_found_for_each_split(tmp_path, layout, classes):
    root = shared(tmp_path, layout)
    source = load_segmentation(root, classes=classes)
    assert source.ids == ["t0.jpg", "t1.jpg", "t2.jpg"] and source.has_target.tolist() == [True, True, False]
    assert (source.mask(1) == 1).all() and not source.left_out
    held = load_segmentation(root, split="validation", classes=["a", "b", "c"])
    assert held.has_target.tolist() == [True, False] and (held.mask(0) == 2).all()
    assert not load_segmentation(root, split="test", classes=["a", "b", "c"]).has_target.any()
    with pytest.raises(MissingSplit):
        load_segmentation(root, split="unlabeled", classes=classes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_of_no_image_of_any_split_is_refused(tmp_path, layout):
    root = shared(tmp_path, layout, masks=("t0", "t1", "gone"))
    with pytest.raises(UserError, match="1 masks in .* are without an image, such as 'gone.png'"):
        load_segmentation(root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_in_two_splits_is_refused(tmp_path, layout):
    root = shared(tmp_path, layout)
    Image.new("RGB", (8, 8)).save(root / layout.format("val") / "t0.png")
    said = f"{layout.format('train')}/ and {layout.format('val')}/ in .* both have an image 't0', and masks/ is one"
    with pytest.raises(UserError, match=said):
        load_segmentation(root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_splits_among_the_masks_come_first(tmp_path, layout):
    root = shared(tmp_path, layout, masks=())
    (root / "masks" / "train").mkdir()
    for k, name in enumerate(("t0", "t1")):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(root / "masks" / "train" / f"{name}.png")
    assert load_segmentation(root).has_target.tolist() == [True, True, False]
    assert not load_segmentation(root, split="val", classes=["a", "b"]).has_target.any()
