"""Files that are whole or not there: written beside their place, flushed to the disk, then moved there by one
rename."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; what stands there at the end of the block takes the place of `path`.

    An error inside the block leaves `path` as it was and nothing beside it. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    with whole(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Text in UTF-8, whatever the locale; line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """JSON in UTF-8. NaN and infinity, which JSON lacks, are a ValueError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows, all with the keys of the first, as CSV or, where the name ends in .parquet, as parquet."""
    path = Path(path)
    with whole(path) as part:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(list(rows)), part)
            return
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def is_left_over(name: str) -> bool:
    """Whether a file of this name is what a killed process left of `whole`."""
    return name.startswith(".") and name.endswith(".part")
