"""The labels that rounds begin with: they are read before the first round, and a change in them later is not silent.

DIR/first_labels.json    a hash of what was read, and which images had a mask
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.masks.own_names import CLASSES_FILE
from ..data.pixels.masks import list_classes
from ..files import read_bytes, read_json, write_json
from ..labeling.other_rounds import places
from ..text import series

log = logging.getLogger("hf_lowlabel")
READ = "first_labels.json"
DRAWN = ("num_labels", "class_balanced", "test_fraction")


def note_first(
    folder: Path, first: Mapping[str, Any], masks: list[str] | None = None, classes: Sequence[str] = ()
) -> None:
    """Note what rounds begin with.

    Args:
        folder: of the rounds.
        first: labels or split of `auto`; neither: the labels of the data, of which nothing is noted. And how many of
            them are drawn.
        masks: images that have one; None: the rounds are of another task.
        classes: of masks, as for `auto`.
    """
    drawn = {name: first[name] for name in DRAWN if first.get(name)} | {"classes": names_of(classes)}
    write_json(folder / READ, {"hash": hash_of(first), **drawn} | ({} if masks is None else {"masks": masks}))


def masks_at_first(folder: Path) -> set[str] | None:
    """Images that had a mask when the rounds began; None where an older version did not note it."""
    noted = read_json(folder / READ) if (folder / READ).is_file() else None
    return set(noted["masks"]) if isinstance(noted, dict) and isinstance(noted.get("masks"), list) else None


def tell_changes(folder: Path, first: Mapping[str, Any], classes: Sequence[str] = ()) -> None:
    """Warn where labels, a split, how many are drawn of them or classes are given that are not those the rounds began
    with. As `note_first`.

    They are not taken over: images that were labeled, classes that were renamed and test images that were held out
    since would be others in them.
    """
    noted = read_json(folder / READ) if (folder / READ).is_file() else None  # none by older versions
    if not isinstance(noted, dict):
        return
    now = hash_of(first)
    if now is not None and now != noted.get("hash"):
        log.warning(
            "%s differs from what these rounds began with. It is read before the first round alone, and what it says "
            "now is not taken over. Correct labels and names of classes on the page of a round, or give another "
            "--output-dir for rounds that begin with it.",
            first.get("labels") or first.get("split"),
        )
    if "classes" not in noted:
        return
    for name in DRAWN:
        if first.get(name) and first[name] != noted.get(name):
            log.warning(
                "--%s differs from what these rounds began with (%s). It holds for the first round alone, and is not "
                "taken over. Give another --output-dir for rounds that begin with it.",
                *(name.replace("_", "-"), noted.get(name) or "not given"),
            )
    tell_classes(folder, names_of(classes), noted["classes"])


def tell_classes(folder: Path, given: list[str], noted: list[str]) -> None:
    """Warn of names in another order than those of the masks so far, or of other ones."""
    files = [place / CLASSES_FILE for place in places(folder, ("to_label",)) if (place / CLASSES_FILE).is_file()]
    now = names_of([str(files[-1])]) if files else noted
    if given and given != noted and given != now[: len(given)]:
        log.warning(
            "--classes are %s, and the masks of these rounds have the numbers of %s: --classes is read before the "
            "first round alone. Add and rename classes on the page of a round.",
            *(series(given[:8]), series(now[:8])),
        )


def names_of(classes: Sequence[str]) -> list[str]:
    """Those of a file, where that is what was given."""
    return list_classes(classes[0])[0] if len(classes) == 1 else list(classes)


def hash_of(first: Mapping[str, Any]) -> str | None:
    """Of the file of the labels or the split, of a folder to label of its labels.csv; None where there is none."""
    given = first.get("labels") or first.get("split")
    if not given:
        return None
    path = Path(given).expanduser()
    path = path / "labels.csv" if path.is_dir() else path
    return hashlib.sha256(read_bytes(path)).hexdigest() if path.is_file() else None
