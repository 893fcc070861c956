"""Annotations of any tool in one form: pictures and their objects."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError
from ..pixels.images import open_image
from ..pixels.outlines import box, coco_area, filled, hull, of_coco_runs, of_studio_runs, outline, runs_of, turned

BOX, LINE, FEW = "a box without an outline", "a line or a point", "an outline of fewer than 3 points"
NAMELESS = "an object without a class"
EMPTY = "no object: it counts as unlabeled"
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

    def area(self, size: tuple[int, int] | None) -> float:
        """About how many pixels it has, to sort by; of outlines that are `relative`, the share where no size is
        said."""
        try:
            if self.kind == "outlines":
                pairs = [np.asarray(part).reshape(-1, 2) for part in self.data]
                scale = size[0] * size[1] / 2 if self.relative and size else 0.5
                return scale * sum(
                    abs(np.dot(p[:, 0], np.roll(p[:, 1], 1)) - np.dot(p[:, 1], np.roll(p[:, 0], 1))) for p in pairs
                )
            if self.kind == "coco":
                return coco_area(self.data)
            if self.kind == "runs":
                return sum(self.data[-1][1::2])
            width, height = size or (0, 0)
            return float(self.pixels(height, width).sum())
        except (ValueError, KeyError, TypeError, IndexError):
            return 0.0  # it cannot be drawn, which says why


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


def small_last(shapes: list[Shape], size: tuple[int, int] | None) -> list[Shape]:
    """Smaller objects over larger ones, of which nobody has said which lies above."""
    return sorted(shapes, key=lambda shape: -shape.area(size)) if len(shapes) > 1 else shapes


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
    served: bool = False  # pictures are named by addresses, whose folders are those of a server
    looked: set[str] = field(default_factory=set)  # those of `images` that somebody has looked at
    before: list[tuple[str, Objects]] = field(default_factory=list)  # what else the file says of one of these

    def begin(self, name: str, size: tuple[int, int] | None, drawn: bool) -> None:
        """A picture, whose objects follow; drawn: somebody has looked at it."""
        if name in self.images and not drawn:
            return
        if name in self.looked:
            self.before.append((name, self.images[name]))
        self.looked |= {name} if drawn else set()
        self.images[name] = Objects(size)

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

    def boxed(
        self, name: str, x: float, y: float, width: float, height: float, relative: bool = False, degrees: float = 0.0
    ) -> None:
        """A box alone, turned clockwise about its centre."""
        corners = box(x, y, x + width, y + height)
        self.unsure(name, BOX, turned(corners, x + width / 2, y + height / 2, degrees), relative)

    def unsure(self, name: str, why: str, points: Any, relative: bool = False) -> None:
        """An object in the midst of points, of which nobody has said which pixels are its: they take no part."""
        self.left_out.append((name, why))
        if (found := outline(points)) is not None:
            self.images[name].shapes.insert(0, Shape(UNKNOWN, "outlines", [hull(found).ravel().tolist()], relative))


def size_said(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in px, numbers or text of such; None where one is not given or is 0."""
    size = (int(width or 0), int(height or 0))
    return size if all(size) else None


def without_empty(out: Annotations, drawn: set[str]) -> Annotations:
    """Pictures that are listed without any object count as not looked at.

    Raises:
        UserError: the file says one thing of a picture, and then another.
    """
    for name, objects in out.before:
        if objects != out.images[name]:
            raise UserError(f"{out.file.name} annotates the image {name!r} twice, and differently. Keep one of them.")
    empty = [name for name in out.images if name not in drawn]
    for name in empty:
        del out.images[name]
    out.left_out += [(name, EMPTY) for name in empty]
    return out
