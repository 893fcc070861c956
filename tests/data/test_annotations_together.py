"""Objects over objects, and annotations beside pictures of masks."""

import itertools
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.data.skipped import write_left_out

W, H = 16, 12
SMALL, LARGE = (slice(3, 6), slice(4, 8)), (slice(1, 10), slice(2, 13))
EXPECTED = np.zeros((H, W), np.uint8)
EXPECTED[LARGE] = 1
EXPECTED[SMALL] = 2


def pixels(place):
    mask = np.zeros((H, W), np.uint8)
    mask[place] = 1
    return mask


def corners(place):
    rows, columns = place
    x0, x1, y0, y1 = columns.start, columns.stop, rows.start, rows.stop
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def runs(values):
    """Lengths of runs of 0 and 1 in turn, of 0 first."""
    out = [len(list(group)) for _, group in itertools.groupby(values)]
    return [0, *out] if values[0] else out


def outline(place):
    return [[v for point in corners(place) for v in point]]


def counts(place):
    return {"size": [H, W], "counts": runs(pixels(place).T.ravel().tolist())}


def text(place):
    library = pytest.importorskip("pycocotools.mask")
    return {"size": [H, W], "counts": library.encode(np.asfortranarray(pixels(place)))["counts"].decode()}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H), "gray").save(path)


def coco(root, *objects, names=("0.jpg",)):
    """objects: (category, segmentation) of the first image."""
    content = {
        "images": [{"id": k, "file_name": name, "width": W, "height": H} for k, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "nucleus"}],
        "annotations": [
            {"id": k, "image_id": 0, "category_id": category, "segmentation": found, "area": 1.0}
            for k, (category, found) in enumerate(objects)
        ],
    }
    (root / "annotations.json").write_text(json.dumps(content))


def cvat(root, *shapes):
    inside = "".join(shapes)
    image = f'<image id="0" name="0.jpg" width="{W}" height="{H}">{inside}</image>'
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("cell", "nucleus"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    (root / "a.xml").write_text(f"<annotations>{meta}{image}</annotations>")


def cvat_mask(label, place, z=0):
    rows, columns = place
    rle = ", ".join(map(str, runs(pixels(place)[place].ravel().tolist())))
    where = f'left="{columns.start}" top="{rows.start}" width="{columns.stop - columns.start}"'
    return f'<mask label="{label}" rle="{rle}" {where} height="{rows.stop - rows.start}" z_order="{z}"/>'


def cvat_polygon(label, place, z=0):
    points = ";".join(f"{x},{y}" for x, y in corners(place))
    return f'<polygon label="{label}" points="{points}" z_order="{z}"/>'


def brush(place):
    """Label Studio's run lengths: all values as they are, in runs of 8 bits."""
    values = np.repeat(pixels(place)[..., None] * 255, 4, -1).ravel().tolist()
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "".join("0" + "00" + "000" + f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return {"format": "rle", "rle": [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]}


def share(place):
    return {"points": [[100 * x / W, 100 * y / H] for x, y in corners(place)]}


def studio(root, *objects):
    said = dict(original_width=W, original_height=H)
    results = [{**said, "value": {**value, "brushlabels": [label]}} for label, value in objects]
    task = {"id": 1, "data": {"image": "/data/upload/1/0.jpg"}, "annotations": [{"result": results}]}
    (root / "export.json").write_text(json.dumps([task]))


COCO = {
    f"coco, {a.__name__} in {b.__name__}": lambda root, a=a, b=b: coco(root, (2, a(SMALL)), (1, b(LARGE)))
    for a in (outline, counts, text)
    for b in (outline, counts, text)
}
OTHERS = {
    "cvat, mask in mask": lambda root: cvat(root, cvat_mask("nucleus", SMALL), cvat_mask("cell", LARGE)),
    "cvat, mask in polygon": lambda root: cvat(root, cvat_mask("nucleus", SMALL), cvat_polygon("cell", LARGE)),
    "cvat, polygon in mask": lambda root: cvat(root, cvat_polygon("nucleus", SMALL), cvat_mask("cell", LARGE)),
    "studio, brush in brush": lambda root: studio(root, ("nucleus", brush(SMALL)), ("cell", brush(LARGE))),
    "studio, polygon in brush": lambda root: studio(root, ("nucleus", share(SMALL)), ("cell", brush(LARGE))),
    "studio, brush in polygon": lambda root: studio(root, ("nucleus", brush(SMALL)), ("cell", share(LARGE))),
}


@pytest.mark.parametrize("form", [*COCO, *OTHERS])
def test_the_small_object_lies_over_the_large_one_that_comes_after_it(tmp_path, form):
    picture(tmp_path / "images/0.jpg")
    (COCO | OTHERS)[form](tmp_path)
    source = load_segmentation(tmp_path)
    assert source.class_names == ["background", "cell", "nucleus"] and (source.mask(0) == EXPECTED).all()


def test_layers_that_somebody_set_stay(tmp_path):
    picture(tmp_path / "images/0.jpg")
    cvat(tmp_path, cvat_mask("cell", LARGE, z=1), cvat_mask("nucleus", SMALL))
    assert (load_segmentation(tmp_path).mask(0) == np.where(EXPECTED == 2, 1, EXPECTED)).all()


def test_a_large_object_of_compressed_runs_says_nothing_of_its_size(tmp_path):
    """Neither `area` nor the length of the text is taken for the size."""
    picture(tmp_path / "images/0.jpg")
    speckled = pixels(SMALL)
    speckled[SMALL] = np.indices((3, 4)).sum(0) % 2
    library = pytest.importorskip("pycocotools.mask")
    long_text = {"size": [H, W], "counts": library.encode(np.asfortranarray(speckled))["counts"].decode()}
    coco(tmp_path, (2, long_text), (1, text(LARGE)))
    assert ((load_segmentation(tmp_path).mask(0) == 2) == speckled.astype(bool)).all()


def labelme(root, name):
    shape = {"label": "cell", "points": corners(LARGE), "shape_type": "polygon"}
    (root / f"{name}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{name}.jpg"}))


def yolo(root, name):
    shares = " ".join(f"{x / W} {y / H}" for x, y in corners(LARGE))
    (root / "labels").mkdir(exist_ok=True)
    (root / f"labels/{name}.txt").write_text(f"0 {shares}\n")


def annotated(root, tool):
    """Four images, of which 0 and 1 are annotated, or 0 alone."""
    for k in range(4):
        picture(root / ("" if tool == "labelme" else "images") / f"{k}.jpg")
    for name in "01":
        if tool == "labelme":
            labelme(root, name)
        elif tool == "yolo":
            yolo(root, name)
    if tool == "coco":
        coco(root, (1, outline(LARGE)))
    if tool == "cvat":
        cvat(root, cvat_polygon("cell", LARGE))
    return root


def save_mask(path, value=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(SMALL) * value).save(path)


BOTH = [("labelme", "{}_mask.png"), ("yolo", "images/{}_mask.png")] + [
    (tool, place) for tool in ("coco", "cvat") for place in ("masks/{}.png", "images/{}_mask.png")
]


@pytest.mark.parametrize("tool, place", BOTH)
def test_pictures_of_masks_do_not_switch_annotations_off(tmp_path, tool, place):
    annotated(tmp_path, tool)
    save_mask(tmp_path / place.format(3))
    others = 2 if tool in ("labelme", "yolo") else 1
    said = f"1 images have a picture of a mask, such as {place.format(3)}, and {others} others have objects in files"
    with pytest.raises(UserError, match=f"{said}.*Take the pictures elsewhere to learn from the annotations, or"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("tool, place", BOTH)
def test_pictures_of_every_annotated_image_count_and_it_is_said(tmp_path, tool, place):
    annotated(tmp_path, tool)
    for name in "01":
        save_mask(tmp_path / place.format(name))
    with pytest.warns(UserWarning, match="have both pictures of masks.*the pictures count"):
        source = load_segmentation(tmp_path, classes=["a", "b", "c"])
    assert source.has_target.tolist() == [True, True, False, False] and (source.mask(0) == 2 * pixels(SMALL)).all()


def test_what_draws_no_object_says_nothing_against_pictures(tmp_path):
    """Boxes, captions and tables of anything beside pictures of masks."""
    annotated(tmp_path, "none")
    save_mask(tmp_path / "masks/0.png")
    (tmp_path / "images/1.txt").write_text("a picture of a cell\n")
    (tmp_path / "images/2.json").write_text(json.dumps({"place": "here"}))
    coco(tmp_path)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"] = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": []}]
    content["images"][0]["file_name"] = "2.jpg"
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_segmentation(tmp_path, classes=["a", "b", "c"]).has_target.sum() == 1


def test_pictures_of_all_images_need_no_annotation_that_can_be_read(tmp_path):
    annotated(tmp_path, "none")
    for name in "0123":
        save_mask(tmp_path / f"masks/{name}.png")
    (tmp_path / "a.json").write_text(json.dumps({"images": [{}], "annotations": [], "categories": [{}]}))
    assert load_segmentation(tmp_path, classes=["a", "b", "c"]).has_target.all()
    (tmp_path / "masks/3.png").unlink()
    with pytest.raises(UserError, match="a.json looks like a file of annotations and cannot be read"):
        load_segmentation(tmp_path, classes=["a", "b", "c"])


def test_masks_of_no_image_are_said_beside_annotations_too(tmp_path):
    annotated(tmp_path, "coco")
    save_mask(tmp_path / "masks/9.png")
    with pytest.raises(UserError, match="1 masks .* are without an image, such as '9.png'"):
        load_segmentation(tmp_path)
    assert load_segmentation(tmp_path, skip_missing=True).class_names == ["background", "cell", "nucleus"]


def test_an_image_without_an_object_is_not_called_left_out(tmp_path):
    for k in range(3):
        picture(tmp_path / f"images/{k}.jpg")
    coco(tmp_path, (1, outline(LARGE)), names=("0.jpg", "1.jpg", "2.jpg"))
    for boxes, said in ((0, "^2 images"), (1, "^1 rows or objects of .* are left out; 2 images")):
        file = tmp_path / "annotations.json"
        content = json.loads(file.read_text())
        content["annotations"] += [{"id": 9, "image_id": 0, "category_id": 2, "bbox": [1, 1, 4, 4]}] * boxes
        file.write_text(json.dumps(content))
        source = load_segmentation(tmp_path)
        assert len(source) == 3
        with pytest.warns(
            UserWarning, match=f"{said} that .* lists have no object and count as unlabeled; .*csv lists"
        ):
            write_left_out(source, tmp_path / "left_out.csv")
        assert (tmp_path / "left_out.csv").read_text().count("counts as unlabeled") == 2


@pytest.mark.parametrize(
    "kind, where",
    [("coco", "cam2"), ("labelme", "cam2"), ("voc", "cam2"), ("coco", "annotations/cam2"), ("voc", "annotations/cam2")],
)
def test_an_annotation_of_a_missing_image_is_not_drawn_on_one_of_another_folder(tmp_path, kind, where):
    """cam2/4.png is gone, and cam1/4.png is there."""
    for name in ("cam1/0.png", "cam1/4.png", "cam2/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    points = [[1, 1], [6, 1], [6, 6]]
    name = "4.png" if where == "cam2" else "cam2/4.png"
    if kind == "coco":
        image, a = {"id": 1, "file_name": name}, {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]]}
        content = {"images": [image], "annotations": [a], "categories": [{"id": 1, "name": "a"}]}
        (tmp_path / where / "all.json").write_text(json.dumps(content))
    elif kind == "labelme":
        content = {"imagePath": "4.png", "shapes": [{"label": "a", "points": points}]}
        (tmp_path / where / "4.json").write_text(json.dumps(content))
    else:
        box = "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object>"
        (tmp_path / where / "4.xml").write_text(f"<annotation><filename>{name}</filename>{box}</annotation>")
    with pytest.raises(UserError, match="None of the 1 images .* is there"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("name", ["/home/other/0.png", "../old/0.png", "C:\\x\\0.png", "0.png"])
@pytest.mark.parametrize("where", [".", "annotations"])
def test_a_picture_of_another_root_is_in_images(tmp_path, name, where):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0.png")
    (tmp_path / where).mkdir(exist_ok=True)
    a = {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]]}
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [a], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / where / "all.json").write_text(json.dumps(content))
    assert load_segmentation(tmp_path).has_target.all()
