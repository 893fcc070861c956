"""`label`: the page that fits a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.files.folders import is_predicted
from ..errors import UserError
from .answer_kinds import kind_of
from .binary_masks import check_format
from .labels import Asked
from .mask_classes import of_the_data
from .mask_page import MaskSession, Shown
from .mask_places import why_not_painted
from .next_steps import refuse_mixing, settings_so_far
from .page import Session
from .predicted import after_corrections, name_classes
from .server import serve


def label(
    folder: str | Path,
    *,
    task: str | None = None,
    classes: Sequence[str] = (),
    model: str | None = None,
    assist: str | None = None,
    superpixels: int = 400,
    only: Mapping[str, Shown] | None = None,
    split: str = "train",
    value_range: Sequence[float] = (),
    mask_format: str | None = None,
    port: int = 0,
    open_browser: bool = True,
    then: str | None = None,
) -> Any:
    """Serve the page of a folder until Ctrl-C.

    Args:
        folder: what `select` wrote, or for masks any folder of images.
        task: "segmentation" for a folder of images; None: that of the selection.
        classes: of masks, in the order of their values, or one text file of them (none: those the folder knows).
        model: a segmenter whose masks are what a person begins with.
        assist: a SAM of transformers, Hub id or folder, that makes masks of clicks and boxes.
        superpixels: of an image, about.
        only: of a folder of images those that are shown, in this order, and why.
        split: which part of a folder of images.
        value_range: (black, white) of images of more than 8 bits, for masks; left out, that of the model.
        mask_format: "binary": the masks of a folder of images are of 0 and 255; "index": of class numbers; None: the
            page finds out whether they are of numbers.
        port: on the loopback address (0: a free one).
        open_browser: show the page at once, where there is a browser with a window.
        then: what comes next, which the page and the console say (None: the command that takes the answers over).

    Returns:
        The session, whose labels are on the disk.

    Raises:
        UserError: for a folder that is none, whose masks have other classes than its data, is of a task without a page,
            or is being labeled by another process; and a port in use.
    """
    session = session_of(folder, task, classes, model, superpixels, only, split, assist, value_range, mask_format)
    if then is None and isinstance(session, MaskSession) and session.asked is None and is_predicted(Path(folder)):
        then = after_corrections(Path(folder))
    session.then = then
    serve(session, port, open_browser, session.begin if isinstance(session, MaskSession) else None)
    return session


def session_of(
    folder: str | Path,
    task: str | None,
    classes: Sequence[str],
    model: str | None,
    superpixels: int,
    only: Mapping[str, Shown] | None = None,
    split: str = "train",
    assist: str | None = None,
    value_range: Sequence[float] = (),
    mask_format: str | None = None,
) -> Session | MaskSession:
    """See `label`."""
    asked = Asked.load(folder) if Path(folder, "selection.json").is_file() or task is None else None
    if asked is not None and task not in (None, asked.task):
        raise UserError(f"{str(folder)!r} holds a selection for {asked.task}. Leave out --task {task}.")
    page = kind_of(asked.task if asked is not None else str(task)).page
    if page == "mask" and asked is not None:
        refuse_mixing(Path(folder), asked)
        refuse_unpainted(Path(folder), asked)
        of_the_data(Path(folder), asked)
    if page == "mask":
        of_numbers = asked is None and is_predicted(Path(folder))
        check_format(mask_format, Path(folder), asked is None and not (of_numbers and mask_format == "binary"))
        if asked is None and is_predicted(Path(folder)):
            name_classes(Path(folder))
        return MaskSession(folder, asked, classes, model, superpixels, only, split, assist, value_range, mask_format)
    if asked is None:
        raise UserError(
            f"{str(folder)!r} holds no selection: classes are labeled in a folder that `hf-lowlabel select` wrote, "
            "masks in any folder of images (--task segmentation)."
        )
    masks = {"--classes": classes, "--model": model, "--assist": assist}
    masks |= {"--value-range": value_range, "--mask-format": mask_format}
    if given := [flag for flag, value in masks.items() if value]:
        raise UserError(f"{given[0]} is of masks, and {str(folder)!r} is for classes. Leave it out.")
    return Session(folder)


def refuse_unpainted(folder: Path, asked: Asked) -> None:
    """UserError where masks that are painted in the folder of a selection could not be put beside the images."""
    dataset = settings_so_far(folder, asked).get("dataset")
    if why := why_not_painted(dataset, asked.split):
        raise UserError(why)
    if asked.report.get("not_painted") and dataset is None:  # `select` knew where they are, and said why
        raise UserError(
            f"The images in {str(folder)!r} are of {asked.dataset!r}, beside whose images no painted mask can be put. "
            "Draw their masks with the tool that the others are from."
        )
