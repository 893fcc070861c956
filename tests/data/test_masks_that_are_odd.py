"""Masks and pictures as programs leave them: JPEG and float masks, palettes, other names and layouts, deep colours."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import Config, UserError, load_segmentation, load_source
from hf_lowlabel.data.pixels.masks import read_classes
from hf_lowlabel.tasks import get_task

SHAPE = (12, 16)


def square(value=1, dtype=np.uint8):
    mask = np.zeros(SHAPE, dtype)
    mask[3:8, 4:9] = value
    return mask


def save(path, values=None, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(SHAPE, 99, np.uint8) if values is None else values
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **more)


def masked(root, mask, name="0.png", **more):
    save(root / "images/0.png")
    save(root / "masks" / name, mask, **more)
    return root


@pytest.mark.parametrize("given", [{}, {"classes": [f"c{k}" for k in range(200)]}, {"instances": True}])
def test_a_jpeg_holds_no_numbers(tmp_path, given):
    masked(tmp_path, square(120), "0.jpg")
    with pytest.raises(UserError, match="is a JPEG, which blurs numbers"):
        load_segmentation(tmp_path, **given).mask(0)
    masked(tmp_path, square(255), "0.jpg")
    assert (load_segmentation(tmp_path, mask_format="binary").mask(0) == square()).all()


def test_whole_numbers_may_be_floats(tmp_path):
    assert (load_segmentation(masked(tmp_path, square(2.0, np.float32), "0.tif")).mask(0) == square(2)).all()
    for wrong in (0.5, np.nan):
        masked(tmp_path, square(wrong, np.float32), "0.tif")
        with pytest.raises(UserError, match="fractions or NaN"):
            load_segmentation(tmp_path, classes=["a", "b"]).mask(0)


def test_classes_without_a_pixel_are_said(tmp_path):
    with pytest.warns(UserWarning, match="values 0, 3, which makes 4 classes: 1, 2 without a pixel"):
        assert len(load_segmentation(masked(tmp_path, square(3))).class_names) == 4
    masked(tmp_path, square(1) + 1)
    with pytest.warns(UserWarning, match="values 1, 2, which makes 3 classes: 0 without a pixel"):
        load_segmentation(tmp_path)
    with pytest.raises(UserError, match="value 2; .*If the numbers begin with 1"):
        load_segmentation(tmp_path, classes=["road", "car"]).mask(0)


def test_palettes_that_contradict_each_other_are_said(tmp_path):
    for k, order in enumerate([(0, 200), (200, 0)]):
        palette = Image.fromarray(square()).convert("P")
        palette.putpalette([order[0]] * 3 + [order[1]] * 3)
        save(tmp_path / f"images/{k}.png")
        save(tmp_path / f"masks/{k}.png", palette)
    data = Config.from_flat("finetune", {"dataset": str(tmp_path), "task": "segmentation"}).data
    with pytest.warns(
        UserWarning, match="number 0 has the colour .0, 0, 0. in the mask of '0.png' and .200, 200, 200."
    ):
        get_task("segmentation").open(data)


@pytest.mark.parametrize(
    "image, mask",
    [
        ("IMG_1.JPG", "img_1.png"),
        ("1.jpg", "1.jpg.png"),
        ("image_1.png", "mask_1.png"),
        ("a_rgb.png", "a_lab.png"),
        ("0001TP_1.png", "0001TP_1_L.png"),
        ("deep/1.png", "deep/1_Mask.png"),
        ("1.jpg", "1_GT.png"),
    ],
)
def test_names_that_have_something_in_common(tmp_path, image, mask):
    save(tmp_path / "images" / image)
    save(tmp_path / "images/other.png")
    save(tmp_path / "masks" / mask, square())
    with pytest.warns(UserWarning, match="1 of 1 masks in 'masks' are matched by what their names have in common"):
        source = load_segmentation(tmp_path)
    assert source.has_target.sum() == 1 and source.has_target[source.ids.index(image)]


def test_names_that_have_too_much_in_common(tmp_path):
    for image in ("image_1.png", "img_1.png"):
        save(tmp_path / "images" / image)
    save(tmp_path / "masks/mask_1.png", square())
    with pytest.raises(UserError, match="1 masks .* are without an image, such as 'mask_1.png'.*--skip-missing"):
        load_segmentation(tmp_path)


def test_masks_without_an_image_may_be_left_out_and_are_listed(tmp_path):
    masked(tmp_path, square())
    save(tmp_path / "masks/9.png", square())
    data = dict(dataset=str(tmp_path), task="segmentation", skip_missing=True)
    for source in (
        load_segmentation(tmp_path, skip_missing=True),
        get_task("segmentation").open(Config.from_flat("finetune", data).data),
    ):
        assert source.has_target.tolist() == [True] and source.left_out == [("9.png", "there is no such image")]


@pytest.mark.parametrize(
    "images, masks",
    [
        ("train", "train_masks"),
        ("Train", "train_mask"),
        ("train", "trainannot"),
        ("input", "target"),
        ("img_dir/train", "ann_dir/train"),
    ],
)
def test_layouts_of_the_field(tmp_path, images, masks):
    save(tmp_path / images / "0.png")
    save(tmp_path / masks / "0.png", square())
    source = load_segmentation(tmp_path)
    assert source.ids == ["0.png"] and (source.mask(0) == square()).all()
    if "/" not in images:
        with pytest.raises(UserError, match="look like images and their masks.*--task segmentation"):
            load_source(tmp_path)


def test_a_split_without_masks_beside_one_with(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "0.png")
    save(tmp_path / "train_masks/0.png", square())
    assert load_segmentation(tmp_path).has_target.all()
    assert not load_segmentation(tmp_path, split="test", classes=["a", "b"]).has_target.any()


def test_colours_as_cvat_lists_them(tmp_path):
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nmy cat:48,112,32::\n")
    names, colors = read_classes(tmp_path / "labelmap.txt")
    assert names == ["background", "my cat"] and colors == {"background": [(0, 0, 0)], "my cat": [(48, 112, 32)]}


# ---- pictures and folders ------------------------------------------------------------------------------------------
def deep_png(path, *values):
    """A PNG of 8 x 8 px with colours of 16 bits."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(f">{len(values)}H", *values) * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def opened(root, **given):
    return get_task("classification").open(Config.from_flat("finetune", {"dataset": str(root), **given}).data)


def test_colours_of_sixteen_bits(tmp_path):
    deep_png(tmp_path / "0.png", 4000, 2000, 1000)
    with pytest.warns(UserWarning, match="16-bit colours .* come out dark"):
        source = opened(tmp_path)
    assert np.asarray(source.rgb(0))[0, 0].tolist() == [15, 7, 3]
    with pytest.raises(UserError, match="upper 8 alone are read, whatever --value-range"):
        opened(tmp_path, value_range=[0, 4095]).rgb(0)
    deep_png(tmp_path / "0.png", 65535, 32768, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(tmp_path)


def test_files_that_are_no_images_are_said_before_anything_is_read(tmp_path):
    save(tmp_path / "0.png")
    (tmp_path / "1.jpg").write_text("<html>404</html>")
    with pytest.warns(UserWarning, match="1 of 2 images .* looked at: image '1.jpg' cannot be used: not an image"):
        opened(tmp_path)


def test_images_without_an_ending_are_said(tmp_path):
    save(tmp_path / "0.png")
    save(tmp_path / "IMG_1", format="JPEG")
    (tmp_path / "README").write_text("words")
    with pytest.warns(UserWarning, match="1 files without an ending .* are images and are not read, such as IMG_1"):
        assert load_source(tmp_path).ids == ["0.png"]


@pytest.mark.parametrize("name", ["more.zip", "labels.csv.gz", "old.tar", "x.7Z"])
def test_archives_are_said(tmp_path, name):
    save(tmp_path / "0.png")
    (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match="1 [A-Z0-9]+ file is not read .*unpack"):
        load_source(tmp_path)
    with pytest.raises(UserError, match="Unpack the archive"):
        load_source(tmp_path / name)


@pytest.mark.parametrize("name", ["metadata.xls", "Labels.ods", "train.numbers"])
def test_tables_that_are_not_read_are_said(tmp_path, name):
    save(tmp_path / "cat/0.png")
    (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=f"{name} is not read as a table"):
        load_source(tmp_path)


def test_a_table_is_no_data_set(tmp_path):
    save(tmp_path / "0.png")
    (tmp_path / "l.csv").write_text("file_name,label\n0.png,a\n")
    with pytest.raises(UserError, match="--from FILE"):
        load_source(tmp_path / "l.csv")


def test_a_class_without_an_image_is_said(tmp_path):
    save(tmp_path / "cat/0.png")
    (tmp_path / "dog").mkdir()
    with pytest.warns(UserWarning, match="1 folders .* are no classes: dog"):
        assert load_source(tmp_path).class_names == ["cat"]


@pytest.mark.parametrize(
    "images, masks", [("images", "masks"), ("train", "train_masks"), ("train/images", "train/masks")]
)
def test_masks_among_the_images_are_no_images(tmp_path, images, masks):
    for k in range(3):
        save(tmp_path / images / f"{k}.jpg")
    save(tmp_path / masks / "0.png", square())
    for name in ("0_mask.png", "1_seg.png"):
        save(tmp_path / images / name, square(3))
    with pytest.warns(UserWarning, match="2 files in .* called as masks .*'0_mask.png': .* has one for 1 of these"):
        source = load_segmentation(tmp_path)
    assert source.ids == ["0.jpg", "1.jpg", "2.jpg"] and source.has_target.tolist() == [True, False, False]
    assert (source.mask(0) == square()).all()


def test_images_called_as_masks_that_have_masks_are_images(tmp_path):
    for name in ("0", "0_label"):
        save(tmp_path / f"images/{name}.jpg")
        save(tmp_path / f"masks/{name}.png", square())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_segmentation(tmp_path).has_target.tolist() == [True, True]


@pytest.mark.parametrize(
    "images, masks",
    [
        ("JPEGImages", ["SegmentationClass"]),
        ("JPEGImages", ["SegmentationClassAug", "SegmentationObject"]),
        ("jpegimages", ["masks"]),
        ("leftImg8bit/train/ulm", ["gtFine/train/ulm"]),
        ("train/leftImg8bit", ["train/gtCoarse"]),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain", "classification", "multilabel"])
def test_published_folders_of_masks_are_no_classes(tmp_path, images, masks, verb):
    for folder in (images, *masks):
        save(tmp_path / folder / "0.png")
    with pytest.raises(UserError, match="look like images and their masks, not like classes.*--task segmentation"):
        if verb == "pretrain":
            load_source(tmp_path)
        else:
            get_task(verb).open(Config.from_flat("finetune", {"dataset": str(tmp_path), "task": verb}).data)


@pytest.mark.parametrize("images, masks", [("images", "masks"), ("JPEGImages", "SegmentationClass")])
def test_masks_in_folders_of_classes_are_left_out(tmp_path, images, masks):
    for name in ("ill", "well"):
        save(tmp_path / name / images / "0.png")
        save(tmp_path / name / masks / "0.png")
    with pytest.warns(
        UserWarning, match=f"2 files .* in folders of masks beside folders of images.*'ill/{masks}/0.png'"
    ):
        source = load_source(tmp_path)
    assert source.ids == [f"{name}/{images}/0.png" for name in ("ill", "well")] and source.class_names == [
        "ill",
        "well",
    ]


@pytest.mark.parametrize("masks", [".", "Masks"])
@pytest.mark.parametrize(
    "names", [["0_Mask.PNG", "1_mask.png", "A_SEG.Png"], ["0_MASK.PNG", "1_Mask.png", "a_mask.png"]]
)
def test_masks_are_known_whatever_their_capitals(tmp_path, masks, names):
    """An image of the very name comes first: a.jpg and A.jpg are two."""
    folder = tmp_path if masks == "." else tmp_path / "Images"
    for name in ("0.jpg", "1.JPG", "A.jpg", "a.jpg"):
        save(folder / name)
    for k, name in enumerate(names):
        save(tmp_path / masks / name, square(3 + k))
    source = load_segmentation(tmp_path)
    third = "A.jpg" if "A_SEG.Png" in names else "a.jpg"
    assert source.ids == ["0.jpg", "1.JPG", "A.jpg", "a.jpg"]
    assert [id for id, has in zip(source.ids, source.has_target) if has] == ["0.jpg", "1.JPG", third]
    assert (source.mask(source.ids.index(third)) == square(5)).all()
    if masks == ".":
        with pytest.warns(UserWarning, match="3 files .* are called as masks"):
            assert len(load_source(tmp_path)) == 4


def test_a_mask_of_other_capitals_than_its_image(tmp_path):
    save(tmp_path / "IMG_1.JPG")
    save(tmp_path / "img_1_mask.png", square())
    source = load_segmentation(tmp_path)
    assert source.ids == ["IMG_1.JPG"] and source.has_target.all()
    save(tmp_path / "img_1_Mask.png", square())
    with pytest.raises(UserError, match="1 masks .* are without an image, such as 'img_1_"):
        load_segmentation(tmp_path)


def test_published_folders_in_other_capitals(tmp_path):
    save(tmp_path / "v" / "jpegimages" / "1.JPG")
    save(tmp_path / "v" / "Segmentationclass" / "1.PNG", square())
    (tmp_path / "v" / "imagesets" / "segmentation").mkdir(parents=True)
    (tmp_path / "v" / "imagesets" / "segmentation" / "train.TXT").write_text("1\n")
    assert load_segmentation(tmp_path / "v", classes=["a", "b"]).has_target.tolist() == [True]
    save(tmp_path / "c" / "LeftImg8bit" / "Train" / "ulm" / "u_1_leftImg8bit.png")
    save(tmp_path / "c" / "GtFine" / "Train" / "ulm" / "u_1_gtFine_labelIds.png", square(7))
    found = load_segmentation(tmp_path / "c")
    assert found.ids == ["u_1"] and found.has_target.all()


def test_a_table_of_other_capitals(tmp_path):
    import datasets

    save(tmp_path / "1.png")
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "1.png")]}).cast_column("image", datasets.Image())
    rows.to_parquet(tmp_path / "DATA.PARQUET")
    assert len(load_source(tmp_path / "DATA.PARQUET")) == 1
