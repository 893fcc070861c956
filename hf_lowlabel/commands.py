"""Builds the commands printed for a person to paste: quoted, with the same data settings, into an unused folder.

No torch is imported here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import Config, DataArguments
from .errors import UserError

SOURCE = tuple(
    "dataset dataset_config dataset_split dataset_revision image_column label_column "
    "no_label skip_missing skip_conflicts plain_folders value_range pages".split()
)
MASKS = ("mask_column", "classes", "mask_format", "mask_ignore", "instances")
ROUND = tuple(  # of `auto`, which hold for the next round too
    "minutes no_train to_label image_size stored_size architecture test_dataset_split text_model class_names prompts "
    "features seed device max_bad".split()
)
DONE = "advice.html"  # of `auto`, written last: a folder with it is finished
UNKNOWN = "IMAGES"  # in the place of a data set that nobody knows
MODEL = "MODEL"  # likewise, of a model that there was: without it the command would take the usual one


def command(verb: str, *given: str | Path, **flags: Any) -> str:
    """`hf-lowlabel VERB GIVEN ... --flag value ...`: of a list every value, of True the flag alone, of None nothing."""
    words = ["hf-lowlabel", verb, *map(str, given)]
    for name, value in flags.items():
        values = [] if value is True else value if isinstance(value, (list, tuple)) else [value]
        if value is not None and value is not False and value not in ([], ()):
            given_as = [str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values]
            words += [f"--{name.replace('_', '-')}", *given_as]
    return shlex.join(words)


def data_flags(values: Mapping[str, Any], names: tuple[str, ...] = SOURCE) -> dict[str, Any]:
    """Those settings of data, out of many settings by name, that are not what they are without being given."""
    usual = vars(DataArguments())
    given = {name: values[name] for name in names if name in values and values[name] is not usual[name]}
    # A DataFrame compares its cells, so that the data are given if they are not None.
    return {name: value for name, value in given.items() if name == "dataset" or value != usual[name]}


def auto_command(said: Mapping[str, Any], task: str, **flags: Any) -> str:
    """`auto` on the data, with the model and what else was said for every round, settings by name; the folder that it
    writes is free."""
    known = data_flags(said, (*SOURCE, *MASKS)) | {name: said[name] for name in ("model", *ROUND) if name in said}
    flags = {"task": task if task != Config.task else None, **known, **flags}
    flags.setdefault("dataset", UNKNOWN)
    usual = default_folder(flags["dataset"])
    if not flags.get("output_dir") and (place := free(usual)) != Path(usual):
        flags["output_dir"] = place
    return command("auto", **flags)


def default_folder(dataset: Any) -> str:
    """Where `auto` writes when nothing is said."""
    return f"runs/auto-{slug(dataset)}"


def slug(dataset: Any) -> str:
    """What a folder is called after data of a path, a Hub id or in memory."""
    name = Path(dataset).name if isinstance(dataset, (str, Path)) else "memory"
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower() or "data"


def free(path: str | Path) -> Path:
    """The path, or with a number behind it where something is there: runs/1, runs/1-2, runs/1-3."""
    path, number = Path(path), 1
    found = path
    while found.exists() and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def without(flag: str, words: Sequence[str]) -> list[str]:
    """A command line without a flag and its value."""
    at = {i for i, word in enumerate(words) if word == flag}
    return [w for i, w in enumerate(words) if i not in at and i - 1 not in at and not w.startswith(f"{flag}=")]


def elsewhere(words: Sequence[str], folder: str | Path) -> str:
    """A command line of a search into another folder than this, with the features that are in it."""
    features = Path(folder, "features")
    kept = [] if "--features" in words or not features.is_dir() else ["--features", str(features)]
    return shlex.join([*without("--output-dir", words), *kept, "--output-dir", str(free(folder))])


def refuse_finished(folder: str | Path, words: Sequence[str] = ()) -> None:
    """UserError for the folder of a search that came to its end, before libraries and data are loaded; of several
    processes the first one says it, before it writes there itself.

    words: of the command line that named the folder; the message has it with another one, and the features there are.
    """
    if os.environ.get("RANK", "0") == "0" and (Path(folder).expanduser() / DONE).exists():
        other = str(free(folder))
        again = f" All of it: `{elsewhere(words, folder)}`." if words else ""
        raise UserError(
            f"output_dir {folder} is not empty: a search is finished there, and cannot resume. Give another "
            f"--output-dir, such as {shlex.quote(other)}.{again}"
        )
