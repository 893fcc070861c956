"""The last run of a search, with all labels: where it diverges, the next best attempt is the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..distributed import barrier, is_main_process
from ..errors import Diverged
from ..files import read_json, write_json
from .search_state import TRIALS, forget_last

log = logging.getLogger("hf_lowlabel")
One = TypeVar("One")
Answer = TypeVar("Answer")


def first_that_ends(
    folder: Path, candidates: Sequence[One], name: Callable[[One], str], run: Callable[[One, list[str]], Answer]
) -> Answer:
    """What `run` makes of the first candidate whose network does not diverge.

    Args:
        folder: of the run. Which candidates diverged is kept in its trials, for a search that goes on.
        candidates: the best first.
        name: of a candidate.
        run: takes a candidate and the names of those that diverged.

    Raises:
        Diverged: all of them did.
    """
    note, gone = folder / TRIALS / "diverged.json", list[str]()
    if note.is_file():
        gone = list(read_json(note, "Give another --output-dir."))
    left = [one for one in candidates if name(one) not in gone]
    for number, one in enumerate(left, 1):
        try:
            return run(one, gone)
        except Diverged as error:
            if number == len(left):
                raise
            gone.append(name(one))
            log.warning("%s with all labels is not taken: %s", name(one), str(error).split(";")[0])
            if is_main_process():
                forget_last(folder)  # first: the next candidate does not go on from them
                note.parent.mkdir(exist_ok=True)
                write_json(note, gone)
            barrier()
    raise Diverged("Every network diverged with all labels. Look at images and labels, or give another --model.")


def said_diverged(gone: Sequence[str]) -> list[str]:
    """A sentence for the advice, where a better attempt diverged."""
    return [f"{', '.join(gone)}: better in cross-validation, but training with all labels diverged."] if gone else []
