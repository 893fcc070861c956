"""The encoded images of a column of a table: bytes, or the files that it names."""

from __future__ import annotations

import bisect
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from ...errors import UserError
from ..pixels.fingerprints import END, ends_of, print_of_value, size_and_print
from .table_paths import Within, is_remote, open_encoded


class TableReader:
    """Row i of an image column, {bytes, path} as `datasets` keeps it. within: see `open_encoded`."""

    def __init__(self, dataset, within: Within | None = None):
        self.dataset, self.within = dataset, within
        self.chunks = None  # views of one column, not pickled
        if within is not None:
            _, contents, paths = self.columns()
            for part, names in zip(contents, paths, strict=True):
                within.check(names.filter(part.is_null()).drop_null().to_pylist() if part.null_count else ())

    def __getstate__(self):
        return {**self.__dict__, "chunks": None}

    def columns(self):
        """([first row of each chunk], [bytes of each chunk], [paths of each chunk])."""
        if self.chunks is None:
            parts = self.dataset.data.column(0).chunks
            starts = np.cumsum([0] + [len(part) for part in parts])[:-1].tolist()
            fields = [dict(zip((f.name for f in part.type), part.flatten())) for part in parts]  # flatten minds nulls
            self.chunks = starts, [f["bytes"] for f in fields], [f["path"] for f in fields]
        return self.chunks

    def row(self, i: int) -> list[pa.Scalar]:
        """The bytes and the path of row i."""
        starts, *columns = self.columns()
        chunk = bisect.bisect_right(starts, i) - 1
        return [column[chunk][i - starts[chunk]] for column in columns]

    def __call__(self, i: int) -> Image.Image:
        return open_encoded(*(value.as_py() for value in self.row(i)), self.within)

    def ends(self, i: int) -> bytes:
        content, path = self.row(i)
        if content.is_valid:
            value = memoryview(content.as_buffer())
            return bytes(value[:END]) + bytes(value[-END:])
        place = path.as_py()
        if place is None or is_remote(place):
            return b""
        return ends_of(place if self.within is None else self.within.file(place))

    def content(self, files: bool = False) -> Iterator[str]:
        """For the fingerprint, of each encoded image: see `print_of_value`; with `files`, the print of the file of one
        that is only a path."""
        _, contents, paths = self.columns()
        for part, names in zip(contents, paths, strict=True):
            for value, path in zip(part, names.to_pylist(), strict=True):
                none = str(size_and_print(path)[1]) if files and path is not None else "none"
                yield print_of_value(memoryview(value.as_buffer())) if value.is_valid else none

    def present(self) -> np.ndarray:
        """bool [N]: the row holds an image."""
        _, contents, paths = self.columns()
        pairs = zip(contents, paths, strict=True)
        return np.concatenate([np.asarray(c.is_valid()) | np.asarray(p.is_valid()) for c, p in pairs])

    def file_ids(self) -> list[str] | None:
        """Paths relative to the folder that all have in common; None unless every row is a path."""
        _, contents, paths = self.columns()
        if any(part.null_count < len(part) for part in contents) or any(part.null_count for part in paths):
            return None
        names = [os.path.abspath(name) for part in paths for name in part.to_pylist()]
        common = os.path.commonpath([os.path.dirname(name) for name in names])
        ids = [unicodedata.normalize("NFC", os.path.relpath(name, common)).replace(os.sep, "/") for name in names]
        id, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise UserError(f"The image {id!r} is given {count} times. Give each image once.")
        return ids
