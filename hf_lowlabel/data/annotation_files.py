"""Files of annotation tools: the objects of each image, by COCO, labelme, YOLO (segments), CVAT for images and Label
Studio. An object is an outline or a mask of its own. A box is none: which of its pixels are the object's nobody has
said, so that they take no part, and it is listed; so are outlines without a class. A line or a point is listed alone.
"""

from __future__ import annotations

import base64
import io
import json
import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..files import read_text
from .images import open_image
from .outlines import box, ellipse, filled, of_coco_runs, of_studio_runs, outline, runs_of, turned
from .table_files import plain_name

BOX, LINE, FEW = "a box without an outline", "a line or a point", "an outline of fewer than 3 points"
NAMELESS = "an object without a class"
FAR = 3  # times the side of a picture: a mask that juts out as far on both sides
UNKNOWN = "__ignore__"  # label of pixels of which nobody has said what they are


class Shape(NamedTuple):
    """An object: its class, and `data` as its `kind` has it: "outlines" (lists of x, y; `relative` to the sides of the
    picture), "coco", "studio", "runs" or "patch"."""

    label: str
    kind: str
    data: Any
    relative: bool = False

    def pixels(self, height: int, width: int) -> np.ndarray:
        """bool [H, W]. Raises ValueError for data that fits no such picture."""
        if self.kind == "outlines":
            scale = np.array([width, height]) if self.relative else 1
            parts = [filled(np.asarray(part, np.float64).reshape(-1, 2) * scale, height, width) for part in self.data]
            return np.logical_or.reduce(parts)
        if self.kind == "coco":
            h, w = self.data["size"]
            fits((w, h), (w, h) == (width, height), width, height)
            return of_coco_runs(self.data)
        if self.kind == "studio":
            return of_studio_runs(self.data, height, width)
        if self.kind == "runs":
            x, y, w, h, counts = self.data
            fits((w, h), 0 <= w <= FAR * width and 0 <= h <= FAR * height, width, height)
            patch = runs_of(counts, w * h).reshape(h, w)
        else:
            x, y, png = self.data
            patch = of_png(png)
        found = np.zeros((height, width), bool)
        y0, y1, x0, x1 = max(y, 0), min(y + patch.shape[0], height), max(x, 0), min(x + patch.shape[1], width)
        if y0 < y1 and x0 < x1:  # cut at the border of the picture, as outlines are
            found[y0:y1, x0:x1] = patch[y0 - y : y1 - y, x0 - x : x1 - x]
        return found


def fits(size: tuple[int, int], does: bool, width: int, height: int) -> None:
    """Raises ValueError where a mask does not fit a picture, before there is memory for either."""
    if not does:
        raise ValueError(f"a mask of {size[0]} x {size[1]} px for an image of {width} x {height} px")


def of_png(text: str) -> np.ndarray:
    with open_image(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image.convert("L")) > 0


@dataclass
class Objects:
    """Of one picture. size: (width, height) in px as the tool says; None: the picture's own."""

    size: tuple[int, int] | None = None
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Annotations:
    """What a file says. images: name of the picture -> its objects. classes: in the order of the file. left_out: (name,
    why). small_last: objects have no order, so that the smaller ones are drawn over the larger."""

    file: Path
    images: dict[str, Objects] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    small_last: bool = False
    otherwise: str = ""  # name of the picture where there is none of the name that is given

    def add(self, name: str, label: str | None, kind: str, data: Any, relative: bool = False) -> None:
        """An object. One without a class is UNKNOWN; one with too few points is left out."""
        label = label.strip() if label else ""
        if kind == "outlines":
            data = [np.asarray(part).ravel().tolist() for part in data if (outline(part)) is not None]
        if not label or not len(data):
            self.left_out.append((name, FEW if label else NAMELESS))
        if not len(data):
            return
        if label and label not in self.classes:
            self.classes.append(label)
        self.images[name].shapes.append(Shape(label or UNKNOWN, kind, data, relative))

    def boxed(self, name: str, x: float, y: float, width: float, height: float, relative: bool = False) -> None:
        """A box alone."""
        self.left_out.append((name, BOX))
        corners = box(x, y, x + width, y + height).ravel().tolist()
        if all(map(math.isfinite, corners)):
            self.images[name].shapes.insert(0, Shape(UNKNOWN, "outlines", [corners], relative))


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
    except (ValueError, KeyError, TypeError, AttributeError, ET.ParseError) as error:
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
    files = {}
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


def size_said(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in px, numbers or text of such; None where one is not given or is 0."""
    size = (int(width or 0), int(height or 0))
    return size if all(size) else None


def without_empty(out: Annotations, drawn: set[str]) -> Annotations:
    """Pictures that are listed without any object count as not looked at."""
    empty = [name for name in out.images if name not in drawn]
    for name in empty:
        del out.images[name]
    out.left_out += [(name, "no object: it counts as unlabeled") for name in empty]
    return out


def labelme(file: Path, content: dict) -> Annotations:
    name = str(content.get("imagePath") or file.stem).replace("\\", "/").rsplit("/", 1)[-1]
    size = size_said(content.get("imageWidth"), content.get("imageHeight"))
    out = Annotations(file, {name: Objects(size)}, otherwise=file.stem)
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        label = shape.get("label")
        if kind == "polygon":
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
        else:
            out.left_out.append((name, LINE))
    return out


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
        out.images[name] = Objects(size_said(image.get("width"), image.get("height")))
        shapes = sorted(image, key=lambda e: int(e.get("z_order", 0)))
        drawn |= {name} if shapes else set()
        for e in shapes:
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
                out.boxed(name, x0, y0, x1 - x0, y1 - y0)
            else:
                out.left_out.append((name, LINE if e.tag in LINES else f"a {e.tag}"))
    return without_empty(out, drawn)


LINES = ("polyline", "points", "skeleton")


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
    out, images, drawn = Annotations(file), set(), set()
    for task in tasks:
        data = task.get("data", task)
        image = next((v for v in (data.get("image"), *data.values()) if is_picture(v)), None)
        if image is None:
            continue
        name = plain_name(image.rsplit("?d=", 1)[-1]).rsplit("/", 1)[-1]
        images.add(name)
        given = [a for a in task.get("annotations", task.get("completions", ())) if not a.get("was_cancelled")]
        if "data" in task:
            results = given[-1]["result"] if given else []
            out.left_out += [(name, "an earlier annotation of the same image")] * (len(given) - 1)
        else:  # JSON-MIN: lists of what else stands as `value`, with the size beside it
            results = [
                {**v, "value": v} for vs in task.values() if isinstance(vs, list) for v in vs if isinstance(v, dict)
            ]
            given = results
        drawn |= {name} if given else set()
        out.images[name] = Objects()
        for result in results:
            studio_shape(out, name, result)
    return without_empty(out, drawn) if out.classes or out.left_out and drawn else None


def is_picture(value: Any) -> bool:
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
    elif "width" in value:
        out.boxed(name, *(value[k] / 100 for k in ("x", "y", "width", "height")), relative=True)
    elif labels:
        out.left_out.append((name, LINE))
