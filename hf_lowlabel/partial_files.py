"""What files are called while they are written, and how those that a killed process left are told from others.

Several machines and containers may share a folder. A number of a process says nothing about those of another one, so a
name says whose it is; what belongs to others goes when it has lain there for a day.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

LEFT_OVER = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d{1,9})\.part", re.DOTALL)  # older versions wrote the number alone
OLD = 24 * 3600  # seconds after which nobody writes on
_SWEPT: set[Path] = set()


def part_of(path: Path) -> Path:
    """Where this process writes what will be `path`."""
    return path.with_name(f".{path.name}.{here()}-{os.getpid()}.part")


@functools.cache
def here() -> str:
    """Of this machine since it was started, and of the container: processes of the same one know each other's numbers.

    Where that cannot be known, of this process alone.
    """
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text()
        known = f"{socket.gethostname()} {booted} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        known = secrets.token_hex()
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def is_left_over(name: str) -> bool:
    """Whether a file of this name is what a killed process left, or one writes just now."""
    return name.startswith(".") and name.endswith(".part")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left in a folder; each folder is looked at once."""
    if (folder := folder.resolve()) in _SWEPT:
        return
    _SWEPT.add(folder)
    for name in os.listdir(folder):
        if not (found := LEFT_OVER.fullmatch(name)):
            continue
        left = folder / name
        with contextlib.suppress(OSError):
            if _ended(int(found[2])) if found[1] == here() else time.time() - _changed(left) > OLD:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _changed(path: Path) -> float:
    """When a file, or the last one in a folder, was written to."""
    inner = (Path(at, name) for at, folders, files in os.walk(path) for name in (*folders, *files))
    return max(one.lstat().st_mtime for one in (path, *inner))


def _ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
