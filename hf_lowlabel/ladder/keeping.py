"""What a search keeps on disk, so that the same command goes on with it: what it is of, what was planned and tried, and
features of all training images."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..commands import DONE
from ..distributed import barrier, is_main_process
from ..errors import UserError
from ..files import read_json, remove_folder, write_json
from ..models.layout import best_layout
from ..selection.features import Features, check, fingerprint, read, rounded, write
from ..settings import private_names, recorded
from ..training.folder import SEARCH, has_notes_alone
from ..training.lineage import labels_seen, lineage_of
from ..training.preparing import Prepared

log = logging.getLogger("hf_lowlabel")
TRIALS = "trials"  # folder of what was tried


class OtherSearch(UserError):
    """A folder holds a search of other settings, labels or images."""


def read_kept(path: Path) -> dict[str, Any]:
    return dict(read_json(path, "Give another --output-dir."))


def holds_any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def has_begun(folder: Path) -> bool:
    """Whether a search was left in a folder before its end. Folders called features or trials say nothing of that:
    people have such too, and what stands beside them is theirs."""
    if (folder / DONE).exists():
        return False
    if not (folder / SEARCH).is_file():
        return has_notes_alone(folder)
    known = read_json(folder / SEARCH, "Give another --output-dir.")
    return known == {} or isinstance(known, dict) and "facts" in known  # else another tool's


def take_up(ready: Prepared, models: Sequence[str], minutes: float) -> None:
    """Go on with the search in the run folder. With more minutes than it was planned for, its trials begin anew.

    Args:
        ready: the run, with the settings of its first attempt.
        models: names of all encoders.
        minutes: of the search.

    Raises:
        OtherSearch: the folder's is of other settings, labels or images.
    """
    path, trials = ready.folder / SEARCH, ready.folder / TRIALS
    facts, known = facts_of(ready, models), read_kept(path) if path.is_file() else {}
    if known.get("facts", facts) != facts:
        raise OtherSearch(
            f"What was tried in {ready.folder} was tried with other settings, labels or images. Give another "
            "--output-dir."
        )
    planned = known.get("minutes", minutes)
    if minutes != planned and trials.is_dir():
        goes = "goes on so" if minutes < planned else f"with {minutes:g} its trials begin anew"
        log.warning("this search was planned for %g minutes, and %s", planned, goes)
    barrier()  # all have read
    if is_main_process():
        if minutes > planned or "facts" not in known:  # nothing says what trials are of
            known.pop("encoders", None)
            forget_trials(ready.folder)
        write_json(path, {**known, "facts": facts, "minutes": max(minutes, planned)})
    barrier()


def check_unseen(ready: Prepared, models: Sequence[Any]) -> None:
    """UserError for weights that were trained with these labels: labels left out would say nothing of new images."""
    given = ready.chosen.split.labeled
    labels = {id: given.get(id) for id in (ready.dataset.ids[i] for i in ready.at.labeled)}
    for model in (one for one in models if isinstance(one, (str, Path))):
        if seen := labels_seen(model, ready.dataset, labels):
            first = lineage_of(model)[0]
            before = f", such as {first.name}" if first.what == "pretrained weights" and first.name else ""
            raise UserError(
                f"The network {model} was trained with {seen} of these {len(labels)} labels, so that labels left out "
                f"would say nothing of new images. Give the weights from before that{before}, as --model."
            )


def facts_of(ready: Prepared, models: Sequence[str]) -> dict[str, Any]:
    """What a search is of."""
    aside = private_names() | {"split"}
    settings = {k: v for k, v in recorded(ready.config).items() if k not in aside}
    attempts = [(attempt.name, attempt.settings) for attempt in ready.task.attempts]
    text = json.dumps([settings, attempts, list(models)], sort_keys=True, default=str)
    return {
        "settings": hashlib.sha256(text.encode()).hexdigest(),
        "images": ready.dataset.fingerprint,
        "labels": ready.chosen.split.hash,
    }


def encoders_looked_at(folder: Path) -> int | None:
    """How many encoders a search that was begun has had the time for."""
    found = read_kept(folder / SEARCH).get("encoders")
    return None if found is None else int(found)


def note_encoders(folder: Path, count: int) -> None:
    if is_main_process():
        write_json(folder / SEARCH, {**read_kept(folder / SEARCH), "encoders": count})
    barrier()


def forget_trials(folder: Path) -> None:
    """What they found, and a last run that began by it."""
    forget_last(folder)
    remove_folder(folder / TRIALS)


def forget_last(folder: Path) -> None:
    """What a last run, with all labels, left in the run folder before its end."""
    remove_folder(folder / "checkpoints")
    (folder / "log.jsonl").unlink(missing_ok=True)


def features_of_encoder(ready: Prepared, keep: Path) -> np.ndarray:
    """float32 [N, D] of the training images, in their order; from `keep` when model and images are the same."""
    model, cache = ready.network.model, ready.training
    layout = best_layout(model, model.preprocessing["input_size"][-1], model.device)
    model.to(memory_format=layout)  # as `extract` has it; what comes later is the same with kept features
    model_print = fingerprint(model, without=model.head_names())
    indices = np.asarray(cache.indices, dtype=np.int64)
    data_print = ready.dataset.print_of(indices)
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
