"""A mask for an image: a file beside it, or a column of a table.

An image without a mask is an unlabeled image; it is never asked for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...errors import UserError
from ...text import series, warn
from ..annotations.annotations import find_drawn
from ..dataset import ImageDataset, Masks, Origin, Reader, make_dataset
from ..files.folders import FileReader, listing
from ..masks.both_kinds import pictures_count
from ..masks.mask_faults import fault_of, refuse_masks
from ..masks.mask_files import MaskFiles, strange_masks
from ..masks.mask_folders import find_files, layout
from ..masks.own_names import CLASSES_FILE, own_names, tell_named
from ..pixels.encoded import encoded_images
from ..pixels.images import BadImage, decoding, upright
from ..pixels.mask_colors import Colors
from ..pixels.masks import IGNORE, MaskFormat, check_names, decode_mask, make_coding, read_classes
from ..splits.division import Division, of_split, opened_as, read_division, split_of
from . import shapes
from .tables import Table, asked_column, is_image
from .targets import Targets

MASK_COLUMNS = ("mask", "masks", "label", "annotation", "segmentation", "segmentation_mask", "semantic_mask", "gt")
SCANNED = 500  # masks looked at to count the classes of a data set that names none
OWN_LISTS = ("voc", "cityscapes")  # layouts that say by themselves which image is of which split
OWN_LAYOUTS = ("folder", "beside", "pairs")  # which have no names of their own
MOST_UNNAMED = 40  # values; more of them are numbers of objects, or classes that have names
FEW_ABSENT = 12  # values below the highest: a few masks may lack so many classes; more, and most, are gaps of a scale


@dataclass
class MaskTargets(Targets):
    """mask_column: of tables; where it is not given, it is found by its name.

    classes: names in the order of their index, or a text file of them (masks.read_classes), with colours where masks
    are colours; None: the layout's own, else as many as the masks' values tell. mask_format: "index", "binary" or
    "colors". mask_ignore: raw mask values that take no part, beside 255. skip_missing: masks and annotations without
    an image are left out, else an error. usual: names, such as a manifest's, where neither `classes` nor the data says
    any.
    """

    mask_column: str | None = None
    classes: Sequence[str] | str | Path | None = None
    mask_format: str | None = None
    mask_ignore: Sequence[int] = ()
    instances: bool = False
    images_alone: bool = False  # no masks are drawn, which nobody looks at
    skip_missing: bool = False
    usual: Sequence[str] = ()
    embedded: dict = field(default_factory=lambda: {"shapes": shapes.shapes})

    def lays_out(self, path: Path) -> bool:
        return layout(path) is not None

    def folder(self, path: Path, split: str) -> ImageDataset:
        kind = layout(path)
        division = read_division(path, None, self.skip_missing, masks=True) if kind not in OWN_LISTS else None
        found: MaskFiles | None = None
        own: str | None = split
        if kind is not None:
            found, own = opened_as(split, division, lambda name: find_files(path, name))
        if found is not None and found.strange and not (self.skip_missing or self.images_alone):
            raise strange_masks(found)
        drawn = self.drawn(path, split, found, division, own) if self.may_be_drawn(path, kind, found) else None
        if drawn is not None:
            return drawn
        found = found or find_files(path, split)
        if division is not None:
            found = found.only(of_split(division, path, found.images.root, list(found.files), split, own))
        if kind == "voc" and found.names is None and self.classes is None and not self.images_alone:
            warn(
                f"The photos in {path.name!r} are not called as PASCAL VOC's, so that its classes are not taken for "
                "theirs. Name the classes with --classes, or in labelmap.txt beside JPEGImages/."
            )
        named = self.with_own_names(path, found.format) if kind in OWN_LAYOUTS else self
        has_mask = np.array([id in found.masks for id in found.files])
        origin = Origin(path.resolve().name, split)
        made = named.build(
            origin,
            list(found.files),
            has_mask,
            found.images,
            found.mask_reader,
            found.content(),
            found.names,
            found.format,
        )
        if named is not self and (named.classes is not None or made.class_names == named.usual):
            tell_named(path / CLASSES_FILE, tuple(made.class_names))
        return replace(made, left_out=[(mask, "there is no such image") for mask in found.strange])

    def with_own_names(self, path: Path, own: MaskFormat | None) -> MaskTargets:
        """With the names of classes.txt, which the page for masks writes beside them."""
        kind = "instances" if self.instances else self.mask_format or (own or MaskFormat()).kind
        listed = None if self.classes is None or isinstance(self.classes, (str, Path)) else list(self.classes)
        names = own_names(path, kind) if self.classes is None or listed and kind == "colors" else []
        if not names or listed not in (None, names):  # names alone, as a model has them, have no colours
            return self
        return replace(self, classes=path / CLASSES_FILE) if kind == "colors" else replace(self, usual=names)

    def may_be_drawn(self, path: Path, kind: str | None, found: MaskFiles | None) -> bool:
        """Whether annotations are looked for, and not pictures of masks."""
        if self.images_alone or kind in OWN_LISTS:
            return False
        return found is None or kind == "folder" and not found.masks or not pictures_count(path, found)

    def drawn(
        self, path: Path, split: str, found: MaskFiles | None, division: Division | None, own: str | None
    ) -> ImageDataset | None:
        """With masks of what annotations draw; None where there are none."""
        if found is not None:
            root, files = found.images.root, list(found.files.values())
        else:
            root, _, own = split_of(path, split, division)
            files = listing(root)
        kept = of_split(division, path, root, [file.id for file in files], split, own) if files else None
        declared = read_classes(self.classes)[0] if isinstance(self.classes, (str, Path)) else self.classes
        drawn = find_drawn(path, root, files, declared, self.instances, self.skip_missing, kept) if files else None
        if drawn is None:
            return None
        if self.mask_format not in (None, "index"):
            raise UserError(
                f"mask_format {self.mask_format!r} is of pictures, and these masks are drawn. Leave it out."
            )
        files = drawn.files
        images = FileReader(root, [file.path for file in files])
        named = replace(self, classes=drawn.names, instances=False, mask_format="index")
        ids = [file.id for file in files]
        origin = Origin(path.resolve().name, split)
        made = named.build(origin, ids, drawn.has_mask, images, drawn.reader, drawn.content)
        return replace(made, left_out=drawn.left_out)

    def table(self, table: Table) -> ImageDataset:
        column = find_mask(table.features, self.mask_column, table.in_memory)
        images, ids = table.images(besides=column)
        masks = table.reader(column)
        return self.build(table.origin, ids, masks.present(), images, masks, table.content(images, masks))

    def pairs(self, values: Sequence) -> tuple[str, pa.ChunkedArray]:
        return "mask", encoded_images(values, masks=True)

    def mask_names(self) -> Sequence[str]:
        return (self.mask_column,) if self.mask_column is not None else MASK_COLUMNS

    def build(
        self, origin: Origin, ids: list[str], has_mask: np.ndarray, reader: Reader, mask_reader: Reader, content,
        names: list[str] | None = None, own: MaskFormat | None = None,
    ) -> ImageDataset:  # fmt: skip
        """names, own: the layout's class names and format, which hold unless others are declared."""
        colors = Colors()
        for color, k in own.colors if own is not None and names else ():
            if k != IGNORE:
                colors.setdefault((names or [])[k], []).append(color)
        if self.instances and self.mask_format not in (None, "index"):
            raise UserError(f"instances cannot be given with mask_format {self.mask_format!r}. Leave one of them out.")
        if isinstance(self.classes, (str, Path)):
            names, of_file = read_classes(self.classes)
            colors = of_file or colors
        elif self.classes is not None:
            names = [str(name) for name in self.classes]
            check_names(names)
        meaning = own or MaskFormat()
        renamed = own is not None and own.kind == "colors" and self.classes is not None
        if own is None or self.mask_format or self.mask_ignore or self.instances or renamed:
            kind = "instances" if self.instances else self.mask_format or meaning.kind
            made = make_coding(kind, names or [], colors, self.mask_ignore)
            table = meaning.table if kind == meaning.kind else None
            meaning = replace(made, table=table, declared=self.mask_format is not None)
        masks = Masks(mask_reader, meaning)
        if meaning.kind in ("binary", "instances") and (names is None or self.instances and self.classes is None):
            names = list(self.usual) if len(self.usual) == 2 else ["background", "object"]
        elif names is None:
            names = self.found_names(origin.name, ids, np.flatnonzero(has_mask), masks)
        return make_dataset(origin, ids, has_mask, list(names), content, reader, masks=masks)

    def found_names(self, name: str, ids: list[str], rows: np.ndarray, masks: Masks) -> list[str]:
        """The usual names where the values of the masks have one each, else their numbers."""
        seen = present(name, ids, rows, masks)
        highest = max((value for value in seen if value != IGNORE), default=-1)
        if self.usual and highest < len(self.usual):
            return list(self.usual)
        if self.usual:
            warn(
                f"{len(self.usual)} classes are named for {name!r} ({series(self.usual[:8])}), and its masks hold "
                f"values up to {highest}: the names are not taken. Give all of them, in the order of the values, with "
                "--classes."
            )
        return [f"class {k}" for k in range(class_count(name, seen))]


def find_mask(features, asked: str | None, in_memory: bool = False) -> str:
    """The mask column: as asked, or by its name."""
    if asked is not None:
        return asked_column(features, asked, "mask", in_memory)
    for name in MASK_COLUMNS:
        if name in features and is_image(features[name], in_memory):
            return name
    raise UserError(
        f"There is no mask column among {', '.join(features)}: none called {', '.join(MASK_COLUMNS[:4])} ... holds "
        "images. Name it with --mask-column."
    )


def present(name: str, ids: list[str], rows: np.ndarray, masks: Masks) -> list[int]:
    """The values in up to `SCANNED` of the masks, `rows`."""
    seen = np.zeros(IGNORE + 1, bool)
    if not len(rows):
        return []

    def look(i: int) -> None:
        try:
            with decoding(), masks.reader(i) as file:
                seen[decode_mask(upright(file), masks.format, IGNORE, ids[i])] = True
        except BadImage as error:
            raise UserError(f"The mask of image {ids[i]!r} cannot be read: {error.reason}") from error

    some = rows[:: -(-len(rows) // SCANNED)].tolist()
    refuse_masks(name, [fault_of(lambda i=i: look(i)) for i in some])
    return np.flatnonzero(seen).tolist()


def class_count(name: str, present: list[int]) -> int:
    """How many classes the values of masks make, where none has a name; 255 is none of them.

    Raises:
        UserError: there is no mask, or they look like something else than numbers of classes.
    """
    if not present:
        raise UserError(
            f"There is no mask in {name!r}. Put masks beside the images (masks/1.png of images/1.jpg, or 1_mask.png of "
            "1.jpg), paint some by `hf-lowlabel label FOLDER --task segmentation`, or name the classes with --classes "
            "where no mask is needed yet."
        )
    values = [value for value in present if value != IGNORE]
    said = ", ".join(map(str, present[:10])) + (" ..." if len(present) > 10 else "")
    if len(values) > MOST_UNNAMED:
        raise UserError(
            f"The masks in {name!r} hold {len(values)} different values up to {values[-1]}, and no class has a name. "
            "If each value is one object, give --instances, which makes one class of them; if they are classes, name "
            "them with --classes."
        )
    if values == [0] and IGNORE in present:
        raise UserError(
            f"There is no mask value but 0 and 255 in {name!r}, where 255 marks ignored pixels. Give --mask-format "
            "binary if 255 is the object; with --classes alone 255 stays ignored."
        )
    if values in ([], [0]):
        means = "the first class" if values else "no part in anything"
        raise UserError(
            f"Every pixel of the masks in {name!r} is {present[0]}, which means {means}, so that there is nothing to "
            "tell apart. Save the masks with a number for each class: 0, 1, ..."
        )
    absent = sorted({*range(values[-1] + 1)} - {*values})
    if len(absent) > max(len(values), FEW_ABSENT):
        raise UserError(
            f"The masks in {name!r} hold the values {said}, which look like shades of gray, not like numbers of "
            f"classes: {len(absent)} classes of {values[-1] + 1} would be without a pixel. Write a file with the shade "
            f"of each class, one a line, such as 'name {values[-1]} {values[-1]} {values[-1]}', and give it as "
            "--classes with --mask-format colors; if each value is one object, give --instances; if they are numbers "
            "of classes, name all of them with --classes."
        )
    if absent:
        warn(
            f"The masks in {name!r} hold the values {said}, which makes {values[-1] + 1} classes: "
            f"{', '.join(map(str, absent[:10]))} without a pixel. Name them with --classes; --mask-ignore leaves "
            "values out."
        )
    return values[-1] + 1
