"""Pages of a TIFF by where they begin: to come to one, Pillow reads the tags of all that are before it."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

from .images import open_image

KINDS = {  # how a file begins -> byte order; formats of an offset and of the number of tags, bytes of a tag
    b"II*\0": ("<", "I", "H", 12),
    b"MM\0*": (">", "I", "H", 12),
    b"II+\0": ("<", "Q", "Q", 20),
    b"MM\0+": (">", "Q", "Q", 20),
}


def page_starts(file: BinaryIO) -> list[int]:
    """The place in the file of the tags of each page, in order; [] where it is no usual TIFF."""
    at = file.tell()
    try:
        file.seek(0)
        if (kind := KINDS.get(file.read(4))) is None:
            return []
        order, offset, number, tag = kind
        file.seek(_first(offset))
        starts: dict[int, None] = {}
        start = _read(file, order + offset)
        while start and start not in starts:
            starts[start] = None
            file.seek(start)
            file.seek(start + struct.calcsize(number) + tag * _read(file, order + number))
            start = _read(file, order + offset)
        return [*starts]
    except (struct.error, OSError, OverflowError, ValueError):
        return []
    finally:
        file.seek(at)


def _first(offset: str) -> int:
    """Where the place of the first page stands."""
    return struct.calcsize(offset)


def _read(file: BinaryIO, form: str) -> int:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def page_at(image: Image.Image, start: int) -> Image.Image:
    """The page of an opened TIFF that begins there, header only."""
    return open_image(_BeginsAt(image.fp, start))


class _BeginsAt:
    """A TIFF whose first page is another one: all of it but the offset in its header is as it is."""

    def __init__(self, file: BinaryIO, start: int):
        self.file = file
        file.seek(0)
        order, offset, *_ = KINDS[file.read(4)]
        file.seek(0)
        self.head = file.read(_first(offset)) + struct.pack(order + offset, start)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __del__(self) -> None:
        self.file.close()

    def read(self, size: int = -1) -> bytes:
        at = self.file.tell()
        content = self.file.read(size)
        head = self.head[at : at + len(content)]
        return head + content[len(head) :]
