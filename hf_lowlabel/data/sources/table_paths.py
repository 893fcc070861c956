"""Which files of this machine a table may name: those of its own folder. A table from elsewhere could else show, and a
folder to label or a Space publish, any picture there is."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from ...errors import UserError, hub_is_down
from ..files.folders import parquet_files
from ..pixels.images import BadImage, open_image

ARCHIVES = ("zip://", "tar://", "gzip://", "bz2://", "xz://", "zstd://")


class Within(NamedTuple):
    """table: its name. roots: folders whose files it may name. bases: where names begin that are not absolute. repo: a
    data set on the Hub whose files it may name too, as streams do."""

    table: str
    roots: tuple[str, ...]
    bases: tuple[str, ...]
    repo: str | None = None

    def file(self, name: str) -> str:
        """The file that a row names.

        Raises:
            UserError: it is not in the folder of the table, links followed, or not of its repository.
        """
        if self.repo is not None and is_of_repo(name, self.repo):
            return name
        parts = PurePosixPath(name).parts
        local = parts and "\0" not in name and "::" not in name and not is_remote(name)
        tried = [real(os.path.join(base, name)) for base in self.bases] if local else []
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
    place = path if within is None else within.file(path)
    return open_image(io.BytesIO(read_remote(place)) if is_remote(place) else place)


def is_remote(path: str) -> bool:
    """A file of the Hub, or one in an archive there: zip://1.jpg::hf://datasets/org/name@main/train.zip"""
    return path.split("::")[-1].startswith("hf://")


def is_of_repo(path: str, repo: str) -> bool:
    *inner, outer = path.split("::")
    starts = tuple(f"hf://datasets/{repo}{mark}" for mark in "@/")
    return outer.startswith(starts) and ".." not in outer.split("/") and all(hop.startswith(ARCHIVES) for hop in inner)


def read_remote(path: str) -> bytes:
    """The content of a file of the Hub.

    Raises:
        BadImage: there is no such file.
        UserError: the Hub does not give it.
    """
    from datasets.utils.file_utils import xopen

    try:
        with xopen(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, KeyError, zipfile.BadZipFile) as error:
        raise BadImage("there is no such file in the repository") from error
    except Exception as error:  # whatever the client, its file system or the archive raises
        said = hub_is_down(error) or "Check the connection, and that the repository is open to you"
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {reason}). {said}.") from error


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
    return Within(name, (own, unpacked), (own,), name)


def real(path: str) -> str:
    """`os.path.realpath` of a file, of whose folder there may be a million."""
    folder, file = os.path.split(path)
    found = os.path.join(folder_at(folder), file)
    return os.path.realpath(found) if os.path.islink(found) or file in ("", ".", "..") else found


@lru_cache(maxsize=1 << 12)
def folder_at(path: str) -> str:
    return os.path.realpath(path)
