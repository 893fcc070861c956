"""Which files of this machine a table may name: those of its own folder. A table from elsewhere could else show, and a
folder to label or a Space publish, any picture there is."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from ..errors import UserError
from .folders import parquet_files
from .images import BadImage, open_image


class Within(NamedTuple):
    """table: its name. roots: folders whose files it may name. bases: where names begin that are not absolute."""

    table: str
    roots: tuple[str, ...]
    bases: tuple[str, ...]

    def file(self, name: str) -> str:
        """The file that a row names.

        Raises:
            UserError: it is not in the folder of the table, links followed.
        """
        parts = PurePosixPath(name).parts
        tried = [real(os.path.join(base, name)) for base in self.bases] if parts and "\0" not in name else []
        inside = [path for path in tried if any(path.startswith(root.rstrip(os.sep) + os.sep) for root in self.roots)]
        if not inside or ".." in parts:
            raise UserError(
                f"The table {self.table!r} names the image {name!r}, which does not lie in the folder of the table. "
                "Put the images there, or give the table in Python as a DataFrame or Dataset, which may name any file."
            )
        return next(filter(os.path.isfile, inside), inside[0])

    def check(self, names: Iterable[str]) -> None:
        """See `file`."""
        for name in names:
            self.file(name)


def open_encoded(content: bytes | None, path: str | None, within: Within | None = None) -> Image.Image:
    """The image of a row: its bytes, else the file at its path. within: which files it may be; None: any."""
    if content is not None:
        return open_image(io.BytesIO(content))
    if path is None:
        raise BadImage("the row has no image")
    return open_image(path if within is None else within.file(path))


def beside(table: Path) -> Within:
    """What a local file or folder of parquet may name: from its folder on, or from where the program runs."""
    folder = os.path.realpath(table if table.is_dir() else table.parent)
    parts = with_parquet(folder) if table.is_dir() else []
    return Within(table.name, (folder,), tuple(dict.fromkeys([folder, *parts, os.getcwd()])))


def with_parquet(folder: str) -> list[str]:
    """The folders in a folder that hold parquet."""
    below = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    return sorted(at for at in below if next(parquet_files(at, below=False), None) is not None)


def of_hub(name: str) -> Within:
    """What a data set of the Hub may name: what was downloaded of it."""
    import datasets
    from huggingface_hub import constants

    own = os.path.realpath(os.path.join(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}"))
    unpacked = os.path.realpath(datasets.config.DOWNLOADED_DATASETS_PATH)
    return Within(name, (own, unpacked), (own,))


def real(path: str) -> str:
    """`os.path.realpath` of a file, of whose folder there may be a million."""
    folder, file = os.path.split(path)
    found = os.path.join(folder_at(folder), file)
    return os.path.realpath(found) if os.path.islink(found) or file in ("", ".", "..") else found


@lru_cache(maxsize=1 << 12)
def folder_at(path: str) -> str:
    return os.path.realpath(path)
