"""Images whose masks are drawn from the files of annotation tools (annotation_files.py), wherever these lie in a data
set:

    photos/train/1.jpg  photos/train/_annotations.coco.json      COCO, beside the images or in annotations/
    photos/1.jpg        photos/1.json                            labelme
    photos/images/train/1.jpg  photos/labels/train/1.txt  photos/data.yaml       YOLO, outlines
    photos/images/1.jpg photos/annotations.xml                   CVAT for images
    photos/images/1.jpg photos/export.json                       Label Studio: brushes, outlines

Class 0 is what no object covers, unless the classes are named without it. Smaller objects lie over larger ones,
except by the order of labelme and the layers of CVAT.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError
from ...files import read_text
from ...text import listed, warn
from ...yaml_files import parsed
from ..dataset import Reader
from ..files.folders import FileReader, ImageFile, is_text, listing, path_inside, walked
from ..files.uploads import Uploads
from ..labels.labels import class_order, tell_alike
from ..pixels.images import BadImage, decoding, turned, upright_size
from ..pixels.masks import IGNORE, IGNORED_NAMES, check_size
from .annotated import UNKNOWN, Annotations, Objects, small_last
from .annotation_files import read_annotations, yolo
from .placing import Pictures, place_images, tell_loose, why_not

GROUND = ("background", "_background_", "__background__")  # names of what no object covers
NO_CLASS = (*IGNORED_NAMES, "__ignore__")


class DrawnMasks:
    """Mask i: the objects of image i drawn in order, as class numbers in an image of mode L."""

    def __init__(self, images: Reader, objects: list[Objects | None], number: dict[str, int], ids: list[str]):
        self.images, self.objects, self.number, self.ids = images, objects, number, ids

    def __call__(self, i: int) -> Image.Image:
        objects = self.objects[i]
        if objects is None:
            raise BadImage("it has no annotation")
        with decoding():
            with self.images(i) as image:
                (width, height), is_turned = upright_size(image), turned(image)
            self.check_size(i, objects.size or (width, height), (width, height), is_turned)
            mask = np.zeros((height, width), dtype=np.uint8)
            for shape in objects.shapes:
                mask[shape.pixels(height, width)] = self.number[shape.label]
            return Image.fromarray(mask)

    def check_size(self, i: int, said: tuple[int, int], size: tuple[int, int], is_turned: bool) -> None:
        """Raises UserError where the file of annotations says another size than the image has."""
        if is_turned and said == size[::-1]:
            check_size(said, size, self.ids[i], True)
        if said != size:
            raise UserError(
                f"The annotation of image {self.ids[i]!r} is of {said[0]} x {said[1]} px, and the image has {size[0]} "
                f"x {size[1]} px. Put the image there that was annotated, or export the annotations again."
            )


@dataclass
class Drawn:
    """What `find_drawn` found of the images of a split. names: of the classes. left_out: (name, why)."""

    files: Sequence[ImageFile]
    has_mask: np.ndarray
    reader: DrawnMasks
    content: list[str]
    names: list[str]
    left_out: list[tuple[str, str]]


def find_drawn(
    path: Path,
    root: Path,
    files: Sequence[ImageFile],
    declared: Sequence[str] | None,
    instances: bool,
    skip_missing: bool = False,
    kept: np.ndarray | None = None,
) -> Drawn | None:
    """The masks that annotations draw for images.

    Args:
        path: the data set, whose files of annotations are read.
        root: the folder of the images of a split.
        files: the images in it.
        declared: the classes; None: those of the annotations, after the background.
        instances: all objects are of one class.
        skip_missing: annotations of images that are not there are left out.
        kept: bool [N], which of the files are of the split; None: all.

    Returns:
        None where there is no file of annotations.

    Raises:
        UserError: a file cannot be read, or annotated images are not there.
    """
    found = [*json_and_xml(path), *outlines_in_text(path, root, files)]
    if not found:
        return None
    inside = path_inside(path, root)
    every = Pictures([file.id for file in (listing(path) if inside else files)])
    objects, left_out, strange = dict[str, Objects](), list[tuple[str, str]](), list[tuple[str, Annotations]]()
    lost, uploads = list[tuple[str, Annotations]](), Uploads(every.ids)
    for part in found:
        left_out += part.left_out
    placed = list(place_images(found, path, every, uploads))
    for part, name, id, _ in placed:
        if id is None:
            strange.append((name, part))
            lost += [(name, part)] if part.images[name].shapes else []
        elif id in objects:
            raise UserError(
                f"The image {id!r} is annotated twice, the second time in {part.file.name}. Keep one of the files."
            )
        else:
            objects[id] = in_order(part, part.images[name])
    if not objects:
        if not strange:
            raise UserError(f"The annotations in {path.name!r} hold no object. Give another folder, or draw some.")
        raise UserError(
            f"None of the {len(strange)} images that the annotations in {path.name!r} name is there, such as "
            f"{strange[0][0]!r}{why_not(*strange[0], path, every, uploads)}. Put the images beside the file, or into "
            "images/."
        )
    if lost and not skip_missing:
        raise UserError(
            f"{len(lost)} images that the annotations in {path.name!r} draw objects for are not there, such as "
            f"{lost[0][0]!r}{why_not(*lost[0], path, every, uploads)}. Put them beside the others, or give "
            "--skip-missing."
        )
    left_out += [(name, "there is no such image") for name, _ in strange]
    tell_loose(placed, path)
    refuse_boxes(path, found, objects, left_out)
    files = files if kept is None else [file for file, here in zip(files, kept) if here]
    ids = [f"{inside}{file.id}" for file in files]
    names, number = class_numbers(found, declared, instances)
    of_images = [with_number(objects.get(id), number, id, left_out) for id in ids]
    tell(left_out, path)
    reader = DrawnMasks(FileReader(root, [file.path for file in files]), of_images, number, [file.id for file in files])
    content = [f"{file.print}/{digest(drawn)}" for file, drawn in zip(files, of_images)]
    return Drawn(files, np.array([drawn is not None for drawn in of_images]), reader, content, names, left_out)


def refuse_boxes(
    path: Path, found: Sequence[Annotations], objects: dict[str, Objects], left_out: list[tuple[str, str]]
) -> None:
    """Raises UserError where nothing that annotations hold can become a mask."""
    outlines = any(shape.label != UNKNOWN for of_image in objects.values() for shape in of_image.shapes)
    if not outlines and (left_out or not any(part.classes for part in found)):
        reasons = Counter(why for _, why in left_out).most_common(4)
        said = "; ".join(f"{count} x {why}" for why, count in reasons)
        raise UserError(
            f"The annotations in {path.name!r} draw no object that could be a mask{f': {said}' if said else ''}. Draw "
            "outlines or brushes; annotation tools can make them of boxes."
        )


def json_and_xml(path: Path) -> Iterator[Annotations]:
    """Every file of annotations in the data set and two folders down."""
    for folder, subfolders, files in walked(path):
        deep = len(Path(folder).relative_to(path).parts)
        subfolders[:] = [name for name in subfolders if deep < 3 and is_text(name)]
        for name in sorted(name for name in files if name[-5:].lower().endswith((".json", ".xml"))):
            if is_text(name) and not name.startswith("."):
                part = read_annotations(Path(folder, name))
                if part is not None and not (name.startswith("person_keypoints") or "panoptic" in name):
                    yield part


def outlines_in_text(
    path: Path, root: Path, files: Sequence[ImageFile], skip_faults: bool = False
) -> Iterator[Annotations]:
    """YOLO's files: in labels/ where the images are in images/, or beside them. skip_faults: a text that is none may be
    anything else, such as a caption."""
    images = [root / file.path for file in files]
    of_images = [(text, image) for image in images if (text := text_of(path, image)) is not None]
    facts: tuple[list[str], bool] = ([], False)
    with contextlib.suppress(*[UserError] if skip_faults else []):
        facts = yolo_facts(path) if of_images else facts
    for text, image in of_images:
        with contextlib.suppress(*[UserError] if skip_faults else []):
            yield yolo(text, image.relative_to(path).as_posix(), *facts)


def text_of(path: Path, image: Path) -> Path | None:
    """YOLO's file of an image, where there is one."""
    return next((text for text in text_places(path, image) if text.is_file()), None)


def text_places(path: Path, image: Path) -> list[Path]:
    """Where it may lie: in labels/ where the image is in images/, then beside it."""
    parts = list(image.relative_to(path).parts)
    at = [k for k, part in enumerate(parts[:-1]) if part.lower() == "images"]
    beside = [image.with_suffix(".txt")]
    if at:
        other = [*parts[: at[-1]], "labels", *parts[at[-1] + 1 :]]
        return [path.joinpath(*other).with_suffix(".txt"), *beside]
    return beside


def yolo_facts(path: Path) -> tuple[list[str], bool]:
    """(names, whether boxes have points of a body) by data.yaml (names: a list, or numbers with names), or classes.txt;
    [] where neither is there.

    Raises UserError for a YAML file that cannot be read, where no other names them."""
    fault = None
    for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]):
        try:
            content = parsed(read_text(file), file.name)
            found = content.get("names") if isinstance(content, dict) else None
            found = in_numbers(found, file.name) if isinstance(found, dict) else found
        except UserError as error:
            fault = fault or f"Mend {file.name}, which may name the classes, or take it elsewhere: {error}"
            continue
        if isinstance(found, list):
            return [str(name) for name in found], "kpt_shape" in content
    if fault is not None:  # it may say too that boxes have points, which are no outlines
        raise UserError(fault)
    for file in (path / "classes.txt", path / "obj.names", path / "labels" / "classes.txt"):
        if file.is_file():
            return [line.strip() for line in read_text(file).splitlines() if line.strip()], False
    return [], False


def in_numbers(names: dict[Any, Any], where: str) -> list[Any]:
    """Names by their numbers. Raises UserError where these are not 0, 1, 2 ..., by which outlines name their class."""
    of, numbers = {str(number).strip(): name for number, name in names.items()}, [*map(str, range(len(names)))]
    if of.keys() != {*numbers}:
        raise UserError(
            f"{where} numbers its {len(names)} classes {listed(map(str, names), 5)}, not 0, 1, 2 ... each once."
        )
    return [of[number] for number in numbers]


def in_order(part: Annotations, objects: Objects) -> Objects:
    """Smaller objects over larger ones, where the file has no order of its own."""
    if part.small_last:
        return Objects(objects.size, small_last(objects.shapes, objects.size))
    return Objects(objects.size, sorted(objects.shapes, key=lambda shape: shape.label != UNKNOWN))


def class_numbers(
    found: Sequence[Annotations], declared: Sequence[str] | None, instances: bool
) -> tuple[list[str], dict[str, int]]:
    """(names, the number of each label that is drawn)."""
    labels = list(dict.fromkeys(label for part in found for label in part.classes))
    nothing = [label for label in labels if label.lower() in NO_CLASS]
    empty = [label for label in labels if label.lower() in GROUND]
    objects = [label for label in labels if label not in (*nothing, *empty)]
    zero = dict.fromkeys(empty, 0) | dict.fromkeys([*nothing, UNKNOWN], IGNORE)
    tell_alike(objects)
    if instances:
        return ["background", "object"], zero | dict.fromkeys(objects, 1)
    if declared is None:
        ordered = objects if any(part.small_last for part in found) else class_order(objects)
        return ["background", *ordered], zero | {label: k for k, label in enumerate(ordered, start=1)}
    names = list(declared)
    if not names or names[0] in objects:
        names = ["background", *names]
    return names, zero | {label: names.index(label) for label in objects if label in names}


def with_number(
    objects: Objects | None, number: dict[str, int], id: str, left_out: list[tuple[str, str]]
) -> Objects | None:
    """The objects whose class has a number."""
    if objects is None:
        return None
    left_out += [(id, f"class {s.label!r} is none of --classes") for s in objects.shapes if s.label not in number]
    return Objects(objects.size, [shape for shape in objects.shapes if shape.label in number])


def digest(objects: Objects | None) -> str:
    if objects is None:
        return "none"
    return str(zlib.crc32(json.dumps([objects.size, objects.shapes], default=str).encode()))


def tell(left_out: list[tuple[str, str]], path: Path) -> None:
    if left_out:
        reasons = Counter(why for _, why in left_out).most_common(6)
        said = "; ".join(f"{count} x {why} ({next(n for n, w in left_out if w == why)})" for why, count in reasons)
        warn(f"The annotations in {path.name!r} are not all used: {said}.")
