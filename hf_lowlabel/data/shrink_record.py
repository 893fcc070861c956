"""What `shrink` made in a copy, and of what, so that a later call takes away what is stale and nothing else.

A line of `.shrunk.jsonl` for each file, added before the file takes its place: after a kill, what is there is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..files import add_line, read_text, write_text

RECORD = ".shrunk.jsonl"


class Stamp(NamedTuple):
    """A file as it stands."""

    size: int  # bytes
    time: int  # of its last change, ns


class Made(NamedTuple):
    """new: name in the copy. of: the source. out: what was made of it."""

    new: str
    of: Stamp
    out: Stamp


def stamp(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # of a folder that cannot be read nobody knows
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


class Record:
    """made: name in the source -> what was made of it."""

    def __init__(self, source: Path, target: Path):
        self.source, self.target, self.lock = source, target, threading.Lock()
        self.made: dict[str, Made] = {}
        if (file := target / RECORD).is_file():
            for line in read_text(file).splitlines():
                with contextlib.suppress(ValueError, TypeError, RecursionError):  # the last one of a power cut
                    name, new, *numbers = json.loads(line)
                    size, time, size_out, time_out = map(int, numbers)
                    if is_inside(new) and is_inside(name):
                        self.made[name] = Made(new, Stamp(size, time), Stamp(size_out, time_out))

    def known(self, name: str) -> str | None:
        """The name of what was made of this file as it stands, where it is there as large as it was made."""
        made = self.made.get(name)
        found = stamp(self.target / made.new) if made is not None else None
        return made.new if made is not None and found is not None and found.size == made.out.size else None

    def may_be_cut(self, name: str, new: str) -> bool:
        """Whether a file that was made of this one is there, and shorter than it was made."""
        made, out = self.made.get(name), self.target / new
        if made is None or made.new != new or out.is_symlink() or not out.is_file():
            return False
        return out.stat().st_size < made.out.size

    def clean(self, keeps: Callable[[str, str], bool]) -> tuple[list[str], list[str]]:
        """Take away what was made of files that are gone or changed, and keep on record what is left.

        Args:
            keeps: whether a file would be called so in the copy (name, new name).

        Returns:
            What was made of files that are gone and went, and what somebody has changed since, which stays.
        """
        gone, others = list[str](), list[str]()
        for name, made in list(self.made.items()):
            try:
                of = stamp(self.source / name)
            except OSError:
                continue
            if of == made.of and keeps(name, made.new):
                continue
            del self.made[name]
            out = self.target / made.new
            found = stamp(out)
            ours = found == made.out or found is not None and not found.size  # an empty one was cut, and is nobody's
            if not ours or self.target.resolve() not in out.resolve().parents:
                others += [made.new] if out.is_file() and of is None else []
                continue
            out.unlink()
            gone += [made.new] if of is None else []
            for folder in out.parents:
                if folder == self.target or any(folder.iterdir()):
                    break
                folder.rmdir()
        self.save()
        return gone, others

    def save(self) -> None:
        lines = [json.dumps([name, made.new, *made.of, *made.out]) for name, made in sorted(self.made.items())]
        write_text(self.target / RECORD, "".join(f"{line}\n" for line in lines))

    def add(self, name: str, new: str, of: Stamp, part: Path) -> None:
        """`part` is about to take the place of `new`."""
        made = Made(new, of, stamp(part) or Stamp(0, 0))
        with self.lock, open(self.target / RECORD, "a+b", buffering=0) as file:
            add_line(file, json.dumps([name, new, *made.of, *made.out]))
            self.made[name] = made


def is_inside(name: str) -> bool:
    """Whether a name is one below a folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
