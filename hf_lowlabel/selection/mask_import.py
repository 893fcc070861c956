"""From masks painted in a folder of `select` to masks beside the images of the data set, and a manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..commands import command
from ..data.masks import check_names
from ..data.own_names import CLASSES_FILE
from ..data.splits import Split
from ..errors import UserError
from ..files import whole
from .gone import check_there
from .labels import Task
from .mask_classes import SharedList
from .mask_places import find_places, read_mask
from .next_steps import refuse_mixing
from .server import only_one


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
            already, a number has two names, or the data are being labeled by another process.
    """
    folder = Path(folder)
    refuse_mixing(folder)
    task, file = Task.load(folder), folder / CLASSES_FILE
    painted, places = find_places(folder, selected=True), find_places(Path(dataset), task.split)
    answered = [id for name, id in task.files.items() if name in painted and painted[name].mask.is_file()]
    known = dict.fromkeys([*task.labeled, *answered, *task.validation, *task.test])
    check_there(list(known), {*places}, folder, str(dataset))
    with only_one(Path(dataset)):  # whose page may paint these masks, and name their classes
        shared = SharedList(Path(dataset))
        if not shared.join(folder, task):
            raise UserError(
                f"There is no {CLASSES_FILE} in {str(folder)!r}. Write the classes into it, one a line in the order "
                f"of their values, or give them by `{command('label', folder)} --classes NAME NAME ...`."
            )
        check_names(names := shared.names)
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
        shared.write()
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
