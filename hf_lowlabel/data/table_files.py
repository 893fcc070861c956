"""Tables as people keep them, read by one function wherever a table is read: CSV with commas, semicolons or tabs, XLSX,
JSON, JSON lines, parquet.

Cells stay as they are: text of a CSV, text, numbers, None or lists of the others. What a cell means as a label is in
labels.py; which image a name in a table means is `match_names`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from ..files import read_bytes

TABLES = (".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".ndjson", ".parquet")
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_path", "file_path", "img", "image_id", "id")
Rows = list[tuple[int, dict[str, Any]]]  # (number of the row in its file, {column: cell})


class NoTable(UserError):
    """JSON that is something else."""


def read_table(path: Path) -> Rows:
    """The rows of a table.

    Raises:
        UserError: it cannot be read, or it is no table.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".xlsx":
            return of_xlsx(path)
        if kind == ".parquet":
            import pyarrow.parquet as pq

            return list(enumerate(pq.read_table(io.BytesIO(read_bytes(path))).to_pylist(), start=1))
        text = decoded(path)
        if kind == ".json":
            return list(enumerate(objects(json.loads(text), path.name), start=1))
        if kind in (".jsonl", ".ndjson"):
            lines = [(number, json.loads(line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
            if wrong := [number for number, row in lines if not isinstance(row, dict)]:
                raise UserError(f'{path.name}: line {wrong[0]} holds no object such as {{"file_name": "1.png"}}.')
            return lines
        return of_csv(text, path)
    except UserError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:  # pyarrow's errors of a damaged file are ValueErrors
        raise UserError(f"{path.name} cannot be read as a {kind[1:]} table: {error}") from error


def decoded(path: Path) -> str:
    """UTF-8, with a mark or without; UTF-16 with its mark, as Excel saves "Unicode text"."""
    content = read_bytes(path)
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 (byte {error.start}). Save it as 'CSV UTF-8'. Nothing was changed."
        ) from error


def of_csv(text: str, path: Path) -> Rows:
    first, skipped = text.split("\n", 1)[0], 0
    if told := re.match(r"sep=(.)\s*$", first):  # Excel's own line
        text, skipped = text.split("\n", 1)[-1], 1
    head = text.split("\n", 1)[0]
    found = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=told[1] if told else found)
    reader.fieldnames = headers([name or "" for name in reader.fieldnames or ()], path.name)
    out = []
    for row in reader:
        if any(row.pop(None, ())):
            raise UserError(f"{path.name}: row {reader.line_num} has more cells than the header. Quote its text.")
        out.append((reader.line_num + skipped, row))
    return out


def headers(names: Sequence[Any], where: str) -> list[str]:
    """Names of columns without blanks around them; those without a name get their number."""
    out = [str(name).strip() if name is not None else "" for name in names]
    out = [name or f"column {number}" for number, name in enumerate(out, start=1)]
    if twice := [name for name, count in Counter(out).items() if count > 1]:
        raise UserError(f"{where} has two columns called {twice[0]!r}. Rename one.")
    return out


def of_xlsx(path: Path) -> Rows:
    """The first sheet that holds something."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path.name} is a workbook, which openpyxl reads: pip install openpyxl. Or save it as 'CSV UTF-8'."
        ) from None
    import zipfile

    try:
        book = openpyxl.load_workbook(io.BytesIO(read_bytes(path)), read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{path.name} is no whole workbook: {error}") from error
    for sheet in book.worksheets:
        rows = [(number, row) for number, row in enumerate(sheet.iter_rows(values_only=True), 1) if any(map(told, row))]
        if rows:
            width = max(len(row) for _, row in rows)
            names = headers(rows[0][1] + (None,) * (width - len(rows[0][1])), path.name)
            book.close()
            return [(number, dict(zip(names, row))) for number, row in rows[1:]]
    raise UserError(f"There is nothing in the workbook {path.name}.")


def told(cell: Any) -> bool:
    return cell is not None and str(cell).strip() != ""


def objects(content: Any, where: str) -> list[dict]:
    """The rows of JSON: a list of objects, {column: [cells]} or {column: {row: cell}} as pandas writes it, or
    {file name: label}."""
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        raise NoTable(f"{where} is a COCO file, whose objects are masks of images. Give --task segmentation.")
    values = list(content.values()) if isinstance(content, dict) else []
    lengths = {len(value) for value in values if isinstance(value, (list, dict))}
    known = {str(name).lower() for name in content} & {*FILE_COLUMNS} if values else set()
    if known and len(lengths) == 1 and all(isinstance(value, (list, dict)) for value in values):
        columns = {k: list(v.values()) if isinstance(v, dict) else v for k, v in content.items()}
        return [dict(zip(columns, cells)) for cells in zip(*columns.values())]
    if values and not any(isinstance(value, dict) for value in values):
        return [{"file_name": name, "label": label} for name, label in content.items()]
    raise NoTable(f'{where} is no list of objects such as {{"file_name": "1.png", "label": "cat"}}.')


def column_called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is among the columns, in any spelling of its letters."""
    spelled = {column.strip().lower().replace(" ", "_"): column for column in reversed(list(columns))}
    return next((spelled[name] for name in names if name in spelled), None)


def plain_name(value: Any) -> str:
    """A file name of a cell: NFC, with "/" and without "./"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = unicodedata.normalize("NFC", "" if value is None else str(value)).strip().replace("\\", "/")
    return name.removeprefix("./")


def match_names(names: Sequence[str], ids: Sequence[str], endings: frozenset[str]) -> tuple[list[str | None], int]:
    """Which image each name means: its id, or the only id that ends alike.

    Names may have folders before them that the ids lack, or lack folders that these have; a name without an ending is
    that of the only image so called. An image is found so for one name alone, and only where no other is exact.

    Args:
        names: as `plain_name` gives them.
        ids: of the images.
        endings: of image files, such as ".jpg".

    Returns:
        The ids, None where there is none or no single one, and how many were not found exactly.
    """
    known, by_base = set(ids), defaultdict(list)
    for id in ids:
        by_base[PurePosixPath(id).name].append(id)
        by_base[PurePosixPath(id).stem].append(id)
    loose: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if not name or name in known:
            continue
        base = PurePosixPath(name)
        candidates = by_base.get(base.name, [])
        if base.suffix.lower() not in endings:
            candidates = [id for id in candidates if str(PurePosixPath(id).with_suffix("")).endswith(base.name)]
        else:
            candidates = [id for id in candidates if id.endswith(base.name)]
        if found := longest_tail(base, candidates):
            loose[name] = found
    exact, taken = {name for name in names if name in known}, Counter(loose.values())
    loose = {name: id for name, id in loose.items() if taken[id] == 1 and id not in exact}
    return [name if name in known else loose.get(name) for name in names], sum(name in loose for name in names)


def longest_tail(name: PurePosixPath, candidates: Sequence[str]) -> str | None:
    """The only one of the candidates that shares most of the last folders with the name."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    folders = name.parent.parts[::-1]

    def shared(id: str) -> int:
        others = PurePosixPath(id).parent.parts[::-1]
        return next((k for k, (a, b) in enumerate(zip(folders, others)) if a != b), min(len(folders), len(others)))

    most = max(map(shared, candidates))
    best = [id for id in candidates if shared(id) == most]
    return best[0] if len(best) == 1 else None
