"""Files of annotation tools: the objects of each image, by COCO, labelme, YOLO (segments), CVAT for images and Label
Studio. An object is an outline or a mask of its own. A box is none: which of its pixels are the object's nobody has
said, so that they take no part, and it is listed; so are outlines without a class and shapes that are not read. A line
of two points, or a point, is listed alone.
"""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...files import read_text
from ..files.table_files import plain_name
from ..files.uploads import UPLOAD
from ..labels.columns import PICTURES
from ..pixels.outlines import box, ellipse, outline, turned
from .annotated import BOX, LINE, Annotations, Objects, size_said, small_last, without_empty

TURNED = ("rectangle", "rotation", "oriented_rectangle", "quadrilateral")  # labelme's and X-AnyLabeling's, of corners
LINES = ("line", "linestrip", "point", "points", "polyline", "skeleton")


def read_annotations(file: Path) -> Annotations | None:
    """None for a file of another kind."""
    try:
        if file.suffix.lower() == ".xml":
            return cvat(file)
        content = json.loads(read_text(file))
        if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
            return coco(file, content) if content.get("categories") else None
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            return labelme(file, content)
        if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
            return studio(file, content)
    except UserError:
        raise
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, ET.ParseError) as error:
        raise UserError(
            f"{file.name} looks like a file of annotations and cannot be read ({type(error).__name__}: {error}). "
            "Export it again, or take it elsewhere."
        ) from error
    return None


def coco(file: Path, content: dict) -> Annotations:
    out = Annotations(file, small_last=True)
    listed = sorted(content["categories"], key=lambda category: category["id"])
    supers = {category.get("supercategory") for category in listed}
    used = {str(a["category_id"]) for a in content["annotations"] if "category_id" in a}
    names = {  # one export puts the name of the whole set before the classes
        str(c["id"]): str(c["name"]).strip()
        for c in listed
        if str(c["id"]) in used or not (c["id"] == 0 and c["name"] in supers)
    }
    out.classes = list(dict.fromkeys(names.values()))
    once(file, "class", ((str(c["id"]), str(c["name"]).strip()) for c in listed if str(c["id"]) in names))
    once(file, "image", ((str(image["id"]), str(image["file_name"])) for image in content["images"]))
    files, ids = {}, dict[str, str]()
    for image in content["images"]:
        files[str(image["id"])] = name = str(image["file_name"])
        out.images[name] = Objects(size_said(image.get("width"), image.get("height")))
    drawn = set()
    for a in content["annotations"]:
        name, found, label = files.get(str(a["image_id"])), a.get("segmentation"), names.get(str(a.get("category_id")))
        if isinstance(found, list) and found and all(isinstance(value, (int, float)) for value in found):
            found = [found]
        whole = isinstance(found, dict) or any(outline(part) is not None for part in found or ())
        if name is None:
            out.left_out.append((f"annotation {a.get('id')}", "its image is not listed"))
            continue
        if ids.setdefault(name, str(a["image_id"])) != str(a["image_id"]):
            raise UserError(
                f"{file.name} lists the image {name!r} twice, as {ids[name]} and as {a['image_id']}, and both have "
                "objects. Keep one of them."
            )
        drawn.add(name)
        if not whole and len(a.get("bbox") or ()) == 4:
            out.boxed(name, *map(float, a["bbox"]))
        elif not found:
            out.left_out.append((name, BOX))
        elif isinstance(found, dict):
            out.add(name, label, "coco", found)
        else:
            out.add(name, label, "outlines", found)
    return without_empty(out, drawn)


def once(file: Path, what: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Raises UserError where a number stands for two classes or images."""
    known: dict[str, str] = {}
    for number, name in pairs:
        if (other := known.setdefault(number, name)) != name:
            raise UserError(
                f"{file.name} gives the number {number} to the {what} {other!r} and to the {what} {name!r}. Give each "
                "its own."
            )


def labelme(file: Path, content: dict) -> Annotations:
    name = plain_name(content.get("imagePath") or file.stem)
    size = size_said(content.get("imageWidth"), content.get("imageHeight"))
    out = Annotations(file, {name: Objects(size)}, otherwise=file.stem)
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        label = shape.get("label")
        if kind == "polygon" or kind in TURNED and len(points) > 2:
            out.add(name, label, "outlines", [points])
        elif (
            kind == "rectangle" and len(points) == 2
        ):  # drawn by hand as the object itself, as the tool's converters do
            out.add(name, label, "outlines", [box(*np.ravel(points))])
        elif kind == "circle" and len(points) == 2:
            (x, y), edge = points[0], points[1]
            r = float(np.hypot(edge[0] - x, edge[1] - y))
            out.add(name, label, "outlines", [ellipse(x, y, r, r)])
        elif kind == "mask" and shape.get("mask"):
            out.add(name, label, "patch", (int(points[0][0]), int(points[0][1]), shape["mask"]))
        elif len(points) < 2 or len(points) == 2 and kind in LINES:
            out.left_out.append((name, LINE))
        else:
            out.unsure(name, strange(kind), points if len(points) > 2 else box(*np.ravel(points)))
    return out


def strange(kind: str) -> str:
    """Why an object of a kind that is not read is left out."""
    return f"a {kind}, whose pixels count as unknown"


def yolo(file: Path, image: str, names: list[str], keypoints: bool = False) -> Annotations:
    """A line is the number of the class and x, y of the outline as shares of the sides; 4 numbers are a box, a fifth
    how sure a model is of it. keypoints: points of a body follow each box."""
    out = Annotations(file, {image: Objects()}, list(names), small_last=True)
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            k, numbers = int(float(words[0])), [float(word) for word in words[1:]]
        except ValueError:
            raise UserError(
                f"{file.name}, line {number}: {line[:40]!r} is no class with x and y of an outline."
            ) from None
        if k < 0 or names and k >= len(names):
            raise UserError(f"{file.name}, line {number}: class {k} has no name; there are {len(names)} of them.")
        out.classes += [f"class {j}" for j in range(len(out.classes), k + 1)]
        label = out.classes[k]
        if max(map(abs, numbers), default=0) > 2:
            raise UserError(
                f"{file.name}, line {number}: {max(numbers, key=abs):g} is no share of a side, 0 to 1. Divide x by the "
                "width and y by the height of the image."
            )
        if len(numbers) in (4, 5) or keypoints and len(numbers) > 4:
            x, y, width, height = numbers[:4]
            out.boxed(image, x - width / 2, y - height / 2, width, height, relative=True)
        else:
            out.add(image, label, "outlines", [numbers[: len(numbers) // 2 * 2]], relative=True)
    return out


def cvat(file: Path) -> Annotations | None:
    root = ET.parse(file).getroot()
    if root.tag == "annotations" and root.find("track") is not None:
        raise UserError(
            f"{file.name} is CVAT's export of a video, which names no images. Export it as 'CVAT for images' or 'COCO'."
        )
    if root.tag == "annotation" and root.find("object/bndbox") is not None:
        return voc_boxes(file, root)
    if root.tag != "annotations" or root.find("image") is None:
        return None
    out, drawn = Annotations(file), set()
    out.classes = list(dict.fromkeys(e.text or "" for e in root.findall("./meta//labels/label/name")))
    for image in root.findall("image"):
        name = image.get("name", "")
        shapes = sorted(image, key=z_order)
        out.begin(name, size_said(image.get("width"), image.get("height")), bool(shapes))
        drawn |= {name} if shapes else set()
        objects = out.images[name]
        for _, layer in itertools.groupby(shapes, key=z_order):
            below, objects.shapes = objects.shapes, []
            for e in layer:
                cvat_shape(out, name, e)
            objects.shapes = [*below, *small_last(objects.shapes, objects.size)]
    return without_empty(out, drawn)


def z_order(e: ET.Element) -> int:
    return int(e.get("z_order", 0))


def cvat_shape(out: Annotations, name: str, e: ET.Element) -> None:
    label = e.get("label")
    if e.tag == "polygon":
        pairs = [pair.split(",") for pair in e.get("points", "").split(";")]
        out.add(name, label, "outlines", [[float(v) for pair in pairs for v in pair]])
    elif e.tag == "ellipse":
        cx, cy, rx, ry = (float(e.get(k, 0)) for k in ("cx", "cy", "rx", "ry"))
        out.add(name, label, "outlines", [ellipse(cx, cy, rx, ry, float(e.get("rotation", 0)))])
    elif e.tag == "mask":
        left, top, width, height = (int(float(e.get(k, 0))) for k in ("left", "top", "width", "height"))
        counts = [int(v) for v in e.get("rle", "").replace(",", " ").split()]
        out.add(name, label, "runs", (left, top, width, height, counts))
    elif e.tag == "box":
        x0, y0, x1, y1 = (float(e.get(k, 0)) for k in ("xtl", "ytl", "xbr", "ybr"))
        out.boxed(name, x0, y0, x1 - x0, y1 - y0, degrees=float(e.get("rotation", 0)))
    elif len(points := points_of(e)) > 2:
        out.unsure(name, strange(e.tag), points)
    else:
        out.left_out.append((name, LINE if e.tag in LINES else f"a {e.tag}"))


def points_of(e: ET.Element) -> list[list[float]]:
    """The points of a shape and of those in it: x,y;x,y ..., or the corners of a cuboid as xtl1, ytl1, ..."""
    texts = [pair.split(",") for part in e.iter() for pair in part.get("points", "").split(";") if pair]
    corners = [[e.get(f"x{at}", ""), e.get(f"y{at}", "")] for at in (k[1:] for k in e.keys() if k[0] == "x")]
    return [[float(v) for v in pair] for pair in [*texts, *corners]]


def voc_boxes(file: Path, root: ET.Element) -> Annotations:
    """PASCAL VOC's boxes of one picture."""
    name = root.findtext("filename") or file.stem
    out = Annotations(file, {name: Objects()}, otherwise=file.stem)
    for found in root.iterfind("object/bndbox"):
        x0, y0, x1, y1 = (float(found.findtext(k) or 0) for k in ("xmin", "ymin", "xmax", "ymax"))
        out.boxed(name, x0, y0, x1 - x0, y1 - y0)
    return out


def studio(file: Path, tasks: list[dict]) -> Annotations | None:
    """An export of Label Studio, JSON or JSON-MIN; the masks of a person, not those of a model."""
    out, drawn = Annotations(file, served=True), set()
    for number, (whole, task) in enumerate(((picture_of(task), task) for task in tasks), start=1):
        if whole is None:
            continue
        base = whole.rpartition("/")[2]
        name = base if UPLOAD.match(base) else whole  # the folders of uploads are Label Studio's own
        every = annotations_of(task, f"task {number} of {file.name}")
        given = [a for a in every if not a.get("was_cancelled")]
        if "data" in task:
            results = given[-1]["result"] if given else []
            out.left_out += [(name, "an earlier annotation of the same image")] * (len(given) - 1)
        else:  # JSON-MIN: lists of what else stands as `value`, with the size beside it
            results = [
                {**v, "value": v} for vs in task.values() if isinstance(vs, list) for v in vs if isinstance(v, dict)
            ]
            given = results
        drawn |= {name} if given else set()
        out.begin(name, None, bool(given))
        for result in results:
            studio_shape(out, name, result)
        objects = out.images[name]
        if len({shape.label for shape in objects.shapes}) > 1:  # brushes take long to read
            objects.shapes = small_last(objects.shapes, objects.size)
    return without_empty(out, drawn) if out.classes or out.left_out and drawn else None


def annotations_of(task: dict, where: str) -> list[dict]:
    """The annotations that a task of Label Studio was given, cancelled ones too, each with its list of results; null is
    none. Raises UserError, which begins with `where`, for what is no annotation."""
    given = next((found for key in ("annotations", "completions") if (found := task.get(key)) is not None), [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UserError(f"{where} has {str(given)[:80]!r} in the place of its annotations. Export it again.")
    out = [{**one, "result": [] if one.get("result") is None else one["result"]} for one in given]
    for result in (one["result"] for one in out):
        if not isinstance(result, list) or not all(isinstance(part, dict) for part in result):
            raise UserError(f"{where} has {str(result)[:80]!r} in the place of its results. Export it again.")
    return out


def picture_of(task: dict) -> str | None:
    """The name of the picture of a task, with the folders of its address."""
    data = task.get("data", task)
    names = [plain_name(v.rsplit("?d=", 1)[-1]) for v in (data.get("image"), *data.values()) if may_be_file_name(v)]
    if may_be_file_name(data.get("image")):
        return names[0]
    return next((name for name in names if name.lower().endswith(PICTURES)), names[0] if names else None)


def may_be_file_name(value: Any) -> bool:
    return isinstance(value, str) and "." in value.rsplit("/", 1)[-1]


def studio_shape(out: Annotations, name: str, result: dict) -> None:
    value, objects = result.get("value", {}), out.images[name]
    labels = defaultdict(list, {k: v for k, v in value.items() if k.endswith("labels") and v})
    label = next((v[0] for v in labels.values()), None)
    objects.size = size_said(result.get("original_width"), result.get("original_height")) or objects.size
    if value.get("format") == "rle" and value.get("rle"):
        out.add(name, label, "studio", value["rle"])
    elif "points" in value:
        out.add(name, label, "outlines", [np.asarray(value["points"], float) / 100], relative=True)
    elif "radiusX" in value and objects.size:
        w, h = (side / 100 for side in objects.size)
        x, y = value["x"] * w, value["y"] * h
        points = turned(ellipse(x, y, value["radiusX"] * w, value["radiusY"] * h), x, y, value.get("rotation", 0))
        out.add(name, label, "outlines", [points])
    elif "width" in value and value.get("rotation") and objects.size:
        x, y, width, height = (
            value[k] / 100 * objects.size[k in ("y", "height")] for k in ("x", "y", "width", "height")
        )
        out.unsure(name, BOX, turned(box(x, y, x + width, y + height), x, y, value["rotation"]))
    elif "width" in value:
        out.boxed(name, *(value[k] / 100 for k in ("x", "y", "width", "height")), relative=True)
    elif labels:
        out.left_out.append((name, LINE))
