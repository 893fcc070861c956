"""The file that features are kept in: written whole or not at all, and read only where it is what was asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..distributed import all_rows, barrier, of_first, rank, world
from ..errors import UserError
from ..files import make, unmake, whole

log = logging.getLogger("hf_lowlabel")


@dataclass
class Features:
    """values: float32 [M, D], rounded to half precision. indices: int64 [M], ascending positions in the source; an
    unreadable image has none."""

    values: np.ndarray
    indices: np.ndarray
    model: str = ""  # fingerprint of weights and preprocessing
    data: str = ""  # fingerprint of the source and of which of its images were asked for
    reused: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (id, reason), of all processes

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Rows of the images at these positions of the source; one without features is left out."""
        where = np.searchsorted(self.indices, indices)
        where = np.minimum(where, len(self.indices) - 1)
        return where[self.indices[where] == indices]


def with_more(found: Features, more: Features) -> Features:
    """The features of two sets of images, in the order of the source."""
    indices = np.concatenate([found.indices, more.indices])
    order = np.argsort(indices)
    values = np.concatenate([found.values, more.values])[order]
    return replace(found, values=values, indices=indices[order], skipped=[*found.skipped, *more.skipped])


def file_in(folder: Path, architecture: str, model: str) -> Path:
    """Where a folder keeps the features by an encoder. model: its fingerprint."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', f'{architecture}-{model[:12]}')}.safetensors"


def collect(path: Path, parts: Iterator, width: int, metadata: dict) -> tuple[np.ndarray, np.ndarray]:
    """Write the parts of all processes into one file, in order, whole or not at all; returns (values,
    indices) of the parts, for another command may have filled the file anew."""
    number = int(of_first(secrets.randbelow(10**9)))
    mine, made = piece(path, rank(), number), make(path.parent)
    rows: list[np.ndarray] = []
    try:
        with open(mine, "wb") as file:
            for values, indices in parts:
                values.astype("<f2").tofile(file)
                rows.append(indices)
        indices = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        indices = all_rows(indices)
        barrier()
        pieces = [piece(path, r, number) for r in range(world())]
        each = (np.memmap(part, "<f2", "r") for part in pieces if part.stat().st_size)
        flat = np.concatenate([np.zeros(0, "<f2"), *each], dtype=np.float32)
        if rank() == 0:
            join(path, indices, pieces, width, metadata)
        barrier()
    finally:
        mine.unlink(missing_ok=True)
        unmake(made)
    return flat.reshape(len(indices), width), indices


def piece(path: Path, rank: int, number: int) -> Path:
    """Where a process collects its part; number: of this time, for another command may fill the same file."""
    return path.with_name(f".{path.name}.rank{rank}.{number}.part")


def join(path: Path, indices: np.ndarray, parts: list[Path], width: int, metadata: dict) -> None:
    n = len(indices)
    with whole(path) as file_beside, open(file_beside, "w+b") as file:
        head = header(n, width, {**metadata, "sha256": "0" * 64})
        digest = hashlib.sha256(head)
        file.write(head)
        for block in blocks(indices, parts):
            digest.update(block)
            file.write(block)
        file.seek(0)
        file.write(header(n, width, {**metadata, "sha256": digest.hexdigest()}))


def header(n: int, width: int, metadata: dict) -> bytes:
    """The first bytes of a safetensors file of n features."""
    text = json.dumps(
        {
            "__metadata__": metadata,
            "indices": {"dtype": "I64", "shape": [n], "data_offsets": [0, 8 * n]},
            "features": {"dtype": "F16", "shape": [n, width], "data_offsets": [8 * n, 8 * n + 2 * n * width]},
        }
    ).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text


def blocks(indices: np.ndarray, parts: list[Path]) -> Iterator[bytes]:
    yield indices.astype("<i8").tobytes()
    for part in parts:
        with open(part, "rb") as file:
            while block := file.read(1 << 24):
                yield block


def write(path: Path, features: Features) -> None:
    """The file of features that are in memory, whole or not at all."""
    part, made = piece(path, 0, secrets.randbelow(10**9)), make(path.parent)
    try:
        features.values.astype("<f2").tofile(part)
        facts = {"model": features.model, "data": features.data}
        join(path, features.indices, [part], features.values.shape[1], facts)
    finally:
        part.unlink(missing_ok=True)
        unmake(made)


TYPES = {"F16": "<f2", "F32": "<f4", "I64": "<i8"}  # F32: of files that were made elsewhere
LONGEST = 1 << 20  # bytes of a header


def mapped(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(metadata, tensors as read-only memory maps) of a safetensors file; one that is damaged is a ValueError or its
    like."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST:
            raise ValueError("its header has no end")
        content = json.loads(file.read(length))
    metadata = content.pop("__metadata__", {})
    return metadata, {
        name: np.memmap(path, TYPES[t["dtype"]], "r", 8 + length + t["data_offsets"][0], tuple(t["shape"]))
        if 0 not in t["shape"]
        else np.zeros(t["shape"], TYPES[t["dtype"]])
        for name, t in content.items()
    }


def read(path: str | Path, model: str, data: str) -> Features | None:
    """Features kept in the file, or None where there are none or they belong to another model or other data.

    Raises:
        UserError: it is no whole file of features, or has changed since it was written.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        metadata, tensors = mapped(path)
        values, indices = tensors["features"].astype(np.float32), np.array(tensors["indices"])
        features = Features(values, indices, metadata["model"], metadata["data"], reused=True)
        if values.ndim != 2 or indices.shape != values.shape[:1]:
            raise ValueError(f"it holds features {values.shape} of {indices.shape} images")
        if "sha256" in metadata and content_hash(path, metadata["sha256"]) != metadata["sha256"]:
            raise ValueError("it has changed since it was written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, OSError) as error:
        raise UserError(
            f"{path} is not a whole file of features ({error}). Remove it, or give another name."
        ) from error
    known = [("model", features.model, model), ("data", features.data, data), ("kind", "sha256" in metadata, True)]
    differs = [what for what, a, b in known if a != b]
    if differs:
        log.info("features in %s are of another %s: computing them anew", path.name, " and ".join(differs))
        return None
    return features


def content_hash(path: Path, sha256: str) -> str:
    """sha256 of the file as `join` takes it: with zeros in its own place."""
    with open(path, "rb") as file:
        length = file.read(8)
        head = length + file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(head.replace(sha256.encode(), b"0" * 64))
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
