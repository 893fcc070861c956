"""The run folder: one run at a time, never over somebody's files."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TextIO

from ..distributed import is_main_process
from ..errors import UserError
from ..files import make, unmake
from ..locks import open_locked
from ..partial_files import is_left_over
from ..yaml_files import GIVEN_SPLIT
from .journal import LOG, rows_of

log = logging.getLogger("hf_lowlabel")

_LOCKS: dict[Path, TextIO] = {}  # open files of the folders this process holds
_MADE: dict[Path, list[Path]] = {}  # what it made for them: themselves, folders above
_EMPTY: set[Path] = set()  # those in which there was nothing
ASIDE = ".model."  # where a model is written before it is moved into place
SEARCH = "search.json"  # of `auto`: a folder with it is gone on with
WORDS = "words.safetensors"  # of `auto`: what the names of the classes say
NOTES = {"split.json", GIVEN_SPLIT, "training.yaml", "left_out.csv", SEARCH, WORDS}
TRACKED = "hf_lowlabel"  # the project in trackers, and TensorBoard's folder
KEPT = {"features", "trials"}  # of `auto`, likewise
IGNORED = {".lock", ".gitattributes", ".DS_Store"}


GO_ON = (
    "Give --resume to resume that run, or another --output-dir to start a new one (--init-from takes over the "
    "weights of an old one)."
)


def claim(folder: str | Path, resume: bool, instead: str = GO_ON) -> Path:
    """Make the run folder and lock it. A folder with files in it is refused unless the run is resumed; `instead` says
    what to do.

    Raises UserError when another process trains in it, when it is not empty, or when it cannot be written.
    """
    path = Path(folder).expanduser().resolve()
    if not is_main_process():  # of several processes the first one holds the folder, and is the only one to write
        return path
    if path.exists() and not path.is_dir():
        raise UserError(f"output_dir {folder} is a file. Give a folder.")
    locked = (path / ".lock").exists()
    made, lock, without = take(path, folder)
    if without:
        log.warning("output_dir %s cannot be locked (%s): see to it that no other run writes to it", folder, without)
    content = sorted(p.name for p in path.iterdir() if p.name not in IGNORED and not is_left(p.name))
    if content and not resume:
        if not locked:
            (path / ".lock").unlink(missing_ok=True)
        lock.close()
        some = ", ".join(content[:3]) + (" ..." if len(content) > 3 else "")
        raise UserError(f"output_dir {folder} is not empty ({some}). {instead}")
    for left in path.glob(f"{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    _LOCKS[path], _MADE[path] = lock, made
    if not content:
        _EMPTY.add(path)
    return path


def take(path: Path, folder: str | Path) -> tuple[list[Path], TextIO, str]:
    """(what was made for a run folder, its lock file, why that cannot be locked or ""), in a claim of it."""
    made = list[Path]()
    for last in (False, False, True):
        try:
            made += make(path)
            return made, *open_locked(path / ".lock")
        except BlockingIOError as e:
            holder = (path / ".lock").read_text(encoding="utf-8").strip() if (path / ".lock").is_file() else ""
            raise UserError(
                f"output_dir {folder} is in use by process {holder or '?'}. Give another --output-dir, or wait for it."
            ) from e
        except OSError as e:
            if isinstance(e, FileNotFoundError) and not last:  # another has let go of it and removed it
                continue
            unmake(made)
            raise UserError(
                f"output_dir {folder} cannot be written to: {e.strerror}. Give another --output-dir."
            ) from e
    raise AssertionError  # the last time returns or raises


def is_left(name: str) -> bool:
    """Whether a file or folder of this name is what a killed run was writing."""
    return is_left_over(name) or name.startswith(ASIDE)


def _let_go() -> None:
    """In a process that is forked, such as one that decodes images: it may outlive the run, and its lock must not."""
    for lock in _LOCKS.values():
        lock.close()
    _LOCKS.clear()


os.register_at_fork(after_in_child=_let_go)


def has_notes_alone(folder: Path) -> bool:
    """Whether a search was ended here before its first step: there are notes, and features of images, alone."""
    left = [*folder.iterdir(), *folder.glob("features/*")] if folder.is_dir() else []
    left = [p for p in left if not (is_left(p.name) or p.name in IGNORED)]

    def is_note(path: Path) -> bool:
        if path.parent != folder:
            return path.suffix == ".safetensors" and path.is_file()
        return path.name in NOTES or path.name == "features" and path.is_dir()

    return bool(left) and all(map(is_note, left))


def was_empty(folder: Path) -> bool:
    """Whether there was nothing in a folder that this process holds when it took it."""
    return folder in _EMPTY


def forget(folder: Path) -> None:
    """After bad input: what a run notes down before it has trained goes, so that the corrected run finds an empty
    folder, or none where there was none."""
    left = {p.name for p in folder.iterdir() if not is_left(p.name)} - IGNORED
    trained = any(row["step"] for row in rows_of(folder / LOG))  # one of step 0 is of the weights it starts from
    if left <= NOTES | KEPT | (set() if trained else {LOG, TRACKED}):
        shutil.rmtree(folder / TRACKED, ignore_errors=True)
        for name in left - KEPT - {TRACKED}:
            (folder / name).unlink()
        unmake(folder / name for name in left & KEPT)


def release(folder: Path) -> None:
    """Let others use the folder; the lock file goes, and so does a folder that was made for a run and is empty."""
    lock = _LOCKS.pop(folder, None)
    if lock is not None:
        (folder / ".lock").unlink(missing_ok=True)
        lock.close()
        unmake(_MADE.pop(folder, []))
        _EMPTY.discard(folder)
