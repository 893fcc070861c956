"""Masks whose colours say the classes: those of the library lie among them, and what is no such mask is said."""

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import evaluate, finetune, predict
from hf_lowlabel.data.opening import load_segmentation
from hf_lowlabel.data.pixels.masks import MaskFormat, decode_mask, make_coding, read_classes
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.overlays import palette, save_mask
from hf_lowlabel.labeling.pages import session_of
from hf_lowlabel.models import create_backbone

NAMES = ["background", "cell", "wall"]
COLORS = {"background": (0, 0, 0), "cell": (213, 94, 0), "wall": (230, 159, 0), "ignore": (255, 255, 255)}
CLASSES = "background #000000\ncell #d55e00\nwall #e69f00\nignore #ffffff\n"
CODING = make_coding("colors", NAMES, {name: [color] for name, color in COLORS.items()}, ())
VALUES = np.arange(16).reshape(4, 4) % 3


def written(path, declared, values=VALUES):
    save_mask(values.astype(np.uint8), NAMES, path, declared=declared)
    with Image.open(path) as image:
        image.load()
        return image


def colored(root, count=4, images="images"):
    """Photos with masks of the declared colours, as an image editor saves them."""
    for folder in (images, "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    truth = np.kron(VALUES[:2, :2], np.ones((12, 12), int))
    for i in range(count):
        pixels = np.array([(20, 20, 20), (90, 200, 90), (200, 90, 200)], np.uint8)[truth]
        Image.fromarray(pixels + np.uint8(i)).save(root / images / f"{i}.png")
        Image.fromarray(np.array([COLORS[name] for name in NAMES], np.uint8)[truth]).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text(CLASSES)
    return truth


def test_what_a_model_of_colours_predicts_lies_among_its_masks(tmp_path):
    """Its numbers and its colours say the same; where nothing was declared the usual palette stays."""
    colored(tmp_path / "bio")
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    how = dict(task="segmentation", method="knn", model=str(tmp_path / "net"), image_size=32, device="cpu")
    given = dict(mask_format="colors", classes=[str(tmp_path / "bio" / "classes.txt")])
    run = finetune(str(tmp_path / "bio"), output_dir=tmp_path / "run", **how, **given)
    Image.new("RGB", (24, 24), (200, 90, 200)).save(tmp_path / "bio" / "images" / "new.png")
    said = predict(tmp_path / "bio" / "images" / "new.png", run.folder, output=tmp_path / "said")
    file = tmp_path / "said" / said.rows[0]["mask"]
    numbers = np.asarray(Image.open(file))
    file.rename(tmp_path / "bio" / "masks" / "new.png")
    data = load_segmentation(str(tmp_path / "bio"), mask_format="colors", classes=given["classes"][0])
    assert (data.mask(data.ids.index("new.png")) == numbers).all()
    shown = np.asarray(Image.open(tmp_path / "bio" / "masks" / "new.png").convert("RGB"))
    assert {tuple(c) for c in shown.reshape(-1, 3).tolist()} <= {*COLORS.values()}


@pytest.mark.parametrize("declared", [None, [(0, 0, 0), (230, 159, 0), (213, 94, 0)]])
def test_numbers_in_other_colours_are_said_and_never_swapped(tmp_path, declared):
    """The usual palette has the very colours of these classes, in another order."""
    assert {tuple(c) for c in palette(NAMES)[:8].tolist()} >= {(213, 94, 0), (230, 159, 0)}
    with pytest.raises(UserError, match=r"mask of image 'a' looks like class numbers, as `predict`.*\(1 in it is"):
        decode_mask(written(tmp_path / "a.png", declared), CODING, 3, "a")


def test_numbers_of_another_tool_are_said_too():
    image = Image.fromarray(VALUES.astype(np.uint8))
    with pytest.raises(UserError, match="looks like class numbers.*its values are 0, 1, 2"):
        decode_mask(image, CODING, 3, "a")


def test_pixels_that_nobody_painted_take_no_part(tmp_path):
    values = VALUES.copy()
    values[0] = 255
    image = written(tmp_path / "a.png", [COLORS[name] for name in NAMES], values)
    assert (decode_mask(image, CODING, 3, "a") == values).all()
    assert (decode_mask(image, MaskFormat(), 3, "a") == values).all()


def test_a_palette_of_another_tool_is_read_by_its_colours():
    image = Image.fromarray((2 - VALUES).astype(np.uint8)).copy()
    image.putpalette([v for name in reversed(NAMES) for v in COLORS[name]])
    assert (decode_mask(image, CODING, 3, "a") == VALUES).all()


def test_a_class_may_have_several_colours(tmp_path):
    """As editors make them that convert colours; the first is the one that the class is painted in."""
    colored(tmp_path)
    off = np.full((4, 4, 3), (212, 94, 0), np.uint8)
    off[:2] = COLORS["cell"]
    off[0] = (254, 255, 255)
    with pytest.raises(UserError, match=r"\(212, 94, 0\) in 8 of its pixels.*nearest.*of class 1.*line.*#d45e00"):
        decode_mask(Image.fromarray(off), CODING, 3, "a")
    (tmp_path / "classes.txt").write_text(CLASSES + "cell #d45e00\nignore 254 255 255\n")
    names, colors = read_classes(tmp_path / "classes.txt")
    assert names == NAMES and colors["cell"] == [(213, 94, 0), (212, 94, 0)]
    coding = make_coding("colors", names, colors, ())
    found = decode_mask(Image.fromarray(off), coding, 3, "a")
    assert set(found[0]) == {255} and set(found[1:].ravel()) == {1}
    assert coding.class_colors() == [list(COLORS[name]) for name in NAMES]
    page = session_of(tmp_path, "segmentation", [], None, 400)
    assert page.state()["classes"][1] == {"name": "cell", "color": [213, 94, 0]}
    page.rename("cell", "nucleus")
    names, kept = read_classes(tmp_path / "classes.txt")
    assert names == ["background", "nucleus", "wall"] and kept["nucleus"] == colors["cell"]
    assert kept["ignore"] == [(255, 255, 255), (254, 255, 255)]


def test_all_faults_of_masks_are_said_before_a_model_is_loaded(tmp_path):
    """Each with its colour or size, what to do once for each kind, and how many there are beyond those named."""
    colored(tmp_path, 12)
    for i in range(8):
        off = np.zeros((24, 24, 3) if i else (20, 24, 3), np.uint8)
        off[:3] = (0, 0, i)
        Image.fromarray(off).save(tmp_path / "masks" / f"{i}.png")
    how = dict(
        task="segmentation", mask_format="colors", classes=[str(tmp_path / "classes.txt")], model="no/such-model"
    )
    with pytest.raises(UserError) as said:
        finetune(str(tmp_path), method="knn", output_dir=tmp_path / "run", **how)
    head, *lines, rest = str(said.value).splitlines()
    assert head.startswith("There are 8 faults in the masks of") and rest.strip() == "... and 3 more"
    assert sum("add a line" in line for line in lines) == 1 and len(lines) == 5
    assert all(
        "in 72 of its pixels" in line or "20 px for image '0.png' of 24 x 24 px. Resize" in line for line in lines
    )
    assert not (tmp_path / "run").exists()


def test_all_masks_that_hold_no_numbers_are_said_where_classes_are_counted(tmp_path):
    colored(tmp_path, 3)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(
        UserError, match=r"There are 3 faults in the masks[^$]*'0.png' is of mode RGB[^$]*'2.png' is of"
    ):
        load_segmentation(tmp_path)


def test_all_faults_of_masks_to_evaluate_on_are_said_at_once(tmp_path):
    colored(tmp_path, 3)
    create_backbone("test_resnet", pretrained=False, image_size=32).save_pretrained(tmp_path / "net")
    how = dict(task="segmentation", model=str(tmp_path / "net"), image_size=32, device="cpu", mask_format="colors")
    run = finetune(str(tmp_path), method="knn", output_dir=tmp_path / "run", **how)
    for i in range(2):
        Image.new("RGB", (24, 24), (i, 9, 9)).save(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "run" / "split.json").unlink()
    with pytest.raises(UserError, match="There are 2 faults in the masks"):
        evaluate(run.folder, str(tmp_path), device="cpu")


def test_smoothed_edges_are_told_from_a_colour_that_is_off():
    """No line in the file of classes mends mixtures of colours."""
    mixed = np.zeros((4, 4, 3), np.uint8)
    mixed[..., 0] = np.arange(16).reshape(4, 4) * 10
    with pytest.raises(UserError, match="15 strange colours, such as.*antialiasing") as said:
        decode_mask(Image.fromarray(mixed), CODING, 3, "a")
    assert "add a line" not in str(said.value)
