"""suggestions.json of a folder to label: what a model takes each image for, and why it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..files import read_json, write_text
from .labels import clean

Suggestions = dict[str, tuple[tuple[str, float] | None, str]]  # id -> (the likeliest class, if any; why it is shown)


def write_suggestions(folder: Path, said: Suggestions, own: Mapping[str, str] | None = None) -> None:
    """id -> (the most likely class and its probability, or None; why the image is here), for the page. own: the label
    that an image has already, which the page keeps unless another is given."""
    found = {id: {"looks_like": like, "why": why} for id, (like, why) in said.items()}
    for id in found.keys() & (own or {}).keys():
        found[id]["own"] = (own or {})[id]
    write_text(folder / "suggestions.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def read_suggestions(folder: Path) -> dict[str, dict]:
    """id -> {"class", "probability", "why"}, and "own" where it has a label, as far as they are known.

    Raises:
        UserError: the file is not as `write_suggestions` writes it.
    """
    path = folder / "suggestions.json"
    if not path.is_file():
        return {}
    try:
        out = {}
        for id, said in read_json(path).items():
            name, p = said["looks_like"] or ("", 0.0)
            out[id] = {"class": clean(name), "probability": float(p), "why": str(said["why"])}
            out[id] |= {"own": clean(said["own"])} if "own" in said else {}
        return out
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it: the page does without suggestions."
        ) from error
