"""Masks as people have them: folders of any usual name, masks beside images, drawn transparency, numbers of objects."""

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, finetune, load_segmentation, load_source
from hf_lowlabel.cli import main
from hf_lowlabel.data.splits.splits import Split

CORNER = np.zeros((32, 48), np.uint8)
CORNER[:16, :24] = 1


def save(path, values=CORNER):
    path.parent.mkdir(parents=True, exist_ok=True)
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)


def masked(root, values, images="images", masks="masks"):
    """A folder of as many gray images as there are masks."""
    for i, mask in enumerate(values):
        save(root / images / f"{i}.png", np.full((32, 48), 100 + i, np.uint8))
        save(root / masks / f"{i}.png", mask)
    return root


def train(root, **given):
    settings = dict(
        task="segmentation",
        num_labels=2,
        method="supervised",
        model="test_resnet",
        from_scratch=True,
        architecture="unet",
        batch_size=2,
        max_steps=1,
        image_size=32,
        test_fraction=0.4,
        output_dir=str(root) + "-run",
    )
    return finetune(str(root), **{**settings, **given})


@pytest.mark.parametrize(
    "images, masks",
    [("images", "labels"), ("Images", "Masks"), ("img", "mask"), ("imgs", "annotations"), ("IMAGES", "GT")],
)
def test_folders_of_usual_names_in_any_spelling(tmp_path, images, masks):
    masked(tmp_path / "a", [CORNER] * 3, images, masks)
    masked(tmp_path / "b/Train", [CORNER] * 3, images, masks)
    for split in ("training", "Val"):
        masked(tmp_path / "c", [CORNER] * 3, f"{images}/{split}", f"{masks}/{split.upper()}")
    for root in (tmp_path / "a", tmp_path / "b", tmp_path / "c"):
        source = load_segmentation(root)
        assert source.ids == ["0.png", "1.png", "2.png"] and (source.target(1) == CORNER).all()
    assert load_segmentation(tmp_path / "c", split="validation").has_target.all()


def test_two_folders_of_masks_are_a_question(tmp_path):
    masked(masked(tmp_path, [CORNER] * 2), [CORNER] * 2, masks="labels")
    with pytest.raises(UserError, match="There are labels/ and masks/ in .* only one of them is read"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("root", ["", "train", "images"])
def test_masks_beside_their_images(tmp_path, root):
    for i in range(3):
        save(tmp_path / root / f"x/{i}.jpg", np.full((32, 48), 100, np.uint8))
    save(tmp_path / root / "x/0_mask.png")
    save(tmp_path / root / "x/2_gt.png")
    save(tmp_path / root / "hand_mask.jpg")  # an image of its own: nothing is called hand
    source = load_segmentation(tmp_path, classes=["a", "b"])
    assert source.ids == ["hand_mask.jpg", "x/0.jpg", "x/1.jpg", "x/2.jpg"]
    assert source.has_target.tolist() == [False, True, False, True] and (source.target(3) == CORNER).all()


@pytest.mark.parametrize("images, masks", [("images", "masks"), ("Images", "Labels"), ("train/images", "train/gt")])
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_images_and_masks_are_no_classes(tmp_path, images, masks, task, capsys):
    masked(tmp_path / "a", [CORNER] * 4, images, masks)
    command = ["finetune", "--dataset", str(tmp_path / "a"), "--num-labels", "2", "--task", task]
    assert main([*command, "--output-dir", str(tmp_path / "a/run")]) == 2
    assert "--task segmentation" in capsys.readouterr().err


def test_a_class_may_be_called_mask(tmp_path):
    """Photos of people with and without one."""
    for name in ("mask", "no mask"):
        save(tmp_path / name / "0.png")
    assert load_source(tmp_path).class_names == ["mask", "no mask"]


def test_masks_beside_images_are_no_images_of_a_class(tmp_path):
    for name in ("benign", "normal"):
        save(tmp_path / name / "0.png")
        save(tmp_path / name / "0_mask.png")
    with pytest.warns(UserWarning, match="2 files .* called as masks.*'benign/0_mask.png'.*--task segmentation"):
        assert load_source(tmp_path).ids == ["benign/0.png", "normal/0.png"]


def drawn(color, mode):
    """The corner as what is opaque, over one colour or over itself."""
    gray = CORNER * 255 if color is None else np.full_like(CORNER, color)
    pixels = np.dstack([gray, CORNER * 255]) if mode == "LA" else np.dstack([gray] * 3 + [CORNER * 255])
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("color", [0, 255, 90, None])
def test_a_mask_may_be_drawn_into_the_transparency(tmp_path, mode, color):
    masked(tmp_path, [drawn(color, mode)])
    source = load_segmentation(tmp_path, mask_format="binary")
    assert (source.mask(0) == CORNER).all()
    if color is not None:
        with pytest.raises(UserError, match="transparency .*--mask-format binary"):
            load_segmentation(tmp_path, classes=["a", "b"]).mask(0)


def test_a_palette_with_one_transparent_colour(tmp_path):
    image = Image.fromarray(CORNER).convert("P")
    image.putpalette([200, 200, 200, 200, 200, 200])
    masked(tmp_path, [])
    save(tmp_path / "images/0.png")
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/0.png", transparency=0)
    assert (load_segmentation(tmp_path, mask_format="binary").mask(0) == CORNER).all()


def test_colours_and_transparency_that_differ(tmp_path):
    pixels = np.dstack([CORNER.T[::-1].T * 255, CORNER * 255])
    masked(tmp_path, [Image.fromarray(np.ascontiguousarray(np.dstack([pixels[::-1, :, 0], pixels[..., 1]])))])
    with pytest.raises(UserError, match="one thing by its colours and another by its transparency"):
        load_segmentation(tmp_path, mask_format="binary").mask(0)


def test_indices_with_an_opaque_channel_beside_them(tmp_path):
    masked(tmp_path, [np.dstack([CORNER] * 3 + [np.full_like(CORNER, 255)])])
    assert (load_segmentation(tmp_path, classes=["a", "b"]).mask(0) == CORNER).all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("given", [dict(mask_format="binary"), dict(instances=True)])
def test_values_that_are_ignored_are_so_in_every_format(tmp_path, bands, given):
    """Gray may be written with an opaque channel, as RGB, or both."""
    values = CORNER * np.uint8(255)
    values[24:] = 128
    colors, alpha = np.dstack([values] * (1 if bands < 3 else 3)), np.full((32, 48, 1 - bands % 2), 255, np.uint8)
    masked(tmp_path, [np.concatenate([colors, alpha], 2).squeeze()])
    wanted = CORNER.copy()
    wanted[24:] = 255
    assert (load_segmentation(tmp_path, mask_ignore=[128], **given).mask(0) == wanted).all()
    wanted[24:] = 1
    assert (load_segmentation(tmp_path, **given).mask(0) == wanted).all()


def test_a_binary_mask_with_nothing_but_ignored_values_beside_the_background(tmp_path):
    dark = np.zeros_like(CORNER)
    dark[24:] = 64
    masked(tmp_path, [dark, dark // 64 * 255])
    source = load_segmentation(tmp_path, mask_format="binary", mask_ignore=[64, 255])
    assert all(set(np.unique(source.mask(i))) == {0, 255} for i in range(2))


@pytest.mark.parametrize("given", [dict(mask_format="binary"), dict(instances=True)])
def test_values_to_ignore_in_masks_without_values(tmp_path, given):
    masked(tmp_path, [drawn(0, "RGBA"), np.dstack([CORNER * 200, CORNER * 9, CORNER])])
    save(tmp_path / "images/2.png")
    Image.fromarray(CORNER * np.uint8(255)).save(tmp_path / "masks/2.jpg")
    source = load_segmentation(tmp_path, mask_ignore=[128], **given)
    for i, words in enumerate(
        ["transparency", "colours .*the value 128 that is to be ignored", "is a JPEG, which blurs"]
    ):
        with pytest.raises(UserError, match=words):
            source.mask(i)


def test_values_to_ignore_in_masks_of_colours(tmp_path):
    masked(tmp_path, [np.dstack([CORNER * 200] * 3)])
    (tmp_path / "classes.txt").write_text("sky #000000\nroad #c8c8c8\n")
    with pytest.warns(UserWarning, match="no value 128 to ignore. Give the colour .* 'ignore #rrggbb'"):
        load_segmentation(tmp_path, classes=str(tmp_path / "classes.txt"), mask_format="colors", mask_ignore=[128])


@pytest.mark.parametrize("text", ["names: {1: a, 2: b}", "- a\n---\n- b", "names: [1, 2"])
def test_a_yaml_file_of_something_else_beside_masks_and_captions(tmp_path, text):
    masked(tmp_path, [CORNER] * 2)
    save(tmp_path / "images/2.png")
    (tmp_path / "images/2.txt").write_text("a caption")
    (tmp_path / "config.yaml").write_text(text)
    assert load_segmentation(tmp_path, classes=["a", "b"]).has_target.tolist() == [True, True, False]


def test_coloured_objects_on_a_transparent_ground(tmp_path):
    pixels = np.dstack([CORNER * 255, CORNER * 0, CORNER * 0, CORNER * 255])
    pixels[20:, 30:] = (0, 255, 0, 255)
    masked(tmp_path, [pixels])
    assert (load_segmentation(tmp_path, instances=True).mask(0) == (pixels[..., 3] > 0)).all()


@pytest.mark.parametrize("color", [None, 0])
def test_values_that_are_ignored_beside_a_transparent_colour(tmp_path, color):
    """That of a palette, or of gray."""
    values = CORNER * np.uint8(1 if color is None else 255)
    values[24:] = 2 if color is None else 128
    image = Image.fromarray(values)
    if color is None:
        image = image.convert("P")
        image.putpalette([0, 0, 0, 255, 255, 255, 128, 128, 128])
    save(tmp_path / "images/0.png")
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/0.png", transparency=0)
    ignored = 2 if color is None else 128
    wanted = CORNER.copy()
    wanted[24:] = 255
    assert (load_segmentation(tmp_path, mask_format="binary", mask_ignore=[ignored]).mask(0) == wanted).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_objects_drawn_into_the_transparency_are_no_numbers(tmp_path, mode):
    masked(tmp_path, [drawn(255, mode)])
    with pytest.raises(UserError, match="transparency .*--mask-format binary"):
        load_segmentation(tmp_path, instances=True).mask(0)


@pytest.mark.parametrize(
    "value, given, words",
    [
        (0, dict(mask_format="binary"), "hold nothing but 'background'.*--mask-format index"),
        (255, dict(mask_format="binary"), "hold nothing but 'object'"),
        (1, dict(classes=["road", "sky"]), "hold nothing but 'sky'"),
        (0, dict(instances=True), "hold nothing but 'background'"),
    ],
)
def test_masks_of_one_class_are_refused_before_training(tmp_path, value, given, words):
    masked(tmp_path / "a", [np.full_like(CORNER, value)] * 5)
    with pytest.raises(UserError, match=words):
        train(tmp_path / "a", **given)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_objects_are_one_class_when_asked(tmp_path, dtype):
    top = 200 if dtype is np.uint8 else 700
    numbers = np.arange(32 * 48).reshape(32, 48) % top
    masked(tmp_path, [numbers.astype(dtype)] * 3)
    with pytest.raises(UserError, match="--instances"):
        load_segmentation(tmp_path).mask(0)
    source = load_segmentation(tmp_path, instances=True)
    assert source.class_names == ["background", "object"] and (source.mask(0) == (numbers > 0)).all()
    with pytest.raises(UserError, match="instances cannot be given with mask_format 'binary'"):
        load_segmentation(tmp_path, instances=True, mask_format="binary")


def test_coloured_objects_are_one_class_when_asked(tmp_path):
    pixels = np.dstack([CORNER * 40, CORNER * 7, CORNER * 200])
    masked(tmp_path, [pixels])
    assert (load_segmentation(tmp_path, instances=True).mask(0) == CORNER).all()


@pytest.mark.pictures
def test_more_classes_than_a_matrix_shows(tmp_path):
    rng = np.random.default_rng(0)
    masked(tmp_path / "a", [rng.integers(0, 70, (32, 48)).astype(np.uint8) for _ in range(5)])
    run = train(tmp_path / "a", classes=[f"class {i}" for i in range(70)])
    assert len(run.metrics["per_class"]) == 70 and (run.folder / "confusion.png").stat().st_size > 1000


def test_split_knows_masks(tmp_path):
    masked(tmp_path / "a", [CORNER * 255] * 10)
    command = ["split", "--task", "segmentation", "--dataset", str(tmp_path / "a"), "--num-labels", "3"]
    command += ["--test-fraction", "0.2", "--output", str(tmp_path / "split.json")]
    assert main([*command, "--mask-format", "binary"]) == 0
    split = Split.load(tmp_path / "split.json")
    assert (len(split.labeled), len(split.test), split.class_names) == (3, 2, ["background", "object"])


def test_split_of_classes_refuses_what_masks_mean(tmp_path, capsys):
    save(tmp_path / "a/0.png")
    assert main(["split", "--dataset", str(tmp_path), "--mask-format", "binary"]) == 2
    assert "mask_format says what masks mean" in capsys.readouterr().err


@pytest.mark.parametrize("as_rgb", [False, True])
@pytest.mark.parametrize("shades", [(0, 100, 200), (0, 60, 120), (0, 128, 255), (10, 25)])
def test_shades_of_gray_are_no_class_numbers(tmp_path, shades, as_rgb, capsys):
    """They are read as the colours of classes where these are given."""
    numbers = np.arange(32 * 48).reshape(32, 48) % len(shades)
    gray = np.array(shades, np.uint8)[numbers]
    masked(tmp_path / "a", [np.dstack([gray] * 3) if as_rgb else gray] * 3)
    split = ["split", "--task", "segmentation", "--dataset", str(tmp_path / "a"), "--output", str(tmp_path / "s.json")]
    assert main(split) == 2 and not (tmp_path / "s.json").exists()
    said = capsys.readouterr().err
    assert f"hold the values {', '.join(map(str, shades))}" in said and "--mask-format colors" in said
    (tmp_path / "classes.txt").write_text("".join(f"class{v} {v} {v} {v}\n" for v in shades))
    found = load_segmentation(tmp_path / "a", classes=tmp_path / "classes.txt", mask_format="colors")
    assert (found.mask(0) == numbers).all()
    with pytest.raises(UserError, match="shades of gray --mask-format colors"):
        load_segmentation(tmp_path / "a", classes=["a", "b"]).mask(0)


@pytest.mark.parametrize("values", [(0, 1, 3), (0, 12), (2, 9), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 27)])
def test_classes_that_the_masks_do_not_show_are_a_warning(tmp_path, values):
    masked(tmp_path, [np.resize(np.array(values, np.uint8), (32, 48))] * 3)
    with pytest.warns(UserWarning, match="without a pixel"):
        assert len(load_segmentation(tmp_path).class_names) == values[-1] + 1


@pytest.mark.parametrize(
    "value, words",
    [(0, "Every pixel of the masks in .* is 0, which means the first class"), (255, "is 255, which means no part")],
)
def test_masks_of_one_value_say_which_it_is(tmp_path, value, words):
    masked(tmp_path, [np.full_like(CORNER, value)] * 3)
    with pytest.raises(UserError, match=words):
        load_segmentation(tmp_path)


def test_a_folder_without_any_mask_says_so(tmp_path):
    save(tmp_path / "images" / "0.png")
    with pytest.raises(UserError, match="There is no mask in .*hf-lowlabel label FOLDER --task segmentation"):
        load_segmentation(tmp_path)
