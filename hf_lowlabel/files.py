"""Files that are whole or not there, and how they are read.

Written beside their place, flushed to the disk, then moved there by one rename. Read only where they are regular files;
whatever is wrong with one is a sentence. A folder may be sealed: `checksums.json` holds the sha256 of its files, and
one that has changed since is not read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UserError
from .partial_files import part_of, sweep
from .text import brief

SEAL = "checksums.json"
COPY = "Copy it again, or give another."
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # the disk's word, whatever is written
_UMASK = threading.Lock()  # it is told only by being changed, for all threads


def as_folder(model: Any) -> Any:
    """The folder of a finished run, or of what `auto` found, that stands for a model; what else it may be as it is."""
    return Path(model) if isinstance(model, os.PathLike) else model


A_FILE, A_RUN = "the path of a file or folder", "a run folder or a finished run"
A_MODEL = "a timm name, a Hub id, a folder, a finished run, or the folder that a network in memory is saved in"


def by_name(name: str, value: Any, wanted: str = A_FILE, needed: bool = False) -> Any:
    """A path, or a model by its name; of a finished run its folder, and None as it is.

    Args:
        name: what the argument is called.
        value: what was given.
        wanted: what it may be, in words.
        needed: None is refused too.

    Raises:
        UserError: it is an object of another kind.
    """
    found = as_folder(value)
    if (found is not None or needed) and not isinstance(found, (str, Path)):
        raise UserError(f"{name} is {brief(value)}. Give {wanted}.")
    return found


@contextlib.contextmanager
def whole(path: str | Path, flush: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to; what stands there at the end of the block takes the place of `path`.

    An error inside the block leaves `path` as it was and nothing beside it. Missing folders are made; what killed
    processes left in the folder goes; a seal of the folder stays true. flush: also after a power cut it is whole.
    """
    path = Path(path)
    part = part_of(path)
    with filling(path.parent), named_as(path, part):
        sweep(path.parent)
        try:
            yield part
            if flush:
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
            as_neighbours(part)
            with resealed(path):
                os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def named_as(path: Path, part: Path) -> Iterator[None]:
    """What is wrong with `part`, or with a file in it, is said of `path`, which the user knows."""
    try:
        yield
    except Exception as error:
        error.args = tuple(one.replace(str(part), str(path)) if isinstance(one, str) else one for one in error.args)
        for name in ("filename", "filename2", "strerror") if isinstance(error, OSError) else ():
            if isinstance(told := getattr(error, name), (str, Path)):
                setattr(error, name, str(told).replace(str(part), str(path)))
        raise


def remove_folder(folder: Path) -> None:
    """Out of the way by one rename, so that a kill leaves all of it or none; nothing where there is none."""
    aside = part_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """`whole` for a folder that is not there yet, or empty."""
    path = Path(path)
    part = part_of(path)
    with filling(path.parent), named_as(path, part):
        sweep(path.parent)
        try:
            part.mkdir()
            yield part
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
            os.rename(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Around what fills a folder: it is there, and those above it; what was made for it goes again while it is empty.

    So nothing is left of what is refused, or stopped, before there is anything to keep.
    """
    made = make(folder)
    try:
        yield
    finally:
        unmake(made)


def make(folder: Path) -> list[Path]:
    """Make a folder and those above it. Returns what was not there, the innermost first, for `unmake`."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except BaseException:
        unmake(missing)
        raise
    return missing


def unmake(made: Iterable[Path]) -> None:
    """Remove these folders as far as they are empty."""
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()


def of_disk(error: BaseException, path: Path, needed: int = 0) -> OSError | None:
    """That the disk of `path` is full or broken, where what a library raises stems from it; else None.

    Args:
        needed: bytes. With fewer left a library that wrote less than it said, and read it again, means this too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK:
            return OSError(seen.errno, os.strerror(seen.errno), str(path))
        seen = seen.__cause__ or seen.__context__
    if shutil.disk_usage(path.parent).free < needed:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return None


def as_neighbours(path: Path) -> None:
    """The mode of a file that `open` makes; some writers leave theirs to the owner alone."""
    with _UMASK:
        umask = os.umask(0o077)
        os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def add_line(file: BinaryIO, line: str) -> None:
    """To a file opened by "a+b" without a buffer; a last line there that was cut short does not take this one along."""
    file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
    left = memoryview((b"" if file.read(1) in (b"", b"\n") else b"\n") + line.encode() + b"\n")
    while left:
        left = left[file.write(left) :]


def write_bytes(path: str | Path, content: bytes) -> None:
    with whole(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Text in UTF-8, whatever the locale; line ends as they are. What is no text, a lone surrogate, becomes "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: str | Path, value: Any) -> None:
    """JSON in UTF-8. NaN and infinity, which JSON lacks, are a ValueError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """numpy arrays as safetensors."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with whole(path) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:  # of a full disk too
            raise UserError(f"{path} cannot be written: {error}. Free some space, or use another folder.") from error


# ---- reading --------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, advice: str = COPY) -> bytes:
    """All of a regular file.

    Args:
        path: the file.
        advice: what to do where it cannot be read, a sentence.

    Raises:
        UserError: it is not there, no regular file (a folder, a FIFO, a device), cannot be read, or has changed since
            its folder was sealed.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path} is no regular file. {advice}")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"There is no {path}. {advice}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    verify(path, content)
    return content


def read_text(path: str | Path, advice: str = COPY) -> str:
    """UTF-8, with a mark in front or without; see `read_bytes`."""
    try:
        return read_bytes(path, advice).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). {advice}") from error


def is_json(value: Any) -> bool:
    """Whether JSON can hold it."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def read_json(path: str | Path, advice: str = COPY) -> Any:
    """What a JSON file holds; see `read_bytes`."""
    return parse_json(read_text(path, advice), str(path), advice)


def log_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a log.jsonl; a line that is none, such as a last one cut short, is left out."""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("step"), int)]


def parse_json(text: str, name: str, advice: str = COPY) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{name} is nested too deeply to be read. {advice}") from None
    except ValueError as error:
        raise UserError(f"{name} is not JSON ({error}). {advice}") from error


# ---- checksums ------------------------------------------------------------------------------------------------------


def seal(folder: str | Path, names: Iterable[str]) -> None:
    """Write down the sha256 of these files of a folder, those that are there."""
    folder = Path(folder)
    write_json(folder / SEAL, {name: sha256(folder / name) for name in sorted(names) if (folder / name).is_file()})


def unseal(folder: str | Path) -> None:
    """Before files of the folder change."""
    Path(folder, SEAL).unlink(missing_ok=True)


@contextlib.contextmanager
def resealed(path: Path) -> Iterator[None]:
    """Around the change of one file of a folder that may be sealed; killed inside, the file has no checksum."""
    known = sealed(path.parent) if path.name != SEAL else {}
    if path.name not in known:
        yield
        return
    others = {name: value for name, value in known.items() if name != path.name}
    write_json(path.parent / SEAL, others)
    yield
    write_json(path.parent / SEAL, {**others, path.name: sha256(path)})


def sealed(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files of a sealed folder; {} where it is not."""
    try:
        if not stat.S_ISREG(os.stat(folder / SEAL).st_mode):
            return {}
        known = json.loads((folder / SEAL).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise UserError(f"{folder / SEAL} is damaged. Copy the folder again, or remove that file.")
    return known


def verify(path: str | Path, content: bytes | None = None) -> None:
    """Raises UserError where a file has changed since its folder was sealed; `content`: where it is read already."""
    path = Path(path)
    expected = sealed(path.parent).get(path.name)
    if expected is None:
        return
    if (sha256(path) if content is None else hashlib.sha256(content).hexdigest()) != expected:
        raise UserError(
            f"{path} has changed since it was written ({SEAL}). Copy it again; where you have changed it yourself, "
            f"remove its line in {SEAL}."
        )


def sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
