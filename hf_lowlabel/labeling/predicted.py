"""A folder that `predict` wrote: the photos that it is of, and their masks, which a person may correct."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path, PurePosixPath

from ..commands import MODEL, command
from ..data.files.folders import PREDICTED
from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.images import decoding, open_image
from ..data.pixels.mask_colors import lines_of, palette_of_ours
from ..data.pixels.masks import list_classes
from ..errors import UserError
from ..evaluation.overlays import palette
from ..files import read_text, write_text
from ..text import listed, series
from .mask_classes import goes_on_from

log = logging.getLogger("hf_lowlabel")
SHARE = "share_"
ADVICE = "Give a folder as `hf-lowlabel predict` wrote it."


def predicted(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> (the photo, its mask), in the order they were predicted in.

    Raises:
        UserError: no photo is where the table says.
    """
    rows = csv.DictReader(io.StringIO(read_text(folder / PREDICTED, ADVICE), newline=""))
    found, gone, pages = dict[str, tuple[Path, Path]](), list[str](), list[str]()
    for row in rows:
        file, mask = row.get("file") or "", PurePosixPath(row.get("mask") or "")
        image = next((Path(name) for name in (file, file.removeprefix("'")) if Path(name).is_file()), None)
        if mask.parts[:1] != ("masks",) or len(mask.parts) < 2 or ".." in mask.parts:
            raise UserError(f"{folder / PREDICTED} names {str(mask)!r}, which is no mask of masks/. {ADVICE}")
        if image is None:
            (pages if is_page(file) else gone).append(file)
        else:
            found[mask.relative_to("masks").with_suffix(image.suffix).as_posix()] = (image, folder / mask)
    if pages and not found:
        raise UserError(
            f"{str(folder)!r} holds what `predict` said of the pages of files, such as {pages[0]!r}, which the page of "
            "`label` does not show. Save each page as a file of its own, and predict those."
        )
    if pages:
        log.warning(
            "%d pages of files are left out, whose masks are not corrected here: %s", len(pages), listed(pages, 3)
        )
    if not found:
        some = f", such as {gone[0]!r}" if gone else ""
        again = command("label", "PHOTOS", task="segmentation", model=MODEL)
        raise UserError(
            f"{str(folder)!r} holds what `predict` said of photos, and none of them is where {PREDICTED} says{some}. "
            "Start where `predict` was started, or give the folder of the photos, whose masks a model begins: "
            f"`{again}`."
        )
    if gone:
        log.warning("%d photos are not where %s says, and left out: %s", len(gone), folder / PREDICTED, listed(gone, 3))
    return found


def is_page(file: str) -> bool:
    """Whether this is how `predict --pages` names one of the pages of a file that is there."""
    whole, mark, page = file.rpartition("#")
    return bool(mark) and page.isdigit() and any(Path(name).is_file() for name in (whole, whole.removeprefix("'")))


def name_classes(folder: Path) -> None:
    """Write classes.txt where there is none: the names that the table has, and colours that the masks were given.

    Raises:
        UserError: there is one of other classes, such as those of a model that predicted the same photos before.
    """
    file, table = folder / CLASSES_FILE, folder / PREDICTED
    head = next(csv.reader(io.StringIO(read_text(table, ADVICE), newline="")))
    names = [name.removeprefix(SHARE) for name in head if name.startswith(SHARE)]
    if file.is_file():
        known = list_classes(file)[0]
        renamed = file.stat().st_mtime_ns >= table.stat().st_mtime_ns and goes_on_from(known, names, names)
        if known[: len(names)] != names and not renamed:
            raise UserError(
                f"{file} says {series(known[:8])}, and the masks beside it are of {series(names[:8])}, by {PREDICTED}. "
                f"Remove {CLASSES_FILE} if it is of another prediction; if it has new names for the same classes, let "
                f"the columns {SHARE}... of {PREDICTED} have them too."
            )
        return
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
