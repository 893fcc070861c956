"""Files of annotations as tools and scripts leave them: boxes, other types of ids, other names, other coordinates."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation

W, H = 16, 12
SQUARE = [4, 3, 9, 3, 9, 8, 4, 8]
POINTS = [[4, 3], [9, 3], [9, 8], [4, 8]]


def picture(path, tag=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = tag
    Image.new("RGB", (W, H), "gray").save(path, exif=exif)


def square(value=1):
    mask = np.zeros((H, W), np.uint8)
    mask[3:8, 4:9] = value
    return mask


def coco(root, *annotations, name="0.png", size=(W, H), categories=((3, "cat"), (90, "dog"))):
    picture(root / "images/0.png")
    content = {
        "images": [{"id": 7, "file_name": name, "width": size[0], "height": size[1]}],
        "categories": [{"id": k, "name": n} for k, n in categories],
        "annotations": [{"id": k, "image_id": 7, "category_id": 90, **a} for k, a in enumerate(annotations)],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def labelme(root, image, **content):
    picture(root / "0.png")
    shape = {"label": "cat", "points": POINTS, "shape_type": "polygon"}
    (root / "0.json").write_text(json.dumps({"shapes": [shape], "imagePath": image, **content}))
    return root


def yolo(root, text, facts="names: [cat, dog]"):
    picture(root / "images/0.png")
    (root / "labels").mkdir()
    (root / "labels/0.txt").write_text(text)
    (root / "data.yaml").write_text(facts)
    return root


def cvat(root, inside, size=(W, H)):
    picture(root / "images/0.png")
    image = f'<image id="0" name="0.png" width="{size[0]}" height="{size[1]}">{inside}</image>'
    (root / "a.xml").write_text(f"<annotations>{image}</annotations>")
    return root


def studio(root, *values, image="/data/upload/1/0.png", size=(W, H)):
    picture(root / "images/0.png")
    results = [{"original_width": size[0], "original_height": size[1], "value": value} for value in values]
    task = {"id": 1, "data": {"image": image}, "annotations": [{"result": results}]}
    (root / "export.json").write_text(json.dumps([task]))
    return root


BOXED = {  # a cat by its outline, and a box, 4 x 4 px in the corner, of something else
    "coco": lambda root: coco(root, {"segmentation": [SQUARE]}, {"bbox": [12, 8, 4, 4], "segmentation": []}),
    "yolo": lambda root: yolo(
        root, f"1 {' '.join(str(v / s) for v, s in zip(SQUARE, [W, H] * 4))}\n0 0.875 {10 / 12} 0.25 {4 / 12}\n"
    ),
    "cvat": lambda root: cvat(
        root,
        '<polygon label="dog" points="4,3;9,3;9,8;4,8"/><box label="dog" xtl="12" ytl="8" xbr="16" ybr="12"/>',
    ),
    "studio": lambda root: studio(
        root,
        {"points": [[x / W * 100, y / H * 100] for x, y in POINTS], "polygonlabels": ["dog"]},
        {"x": 75, "y": 800 / 12, "width": 25, "height": 400 / 12, "rectanglelabels": ["dog"]},
    ),
    "class": lambda root: coco(
        root, {"segmentation": [SQUARE]}, {"segmentation": [[12, 8, 16, 8, 16, 12, 12, 12]], "category_id": 5}
    ),
}


@pytest.mark.parametrize("tool", BOXED)
def test_pixels_of_which_nobody_said_what_they_are_take_no_part(tmp_path, tool):
    with pytest.warns(UserWarning, match="1 x (a box without an outline|an object without a class)"):
        source = load_segmentation(BOXED[tool](tmp_path))
    expected = square(source.class_names.index("dog"))
    expected[8:, 12:] = 255
    assert (source.mask(0) == expected).all() and len(source.left_out) == 1


VOC = "<annotation><filename>0.png</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax>"
BOXES = {
    "coco": lambda root: coco(root, {"bbox": [1, 1, 4, 4]}),
    "corners": lambda root: coco(root, {"bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 5]]}),
    "yolo": lambda root: yolo(root, "0 0.5 0.5 0.2 0.2\n"),
    "model": lambda root: yolo(root, "0 0.5 0.5 0.2 0.2 0.93\n"),
    "pose": lambda root: yolo(root, "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.3 0.3 2\n", "names: [cat]\nkpt_shape: [2, 3]"),
    "cvat": lambda root: cvat(root, '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"/>'),
    "studio": lambda root: studio(root, {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["cat"]}),
    "voc": lambda root: (picture(root / "0.png"), (root / "0.xml").write_text(f"{VOC}</bndbox></object></annotation>")),
}


@pytest.mark.parametrize("tool", BOXES)
def test_boxes_alone_are_no_masks(tmp_path, tool):
    BOXES[tool](tmp_path)
    with pytest.raises(UserError, match="draw no object that could be a mask.*box without an outline.*Draw outlines"):
        load_segmentation(tmp_path)


def test_annotations_without_anything(tmp_path):
    labelme(tmp_path, "0.png", shapes=[], flags={"cat": True})
    with pytest.raises(UserError, match="draw no object"):
        load_segmentation(tmp_path)
    (tmp_path / "0.json").unlink()
    with pytest.raises(UserError, match="hold no object"):
        load_segmentation(coco(tmp_path))


@pytest.mark.parametrize(
    "found, given",
    [
        ({"category_id": "90", "segmentation": [SQUARE]}, {}),
        ({"image_id": "7", "segmentation": [SQUARE]}, {}),
        ({"segmentation": SQUARE}, {}),  # not in a list of its own
        ({"segmentation": [[1, 1, 2, 2], SQUARE]}, {}),
        ({"segmentation": [SQUARE]}, {"name": "images\\0.png"}),
        ({"segmentation": [SQUARE]}, {"name": "0.PNG"}),
        ({"segmentation": [SQUARE]}, {"categories": ((3, "cat"), (90, "dog "))}),
    ],
)
def test_coco_as_scripts_write_it(tmp_path, found, given):
    source = load_segmentation(coco(tmp_path, found, **given))
    assert source.class_names == ["background", "cat", "dog"] and (source.mask(0) == square(2)).all()


def test_names_of_annotations_that_look_alike_are_said(tmp_path):
    found = {"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "category_id": 3}
    with pytest.warns(UserWarning, match="'Dog' and 'dog' count as different classes"):
        load_segmentation(coco(tmp_path, *found, categories=((3, "Dog"), (90, "dog"))))


@pytest.mark.parametrize("name", ["0.png", "..\\pics\\0.png", "0.PNG", "its_old_name.jpg", ""])
def test_labelme_knows_its_picture_by_either_name(tmp_path, name):
    picture(tmp_path / "1.png")
    assert (load_segmentation(labelme(tmp_path, name)).mask(0) == square()).all()


@pytest.mark.parametrize("name", ["/data/local-files/?d=pics/my%20cat.png", "https://there.org/my%20cat.png?key=1"])
def test_addresses_of_label_studio(tmp_path, name):
    studio(tmp_path, {"points": [[x / W * 100, y / H * 100] for x, y in POINTS], "polygonlabels": ["a"]}, image=name)
    (tmp_path / "images/0.png").rename(tmp_path / "images/my cat.png")
    assert (load_segmentation(tmp_path).mask(0) == square()).all()


def test_coordinates_in_pixels_are_no_shares(tmp_path):
    with pytest.raises(UserError, match="0.txt, line 1: 9 is no share of a side"):
        load_segmentation(yolo(tmp_path, f"0 {' '.join(map(str, SQUARE))}\n"))


def test_a_video_of_cvat_names_no_images(tmp_path):
    cvat(tmp_path, "")
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="cat"/></annotations>')
    with pytest.raises(UserError, match="^a.xml is CVAT.s export of a video"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("drawn", [True, False])
def test_what_was_labeled_without_the_orientation_tag(tmp_path, drawn):
    if drawn:
        coco(tmp_path, {"segmentation": [SQUARE]})
    else:
        (tmp_path / "masks").mkdir()
        Image.fromarray(square()).save(tmp_path / "masks/0.png")
    picture(tmp_path / "images/0.png", tag=6)
    source = load_segmentation(tmp_path)
    assert source.size(0) == (H, W)
    with pytest.raises(UserError, match="16 x 12 px, as the file holds the image, which its orientation tag turns"):
        source.mask(0, source.size(0))


HUGE = (3_000_000, 3_000_000)
LARGER = {  # files that say another size than the image has
    "coco": lambda root, w, h: coco(root, {"segmentation": [SQUARE]}, size=(w, h)),
    "labelme": lambda root, w, h: labelme(root, "0.png", imageWidth=str(w), imageHeight=h),
    "cvat": lambda root, w, h: cvat(root, '<polygon label="dog" points="4,3;9,3;9,8;4,8"/>', (w, h)),
    "studio": lambda root, w, h: studio(root, {"points": POINTS, "polygonlabels": ["dog"]}, size=(w, h)),
}


@pytest.mark.parametrize("size", [HUGE, (W, H + 1), (H, W)])
@pytest.mark.parametrize("tool", LARGER)
def test_the_size_of_the_image_is_looked_at_before_that_of_the_file_is_believed(tmp_path, tool, size):
    LARGER[tool](tmp_path, *size)
    said = f"The annotation of image '0.png' is of {size[0]} x {size[1]} px, and the image has 16 x 12 px. Put the"
    with pytest.raises(UserError, match=said):
        load_segmentation(tmp_path).mask(0)


@pytest.mark.parametrize("tool", LARGER)
def test_a_size_that_is_not_said_is_that_of_the_image(tmp_path, tool):
    LARGER[tool](tmp_path, 0, 0)
    assert load_segmentation(tmp_path).mask(0).shape == (H, W)


RUNS = {  # a mask of a size that there is no memory for
    "coco": lambda root: coco(root, {"segmentation": {"size": HUGE, "counts": [0, HUGE[0] * HUGE[1]]}}),
    "cvat": lambda root: cvat(
        root, f'<mask label="dog" left="0" top="0" width="{HUGE[0]}" height="{HUGE[1]}" rle="0,{HUGE[0] * HUGE[1]}"/>'
    ),
}


@pytest.mark.parametrize("tool", RUNS)
def test_a_mask_is_not_made_before_it_fits(tmp_path, tool):
    with pytest.raises(UserError, match="a mask of 3000000 x 3000000 px for an image of 16 x 12 px"):
        load_segmentation(RUNS[tool](tmp_path)).mask(0)


def patch(root, x, y):
    """5 x 4 px of labelme at (x, y)."""
    png = io.BytesIO()
    Image.new("L", (5, 4), 255).save(png, "PNG")
    shape = {"label": "cat", "shape_type": "mask", "points": [[x, y], [x + 5, y + 4]]}
    return labelme(root, "0.png", shapes=[shape | {"mask": base64.b64encode(png.getvalue()).decode()}])


def cvat_patch(root, x, y):
    return cvat(root, f'<mask label="dog" left="{x}" top="{y}" width="5" height="4" rle="0,20"/>')


@pytest.mark.parametrize("at", [(-2, -2), (13, 10), (-2, 10), (3, 3), (0, 0), (W, H), (-5, 0), (40, -40)])
@pytest.mark.parametrize("made", [patch, cvat_patch])
def test_masks_that_jut_out_are_cut_at_the_border(tmp_path, made, at):
    x, y = at
    wide = np.zeros((H + 120, W + 120), bool)
    wide[60 + y : 64 + y, 60 + x : 65 + x] = True
    assert (load_segmentation(made(tmp_path, x, y)).mask(0) == wide[60 : 60 + H, 60 : 60 + W]).all()


OTHER = [[5, 4], [11, 4], [11, 9], [5, 9]]


def polygon(points):
    return {"points": [[x / W * 100, y / H * 100] for x, y in points], "polygonlabels": ["dog"]}


def studio_tasks(root, *given, images=("0.png", "0.png")):
    """A task for each list of values; None: nobody has looked at it."""
    for image in images:
        picture(root / "images" / image)
    tasks = [
        {"data": {"image": f"/data/local-files/?d={image}"}}
        | ({"annotations": [{"result": [{"value": value} for value in values]}]} if values is not None else {})
        for image, values in zip(images, given, strict=True)
    ]
    (root / "export.json").write_text(json.dumps(tasks))
    return root


def cvat_images(root, *inside):
    cvat(root, "")
    images = "".join(f'<image id="{k}" name="0.png" width="{W}" height="{H}">{s}</image>' for k, s in enumerate(inside))
    (root / "a.xml").write_text(f"<annotations>{images}</annotations>")
    return root


def coco_images(root, *segments, names=("0.png", "0.png"), ids=(7, 8), categories=((90, "dog"),)):
    coco(root, categories=categories)
    content = json.loads((root / "annotations.json").read_text())
    content["images"] = [{"id": id, "file_name": name} for id, name in zip(ids, names)]
    content["annotations"] = [
        {"id": k, "image_id": ids[k], "category_id": 90, "segmentation": [segment]}
        for k, segment in enumerate(segments)
        if segment
    ]
    (root / "annotations.json").write_text(json.dumps(content))
    return root


FLAT = [v for point in OTHER for v in point]
FIRST, SECOND = (
    '<polygon label="dog" points="{}"/>'.format(";".join(f"{x},{y}" for x, y in p)) for p in (POINTS, OTHER)
)
TWICE = {
    "studio": lambda root: studio_tasks(root, [polygon(POINTS)], [polygon(OTHER)]),
    "studio, nothing there": lambda root: studio_tasks(root, [], [polygon(OTHER)]),
    "cvat": lambda root: cvat_images(root, FIRST, SECOND),
    "coco": lambda root: coco_images(root, SQUARE, FLAT),
}
ONCE = {  # the same again, or nobody has looked at one of them
    "studio": lambda root: studio_tasks(root, [polygon(POINTS)], [polygon(POINTS)]),
    "studio, first": lambda root: studio_tasks(root, [polygon(POINTS)], None),
    "studio, last": lambda root: studio_tasks(root, None, [polygon(POINTS)]),
    "cvat": lambda root: cvat_images(root, FIRST, FIRST),
    "cvat, first": lambda root: cvat_images(root, FIRST, ""),
    "cvat, last": lambda root: cvat_images(root, "", FIRST),
    "coco, first": lambda root: coco_images(root, SQUARE, None),
    "coco, last": lambda root: coco_images(root, None, SQUARE),
}


@pytest.mark.parametrize("tool", TWICE)
def test_an_image_that_a_file_annotates_twice(tmp_path, tool):
    with pytest.raises(UserError, match="(annotates|lists) the image '0.png' twice.* Keep one of them"):
        load_segmentation(TWICE[tool](tmp_path))


@pytest.mark.parametrize("tool", ONCE)
def test_an_image_that_a_file_names_twice_and_annotates_once(tmp_path, tool):
    assert (load_segmentation(ONCE[tool](tmp_path)).mask(0) == square()).all()


def test_pictures_of_one_name_in_several_folders_are_several(tmp_path):
    studio_tasks(tmp_path, [polygon(POINTS)], [polygon(OTHER)], images=("a/0.png", "b/0.png"))
    source = load_segmentation(tmp_path)
    assert source.has_target.all() and not (source.mask(0) == source.mask(1)).all()
    assert (source.mask(0) == square()).all()


def test_a_number_that_coco_gives_twice(tmp_path):
    with pytest.raises(UserError, match="the number 7 to the image '0.png' and to the image '1.png'"):
        load_segmentation(coco_images(tmp_path / "images", SQUARE, FLAT, names=("0.png", "1.png"), ids=(7, 7)))
    with pytest.raises(UserError, match="the number 90 to the class 'dog' and to the class 'cat'"):
        load_segmentation(coco_images(tmp_path / "classes", SQUARE, None, categories=((90, "dog"), (90, "cat"))))
