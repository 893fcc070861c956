"""Prior pseudo-labels on disk: safetensors `priors` float32 [images, classes] and `ids`, matched to a run by image and
class.

The ids are one uint8 tensor, a JSON list, since a safetensors header is no place for a million of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data.splits.published import fetch, is_published
from ..data.splits.splits import Split
from ..errors import UserError
from ..files import write_tensors
from ..finetuning.uninformative import informative
from ..text import series

log = logging.getLogger("hf_lowlabel")
LACKING = 0.1  # share of the images that may have no prior: those that a run leaves out differ a little


def save_priors(
    path: str | Path, priors: np.ndarray, ids: list[str], class_names: list[str], facts: dict | None = None
) -> None:
    """Write the whole file or none."""
    text = np.frombuffer(json.dumps(ids, ensure_ascii=False).encode(), dtype=np.uint8)
    metadata = {
        "class_names": json.dumps(class_names, ensure_ascii=False),
        "facts": json.dumps(facts or {}, ensure_ascii=False),
    }
    values = np.ascontiguousarray(priors, dtype=np.float32)
    metadata["sha256"] = content_hash(values, text, metadata)
    write_tensors(path, {"priors": values, "ids": text}, metadata)


def content_hash(priors: np.ndarray, ids: np.ndarray, metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(metadata["class_names"].encode())
    for part in (metadata.get("facts", "").encode(), priors.tobytes(), ids.tobytes()):
        digest.update(part)
    return digest.hexdigest()


def load_priors(path: str | Path, ids: list[str], class_names: list[str], split: Split | None = None) -> Tensor:
    """float32 [len(ids), classes]: the rows of these images, the columns in the order of `class_names`.

    path: a file, or "hub:org/name[/configuration][@revision]". split: of the run, to warn where they were made with
    other labels and images are tested on. A few images may have none, and get a row that says nothing: which copies of
    held-out images are left out depends on whether images stream, and on their size. Raises UserError when it is no
    such file, lacks more images or has other classes.
    """
    names, known, priors, made_with = _read(path)
    if split is not None and split.test and made_with not in (None, split.hash):
        log.warning(
            "the prior pseudo-labels were made with the labels of another split: if the %d test images were among "
            "them, results are too good. Make priors with the --split of this run",
            len(split.test),
        )
    if sorted(names) != sorted(class_names):
        raise UserError(
            f"The prior pseudo-labels are of the classes {series(names[:8])}, and the run has "
            f"{series(class_names[:8])}. Make them from the same split."
        )
    if priors.ndim != 2 or tuple(priors.shape) != (len(known), len(names)):
        raise UserError(
            f"The prior pseudo-labels in {str(path)!r} are {tuple(priors.shape)}, for {len(known)} images and "
            f"{len(names)} classes. Make them again."
        )
    if not priors.isfinite().all() or (priors < 0).any():
        raise UserError(f"The prior pseudo-labels in {str(path)!r} are not all finite and at least 0. Make them again.")
    columns = [names.index(name) for name in class_names]
    if known != ids:  # else the usual case, without a dict of millions
        row = {id: i for i, id in enumerate(known)}
        missing = [id for id in ids if id not in row]
        if missing:
            said = f"{len(missing)} of {len(ids)} training images have no prior pseudo-label, such as {missing[0]!r}"
            if len(missing) > LACKING * len(ids):
                raise UserError(f"{said}. Make them from the same data and split, with the same --streaming and size.")
            log.warning("%s: nothing is said of them", said)
            priors = torch.cat([priors, torch.zeros(1, priors.shape[1], dtype=priors.dtype)])
        priors = priors[[row.get(id, len(known)) for id in ids]]
    if not informative(priors).any():
        raise UserError(
            f"The prior pseudo-labels in {str(path)!r} give every class the same share for each of the {len(ids)} "
            "training images. Give another --prior, or leave it out."
        )
    return priors[:, columns]


def check_there(path: str | Path) -> None:
    """Raises UserError for a file that is not there, before what takes long."""
    if not is_published(path) and not Path(path).is_file():
        raise UserError(f"There is no file {str(path)!r}. Write prior pseudo-labels with `hf-lowlabel priors`.")


def classes_of_priors(path: str | Path) -> list[str]:
    """The classes of a file that `load_priors` takes, in its order."""
    return _read(path)[0]


def _read(path: str | Path) -> tuple[list[str], list[str], Tensor, str | None]:
    """(classes, ids of the images, priors, hash of the manifest they were made with)"""
    check_there(path)
    path = fetch(str(path), "priors.safetensors") if is_published(path) else Path(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            priors, text = file.get_tensor("priors"), file.get_tensor("ids")
        names, known = json.loads(metadata["class_names"]), json.loads(text.numpy().tobytes())
        if not all(isinstance(list_, list) and all(isinstance(v, str) for v in list_) for list_ in (names, known)):
            raise ValueError("its ids or class names are no lists of text")
        if metadata.get("sha256", (found := content_hash(priors.numpy(), text.numpy(), metadata))) != found:
            raise ValueError("it has changed since it was written")
        made_with = json.loads(metadata.get("facts", "{}")).get("split")
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{str(path)!r} holds no prior pseudo-labels ({error}). Give a file that `hf-lowlabel priors` wrote."
        ) from error
    return names, known, priors, made_with
