"""The rows of a table of finished labels: a column of file names, and one of labels or one for each class."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files.table_files import decoded, read_table
from ..data.labels.columns import FILE_COLUMNS, PICTURES, cells_of, column_called, columns_of, without_header
from ..data.labels.commas import at_commas
from ..data.labels.labels import LabelRules, is_list, joined, label_column, label_text, parts_of, raw_parts
from ..data.labels.multi_hot import multi_hot
from ..data.labels.numbers import of_numbers
from ..data.labels.several import label_list
from ..data.labels.ticks import (
    Columns,
    emptied,
    one_of_columns,
    refuse_strays,
    switches,
    warn_columns_unread,
    whole_answers,
    with_blanks,
    without_nothing,
)
from ..data.splits.split_names import split_column
from ..errors import UserError
from ..table_writer import meant

log = logging.getLogger("hf_lowlabel")
Rows = list[tuple[int, dict]]


def read_rows(path: Path, rules: LabelRules) -> tuple[Rows, list[str]]:
    """The rows of a table, in which file_name, label and split are called so.

    Args:
        path: the file.
        rules: what says that there is no label, and whether an image may have several classes.

    Returns:
        (number of the row, row by column, with "more" for the cells of all other columns, of which those called in
        "of_split" say its split), and the classes where each has a column.

    Raises:
        UserError: it cannot be read, or says nothing of files or of classes.
    """
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r}. Give labels.csv or a Label Studio export.")
    table = read_table(path)
    rows = [(number, {str(meant(column)): meant(cell) for column, cell in row.items()}) for number, row in table]
    if not rows:
        head = decoded(path).split("\n", 1)[0].strip() if path.suffix.lower() in (".csv", ".tsv") else ""
        raise UserError(f"There is no label in {path.name}: it has the columns {head or '(none)'}, and no row below.")
    columns = columns_of(row for _, row in rows)
    files, labels = column_called(columns, FILE_COLUMNS) or of_pictures(columns, rows), label_column(columns, None)
    own = {"id": column_called(columns, ("id",)), "skipped": column_called(columns, ("skipped",))}
    said = split_column(cells_of((row for _, row in rows), columns))
    of_split = said.columns if said else ()
    if files is None and without_header(columns):
        raise UserError(
            f"{path.name} begins with {', '.join(columns[:3])}, which are no names of columns. Put a line such as "
            "file_name,label above it."
        )
    if files is None:
        raise UserError(
            f"{path.name} has the columns {', '.join(columns)}. Call the one with the file names file_name."
        )
    if labels is None:
        labels = only_other(columns, rows, {files, *own.values(), *of_split}, path.name)
    names: list[str] = []
    if labels is None:  # the numbers that Label Studio's own columns hold are no classes
        others = [c for c in columns if c not in (files, *own.values(), *of_split) and "annotation_id" not in columns]

        def row_name(k: int) -> str:
            return f"Row {rows[k][0]}"

        cells = emptied(cells_of((row for _, row in rows), others), rules.no_label)
        refuse_strays(cells, path.name, row_name, one_each=not rules.several)
        found, texts = switches(cells), one_of_columns(cells)
        if not found or not rules.several and texts is None:
            more = ", or give --task multilabel for classes that each have a column" if found else ""
            raise UserError(
                f"{path.name} has the columns {', '.join(columns)}. Call the one with the classes label{more}."
            )
        warn_columns_unread(others, found, path.name)
        if rules.several:
            found = without_nothing(with_blanks(found, path.name), path.name, row_name)
            texts = of_several(path, found, lambda k: f"row {rows[k][0]}", rules)
        names = list(found)
        labels = "label"
        rows = [(number, {**row, labels: text}) for (number, row), text in zip(rows, texts)]
    elif rules.several:
        given = [row.get(labels) for _, row in rows]
        lists = all(cell is None or isinstance(cell, (str, list)) for cell in given)
        hot = multi_hot(given, path.name, lambda k: f"row {rows[k][0]}", rules) if lists else None
        if hot is not None:
            names = [str(k) for k in range(hot.shape[1])]
            rows = [(number, {**row, labels: of_marks(names, marks)}) for (number, row), marks in zip(rows, hot)]
    own |= {"label": labels, "file_name": None if files == own["id"] else files}
    more = ["annotation_id"] if "annotation_id" in columns else []
    rest = [column for column in columns if column not in {*own.values(), files, *names}]
    return [
        (
            number,
            {key: row.get(column) for key, column in own.items() if column}
            | {key: row.get(key) for key in more}
            | ({} if part is None else {"split": part, "of_split": of_split})
            | {"more": {column: row.get(column) for column in rest}},
        )
        for (number, row), part in zip(rows, said.said if said else [None] * len(rows))
    ], names


def of_pictures(columns: Sequence[str], rows: Rows) -> str | None:
    """The one column that holds names of picture files alone, whatever the language it is called in; or None."""
    cells = {c: [str(cell).strip() for _, row in rows if (cell := row.get(c)) not in (None, "")] for c in columns}
    found = [c for c, texts in cells.items() if texts and all(text.lower().endswith(PICTURES) for text in texts)]
    return found[0] if len(found) == 1 else None


def only_other(columns: Sequence[str], rows: Rows, own: Collection[str | None], where: str) -> str | None:
    """The column of labels where a table has no other besides those it is known to have; a warning names it."""
    others = [column for column in columns if column not in own]
    if len(others) != 1 or "annotation_id" in columns or switches(cells_of((row for _, row in rows), others)):
        return None
    log.warning("the column %r of %s is read as the labels", others[0], where)
    return others[0]


def of_several(path: Path, found: Columns, row: Callable[[int], str], rules: LabelRules) -> list[str | None]:
    """All classes of each row, as a;b, by columns of yes and no."""
    if odd := [name for name in found if parts_of(name) != [name]]:
        raise UserError(
            f"The column {odd[0]!r} of {path.name} cannot be one of several classes. Give it another name, without ; "
            "or |."
        )
    labels = np.array([[-1 if mark is None else mark for mark in marks] for marks in found.values()], np.int8).T
    return [of_marks(found, marks) for marks in whole_answers(labels, path.name, row, rules).tolist()]


def of_marks(names: Iterable[str], marks: Iterable[int]) -> str | None:
    """The classes with a 1 as a;b; None where any has -1."""
    pairs = [*zip(names, marks, strict=True)]
    return None if any(mark < 0 for _, mark in pairs) else joined(name for name, mark in pairs if mark)


def cell_text(cell: Any, where: str, several: bool) -> str | None:
    """A label as text; a list of several classes as a;b."""
    if several and (isinstance(cell, (list, tuple, dict)) or isinstance(cell, str) and is_list(cell)):
        labels = label_list(cell, where)
        return None if labels is None else joined(labels)
    return label_text(cell, f" in {where}")


def between_commas(texts: Sequence[str | None], rows: Rows, where: str, known: list[str]) -> list[str | None]:
    """Labels as a;b, where commas stand between the classes of an image."""
    if any(isinstance(cell, (list, tuple, dict)) or is_list(str(cell)) for cell in (row["label"] for _, row in rows)):
        return [*texts]
    return [joined(label) if isinstance(label, list) else label for label in at_commas(texts, where, known)]


def numbered(
    texts: Sequence[str | None], where: str, known: list[str], several: bool, notes: list[str]
) -> list[str | None]:
    """Labels with whole numbers as such, where all are numbers, and with the zeros before them that a class has."""
    parts = [raw_parts(text) if text and several else [text] if text else [] for text in texts]
    padded = with_zeros({part for some in parts for part in some}, known)
    if padded:
        one = min(padded)
        notes.append(
            f"{where} says {one!r}, and {padded[one]!r} is a class: spreadsheets take off zeros; it is read so"
        )
        parts = [[padded.get(part, part) for part in some] for some in parts]
        texts = [";".join(some) if some else text for some, text in zip(parts, texts)]
    read = of_numbers([some for some in parts if some], f"The column of labels in {where}", known)
    return [
        ";".join(read.get(part, part) for part in some) if read and some else text for some, text in zip(parts, texts)
    ]


def with_zeros(labels: Collection[str], known: list[str]) -> dict[str, str]:
    """Numbers that are no class -> the one class that is that number with zeros before it."""
    padded: dict[int, list[str]] = {}
    for name in known:
        if name.isdecimal():
            padded.setdefault(int(name), []).append(name)
    out = {}
    for label in labels:
        whole = label.removesuffix(".0")
        if (
            label not in known
            and whole.isdecimal()
            and whole not in known
            and len(some := padded.get(int(whole), [])) == 1
        ):
            out[label] = some[0]
    return out


# ---- what is wrong with them -----------------------------------------------------------------------------------------
SHOWN = 10  # faults listed
WAYS = {
    "skip_missing": "--skip-missing leaves out rows that name no image",
    "skip_conflicts": "--skip-conflicts leaves images without a label that have two",
}


class LabelFaults(UserError):
    """Faults of finished labels. flags: those of `WAYS` by which some of them are left out and listed instead."""

    flags: Collection[str] = ()

    def with_ways(self) -> UserError:
        """The same, for whoever has these flags."""
        ways = "; ".join(WAYS[name] for name in WAYS if name in self.flags)
        return UserError(f"{self}\n{ways}, and lists them." if ways else str(self))


def refuse(faults: list[str], path: Path, flags: Collection[str] = ()) -> None:
    """LabelFaults where there are any."""
    if faults:
        listed = "\n  ".join(faults[:SHOWN]) + (
            f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        )
        count = f"is {len(faults)} fault" if len(faults) == 1 else f"are {len(faults)} faults"
        error = LabelFaults(f"There {count} in {path.name}, and nothing was changed:\n  {listed}")
        error.flags = flags
        raise error
