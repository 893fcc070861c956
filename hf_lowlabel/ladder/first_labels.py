"""The labels that rounds begin with: they are read before the first round, and a change in them later is not silent.

DIR/first_labels.json    a hash of what was read, and which images had a mask
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import read_bytes, read_json, write_json

log = logging.getLogger("hf_lowlabel")
READ = "first_labels.json"


def note_first(folder: Path, first: Mapping[str, Any], masks: list[str] | None = None) -> None:
    """Note what rounds begin with.

    Args:
        folder: of the rounds.
        first: labels or split of `auto`; neither: the labels of the data, of which nothing is noted.
        masks: images that have one; None: the rounds are of another task.
    """
    write_json(folder / READ, {"hash": hash_of(first)} | ({} if masks is None else {"masks": masks}))


def masks_at_first(folder: Path) -> set[str] | None:
    """Images that had a mask when the rounds began; None where an older version did not note it."""
    noted = read_json(folder / READ) if (folder / READ).is_file() else None
    return set(noted["masks"]) if isinstance(noted, dict) and isinstance(noted.get("masks"), list) else None


def tell_changes(folder: Path, first: Mapping[str, Any]) -> None:
    """Warn where labels or a split are given that are not those the rounds began with. As `note_first`.

    They are not taken over: images that were labeled, classes that were renamed and test images that were held out
    since would be others in them.
    """
    noted = read_json(folder / READ) if (folder / READ).is_file() else None  # none by older versions
    now = hash_of(first)
    if now is None or not isinstance(noted, dict) or now == noted.get("hash"):
        return
    log.warning(
        "%s differs from what these rounds began with. It is read before the first round alone, and what it says now "
        "is not taken over. Correct labels and names of classes on the page of a round, or give another --output-dir "
        "for rounds that begin with it.",
        first.get("labels") or first.get("split"),
    )


def hash_of(first: Mapping[str, Any]) -> str | None:
    """Of the file of the labels or the split, of a folder to label of its labels.csv; None where there is none."""
    given = first.get("labels") or first.get("split")
    if not given:
        return None
    path = Path(given).expanduser()
    path = path / "labels.csv" if path.is_dir() else path
    return hashlib.sha256(read_bytes(path)).hexdigest() if path.is_file() else None
