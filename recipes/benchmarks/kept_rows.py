"""Rows of a benchmark that are kept as they come, so that it may be stopped and started again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows_of(file: Path, cases: Iterable[Row], measure: Callable[..., Row]) -> list[Row]:
    """All rows of a file, with those of `cases` that it lacked: a case and what `measure(**case)` found, one a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for case in cases:
        if any(case.items() <= row.items() for row in rows):
            continue
        rows.append({**case, **measure(**case)})
        with open(file, "a") as out:
            out.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    return rows


def check_settings(file: Path, args: argparse.Namespace, *names: str) -> None:
    """SystemExit where the rows of a file are of other settings than these, which are noted beside it at first: they
    would be taken for rows of these. Models go by their last name."""
    note, given = file.with_suffix(".settings.json"), {name: getattr(args, name) for name in names}
    given |= {name: Path(given[name]).name for name in {"model", "encoder"} & given.keys()}
    known = json.loads(note.read_text()) if note.is_file() and file.is_file() else given
    if other := [name for name in names if known.get(name) != given[name]]:
        flag = f"--{other[0].replace('_', '-')}"
        raise SystemExit(f"{file} is of {flag} {known.get(other[0])}. Give this, or another --output.")
    file.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(given))
