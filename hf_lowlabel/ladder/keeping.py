"""Features of all training images by one encoder: computed once, kept beside the run, taken from there again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..distributed import barrier, is_main_process
from ..models.layout import best_layout
from ..selection.features import Features, check, fingerprint, read, rounded, write
from ..training.preparing import Prepared


def features_of_encoder(ready: Prepared, keep: Path) -> np.ndarray:
    """float32 [N, D] of the training images, in their order; from `keep` when model and images are the same."""
    model, cache = ready.network.model, ready.training
    layout = best_layout(model, model.preprocessing["input_size"][-1], model.device)
    model.to(memory_format=layout)  # as `extract` has it; what comes later is the same with kept features
    model_print = fingerprint(model, without=model.head_names())
    indices = np.asarray(cache.indices, dtype=np.int64)
    data_print = hashlib.sha256(ready.dataset.fingerprint.encode() + indices.tobytes()).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", f"{model.config.architecture}-{model_print[:12]}")
    path = keep / f"{name}.safetensors"
    found = read(path, model_print, data_print)
    barrier()
    if found is not None:
        return found.values
    task: Any = ready.task  # one that `climbs` has features
    x = Features(rounded(task.features(model, cache)), indices, model_print, data_print)
    check(x, ready.dataset)
    if is_main_process():
        write(path, x)
    barrier()
    return x.values
