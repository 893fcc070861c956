"""Features of a whole source from any backbone: computed once, kept in a file.

    features = extract("runs/backbone", load_source("photos/"), path="to_label/features.safetensors")
    features.values      float32 [M, D];  features.indices  int64 [M], positions in the source

Features are rounded to half precision, whose relative error is 2^-11 (0.05 %) at most, so that they are the same
whether they come from the network or from the file. That is safetensors (`indices`, `features` in F16) and carries
the fingerprints of model and data and the sha256 of itself; it is reused when both match and nothing in it has
changed. Images are decoded in threads as they are needed, so a million of them take the memory of a few batches.
Under several processes each takes a share of whole batches, and the result is the same, bit for bit on one kind of
machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.dataset import ImageDataset
from ..data.decoding import CHUNK, check_share, cores, decode_chunks
from ..data.images import square_of
from ..distributed import all_rows, barrier, choose_device, interactive, of_first, rank, world
from ..errors import UserError
from ..files import make, unmake, whole
from ..models import create_backbone
from ..models.layout import best_layout
from ..views.table import build_view

log = logging.getLogger("hf_lowlabel")
BATCH = 4 * CHUNK  # images in a forward pass; the shares of processes are whole batches, so that no rounding differs


@dataclass
class Features:
    """values: float32 [M, D], rounded to half precision. indices: int64 [M], ascending positions in the source; an
    unreadable image has none."""

    values: np.ndarray
    indices: np.ndarray
    model: str = ""  # fingerprint of weights and preprocessing
    data: str = ""  # fingerprint of the source and of which of its images were asked for
    reused: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (id, reason), of this process

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Rows of the images at these positions of the source; one without features is left out."""
        where = np.searchsorted(self.indices, indices)
        where = np.minimum(where, len(self.indices) - 1)
        return where[self.indices[where] == indices]


def extract(
    model: str | nn.Module,
    source: ImageDataset,
    members: np.ndarray | None = None,
    *,
    path: str | Path | None = None,
    image_size: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_bad: float = 0.01,
) -> Features:
    """Pooled features of images, from the evaluation view of the model.

    Args:
        model: a timm name, a local folder, a Hub id, or a network with `pooled` (or `features`) and `preprocessing`.
        source: the images.
        members: positions of those that are asked for, int64 [M] (None: all).
        path: the file to keep the features in, or to take them from when its fingerprints match.
        image_size: side of the images the network sees, in px (None: the model's own).
        revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        workers: threads that decode (None: one for each core, 16 at most).
        max_bad: share of unreadable images that is left out and listed.

    Raises:
        UserError: for NaN or infinite features, or too many unreadable images.
    """
    named = isinstance(model, (str, Path))
    encoder = create_backbone(str(model), image_size=image_size, revision=revision) if named else model
    members = np.arange(len(source)) if members is None else np.asarray(members, dtype=np.int64)
    model_print, chosen = fingerprint(encoder), choose_device(device)
    data_print = source.print_of(members)
    found = read(path, model_print, data_print) if path is not None else None
    barrier()  # every process has looked at the old file before one writes a new one
    if found is not None:
        log.info("features of %d images taken from %s", len(found), Path(path).name)
        return check(found, source)
    layout = best_layout(encoder, encoder.preprocessing["input_size"][-1], chosen)
    encoder = encoder.to(chosen).eval().to(memory_format=layout)
    skipped: list[tuple[str, str]] = []
    parts = batches(encoder, source, share(members), workers, skipped, chosen, max_bad * len(members))
    if path is None:
        pieces = [(np.zeros((0, encoder.num_features), np.float32), members[:0]), *parts]
        values, indices = (all_rows(np.concatenate(column)) for column in zip(*pieces))
    else:
        facts = {"model": model_print, "data": data_print}
        values, indices = collect(Path(path), parts, encoder.num_features, facts)
    if not len(values):
        check_share(skipped, len(members), max_bad)
    if skipped:
        log.warning("left out %d images that cannot be read, such as %s: %s", len(skipped), *skipped[0])
    return check(Features(values, indices, model_print, data_print, skipped=skipped), source)


def share(members: np.ndarray) -> np.ndarray:
    """This process's part: whole batches, so that every image is computed in the same company on any number of
    processes.
    """
    count = -(-len(members) // BATCH)
    return members[rank() * count // world() * BATCH : (rank() + 1) * count // world() * BATCH]


@torch.inference_mode()
def batches(
    encoder: nn.Module,
    source: ImageDataset,
    mine: np.ndarray,
    workers: int | None,
    skipped: list,
    device,
    allowed: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(values [b, D], positions in the source [b]) of one batch after the other.

    skipped: unreadable images are added to it; more than `allowed` of them are a UserError.
    """
    prep = encoder.preprocessing
    size = prep["input_size"][-1]
    view = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    pooled = encoder.pooled if hasattr(encoder, "pooled") else encoder.features
    threads = cores() if workers is None else workers
    chunks: list[Tensor] = []
    kept: list[np.ndarray] = []
    with tqdm(total=len(mine), desc="features", unit="img", disable=not interactive(), leave=False) as bar:
        for start, images, errors in decode_chunks(source, mine, threads, **square_of(prep)):
            good = [row for row in range(len(images)) if start + row not in errors]
            skipped += [(source.ids[mine[at]], reason) for at, reason in sorted(errors.items())]
            if len(skipped) > allowed:
                check_share(skipped, max(len(mine), 1), allowed / max(len(mine), 1))
            chunks.append(images[good])
            kept.append(mine[start + np.array(good, dtype=np.int64)])
            bar.update(len(images))
            if (start + len(images)) % BATCH and start + len(images) < len(mine):
                continue
            x = torch.cat(chunks).to(device)
            if len(x):
                u = torch.zeros(len(x), view.width, dtype=torch.float64)
                yield rounded(pooled(view(x, u)).float().cpu().numpy()), np.concatenate(kept)
            chunks, kept = [], []


def rounded(values: np.ndarray) -> np.ndarray:
    """float32, as the file keeps them; what is too large becomes infinite, which `check` refuses."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def fingerprint(encoder: nn.Module, without: Collection[str] = ()) -> str:
    """sha256 over names, shapes and bytes of all tensors but those `without`, and over the preprocessing."""
    prep = encoder.preprocessing
    seen = [prep[k] for k in ("mean", "std")], prep["input_size"], square_of(prep)
    return print_of_tensors({k: v for k, v in encoder.state_dict().items() if k not in without}, str(seen))


def print_of_tensors(named: Mapping[str, torch.Tensor], beside: str = "") -> str:
    """sha256 over names, shapes and bytes of tensors, and what is said beside."""
    digest = hashlib.sha256(beside.encode())
    for name, tensor in sorted(named.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            if tensor.dim()
            else str(tensor.item()).encode()
        )
    return digest.hexdigest()


def check(features: Features, source: ImageDataset) -> Features:
    """The features, or an error that names an image whose features are not finite."""
    bad = 0
    first = None
    for start in range(0, len(features), 65536):
        wrong = np.flatnonzero(~np.isfinite(features.values[start : start + 65536]).all(1))
        bad += len(wrong)
        first = int(start + wrong[0]) if first is None and len(wrong) else first
    if bad:
        raise UserError(
            f"Features are NaN or too large for half precision for {bad} of {len(features)} images, such as "
            f"{source.ids[features.indices[first]]!r}. Check that the training did not diverge, or take another model."
        )
    return features


# ---- the file --------------------------------------------------------------------------------------------------------
def collect(path: Path, parts: Iterator, width: int, metadata: dict) -> tuple[np.ndarray, np.ndarray]:
    """Write the parts of all processes into one file, in order, whole or not at all; returns what it holds."""
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
        if rank() == 0:
            join(path, indices, [piece(path, r, number) for r in range(world())], width, metadata)
        barrier()
    finally:
        mine.unlink(missing_ok=True)
        unmake(made)
    tensors = mapped(path)[1]
    return tensors["features"].astype(np.float32), np.array(tensors["indices"])


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
