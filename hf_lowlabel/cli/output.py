"""Answers for programs (--json prints one JSON object to stdout, and nothing else), and settings as KEY=VALUE."""

from __future__ import annotations

import argparse
import ast
import json
from typing import Any

from ..errors import UserError


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text, for programs")


def print_json(value: dict[str, Any]) -> None:
    """NaN and infinity, which JSON lacks, are null; paths are text. Of a launch the first process says it."""
    from ..distributed import is_main_process

    if is_main_process():
        print(json.dumps(_plain(value), ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


WORDS = {"true": True, "false": False, "none": None, "null": None}  # as Python and YAML write them


def key_values(pairs: list[str], flag: str = "--method-args") -> dict[str, object]:
    """["tau=0.9", "name=x"] -> {"tau": 0.9, "name": "x"}."""
    out: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"{pair!r} in {flag} has no value. Write KEY=VALUE, for example tau=0.9.")
        try:
            out[key.replace("-", "_")] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: brackets without end
            out[key.replace("-", "_")] = WORDS.get(text.lower(), text)
    return out
