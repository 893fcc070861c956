"""From masks painted in folders of `select` to masks beside the images of the data set, and a manifest.

In rounds, ROUNDS/masks.json has the hash of each mask as it was taken over, by folder and image: one that is another by
now, or that was painted late, is taken over too, while one that was corrected or removed beside the images stays so.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..commands import DONE, command
from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.masks import IGNORE, check_names
from ..data.splits.splits import Split
from ..errors import UserError
from ..files import read_json, sha256, whole, write_json
from ..text import listed
from .binary_masks import without_numbers
from .labels import Asked
from .mask_classes import SharedList, check_two
from .mask_places import Place, find_places, read_mask, with_ending
from .missing_photos import check_there
from .next_steps import refuse_mixing
from .other_rounds import number_of, places as folders_of
from .server import only_one

log = logging.getLogger("hf_lowlabel")
TAKEN = "masks.json"


@dataclass
class Painted:
    """A mask that was painted in a folder to label. id: of its image. hash: of its file."""

    id: str
    folder: Path
    place: Place
    hash: str


def import_masks(
    folder: str | Path,
    dataset: str | Path,
    *,
    allow_missing: bool = False,
    rounds: Path | None = None,
    passed: Collection[str] | None = None,
) -> tuple[Split, Path]:
    """Copy the masks beside the images they are of; none that is there already is replaced by another, unless it was
    taken over from there, and those of photos that are gone are left out with a warning.

    Args:
        folder: what `select` wrote and a person painted masks in.
        dataset: the folder of the images.
        allow_missing: images without a mask stay unlabeled.
        rounds: of which `folder` is the last to label; what was painted in the others since is taken over as well.
        passed: images whose masks are not to be learned from; of further ones that lie beside the images they are.
            None: no further ones are.

    Returns:
        The manifest of all masks so far, and the file of classes.

    Raises:
        UserError: before anything is written; masks are missing, most images are not there, one has another mask
            already, a number has two names, or the data are being labeled by another process.
    """
    folder, dataset = Path(folder), Path(dataset)
    task, file = Asked.load(folder), folder / CLASSES_FILE
    refuse_mixing(folder, task)
    places = find_places(dataset, task.split)
    painted = find_places(folder, selected=True)
    answered = [id for name, id in task.files.items() if name in painted and painted[name].mask.is_file()]
    held = [*task.validation, *task.test]
    check_there(list(dict.fromkeys([*task.labeled, *answered, *held])), {*places}, folder, str(dataset))
    with only_one(dataset):  # whose page may paint these masks, and name their classes
        taken = read_taken(rounds / TAKEN) if rounds else {}
        shared = SharedList(dataset)
        if not shared.join(folder, task):
            raise UserError(
                f"There is no {CLASSES_FILE} in {str(folder)!r}. Write the classes into it, one a line in the order "
                f"of their values, or give them by `{command('label', folder)} --classes NAME NAME ...`."
            )
        found = [one for place in [*earlier(folder, rounds), folder] for one in painted_in(place) if one.id in places]
        for place in {one.folder for one in found} - {folder} - {*map(Path, taken)}:  # of an older version
            taken[str(place)] = {one.id: one.hash for one in found if one.folder == place and one.id in task.labeled}
        new = [one for one in found if taken.get(str(one.folder), {}).get(one.id) != one.hash]
        for place in {one.folder for one in new} - {folder}:
            shared.join(place, Asked.load(place))
        check_names(shared.names)
        check_two(shared.names, folder, any(place.binary for place in painted.values()))
        faults, ready = list[str](), dict[str, Painted]()
        for one in new:
            mask = read_mask(one.place, shared.names, shared.colors)
            if one.place.binary and mask is not None and (mask == IGNORE).any():
                faults.append(
                    f"{one.place.mask} is not painted whole, and masks of 0 and 255 have no value for a pixel that is "
                    "not: choose a class on the page and fill the rest with it (r)"
                )
            target, ours = places[one.id].mask, {hashes.get(one.id) for hashes in taken.values()}
            if target.is_file() and sha256(target) not in (one.hash, *ours):
                faults.append(f"{one.id!r} has another mask already, {target}; remove the one that is wrong")
            if ready.setdefault(one.id, one).hash != one.hash:
                both = f"{ready[one.id].place.mask} and {one.place.mask}"
                faults.append(f"{one.id!r} has two masks, {both}; remove the one that is wrong")
        open_ = [id for id in task.files.values() if id in places and id not in answered]
        if open_ and not allow_missing:
            faults.append(
                f"{len(open_)} of {len(task.files)} images have no mask, such as {open_[0]!r}; paint them, or give "
                "--allow-missing to leave them unlabeled"
            )
        there = {id for id, place in places.items() if place.mask.is_file()}
        before = [*task.labeled, *(id for hashes in taken.values() for id in hashes if id in there or id in answered)]
        learned = [id for id in dict.fromkeys([*before, *ready]) if id in there or id in ready]
        further = [] if passed is None else sorted(there - {*passed, *learned, *held})
        nothing = not {*learned, *further} - {*task.labeled} and not ready
        if faults or nothing and not (rounds and later(rounds / TAKEN, folder.parent / DONE)):
            said = "\n  ".join(faults[:10]) or "there is no new mask in it"
            raise UserError(f"The masks in {str(folder)!r} cannot be taken over, and nothing was changed:\n  {said}")
        tell_erased([*earlier(folder, rounds), folder], found, taken, places)
        check_masks([id for id in dict.fromkeys([*before, *held]) if id in places], there | {*ready}, dataset)
        shared.write()
        try:
            for one in new:
                if one.place.binary:
                    without_numbers(one.place, shared.names, shared.colors)
                    one.hash = sha256(one.place.mask)
                with whole(places[one.id].mask) as part:
                    shutil.copyfile(one.place.mask, part)
                with_ending(places[one.id].mask, one.place.mask.suffix)
                taken.setdefault(str(one.folder), {})[one.id] = one.hash
        finally:
            if rounds:
                write_taken(rounds / TAKEN, taken)
    if further:
        log.warning("learned from, too: %d masks beside the images, of %s", len(further), listed(further, 5))
    split = Split(
        dataset=task.dataset,
        config=task.config,
        revision=task.revision,
        seed=task.seed,
        class_names=shared.names,
        labeled={id: task.labeled.get(id) for id in [*learned, *further]},
        validation=[id for id in task.validation if id in there],
        test=[id for id in task.test if id in there],
    )
    return split, file


def earlier(folder: Path, rounds: Path | None) -> list[Path]:
    """The folders to label of the rounds before; those without their images any more have no masks to read."""
    all_of = folders_of(rounds, ("to_label",)) if rounds else []
    return [place for place in all_of if number_of(place) < number_of(folder) and (place / "images").is_dir()]


def painted_in(folder: Path) -> list[Painted]:
    """The masks in a folder to label."""
    asked, found = Asked.load(folder), find_places(folder, selected=True)
    painted = {id: found[name] for name, id in asked.files.items() if name in found and found[name].mask.is_file()}
    return [Painted(id, folder, place, sha256(place.mask)) for id, place in painted.items()]


def check_masks(ids: list[str], there: set[str], dataset: Path) -> None:
    """Warn of masks that are gone. ids: whose masks were learned from or tested on. Raises UserError where all are."""
    gone = [id for id in ids if id not in there]
    if gone and len(gone) == len(ids):
        raise UserError(
            f"None of the {len(ids)} masks so far lies beside the images of {str(dataset)!r} any more, such as that of "
            f"{gone[0]!r}. Put them back; those that were painted in rounds are in their to_label/masks too."
        )
    if gone:
        log.warning("the masks of %d images are gone, which are left out: %s", len(gone), listed(gone, 5))


def tell_erased(
    folders: list[Path], found: list[Painted], taken: dict[str, dict[str, str]], places: dict[str, Place]
) -> None:
    """Warn of masks that were taken over and then removed in the folder to label alone."""
    left = {(one.folder, one.id) for one in found}
    erased = [
        id
        for folder in folders
        for id, before in taken.get(str(folder), {}).items()
        if (folder, id) not in left and id in places and places[id].mask.is_file()
        if sha256(places[id].mask) == before
    ]
    if erased:
        log.warning(
            "the masks of %d images were removed in a folder to label, and are still learned from: remove them beside "
            "the images, %s",
            *(len(erased), listed([str(places[id].mask) for id in erased], 3)),
        )


def later(taken: Path, done: Path) -> bool:
    """Whether masks were taken over since a round was finished, by one that was killed before it had learned."""
    return taken.is_file() and done.is_file() and taken.stat().st_mtime > done.stat().st_mtime


def read_taken(file: Path) -> dict[str, dict[str, str]]:
    """Folder of a round -> id of an image -> hash of its mask as it was taken over."""
    said = read_json(file) if file.is_file() else {}
    if not isinstance(said, dict) or not all(isinstance(hashes, dict) for hashes in said.values()):
        raise UserError(f"{file} does not say which masks were taken over. Remove it.")
    return {str(file.parent / name): dict(hashes) for name, hashes in said.items()}


def write_taken(file: Path, taken: dict[str, dict[str, str]]) -> None:
    """By names within the folder of the rounds, which may move."""
    write_json(file, {Path(name).relative_to(file.parent).as_posix(): hashes for name, hashes in taken.items()})
