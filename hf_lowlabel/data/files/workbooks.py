"""Workbooks (.xlsx) as people fill them in: several sheets, a title above the table, merged cells, formulas."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_bytes
from ...text import warn
from ..labels.columns import FILE_COLUMNS, Rows, column_called, headers

TITLES = 10  # rows above the names of the columns


def of_xlsx(path: Path) -> Rows:
    """The first sheet with a column of file names, else the first that holds something.

    Raises:
        UserError: it is no whole workbook, it is empty, or formulas in it have no results.
    """
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path.name} is a workbook, which openpyxl reads: pip install openpyxl. Or save it as 'CSV UTF-8'."
        ) from None
    import zipfile

    content = read_bytes(path)
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{path.name} is no whole workbook: {error}") from error
    sheets = {sheet.title: rows for sheet in book.worksheets if (rows := filled_rows(sheet))}
    if not sheets:
        raise UserError(f"There is nothing in the workbook {path.name}.")
    at = {title: header_row(rows) for title, rows in sheets.items()}
    name = next((title for title in sheets if at[title] is not None), next(iter(sheets)))
    if others := [title for title in sheets if title != name]:
        warn(f"The sheet {name!r} of {path.name} is read, and not {', '.join(others)}.")
    rows = sheets[name][at[name] or 0 :]
    if any(cell is None for _, cells in rows for cell in cells):
        refuse_formulas(openpyxl.load_workbook(io.BytesIO(content))[name], book[name], path)
    names = headers(rows[0][1], path.name)
    return [(number, dict(zip(names, cells))) for number, cells in rows[1:]]


def filled_rows(sheet: Any) -> list[tuple[int, list]]:
    """(number, cells) of the rows that hold something; a cell that is merged over rows counts in each."""
    merged = {}
    for area in sheet.merged_cells.ranges:
        if area.min_col == area.max_col:
            value = sheet.cell(area.min_row, area.min_col).value
            merged |= {(row, area.min_col): value for row in range(area.min_row, area.max_row + 1)}
    out = []
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [merged.get((number, column), cell) for column, cell in enumerate(cells, start=1)]
        if any(map(is_filled, cells)):
            out.append((number, cells))
    return out


def header_row(rows: Sequence[tuple[int, list]]) -> int | None:
    """Which row names the columns, one of them that of the files."""
    for k, (_, cells) in enumerate(rows[:TITLES]):
        if column_called([str(cell) for cell in cells if cell is not None], FILE_COLUMNS) is not None:
            return k
    return None


def refuse_formulas(formulas: Any, values: Any, path: Path) -> None:
    """Raises UserError where a formula was never computed: its cell would count as empty."""
    for row in formulas.iter_rows():
        for cell in row:
            if cell.data_type == "f" and values[cell.coordinate].value is None:
                raise UserError(
                    f"{path.name}: cell {cell.coordinate} is a formula without a result. Open the workbook in a "
                    "spreadsheet and save it, or save it as 'CSV UTF-8'."
                )


def is_filled(cell: Any) -> bool:
    return cell is not None and str(cell).strip() != ""
