"""Locks on files, by which processes know of each other; a process that ends, however it does, leaves none."""

from __future__ import annotations

import fcntl
from typing import IO


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
