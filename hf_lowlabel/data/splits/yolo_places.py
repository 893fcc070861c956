"""YOLO's data.yaml, whose places are those of folders that are called as splits, or of lists: it is refused where it
says more than they."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_text
from ..files.folders import ALIASES
from ..files.split_words import split_said
from ..files.table_files import plain_name
from .pool import Pool, files_ending
from .split_names import HELD
from .split_roots import OF_YOLO, around_splits, split_folders

LARGEST = 2**20  # bytes of a YAML file
SPLIT_KEYS = re.compile(rf"(?:^|[{{,])[ \t]*['\"]?({'|'.join(ALIASES)})['\"]?\s*:", re.MULTILINE)


def refuse_places(path: Path, pool: Pool) -> None:
    """Raises UserError where a file says of a folder or a list that is there that it is of a split which is held out,
    and its images lie in no folder of a split: they would be learned from."""
    around = around_splits(path)
    opened = tuple(folder for name, folder in split_folders(around)[0].items() if name in ALIASES)
    for file in files_ending(path, (".yaml", ".yml")):
        said = content(file)
        places = [(key, one) for key, some in said.items() for one in (some if isinstance(some, list) else [some])]
        known = [(key, plain_name(one)) for key, one in places if key in ALIASES and isinstance(one, str)]
        training = {one for key, one in known if split_said([key]) == "train"}  # examples are tested as learned
        for key, one in known:
            there = place_of(path, one, pool) if split_said([key]) in HELD and one not in training else None
            if there is not None and not any(there == folder or folder in there.parents for folder in opened):
                raise UserError(
                    f"{file.name} says {key}: {one}, whose images must not be learned from, and no folder or list is "
                    f"called so. Put them into a folder {key}/ beside one called train/, or their names into "
                    f"{key}.txt; or take the line away."
                )


def place_of(path: Path, said: str, pool: Pool) -> Path | None:
    """The folder of images or the list here that is the longest end of a place."""
    parts = [part for part in said.split("/") if part not in ("", ".", "..")]
    for k in range(len(parts)):
        there, inside = path.joinpath(*parts[k:]), f"{'/'.join(parts[k:])}/"
        if any(id.startswith(inside) for id in pool.every.ids):
            return there
        if said.lower().endswith(".txt") and "\0" not in said and len(inside) < 256 and there.is_file():
            return there
    return None


def content(file: Path) -> dict[Any, Any]:
    """What a file of YAML says by its keys; nothing where it is of another program. One that is called as YOLO's and
    cannot be read is told."""
    import yaml

    try:
        text = read_text(file) if file.is_file() and file.stat().st_size <= LARGEST else ""
        if file.name not in OF_YOLO and len({*SPLIT_KEYS.findall(text)}) < 2:  # or one of many beside images
            return {}
        said = yaml.safe_load(text)
    except (yaml.YAMLError, UserError, ValueError, RecursionError) as error:
        if file.name in OF_YOLO:
            warnings.warn(f"{file.name} is not read for splits of images: {' '.join(str(error).split())}", stacklevel=1)
        return {}
    return said if isinstance(said, dict) else {}
