"""Identifies an image file without reading all of it, for the fingerprint of a data set."""

from __future__ import annotations

import os
import re
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

BARE = frozenset(".bmp .dib .pbm .pgm .pnm .ppm .tga .tif .tiff .ico".split())  # as large, whatever they show
PIECES, LENGTH = 16, 64  # of such a file that are looked at: how many, spread over it, and bytes of each
WIDE = 1 << 16  # bytes of each of as many of such a value of a table: up to 1 MiB it is all of it
END = 4096  # bytes at both ends of an encoded image
COMPRESSED = re.compile(  # how formats begin of which size and end tell pictures apart
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|\0\0\0\x0c(jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a|....ftyp", re.DOTALL
)


def size_and_print(path: str | Path, ending: str | None = None) -> tuple[int, int | str]:
    """(bytes, print) of a file with an ending (None: that of its path); (0, 0) for a link to nothing, an image that
    cannot be read, as others. The print is the same number, or with a checksum of a part of what is in the file where
    its size says nothing of that."""
    try:
        found = os.stat(path)
        size, ending = found.st_size, os.path.splitext(path)[1].lower() if ending is None else ending
        looked_into = ending in BARE and stat.S_ISREG(found.st_mode)  # a FIFO would never answer
        return size, f"{size}:{checksum(path, size)}" if looked_into else size
    except OSError:
        return 0, 0


def checksum(path: str | Path, size: int) -> int:
    """crc32 of `PIECES` of a file, the first its beginning and the last its end."""
    with open(path, "rb", buffering=0) as file:
        return checksum_of_open(file, size)


def checksum_of_open(file: BinaryIO, size: int) -> int:
    crc = 0
    for k in range(PIECES):
        file.seek(max(size - LENGTH, 0) * k // (PIECES - 1))
        crc = zlib.crc32(file.read(LENGTH), crc)
    return crc


def ends_of(path: str | Path) -> bytes:
    """How a file begins and ends, where formats say how a picture stands; b"" of one that cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb", buffering=0) as file:
            head, size = file.read(END), os.fstat(file.fileno()).st_size
            file.seek(max(size - END, 0))
            return head + file.read(END)
    except OSError:
        return b""


def print_of_open(file: BinaryIO) -> tuple[int, int]:
    """(bytes, checksum of `PIECES`) of an open file or a buffer."""
    size = file.seek(0, os.SEEK_END)
    return size, checksum_of_open(file, size)


def print_of_value(value: memoryview) -> str:
    """Size and checksum of an encoded image in a table: of its last 64 bytes, or where it is not compressed, and the
    last rows of a picture may be as black as those of another, of `PIECES` of `WIDE` bytes."""
    if COMPRESSED.match(value):
        return f"{len(value)}:{zlib.crc32(value[-LENGTH:])}"
    starts = {max(len(value) - WIDE, 0) * k // (PIECES - 1) for k in range(PIECES)}
    crc = 0
    for start in sorted(starts):
        crc = zlib.crc32(value[start : start + WIDE], crc)
    return f"{len(value)}:{crc}"
