"""Tables that are whole or not there: CSV, whose cells no spreadsheet takes for formulas, and parquet."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .files import whole

PART = 1 << 15  # rows of a parquet file that are written at a time
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula


def write_table(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows, all with the keys of the first, as CSV or, where the name ends in .parquet, as parquet."""
    with growing_table(path) as add:
        for row in rows:
            add(row)


@contextlib.contextmanager
def growing_table(path: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """`write_table` row by row, of which few are in memory: whole at the end of the block, or not there.

    The columns of a parquet file have the types of its first `PART` rows.
    """
    path = Path(path)
    with whole(path) as part, (_parquet if path.suffix == ".parquet" else _csv)(part) as add:
        yield add


@contextlib.contextmanager
def _csv(part: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    with open(part, "w", newline="", encoding="utf-8", errors="replace") as file:
        writers: list[csv.DictWriter] = []

        def add(row: dict[str, Any]) -> None:
            if not writers:
                writers.append(csv.DictWriter(file, fieldnames=list(row)))
                writers[0].writerow({name: inert(name) for name in row})
            writers[0].writerow({name: inert(value) for name, value in row.items()})

        yield add


@contextlib.contextmanager
def _parquet(part: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []

        def flush() -> None:
            table = pa.Table.from_pylist(waiting, schema=writers[0].schema if writers else None)
            if not writers:
                writers.append(stack.enter_context(pq.ParquetWriter(part, table.schema)))
            writers[0].write_table(table)
            waiting.clear()

        def add(row: dict[str, Any]) -> None:
            waiting.append({k: _text(v) for k, v in row.items()})
            if len(waiting) == PART:
                flush()

        yield add
        if waiting or not writers:
            flush()


def _text(cell: Any) -> Any:
    """Text that can be written down: the name of a file may hold bytes that are none."""
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell


def inert(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that looks like one begins with an apostrophe, and one more
    where it begins with some, so that `meant` gives it back."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("'").startswith(FORMULA) else cell


def meant(cell: object) -> object:
    """A cell that `inert` wrote as it was before: without the apostrophe."""
    guarded = isinstance(cell, str) and cell.startswith("'") and cell.lstrip("'").startswith(FORMULA)
    return str(cell)[1:] if guarded else cell
