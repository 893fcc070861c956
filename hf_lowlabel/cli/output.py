"""Answers for programs: --json prints one JSON object to stdout, and nothing else."""

from __future__ import annotations

import argparse
import json
from typing import Any


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text, for programs")


def print_json(value: dict[str, Any]) -> None:
    """NaN and infinity, which JSON lacks, are null; paths are text."""
    print(json.dumps(_plain(value), ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
