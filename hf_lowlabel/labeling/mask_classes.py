"""Class names of mask values: one list for a folder to label and its data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.files.folder_names import in_mask_folders
from ..data.files.folders import listing
from ..data.files.mask_names import masks_among
from ..data.masks.own_names import CLASSES_FILE, why_foreign
from ..data.pixels.mask_colors import Colors, further_color, lines_of
from ..data.pixels.masks import IGNORED_NAMES, list_classes, parse_class, read_classes
from ..errors import UserError
from ..files import write_text
from ..text import series
from .class_names import check_text, typed
from .labels import Asked, clean
from .next_steps import settings_so_far
from .server import only_one

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

    def join(self, folder: Path, asked: Asked, given: tuple[list[str], Colors] | None = None) -> list[str]:
        """The list once a folder to label has its part in it.

        Args:
            folder: its classes.txt may have further names, or other names for numbers that it was asked for with.
            asked: its selection.json, whose names are those of the masks of the data where no list says any.
            given: what --classes says, which is to take the place of its classes.txt.

        Raises:
            UserError: one number has two names.
        """
        file = folder / CLASSES_FILE
        of_asked = list(asked.class_names), asked_colors(asked)
        self.files[file] = there = list_classes(file) if file.is_file() else ([], {})
        names, colors = given or (there if there[0] else of_asked)
        if not self.names and asked.class_names and holds_masks(self.own.parent):
            self.names, self.colors, self.newest = *of_asked, folder / "selection.json"
        before = self.names
        if goes_on_from(names, self.names, asked.class_names):
            self.names, self.newest = names, file
        elif not goes_on_from(self.names, names, asked.class_names, some=True):
            at = next(k for k, (a, b) in enumerate(zip(self.names, names, strict=False)) if a != b)
            both = "Write one list into both" if self.newest.name == file.name and not given else "Give one list"
            elsewhere = f" Remove {self.own} where it is about something else." if self.own.is_file() else ""
            raise UserError(
                f"The number {at} is {self.names[at]!r} in {self.newest} and {names[at]!r} in "
                f"{'--classes' if given else file}, and nothing was changed. {both}: the names in the order of the "
                f"numbers in the masks beside the images ({series(self.names[:8])}), new names after them. Masks that "
                f"were painted by another list are to be painted anew.{elsewhere}"
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
    known, known_colors = there or ([], Colors())
    if len(given) == 1:
        names, colors = read_classes(given[0])
    else:
        typed_in = (clean(name) if clean(name) in known else check_name(typed(name)) for name in given)
        names, colors = list(dict.fromkeys(typed_in)), Colors()
    if not known:
        return names, {**known_colors, **colors}
    if of_run and goes_on_from(known, names, names):
        return known, known_colors
    if of_run:
        raise UserError(
            f"The run has learned the numbers of {series(names[:8])}, and classes.txt of {str(folder)!r} says "
            f"{series(known[:8])} now: put its lines in the order of the numbers in the masks, or learn from them "
            "again and look at that run."
        )
    if names[: len(known)] != known:
        raise UserError(
            f"--classes are {', '.join(names)}, but the masks in {str(folder)!r} have the numbers of its "
            f"classes.txt, {', '.join(known)}: give these in this order and new ones after them, or leave "
            f"out --classes. Where no mask has its numbers yet, {folder / CLASSES_FILE} may be removed."
        )
    colors = {**known_colors, **colors}
    for k, name in enumerate(names[len(known) :], len(known)):
        if name in IGNORED_NAMES and colors:
            raise UserError(f"With a colour {name!r} is no class in classes.txt. Give another name in --classes.")
        if name not in colors:
            colors |= further_color(name, names[:k], colors)
    return names, colors


def check_name(name: str, advice: str = "Give another.") -> str:
    """The name of a class. Raises UserError where a line of classes.txt would not give it back."""
    if not name.strip():
        raise UserError("Give the class a name.")
    check_text(name)
    if parse_class(name) != (name, None) or name.startswith("# label:"):
        raise UserError(f"{name!r} would be read as a colour, or the head of a list, in {CLASSES_FILE}. {advice}")
    return name


def check_two(names: Sequence[str], folder: Path, binary: bool) -> None:
    """UserError for more classes than masks of 0 and 255 (binary) tell apart."""
    if binary and len(names) > 2:
        raise UserError(
            f"There are {len(names)} classes for {str(folder)!r} ({series(names[:8])}), and the masks of its data, of "
            f"0 and 255, tell two apart. Name two by --classes or in {CLASSES_FILE}."
        )


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
        UserError: one number has two names, or the folder is being labeled by another process.
    """
    shared = shared_with_data(folder, asked)
    if shared is None or shared.foreign or not shared.own.is_file():
        return
    if shared.newest == shared.own or (folder / CLASSES_FILE).is_file():
        del shared.files[shared.own]
        with only_one(folder):
            shared.write()


def shared_with_data(folder: Path, asked: Asked, given: tuple[list[str], Colors] | None = None) -> SharedList | None:
    """The list of a folder to label and of its data, where it is known where those are (`SharedList.join`)."""
    dataset = settings_so_far(folder, asked).get("dataset")
    if dataset is None:
        return None
    shared = SharedList(Path(dataset).expanduser())
    shared.join(folder, asked, given)
    return shared


def holds_masks(dataset: Path) -> bool:
    """Whether there are masks among the images of any split."""
    ids = [file.id for file in listing(dataset)]
    return bool(in_mask_folders(ids) or masks_among(ids))
