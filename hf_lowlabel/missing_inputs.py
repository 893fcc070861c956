"""Checks for missing inputs and existing outputs, from the disk alone: before libraries are loaded, and again on
reading and writing.

No torch is imported here.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import UserError


def looks_like_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(name).suffix.lower() == ".parquet":
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def refuse_no_data(dataset: object) -> None:
    """UserError where none is named."""
    if isinstance(dataset, (str, type(None))) and not dataset:
        raise UserError("No data is given. Name it with --dataset: a Hub id, a folder, a parquet file or 'digits'.")


def refuse_missing_data(name: str, embedded: Iterable[str]) -> None:
    """UserError for data that is neither there nor an id of the Hub, with the nearest names."""
    path = Path(name).expanduser()
    if name in embedded or path.exists() or looks_like_hub_id(name):
        return
    here = path.parent if path.parent.is_dir() else Path()
    known = [str(here / entry.name) for entry in here.iterdir()] if here.is_dir() else []
    near = difflib.get_close_matches(name, [*known, *embedded], n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else "Check the path."
    raise UserError(
        f"There is no such path as {name!r}, and it is no Hub id (org/name). {hint} Without data of your own, take "
        f"{' or '.join(sorted(embedded))}."
    )


def refuse_no_model(model: str | os.PathLike[str]) -> None:
    """UserError for a model that is neither a folder of one nor an id of the Hub."""
    path, name = Path(model), str(model)
    if not path.is_dir() and ("/" not in name or name.startswith((".", "~", "/"))):
        raise UserError(f"There is no model {name!r}. Give a run folder, a saved model or a Hub id (org/name).")
    if path.is_dir() and not (path / "config.json").is_file():
        inside = [run for run in path.iterdir() if (run / "run.json").is_file() and (run / "config.json").is_file()]
        if inside:
            newest = max(inside, key=lambda run: (run / "run.json").stat().st_mtime)
            raise UserError(f"There is no model in {model} itself. Did you mean {newest}, the newest in it?")
        raise UserError(
            f"There is no config.json in {model}, so it is no finished run and no saved model. A run that was stopped "
            "before its first checkpoint has none, nor has one of knn or label-spreading, which leave "
            "predictions.parquet. Give another --model."
        )


def refuse_missing_images(names: Sequence[str | os.PathLike[str]]) -> None:
    """UserError for the first of some files and folders that is not there."""
    for name in names:
        if not Path(name).expanduser().exists():
            raise UserError(f"There is no file or folder {str(name)!r}. Give images or folders of images.")


def or_a_model(folder: str | os.PathLike[str]) -> str:
    """What to say besides of a folder without images: it may be a model that was given in their place."""
    held = [name for name in ("config.json", "model.safetensors", "run.json") if Path(folder, name).is_file()]
    return f" It is a folder of a model ({', '.join(held)}): were model and images swapped?" if held else ""


def refuse_missing_split(path: str | None) -> None:
    """UserError for a manifest that is not there, unless it is one of the Hub."""
    if path is not None and not path.startswith("hub:") and not Path(path).exists():
        raise UserError(f"There is no {path}. Correct the path, or write a split with `hf-lowlabel split`.")


def refuse_missing_labels(path: str | None) -> None:
    """UserError for labels that are not there."""
    if path is not None and not Path(path).expanduser().exists():
        raise UserError(
            f"There is no file or folder {path!r} with labels. Give a table with the columns file_name and label, or a "
            "folder that `hf-lowlabel select` or `loop` wrote."
        )


def refuse_written(place: str | Path | None, overwrite: bool) -> None:
    """UserError for an output that is there; of several processes the first one says it, before it writes there."""
    first = os.environ.get("RANK", "0") == "0"
    if place is not None and first and not overwrite and Path(place).exists():
        raise UserError(f"{place} is there already. Give another --output, or --overwrite to replace it.")
