"""Shapes of annotation tools beside outlines: what of them is filled, what is unknown, and that none is background."""

import json

import numpy as np
import pytest
from PIL import Image

from hf_lowlabel import UserError, load_segmentation
from hf_lowlabel.data.pixels.outlines import hull

W, H = 16, 12
BOX = [[4, 3], [9, 3], [9, 8], [4, 8]]
OTHER = {"label": "dog", "points": [[12, 8], [16, 8], [16, 12], [12, 12]], "shape_type": "polygon"}
DIAMOND = [[6, 1], [11, 6], [6, 11], [1, 6]]


def labelme(root, *shapes):
    Image.new("RGB", (W, H)).save(root / "0.png")
    (root / "0.json").write_text(json.dumps({"imagePath": "0.png", "shapes": shapes}))
    return root


def cvat(root, inside):
    Image.new("RGB", (W, H)).save(root / "0.png")
    outline = '<polygon label="dog" points="12,8;16,8;16,12;12,12" z_order="0"/>'
    image = f'<image id="0" name="0.png" width="{W}" height="{H}">{outline}{inside}</image>'
    (root / "a.xml").write_text(f"<annotations>{image}</annotations>")
    return root


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "quadrilateral", "oriented_rectangle"])
@pytest.mark.parametrize("points", [BOX, DIAMOND])
def test_rectangles_of_four_points_are_filled(tmp_path, kind, points):
    source = load_segmentation(labelme(tmp_path, {"label": "cat", "points": points, "shape_type": kind}, OTHER))
    (tmp_path / "0.json").unlink()
    whole = load_segmentation(labelme(tmp_path, {"label": "cat", "points": points, "shape_type": "polygon"}, OTHER))
    assert source.class_names == ["background", "cat", "dog"] and (source.mask(0) == whole.mask(0)).all()
    assert (source.mask(0) == 1).sum() == 25 if points is BOX else (source.mask(0) == 1).sum() > 40


@pytest.mark.parametrize("kind", ["cuboid", "linestrip", "points", "circle", "new thing"])
def test_other_shapes_are_unknown_and_named(tmp_path, kind):
    shape = {"label": "cat", "points": [BOX[0], BOX[2], BOX[1], BOX[3]], "shape_type": kind}  # in any order
    with pytest.warns(UserWarning, match=f"1 x a {kind}, whose pixels count as unknown"):
        source = load_segmentation(labelme(tmp_path, shape, OTHER))
    mask = source.mask(0)
    assert (mask[3:8, 4:9] == 255).all() and (mask == 255).sum() == 25 and (mask[8:, 12:] == 1).all()


def test_a_shape_of_two_points_that_is_no_line_is_unknown(tmp_path):
    shape = {"label": "cat", "points": [BOX[0], BOX[2]], "shape_type": "ellipse"}
    with pytest.warns(UserWarning, match="1 x a ellipse, whose"):
        mask = load_segmentation(labelme(tmp_path, shape, OTHER)).mask(0)
    assert (mask[3:8, 4:9] == 255).all() and (mask == 255).sum() == 25


def test_other_shapes_alone_make_no_mask(tmp_path):
    with pytest.raises(UserError, match="no object that could be a mask: 1 x a cuboid"):
        load_segmentation(labelme(tmp_path, {"label": "cat", "points": BOX, "shape_type": "cuboid"}))


CUBOID = " ".join(f'x{k}="{x}" y{k}="{y}"' for k, (x, y) in zip(("tl1", "tr2", "br1", "bl2"), BOX))


@pytest.mark.parametrize(
    "inside",
    [
        f'<cuboid label="cat" {CUBOID}/>',
        '<polyline label="cat" points="4,3;9,3;9,8;4,8"/>',
        '<skeleton label="cat">' + "".join(f'<points label="k" points="{x},{y}"/>' for x, y in BOX) + "</skeleton>",
        '<box label="cat" xtl="4" ytl="3" xbr="9" ybr="8"/>',
    ],
)
def test_of_cvat_too(tmp_path, inside):
    with pytest.warns(UserWarning, match="1 x a (cuboid|polyline|skeleton|box)"):
        mask = load_segmentation(cvat(tmp_path, inside)).mask(0)
    assert (mask[3:8, 4:9] == 255).all() and (mask == 255).sum() == 25 and (mask[8:, 12:] == 1).all()


def test_a_turned_box_is_unknown_where_it_lies(tmp_path):
    """6 x 2 px around (7, 6), upright."""
    with pytest.warns(UserWarning, match="1 x a box"):
        mask = load_segmentation(cvat(tmp_path, '<box label="cat" xtl="4" ytl="5" xbr="10" ybr="7" rotation="90"/>'))
    mask = mask.mask(0)
    assert (mask[3:9, 6:8] == 255).all() and (mask == 255).sum() == 12


def test_a_turned_box_of_label_studio(tmp_path):
    """6 x 2 px, turned about its corner (8, 3) so that it points down."""
    Image.new("RGB", (W, H)).save(tmp_path / "0.png")
    share = {"x": 8 / W * 100, "y": 3 / H * 100, "width": 6 / W * 100, "height": 2 / H * 100, "rotation": 90}
    outline = {"points": [[x / W * 100, y / H * 100] for x, y in OTHER["points"]], "polygonlabels": ["dog"]}
    values = [{**share, "rectanglelabels": ["cat"]}, outline]
    results = [{"original_width": W, "original_height": H, "value": value} for value in values]
    task = {"id": 1, "data": {"image": "0.png"}, "annotations": [{"result": results}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    with pytest.warns(UserWarning, match="1 x a box"):
        mask = load_segmentation(tmp_path).mask(0)
    assert (mask[3:9, 6:8] == 255).all() and (mask == 255).sum() == 12


def test_hull():
    rng = np.random.default_rng(0)
    inside = rng.random((50, 2)) * 4 + 1
    around = np.array([[0, 0], [6, 0], [6, 6], [0, 6]], float)
    found = hull(rng.permutation(np.concatenate([inside, around, around])))
    assert sorted(map(tuple, found)) == sorted(map(tuple, around))
    area = np.dot(found[:, 0], np.roll(found[:, 1], 1)) - np.dot(found[:, 1], np.roll(found[:, 0], 1))
    assert abs(area) == 72
    assert len(hull(np.array([[1.0, 1.0]] * 3))) == 1 and len(hull(np.array([[0.0, 0], [1, 1], [2, 2]]))) == 2


def test_an_infinite_size_is_named(tmp_path):
    labelme(tmp_path, OTHER)
    text = (tmp_path / "0.json").read_text()
    (tmp_path / "0.json").write_text(
        text.replace('{"imagePath"', '{"imageWidth": Infinity, "imageHeight": 12, "imagePath"')
    )
    with pytest.raises(UserError, match="0.json looks like a file of annotations and cannot be read"):
        load_segmentation(tmp_path)
