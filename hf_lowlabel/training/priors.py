"""Prior pseudo-labels on disk: safetensors `priors` float32 [images, classes] and `ids`, matched to a run by image and
class.

The ids are one uint8 tensor, a JSON list, since a safetensors header is no place for a million of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..data.published import fetch, is_published
from ..errors import UserError
from ..files import whole


def save_priors(
    path: str | Path, priors: np.ndarray, ids: list[str], class_names: list[str], facts: dict | None = None
) -> None:
    """Write the whole file or none."""
    text = np.frombuffer(json.dumps(ids, ensure_ascii=False).encode(), dtype=np.uint8)
    metadata = {
        "class_names": json.dumps(class_names, ensure_ascii=False),
        "facts": json.dumps(facts or {}, ensure_ascii=False),
    }
    with whole(path) as part:
        save_file({"priors": np.ascontiguousarray(priors, dtype=np.float32), "ids": text}, part, metadata=metadata)


def load_priors(path: str | Path, ids: list[str], class_names: list[str]) -> Tensor:
    """float32 [len(ids), classes]: the rows of these images, the columns in the order of `class_names`.

    path: a file, or "hub:org/name[/configuration][@revision]". Raises UserError when it is none, lacks an image or has
    other classes.
    """
    path = fetch(str(path), "priors.safetensors") if is_published(path) else Path(path)
    if not path.is_file():
        raise UserError(
            f"found no file {str(path)!r}; expected prior pseudo-labels; fix: write them with `hf-lowlabel priors`"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            priors, text = file.get_tensor("priors"), file.get_tensor("ids")
        names, known = json.loads(metadata["class_names"]), json.loads(text.numpy().tobytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"found {str(path)!r} that holds no prior pseudo-labels ({error}); expected a file written by `hf-lowlabel "
            "priors`"
        ) from error
    if sorted(names) != sorted(class_names):
        raise UserError(
            f"found prior pseudo-labels of the classes {', '.join(names[:8])}; expected "
            f"{', '.join(class_names[:8])}; fix: "
            "make them from the same split"
        )
    columns = [names.index(name) for name in class_names]
    if known == ids:  # the usual case, without a dict of millions
        return priors[:, columns]
    row = {id: i for i, id in enumerate(known)}
    missing = [id for id in ids if id not in row]
    if missing:
        raise UserError(
            f"found no prior pseudo-labels for {len(missing)} of {len(ids)} images, such as {missing[0]!r}; expected "
            f"one for "
            "each image that is trained on; fix: make them from the same data and split"
        )
    return priors[[row[id] for id in ids]][:, columns]
