"""What the numbers in masks are called: one list of classes for those of a folder to label and those of its data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.masks.own_names import CLASSES_FILE, why_foreign
from ..data.pixels.mask_colors import Colors, further_color, lines_of
from ..data.pixels.masks import IGNORED_NAMES, list_classes, read_classes
from ..errors import UserError
from ..files import write_text
from ..text import series
from .labels import Asked, clean
from .next_steps import told

log = logging.getLogger("hf_lowlabel")


class SharedList:
    """The list of classes that some folders of masks are to have in common. Nothing is written before `write`."""

    def __init__(self, dataset: Path):
        """dataset: the folder of the images, whose classes.txt is the first one, unless it is of another program."""
        self.own = dataset / CLASSES_FILE
        try:
            names, colors = list_classes(self.own) if self.own.is_file() else ([], Colors())
            self.foreign = why_foreign(names, [], "index") or ""
        except UserError as error:
            names, colors, self.foreign = [], {}, str(error)
        self.names, self.colors, self.newest = *(([], {}) if self.foreign else (names, colors)), self.own
        self.files = {} if self.foreign else {self.own: (names, colors)}

    def join(self, folder: Path, asked: Asked) -> list[str]:
        """The list once a folder to label has its part in it.

        Args:
            folder: its classes.txt may have further names, or other names for numbers that it was asked for with.
            asked: its selection.json.

        Raises:
            UserError: one number has two names.
        """
        file = folder / CLASSES_FILE
        names, colors = there = list_classes(file) if file.is_file() else (list(asked.class_names), asked_colors(asked))
        self.files[file] = there if file.is_file() else ([], {})
        before = self.names
        if goes_on_from(names, self.names, asked.class_names):
            self.names, self.newest = names, file
        elif not goes_on_from(self.names, names, asked.class_names, some=True):
            at = next(k for k, (a, b) in enumerate(zip(self.names, names, strict=False)) if a != b)
            raise UserError(
                f"The number {at} is {self.names[at]!r} in {self.newest} and {names[at]!r} in {file}, and nothing was "
                f"changed. Write one list into both: the names in the order of the numbers in the masks beside the "
                f"images ({series(self.names[:8])}), new names after them. Masks that were painted by another list are "
                f"to be painted anew. Remove {self.own} where it is about something else."
            )
        self.colors = joined_colors(self.names, [(before, self.colors), (names, colors)])
        return self.names

    def write(self) -> None:
        """Let all of the folders have it."""
        for file, there in self.files.items():
            if there != (self.names, self.colors):
                write_text(file, lines_of(self.names, self.colors))
        if self.foreign:
            log.warning(
                "%s stays as it is, so that the classes of these masks, %s, are named by --classes %s alone: %s",
                *(self.own, series(self.names[:8]), self.newest, self.foreign),
            )


def asked_colors(asked: Asked) -> Colors:
    """Those that a folder to label was written with."""
    return {name: [(r, g, b) for r, g, b in of] for name, of in asked.class_colors.items()}


def joined_colors(names: list[str], lists: list[tuple[list[str], Colors]]) -> Colors:
    """The colours of the numbers that have these names, and of no class, by several lists of classes; those of the
    first come first, in which the masks of the data are painted."""
    out = Colors()
    for known, colors in lists:
        called = dict(zip(known, names, strict=False))  # by its number, which may have another name now
        for name, of in colors.items():
            if (new := called.get(name, name)) in names or name in IGNORED_NAMES:
                there = out.setdefault(new, [])
                there += [color for color in of if color not in there]
    return out


def given_classes(
    given: Sequence[str], there: tuple[list[str], Colors] | None, folder: Path, of_run: bool
) -> tuple[list[str], Colors]:
    """The names that --classes says, and their colours; a further class has one, too, where all others do.

    Args:
        given: names, or one file of them. there: what classes.txt of `folder` says, if there is one.
        of_run: they are those that a run has learned, in whose time a class may have been called otherwise.

    Raises:
        UserError: they would give the numbers of the masks in the folder other names, or a name means no class.
    """
    names, colors = read_classes(given[0]) if len(given) == 1 else (list(dict.fromkeys(map(clean, given))), Colors())
    if there is None:
        return names, colors
    if of_run and goes_on_from(there[0], names, names):
        return there
    if of_run:
        raise UserError(
            f"The run has learned the numbers of {series(names[:8])}, and classes.txt of {str(folder)!r} says "
            f"{series(there[0][:8])} now: put its lines in the order of the numbers in the masks, or learn from them "
            "again and look at that run."
        )
    if names[: len(there[0])] != there[0]:
        raise UserError(
            f"--classes are {', '.join(names)}, but the masks in {str(folder)!r} have the numbers of its "
            f"classes.txt, {', '.join(there[0])}: give these in this order and new ones after them, or leave "
            "out --classes."
        )
    colors = {**there[1], **colors}
    known = len(there[0])
    for k, name in enumerate(names[known:], known):
        if name in IGNORED_NAMES and colors:
            raise UserError(f"With a colour {name!r} is no class in classes.txt. Give another name in --classes.")
        if name not in colors:
            colors |= further_color(name, names[:k], colors)
    return names, colors


def goes_on_from(new: list[str], old: list[str], asked: list[str], some: bool = False) -> bool:
    """Whether a list of classes has further names, or other names for the numbers of the list that images were chosen
    with.

    Args:
        new, old: the lists. asked: when the images were chosen.
        some: with other names, one at least is as it was, else it may be about something else.
    """
    if new[: len(old)] == old:
        return True
    pairs = list(zip(new, old, strict=False))
    apart = {a for a, b in pairs if a != b} | {b for a, b in pairs if a != b}
    moved = len(new) < len(old) or any(name in new and name in old for name in apart)
    return old == asked and not moved and not (some and all(a != b for a, b in pairs))


def of_the_data(folder: Path, asked: Asked) -> None:
    """Let a folder to label begin with the classes that its data have by now.

    Raises:
        UserError: one number has two names.
    """
    dataset = told(folder, asked).get("dataset")
    if dataset is None or not (Path(dataset).expanduser() / CLASSES_FILE).is_file():
        return
    shared = SharedList(Path(dataset).expanduser())
    shared.join(folder, asked)
    if not shared.foreign and (shared.newest == shared.own or (folder / CLASSES_FILE).is_file()):
        del shared.files[shared.own]
        shared.write()
