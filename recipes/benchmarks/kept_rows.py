"""Rows of a benchmark that are kept as they come, so that it may be stopped and started again."""

from __future__ import annotations

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
