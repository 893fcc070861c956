"""What the numbers in masks are called: one list of classes for those of a folder to label and those of its data."""

from __future__ import annotations

import logging
from pathlib import Path

from ..data.masks import list_classes
from ..data.own_names import CLASSES_FILE, why_foreign
from ..errors import UserError
from ..files import read_text, write_text
from ..text import series
from .labels import Task
from .next_steps import told

log = logging.getLogger("hf_lowlabel")


class SharedList:
    """The list of classes that some folders of masks are to have in common. Nothing is written before `write`."""

    def __init__(self, dataset: Path):
        """dataset: the folder of the images, whose classes.txt is the first one, unless it is of another program."""
        self.own = dataset / CLASSES_FILE
        try:
            names = list_classes(self.own)[0] if self.own.is_file() else []
            self.foreign = why_foreign(names, [], "index") or ""
        except UserError as error:
            names, self.foreign = [], str(error)
        self.names, self.newest = ([] if self.foreign else names), self.own
        self.files = {} if self.foreign else {self.own: names}

    def join(self, folder: Path, asked: Task) -> list[str]:
        """The list once a folder to label has its part in it.

        Args:
            folder: its classes.txt may have further names, or other names for numbers that it was asked for with.
            asked: its selection.json.

        Raises:
            UserError: one number has two names.
        """
        file = folder / CLASSES_FILE
        names = list_classes(file)[0] if file.is_file() else list(asked.class_names)
        self.files[file] = list_classes(file)[0] if file.is_file() else []
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
        return self.names

    def write(self) -> None:
        """Let all of the folders have it."""
        text = read_text(self.newest) if self.newest.is_file() else "".join(f"{name}\n" for name in self.names)
        for file, names in self.files.items():
            if names != self.names:
                write_text(file, text)
        if self.foreign:
            log.warning(
                "%s stays as it is, so that the classes of these masks, %s, are named by --classes %s alone: %s",
                *(self.own, series(self.names[:8]), self.newest, self.foreign),
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


def of_the_data(folder: Path, asked: Task) -> None:
    """Let a folder to label begin with the classes that its data have by now.

    Raises:
        UserError: one number has two names.
    """
    dataset = told(folder, asked).get("dataset")
    if dataset is None or not (Path(dataset).expanduser() / CLASSES_FILE).is_file():
        return
    shared = SharedList(Path(dataset).expanduser())
    shared.join(folder, asked)
    if shared.newest == shared.own and not shared.foreign:
        del shared.files[shared.own]
        shared.write()
