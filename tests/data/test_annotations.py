"""Masks drawn from the files of annotation tools."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.data.pixels.outlines import filled, of_coco_runs, of_studio_runs

H, W = 30, 40
CORNER = [0, 0, 20, 0, 20, 15, 0, 15]  # 20 x 15 px from the upper left


def picture(path, size=(W, H)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(path)


def corner(value=1):
    mask = np.zeros((H, W), np.uint8)
    mask[:15, :20] = value
    return mask


def coco_file(path, annotations, images=("0.jpg",), categories=((3, "cat"), (7, "dog"))):
    content = {
        "images": [{"id": k, "file_name": name, "width": W, "height": H} for k, name in enumerate(images)],
        "categories": [{"id": k, "name": name, "supercategory": "things"} for k, name in categories],
        "annotations": [{"id": k, "image_id": 0, "category_id": 3, **a} for k, a in enumerate(annotations)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "image, file",
    [
        ("images/0.jpg", "annotations.json"),
        ("train/0.jpg", "train/_annotations.coco.json"),
        ("train2017/0.jpg", "annotations/instances_train2017.json"),
        ("0.jpg", "export/result.json"),
        ("images/train/0.jpg", "annotations/train.json"),
    ],
)
def test_coco_wherever_the_file_lies(tmp_path, image, file):
    picture(tmp_path / image)
    coco_file(tmp_path / file, [{"segmentation": [CORNER]}])
    source = load_segmentation(tmp_path)
    assert source.class_names == ["background", "cat", "dog"] and source.ids == ["0.jpg"]
    assert (source.mask(0, (W, H)) == corner()).all()


def test_coco_of_each_split(tmp_path):
    for split, category in (("train", 3), ("valid", 7)):
        picture(tmp_path / split / "0.jpg")
        coco_file(tmp_path / split / "_annotations.coco.json", [{"segmentation": [CORNER], "category_id": category}])
    assert (load_segmentation(tmp_path).mask(0) == corner(1)).all()
    assert (load_segmentation(tmp_path, split="validation").mask(0) == corner(2)).all()


def test_coco_runs_parts_and_order(tmp_path):
    """Two parts are one object, runs go down the columns, and the smaller object lies over the larger."""
    picture(tmp_path / "images/0.jpg")
    whole = {"size": [H, W], "counts": [0, H * W]}
    parts = [CORNER, [30, 20, 40, 20, 40, 30, 30, 30]]
    coco_file(tmp_path / "a.json", [{"segmentation": parts}, {"segmentation": whole, "category_id": 7, "iscrowd": 1}])
    expected = np.full((H, W), 2)
    expected[:15, :20] = expected[20:, 30:] = 1
    assert (load_segmentation(tmp_path).mask(0) == expected).all()


def test_compressed_coco_runs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    if pytest.importorskip("pycocotools"):
        from pycocotools import mask as library
    drawn = (rng.random((H, W)) < 0.3).astype(np.uint8)
    runs = library.encode(np.asfortranarray(drawn))
    assert (of_coco_runs({"size": [H, W], "counts": runs["counts"].decode()}) == drawn).all()


def test_compressed_coco_runs_name_the_package_that_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    picture(tmp_path / "images/0.jpg")
    coco_file(tmp_path / "a.json", [{"segmentation": {"size": [H, W], "counts": "0`Y1"}}])
    with pytest.raises(UserError, match="pip install pycocotools"):
        load_segmentation(tmp_path).mask(0)


def test_what_is_no_mask_is_counted_and_listed(tmp_path):
    for i in range(3):
        picture(tmp_path / f"images/{i}.jpg")
    found = [{"segmentation": [CORNER]}, {"segmentation": []}, {"segmentation": [[1, 1, 2, 2]]}, {"image_id": 9}]
    coco_file(tmp_path / "a.json", found, images=("0.jpg", "1.jpg", "gone.jpg"))
    with pytest.warns(UserWarning, match="counts as unlabeled .*1 x a box without an outline"):
        source = load_segmentation(tmp_path)
    assert source.has_target.tolist() == [True, False, False]
    assert sorted(name for name, _ in source.left_out) == ["0.jpg", "0.jpg", "1.jpg", "annotation 3", "gone.jpg"]


def test_classes_may_be_named_and_merged(tmp_path):
    picture(tmp_path / "images/0.jpg")
    coco_file(
        tmp_path / "a.json", [{"segmentation": [CORNER], "category_id": 7}, {"segmentation": [[0, 0, 40, 0, 40, 30]]}]
    )
    source = load_segmentation(tmp_path, classes=["nothing", "dog"])
    with pytest.warns(UserWarning, match="class 'cat' is none of --classes"):
        source = load_segmentation(tmp_path, classes=["dog"])
    assert source.class_names == ["background", "dog"] and (source.mask(0) == corner()).all()
    merged = load_segmentation(tmp_path, instances=True)
    assert merged.class_names == ["background", "object"] and merged.mask(0).max() == 1
    with pytest.raises(UserError, match="mask_format 'binary' is of pictures"):
        load_segmentation(tmp_path, mask_format="binary")


def labelme_file(path, *shapes):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(version="5.4", imagePath="..\\photos\\" + path.with_suffix(".jpg").name, imageWidth=W, imageHeight=H)
    path.write_text(json.dumps({**content, "imageData": None, "shapes": list(shapes)}))


@pytest.mark.parametrize("folder", ["", "images"])
def test_labelme(tmp_path, folder):
    for i in range(4):
        picture(tmp_path / folder / f"{i}.jpg")
    pairs = np.reshape(CORNER, (-1, 2)).tolist()
    labelme_file(tmp_path / folder / "0.json", {"label": "dog", "points": pairs, "shape_type": "polygon"})
    labelme_file(
        tmp_path / folder / "1.json", {"label": "cat", "points": [[0, 0], [20, 15]], "shape_type": "rectangle"}
    )
    patch = io.BytesIO()
    Image.fromarray(np.full((15, 20), True)).save(patch, "PNG")
    png = base64.b64encode(patch.getvalue()).decode()
    drawn = {"label": "cat", "points": [[0, 0], [19, 14]], "shape_type": "mask", "mask": png}
    ignored = {"label": "__ignore__", "points": [[20, 15], [40, 30]], "shape_type": "rectangle"}
    line = {"label": "cat", "points": [[0, 0], [9, 9]], "shape_type": "line"}
    labelme_file(tmp_path / folder / "2.json", drawn, ignored, line)
    with pytest.warns(UserWarning, match="1 x a line or a point"):
        source = load_segmentation(tmp_path)
    assert source.class_names == ["background", "cat", "dog"] and source.has_target.tolist() == [True] * 3 + [False]
    assert (source.mask(0) == corner(2)).all() and (source.mask(1) == corner(1)).all()
    assert (source.mask(2)[:15, :20] == 1).all() and (source.mask(2)[15:, 20:] == 255).all()


@pytest.mark.parametrize(
    "image, text", [("images/train/0.jpg", "labels/train/0.txt"), ("train/images/0.jpg", "train/labels/0.txt")]
)
def test_yolo_segments(tmp_path, image, text):
    picture(tmp_path / image)
    (tmp_path / text).parent.mkdir(parents=True)
    (tmp_path / text).write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\n0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames:\n  0: cat\n  1: dog\n")
    with pytest.warns(UserWarning, match="1 x a box without an outline"):
        source = load_segmentation(tmp_path)
    expected = corner(2)
    expected[13:16, 18:22] = 255  # the box: nobody has said which of its pixels are the cat
    assert source.class_names == ["background", "cat", "dog"] and (source.mask(0) == expected).all()
    (tmp_path / text).write_text("2 0 0 0.5 0 0.5 0.5 0 0.5\n")
    with pytest.raises(UserError, match="class 2 has no name"):
        load_segmentation(tmp_path)


def test_cvat(tmp_path):
    picture(tmp_path / "images/a/0.jpg")
    picture(tmp_path / "images/1.jpg")
    (tmp_path / "annotations.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
        <meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
        <image id="0" name="a/0.jpg" width="{W}" height="{H}">
          <polygon label="cat" points="0,0;20,0;20,15;0,15" z_order="1"></polygon>
          <mask label="dog" left="0" top="0" width="{W}" height="{H}" rle="0, {H * W}" z_order="0"></mask>
          <box label="dog" xtl="0" ytl="0" xbr="5" ybr="5"></box>
        </image><image id="1" name="1.jpg" width="{W}" height="{H}"></image></annotations>"""
    )
    with pytest.warns(UserWarning, match="1 x a box without an outline"):
        source = load_segmentation(tmp_path)
    assert source.has_target.tolist() == [False, True] and source.class_names == ["background", "cat", "dog"]
    assert (source.mask(1) == np.where(corner() == 1, 1, 2)).all()


def brush(mask, one_by_one=False):
    """Label Studio's run lengths of an RGBA picture of the mask, each value a run of its own or all as they are."""
    values = np.repeat(mask.astype(np.uint8)[..., None] * 255, 4, -1).ravel().tolist()
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    if one_by_one:
        bits += "".join("0" + "00" + "000" + f"{value:08b}" for value in values)
    else:
        at = 0
        while at < len(values):
            end = at
            while end < len(values) and values[end] == values[at] and end - at < 65536:
                end += 1
            bits += "1" + "11" + f"{end - at - 1:016b}" + f"{values[at]:08b}"
            at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_brushes(one_by_one):
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    assert (of_studio_runs(brush(mask, one_by_one), 7, 9) == mask).all()


def test_label_studio(tmp_path):
    for i in range(4):
        picture(tmp_path / f"images/{i}.jpg")
    size = dict(original_width=W, original_height=H)
    painted = {
        "type": "brushlabels",
        **size,
        "value": {"format": "rle", "rle": brush(corner()), "brushlabels": ["dog"]},
    }
    points = [[0, 0], [50, 0], [50, 50], [0, 50]]
    drawn = {"type": "polygonlabels", **size, "value": {"points": points, "polygonlabels": ["cat"]}}
    boxed = {"type": "rectanglelabels", **size, "value": dict(x=0, y=0, width=5, height=5, rectanglelabels=["cat"])}
    tasks = [
        {"id": 3, "data": {"image": "/data/upload/1/0a1b2c3d-0.jpg"}, "annotations": [{"result": [painted]}]},
        {"id": 2, "data": {"image": "/data/local-files/?d=images/1.jpg"}, "annotations": [{"result": [drawn, boxed]}]},
        {"id": 1, "data": {"image": "s3://bucket/2.jpg"}, "annotations": [{"was_cancelled": True, "result": [drawn]}]},
        {"id": 0, "data": {"image": "3.jpg"}, "annotations": None},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    with pytest.warns(UserWarning, match="a box without an outline"):
        source = load_segmentation(tmp_path)
    assert source.has_target.tolist() == [True, True, False, False] and source.class_names == [
        "background",
        "cat",
        "dog",
    ]
    assert (source.mask(0) == corner(2)).all() and (source.mask(1) == corner(1)).all()


def test_annotations_of_no_image_and_of_one_twice(tmp_path):
    picture(tmp_path / "images/0.jpg")
    coco_file(tmp_path / "a.json", [{"segmentation": [CORNER]}], images=("other.jpg",))
    with pytest.raises(UserError, match="None of the 1 images .* such as 'other.jpg'"):
        load_segmentation(tmp_path)
    for name in ("a.json", "b.json"):
        coco_file(tmp_path / name, [{"segmentation": [CORNER]}])
    with pytest.raises(UserError, match="annotated twice, the second time in b.json"):
        load_segmentation(tmp_path)
    (tmp_path / "b.json").write_text('{"images": [{}], "annotations": [], "categories": [{}]}')
    with pytest.raises(UserError, match="b.json looks like a file of annotations and cannot be read"):
        load_segmentation(tmp_path)


def test_a_size_that_is_not_the_images_is_an_error(tmp_path):
    picture(tmp_path / "images/0.jpg", (H, W))
    coco_file(tmp_path / "a.json", [{"segmentation": [CORNER]}])
    with pytest.raises(UserError, match="0.jpg"):
        load_segmentation(tmp_path).mask(0, (H, W))


def test_pictures_of_masks_come_before_annotations(tmp_path):
    picture(tmp_path / "images/0.jpg")
    (tmp_path / "masks").mkdir()
    Image.fromarray(corner(2)).save(tmp_path / "masks/0.png")
    coco_file(tmp_path / "a.json", [{"segmentation": [CORNER]}])
    with pytest.warns(
        UserWarning, match="both pictures of masks, such as masks/0.png, and annotations, such as a.json"
    ):
        source = load_segmentation(tmp_path)
    assert (source.mask(0) == corner(2)).all()


def test_outlines_cover_the_pixels_whose_centres_lie_inside():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W] + 0.5
    for _ in range(20):
        points, crossed = rng.uniform(-9, 49, (7, 2)), np.zeros((H, W), int)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
            between = (y >= min(y0, y1)) & (y < max(y0, y1))
            crossed += between & (x > x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        assert (filled(points, H, W) == (crossed % 2 == 1)).all()


def test_a_reader_of_drawn_masks_travels_to_workers(tmp_path):
    import pickle

    picture(tmp_path / "images/0.jpg")
    coco_file(tmp_path / "a.json", [{"segmentation": [CORNER]}])
    source = pickle.loads(pickle.dumps(load_segmentation(tmp_path)))
    assert (source.mask(0) == corner()).all()


# ---- files of YAML ---------------------------------------------------------------------------------------------------
NO_YAML = pytest.mark.parametrize("said", [b"a: b: c", b"names: [" * 3000, b"at: 2024-13-45", b"names: [\xff]"])


def outlined(root):
    picture(root / "images/0.jpg")
    (root / "labels").mkdir()
    (root / "labels/0.txt").write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\n")
    return root


@NO_YAML
def test_notes_that_are_no_yaml_name_no_classes(tmp_path, said):
    root = outlined(tmp_path / "outlined")
    (root / "a.yaml").write_bytes(said)
    (root / "data.yaml").write_text("names: [cat, dog]")
    assert load_segmentation(root).class_names == ["background", "cat", "dog"]
    picture(tmp_path / "plain/images/0.jpg")
    (tmp_path / "plain/masks").mkdir()
    (tmp_path / "plain/a.yaml").write_bytes(said)
    assert not load_segmentation(tmp_path / "plain", classes=["a", "b"]).has_target.any()


@NO_YAML
@pytest.mark.filterwarnings("ignore:data.yaml is not read for splits")
def test_a_data_yaml_that_is_none_leaves_no_class_without_its_name(tmp_path, said):
    """classes.txt does not say whether boxes have points of a body, which would be drawn as outlines."""
    (outlined(tmp_path) / "data.yaml").write_bytes(said)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="Mend data.yaml, which may name the classes"):
        load_segmentation(tmp_path)
    (tmp_path / "data.yaml").unlink()
    assert load_segmentation(tmp_path).class_names == ["background", "cat", "dog"]


def test_names_by_numbers_that_are_texts(tmp_path):
    """Sorted as texts, 10 came before 2."""
    (outlined(tmp_path) / "data.yaml").write_text("names:\n" + "".join(f"  '{k}': n{k}\n" for k in range(12)))
    (tmp_path / "labels/0.txt").write_text("2 0 0 0.5 0 0.5 0.5 0 0.5\n")
    source = load_segmentation(tmp_path)
    assert source.class_names == ["background", *(f"n{k}" for k in range(12))] and source.mask(0).max() == 3


@pytest.mark.parametrize("names", ["{0: cat, one: dog}", "{1: cat, 2: dog}", "{0: cat, '0': dog}"])
def test_names_by_other_numbers_than_those_of_outlines_are_refused(tmp_path, names):
    """Class 1 would have been called as another, or nothing would have been said but a traceback."""
    (outlined(tmp_path) / "data.yaml").write_text(f"names: {names}")
    with pytest.raises(
        UserError, match="Mend data.yaml, .* data.yaml numbers its 2 classes .*, not 0, 1, 2 .*each once"
    ):
        load_segmentation(tmp_path)
