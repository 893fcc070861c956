"""From masks painted in a folder of `select` to masks beside the images of the data set, and a manifest."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ..commands import command
from ..data.masks import list_classes, read_classes
from ..data.own_names import CLASSES_FILE
from ..data.splits import Split
from ..errors import UserError
from ..files import read_text, whole, write_text
from ..text import series
from .gone import check_there
from .labels import Task
from .mask_places import find_places, read_mask
from .next_steps import refuse_mixing
from .server import only_one

log = logging.getLogger("hf_lowlabel")


def import_masks(folder: str | Path, dataset: str | Path, *, allow_missing: bool = False) -> tuple[Split, Path]:
    """Copy the masks beside the images they are of; none that is there already is replaced by another, and those of
    photos that are gone are left out with a warning.

    Args:
        folder: what `select` wrote and a person painted masks in.
        dataset: the folder of the images.
        allow_missing: images without a mask stay unlabeled.

    Returns:
        The manifest of all masks so far, and the file of classes.

    Raises:
        UserError: before anything is written; masks are missing, most images are not there, one has another mask
            already, or the data are being labeled by another process.
    """
    folder = Path(folder)
    refuse_mixing(folder)
    task, file = Task.load(folder), folder / "classes.txt"
    names = read_classes(file)[0] if file.is_file() else list(task.class_names)
    if not names:
        raise UserError(
            f"There is no classes.txt in {str(folder)!r}. Write the classes into it, one a line in the order of their "
            f"values, or give them by `{command('label', folder)} --classes NAME NAME ...`."
        )
    painted, places = find_places(folder, selected=True), find_places(Path(dataset), task.split)
    answered = [id for name, id in task.files.items() if name in painted and painted[name].mask.is_file()]
    known = dict.fromkeys([*task.labeled, *answered, *task.validation, *task.test])
    check_there(list(known), {*places}, folder, str(dataset))
    with only_one(Path(dataset)):  # whose page may paint these masks, and name their classes
        faults, ready, open_ = list[str](), dict[str, tuple[Path, Path]](), list[str]()
        for name, id in task.files.items():
            if id not in places:
                continue
            if name not in painted or read_mask(painted[name], names) is None:
                open_.append(id)
            else:
                source, target = painted[name].mask, places[id].mask
                if target.is_file() and target.read_bytes() != source.read_bytes():
                    faults.append(f"{id!r} has another mask already, {target}; remove the one that is wrong")
                ready[id] = (source, target)
        if open_ and not allow_missing:
            faults.append(
                f"{len(open_)} of {len(task.files)} images have no mask, such as {open_[0]!r}; paint them, or give "
                "--allow-missing to leave them unlabeled"
            )
        if faults or not ready:
            listed = "\n  ".join(faults[:10]) or "there is no mask in it"
            raise UserError(f"The masks in {str(folder)!r} cannot be taken over, and nothing was changed:\n  {listed}")
        if not file.is_file():
            write_text(file, "".join(f"{name}\n" for name in names))
        note_classes(Path(dataset) / CLASSES_FILE, names, file, task)
        for source, target in ready.values():
            with whole(target) as part:
                shutil.copyfile(source, part)
    labeled = {**{id: label for id, label in task.labeled.items() if id in places}, **dict.fromkeys(ready)}
    split = Split(
        dataset=task.dataset,
        config=task.config,
        revision=task.revision,
        seed=task.seed,
        class_names=names,
        labeled=labeled,
        validation=[id for id in task.validation if id in places],
        test=[id for id in task.test if id in places],
    )
    return split, file


def note_classes(there: Path, names: list[str], file: Path, task: Task) -> None:
    """Let the data know what the numbers in its masks are called, without the names of something else being lost.

    Args:
        there: classes.txt of the data. names, file: those of the masks. task: what was asked when they were chosen.
    """
    try:
        known = list_classes(there)[0] if there.is_file() else []
    except UserError as error:  # of another program
        log.warning(
            "%s stays as it is, so that the classes of these masks, %s, are named by --classes %s alone: %s",
            *(there, series(names[:8]), file, error),
        )
        return
    if known == names:
        return
    if known in (names[: len(known)], task.class_names):  # further classes, or other names for the same numbers
        write_text(there, read_text(file))
    else:
        log.warning(
            "%s says %s, and the classes of these masks are %s: it stays as it is. Correct it, or give --classes %s",
            *(there, series(known[:8]), series(names[:8]), file),
        )
