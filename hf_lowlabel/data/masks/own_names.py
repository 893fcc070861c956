"""classes.txt of a folder of images and masks: the page for masks writes the names of the numbers there, and other
programs write a file of that name for something else."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

from ...errors import UserError
from ...text import series, warn
from ..pixels.masks import MAX_CLASSES, list_classes

log = logging.getLogger("hf_lowlabel")
CLASSES_FILE = "classes.txt"
FOREIGN = re.compile(r".*[,\t]|\d+\s")  # rows of a table, and names behind their numbers


def own_names(folder: Path, kind: str) -> list[str]:
    """The names in classes.txt; none where there is no such file or, with a warning, where they are not of the masks.

    Args:
        folder: of the images and masks.
        kind: of the masks, as in `MaskFormat`.
    """
    file = folder / CLASSES_FILE
    if not file.is_file():
        return []
    try:
        names, colors = list_classes(file)
        why = why_foreign(names, [name for name in names if name not in colors], kind)
    except UserError as error:
        names, why = [], str(error)
    if why is None:
        return names
    warn(
        f"{CLASSES_FILE} in {folder.name!r} is not used; --classes says what the numbers in the masks are called: {why}"
    )
    return []


def why_foreign(names: list[str], colorless: list[str], kind: str) -> str | None:
    """Why these are no names of such masks; `colorless` of them have no colour."""
    rows = [name for name in names if FOREIGN.match(name)]
    if rows:
        return f"it looks like a table, with {rows[0]!r} for a class."
    if len(names) > MAX_CLASSES:
        return f"it names {len(names)} classes, and masks have {MAX_CLASSES} at most."
    if names and kind in ("binary", "instances") and len(names) != 2:
        return f"it names {len(names)} classes, and these masks tell two apart."
    if names and kind == "colors" and (len(names) < 2 or colorless):
        return f"masks of colours need two classes with a colour each, and it says {series(names[:8])}."
    return None


@lru_cache(maxsize=1024)
def tell_named(file: Path, names: tuple[str, ...]) -> None:
    """Once, that the classes are called as nobody said in the call."""
    log.info("classes are called as in %s: %s", file, series(names[:8]) + (" ..." if len(names) > 8 else ""))
