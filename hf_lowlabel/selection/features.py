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
import logging
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.caches.decoding import CHUNK, check_share, cores, decode_chunks, in_threads
from ..data.dataset import ImageDataset
from ..data.pixels.images import square_of
from ..distributed import all_rows, all_texts, barrier, choose_device, rank, world
from ..errors import UserError
from ..models import create_backbone
from ..models.memory_format import best_layout
from ..progress import Progress
from ..views.table import build_view
from .feature_file import Features, collect, file_in, read

log = logging.getLogger("hf_lowlabel")
BATCH = 4 * CHUNK  # images in a forward pass; the shares of processes are whole batches, so that no rounding differs


def extract(
    model: str | os.PathLike[str] | nn.Module,
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
        path: the file to keep the features in, or to take them from when its fingerprints match; or a folder of such,
            which is made where the name does not end in .safetensors.
        image_size: side of the images the network sees, in px (None: the model's own).
        revision: of a model on the Hub.
        device: such as "cpu" (None: the best there is).
        workers: threads that decode (None: one for each core, 16 at most).
        max_bad: share of unreadable images that is left out and listed.

    Raises:
        UserError: for NaN or infinite features, or too many unreadable images.
    """
    named = isinstance(model, (str, os.PathLike))
    encoder = create_backbone(model, image_size=image_size, revision=revision) if named else model
    members = np.arange(len(source)) if members is None else np.asarray(members, dtype=np.int64)
    model_print, chosen = fingerprint(encoder), choose_device(device)
    data_print = print_of_images(source, members)
    if path is not None and is_folder(path):
        known = getattr(encoder, "config", None)
        path = file_in(Path(path), getattr(known, "architecture", type(encoder).__name__), model_print)
    found = read(path, model_print, data_print) if path is not None else None
    barrier()  # every process has looked at the old file before one writes a new one
    if found is not None and holds_all(found, source, members, workers, encoder.preprocessing):
        log.info("features of %d images taken from %s", len(found), Path(path).name)
        if found.skipped:
            check_share(found.skipped, len(members), max_bad)
            tell(found.skipped)
        return check(found, source)
    layout = best_layout(encoder, encoder.preprocessing["input_size"][-1], chosen)
    encoder = encoder.to(chosen).eval().to(memory_format=layout)
    skipped: list[tuple[str, str]] = []
    parts = batches(encoder, source, members, workers, skipped, chosen, max_bad)
    if path is None:
        pieces = [(np.zeros((0, encoder.num_features), np.float32), members[:0]), *parts]
        values, indices = (all_rows(np.concatenate(column)) for column in zip(*pieces))
    else:
        facts = {"model": model_print, "data": data_print}
        values, indices = collect(Path(path), parts, encoder.num_features, facts)
    tell(skipped)
    return check(Features(values, indices, model_print, data_print, skipped=skipped), source)


def is_folder(path: str | Path) -> bool:
    """Whether a path is that of a folder of features; of what is not there yet its name says it."""
    named = str(path).endswith(("/", os.sep)) or Path(path).suffix.lower() != ".safetensors"
    return Path(path).is_dir() or named and not Path(path).exists()


def holds_all(found: Features, source: ImageDataset, members: np.ndarray, workers: int | None, prep: dict) -> bool:
    """Whether images without kept features cannot be read still, which are then `skipped`; one that was mended can."""
    missing = np.setdiff1d(members, found.indices)
    mine, threads = share(missing), cores() if workers is None else workers
    parts = decode_chunks(source, mine, threads, **square_of(prep))
    bad = [(source.ids[mine[at]], errors[at]) for _, _, errors in parts for at in sorted(errors)]
    found.skipped = of_all(bad)
    mended = len(missing) - len(found.skipped)
    if mended:
        log.info("%d images without kept features can be read now: computing them anew", mended)
    return not mended


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
    members: np.ndarray,
    workers: int | None,
    skipped: list[tuple[str, str]],
    device,
    max_bad: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(values [b, D], positions in the source [b]) of one batch after the other, of this process's share of `members`.

    skipped: unreadable images are added to it, at the end those of all processes; more than the share `max_bad` of
    all `members`, or all, are a UserError.
    """
    mine = share(members)
    prep = encoder.preprocessing
    size = prep["input_size"][-1]
    view = build_view("eval", size=size, mean=prep["mean"], std=prep["std"])
    pooled = encoder.pooled if hasattr(encoder, "pooled") else encoder.features
    threads = cores() if workers is None else workers
    chunks: list[Tensor] = []
    kept: list[np.ndarray] = []
    with Progress("features", len(mine)) as bar:
        for start, images, errors in decode_chunks(source, mine, threads, **square_of(prep)):
            good = [row for row in range(len(images)) if start + row not in errors]
            skipped += [(source.ids[mine[at]], reason) for at, reason in sorted(errors.items())]
            if len(skipped) > max_bad * len(members):
                check_share(skipped, len(members), max_bad)
            chunks.append(images[good])
            kept.append(mine[start + np.array(good, dtype=np.int64)])
            bar.add(len(images))
            if (start + len(images)) % BATCH and start + len(images) < len(mine):
                continue
            x = torch.cat(chunks).to(device)
            if len(x):
                u = torch.zeros(len(x), view.width, dtype=torch.float64)
                yield rounded(pooled(view(x, u)).float().cpu().numpy()), np.concatenate(kept)
            chunks, kept = [], []
    skipped[:] = of_all(skipped)
    check_share(skipped, len(members), max_bad)


def of_all(skipped: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of all processes, in the order of the images."""
    return list(zip(all_texts([id for id, _ in skipped]), all_texts([reason for _, reason in skipped]), strict=True))


def tell(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        log.warning("left out %d images that cannot be read, such as %s: %s", len(skipped), *skipped[0])


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


def print_of_images(source: ImageDataset, members: np.ndarray) -> str:
    """sha256 over the data, and how the file of each image begins and ends: a photo that is turned in its place keeps
    its size, and its data their fingerprint, so that runs go on."""
    mine = np.unique(share(members) // source.squares).tolist()
    ends = all_rows(np.array([zlib.crc32(e) for e in in_threads(source.reader.ends, mine, cores(), 256)], np.int64))
    return hashlib.sha256(source.print_of(members).encode() + ends.astype("<i8").tobytes()).hexdigest()


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
