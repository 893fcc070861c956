"""A folder that `predict` wrote: the photos that it is of, and their masks, which a person may correct."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path, PurePosixPath

from ..commands import MODEL, command
from ..data.images import decoding, open_image
from ..data.mask_colors import lines_of, palette_of_ours
from ..data.own_names import CLASSES_FILE
from ..errors import UserError
from ..evaluation.overlays import palette
from ..files import read_text, write_text
from ..text import listed

log = logging.getLogger("hf_lowlabel")
TABLE, SHARE = "masks.csv", "share_"
ADVICE = "Give a folder as `hf-lowlabel predict` wrote it."


def is_predicted(folder: Path) -> bool:
    """Whether `predict` wrote it."""
    if not ((folder / TABLE).is_file() and (folder / "masks").is_dir()):
        return False
    head = read_text(folder / TABLE, ADVICE).partition("\n")[0].split(",")
    return head[:3] == ["file", "mask", "overlay"]


def predicted(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> (the photo, its mask), in the order they were predicted in.

    Raises:
        UserError: no photo is where the table says.
    """
    rows = csv.DictReader(io.StringIO(read_text(folder / TABLE, ADVICE), newline=""))
    found, gone = dict[str, tuple[Path, Path]](), list[str]()
    for row in rows:
        file, mask = row.get("file") or "", PurePosixPath(row.get("mask") or "")
        image = next((Path(name) for name in (file, file.removeprefix("'")) if Path(name).is_file()), None)
        if mask.parts[:1] != ("masks",) or ".." in mask.parts:
            raise UserError(f"{folder / TABLE} names {str(mask)!r}, which is no mask of masks/. {ADVICE}")
        if image is None:
            gone.append(file)
        else:
            found[mask.relative_to("masks").with_suffix(image.suffix).as_posix()] = (image, folder / mask)
    if not found:
        some = f", such as {gone[0]!r}" if gone else ""
        again = command("label", "PHOTOS", task="segmentation", model=MODEL)
        raise UserError(
            f"{str(folder)!r} holds what `predict` said of photos, and none of them is where {TABLE} says{some}. Start "
            f"where `predict` was started, or give the folder of the photos, whose masks a model begins: `{again}`."
        )
    if gone:
        log.warning("%d photos are not where %s says, and left out: %s", len(gone), folder / TABLE, listed(gone, 3))
    return found


def name_classes(folder: Path) -> None:
    """Write classes.txt where there is none: the names that the table has, and colours that the masks were given."""
    file = folder / CLASSES_FILE
    if file.is_file():
        return
    head = next(csv.reader(io.StringIO(read_text(folder / TABLE, ADVICE), newline="")))
    names = [name.removeprefix(SHARE) for name in head if name.startswith(SHARE)]
    own = None
    for _, mask in predicted(folder).values():
        if mask.is_file():
            with open_image(mask) as image, decoding():
                own = palette_of_ours(image, len(names))
            break
    usual = own is None or (own == palette(names)).all()
    colors = {} if own is None or usual else {name: [own[k].tolist()] for k, name in enumerate(names)}
    write_text(file, lines_of(names, colors))


def after_corrections(folder: Path) -> str:
    """What comes after its masks were corrected."""
    return (
        f"put those masks of {folder / 'masks'} that are right now among the masks of your data, each called as its "
        f"photo (masks/1.png of images/1.jpg); {folder / CLASSES_FILE} names their classes"
    )
