"""Labels of photos that are gone since, and the folder to label that labels are given by."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.dataset import ImageDataset
from ..errors import UserError
from ..text import listed
from .answer_kinds import kind_of
from .labels import Asked, Labels
from .other_rounds import NOTE, labels_in, places, refresh
from .same_images import check_same

log = logging.getLogger("hf_lowlabel")


def check_there(ids: list[str], there: set[str], place: Path, name: str) -> None:
    """Warn of images that are gone. Raises UserError where most are: these are other images."""
    gone = [id for id in ids if id not in there]
    if 2 * len(gone) > len(ids):
        raise UserError(
            f"{len(gone)} of the {len(ids)} images with a label of {place} are not in {name!r}, such as {gone[0]!r}: "
            "give the folder that they are in, or put them back."
        )
    if gone:
        many = "images with a label are" if len(gone) > 1 else "image with a label is"
        log.warning("%d %s not in %r any more, and left out: %s", len(gone), many, name, listed(gone, 5))


def folder_of_labels(given: Any) -> Path | None:
    """The folder to label that labels were given as: itself, or the last one with a label of a folder of rounds; None
    for a table.

    Raises:
        UserError: no round has a label.
    """
    folder = Path(given).expanduser()
    if (folder / NOTE).is_file():
        if any(kind_of(Asked.load(place).task).page == "mask" for place in places(folder)[:1]):
            raise UserError(f"The masks of the rounds in {folder} lie beside the images. Leave out --labels.")
        answered = [place for place in places(folder, ("to_label",)) if labels_in(place, Asked.load(place)).labels]
        if not answered:
            raise UserError(f"No round in {folder} has a label. Label {folder / 'round-0' / 'to_label'} first.")
        refresh(answered[-1])
        return answered[-1]
    return folder if (folder / "selection.json").is_file() else None


def of_there(asked: Asked, found: Labels, source: ImageDataset, place: Path) -> tuple[Asked, Labels]:
    """What a folder knows and what was answered in it, of the images that are there; a warning names the others.

    Raises:
        UserError: most of the images are gone, or ids mean other images now.
    """
    there = {*source.ids}
    held = [*asked.validation, *asked.test]
    check_there(list(dict.fromkeys([*asked.labeled, *found.labels, *held])), there, place, source.name)
    check_same(place, source)
    known = replace(
        asked,
        labeled={id: label for id, label in asked.labeled.items() if id in there},
        validation=[id for id in asked.validation if id in there],
        test=[id for id in asked.test if id in there],
        held_labels={id: label for id, label in asked.held_labels.items() if id in there},
    )
    labels, parts = ({id: v for id, v in some.items() if id in there} for some in (found.labels, found.parts))
    return known, replace(found, labels=labels, parts=parts)
