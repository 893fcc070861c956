"""Locks on files, by which processes know of each other; a process that ends, however it does, leaves none."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, TextIO

from .errors import UserError


def lock(file: IO, shared: bool = False) -> str:
    """Lock an open file until it is closed, without waiting.

    Args:
        file: open; what it holds does not matter.
        shared: together with others that say so too.

    Returns:
        "", or why the file system has no locks, as some network file systems: then nobody is known to hold one.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        return error.strerror or str(error)
    return ""


def open_locked(path: Path) -> tuple[TextIO, str]:
    """(the file, open and locked as by `lock`, what that returns) of a lock file that its holder removes at the end.

    Who opened it just before that has a lock that nobody sees: it is taken anew until it is the file at `path`.

    Args:
        path: where it is, or is made, in a folder that is there.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be opened.
    """
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            without = lock(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file, without
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            raise
        file.close()


def open_alone(path: Path, words: str) -> TextIO:
    """The file of `open_locked`. Raises UserError with these words where another process holds it."""
    try:
        return open_locked(path)[0]
    except BlockingIOError as error:
        raise UserError(words) from error
