"""Tables as people keep them, read by one function wherever a table is read: CSV with commas, semicolons or tabs, XLSX,
JSON, JSON lines, parquet.

Cells stay as they are: text of a CSV, text, numbers, None or lists of the others. What a cell means as a label is in
labels.py; which image a name in a table means is `match_names`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import UserError
from ...files import read_bytes
from ..labels.columns import FILE_COLUMNS, Rows, headers
from ..pixels.images import EXTENSIONS

FEW = 20  # images of one name, which are looked through one by one
TABLES = (".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".ndjson", ".parquet")


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
            from .workbooks import of_xlsx

            return of_xlsx(path)
        if kind == ".parquet":
            import pyarrow.parquet as pq

            return list(enumerate(pq.read_table(io.BytesIO(read_bytes(path))).to_pylist(), start=1))
        text = decoded(path)
        if kind == ".json":
            return list(enumerate(objects(json.loads(text, object_pairs_hook=each_once), path.name), start=1))
        if kind in (".jsonl", ".ndjson"):
            numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
            lines = [(number, json.loads(line, object_pairs_hook=each_once)) for number, line in numbered]
            if wrong := [number for number, row in lines if not isinstance(row, dict)]:
                raise UserError(f'{path.name}: line {wrong[0]} holds no object such as {{"file_name": "1.png"}}.')
            return lines
        return of_csv(text, path)
    except UserError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:  # pyarrow's errors of a damaged file are ValueErrors
        raise UserError(f"{path.name} cannot be read as a {kind[1:]} table: {error}") from error


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose last value of a name would else be the one that counts."""
    out = dict(pairs)
    if len(out) < len(pairs) and (twice := [name for name, value in pairs if out[name] != value]):
        raise ValueError(f"{twice[0]!r} is in it twice, with different values")
    return out


def decoded(path: Path) -> str:
    """UTF-8, with a mark or without; UTF-16 with its mark, as Excel saves "Unicode text"."""
    content = read_bytes(path)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 (byte {error.start}). Save it as 'CSV UTF-8'. Nothing was changed."
        ) from error
    if "\0" in text:
        raise UserError(f"{path.name} holds zero bytes, as UTF-16 without its mark does. Save it as 'CSV UTF-8'.")
    return text


def of_csv(text: str, path: Path) -> Rows:
    first, skipped = text.split("\n", 1)[0], 0
    if told := re.match(r"sep=(.)\s*$", first):  # Excel's own line
        text, skipped = text.split("\n", 1)[-1], 1
    head = text.split("\n", 1)[0]
    found = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=told[1] if told else found, strict=True)
    out = []
    try:
        reader.fieldnames = headers([name or "" for name in reader.fieldnames or ()], path.name)
        for row in reader:
            if any(row.pop(None, ())):
                raise UserError(
                    f"{path.name}: row {reader.line_num} has more cells than the header, the first line ({head:.60}). "
                    "Quote its text."
                )
            out.append((reader.line_num + skipped, row))
    except csv.Error as error:  # a quotation mark that is never closed would swallow rows
        last = out[-1][0] if out else 1
        raise UserError(
            f'{path.name} cannot be read after row {last}: {error}. Look at its quotation marks: "" inside a quoted '
            "cell stands for one."
        ) from error
    return out


def objects(content: Any, where: str) -> list[dict]:
    """The rows of JSON: a list of objects or of names, {column: [cells]} or {column: {row: cell}} as pandas
    writes it, or {file name: label}."""
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [{"file_name": name} for name in content]
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


def plain_name(value: Any) -> str:
    """A file name of a cell: NFC, with "/" and without "./"; the path of an address."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = unicodedata.normalize("NFC", "" if value is None else str(value)).strip().replace("\\", "/")
    if re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE):
        name = urlsplit(name).path
    return name.removeprefix("./")


def decoded_name(name: str) -> str:
    """A name of an address, with "%20" and the like as they are meant."""
    return unquote(name).replace("\\", "/")


def stem(id: str) -> str:
    """An id without its ending, as `PurePosixPath.with_suffix("")` but a tenth of its time: there may be millions."""
    at = id.rfind(".")
    return id[:at] if id.rfind("/") + 1 < at < len(id) - 1 else id


def match_names(names: Sequence[str], ids: Sequence[str]) -> tuple[list[str | None], int]:
    """`ImageNames.match` of images that are asked for once."""
    return ImageNames(ids).match(names)


class ImageNames:
    """The ids of images, to be found by names that are nearly theirs."""

    def __init__(self, ids: Sequence[str]):
        self.ids, self.known = ids, set(ids)
        self.called: dict[tuple[Any, ...], list[str]] = {}  # (name, how it is read) -> the ids that are called so
        self.by_folder: dict[tuple[Any, ...], dict[str, list[str]]] = {}  # the same, by one folder more

    @cached_property
    def by_base(self) -> dict[Any, list[str]]:
        found = defaultdict(list)
        for id in self.ids:
            name = id.rpartition("/")[2]
            base = stem(name)
            for key in {name, base, name.casefold(), base.casefold(), number(base)} - {None}:
                found[key].append(id)
        return found

    @cached_property
    def folders(self) -> set[str]:
        """Those that images lie in, "" for the uppermost."""
        return {id.rpartition("/")[0] for id in self.ids}

    def match(self, names: Sequence[str]) -> tuple[list[str | None], int]:
        """Which image each name means: its id, or the only id that ends alike.

        Names may have folders before them that the ids lack, or lack folders that these have, but no others than they;
        a name without an ending is that of the only image so called. Capitals and "%20" count where nothing else does,
        and zeros before a mere number, which spreadsheets drop, do not. An image is found so for one name alone, and
        only where no other is exact.

        Args:
            names: as `plain_name` gives them.

        Returns:
            The ids, None where there is none or no single one, and how many were not found exactly.
        """
        known, loose = self.known, dict[str, str]()
        for name in dict.fromkeys(names):
            if name and name not in known and (found := self.loosely(name)):
                loose[name] = found
        if lost := [name for name in dict.fromkeys(names) if name and name not in known and name not in loose]:
            below = self.below_one_folder(names)
            loose |= {name: below[name] for name in lost if name in below}
        exact, taken = {name for name in names if name in known}, Counter(loose.values())
        loose = {name: id for name, id in loose.items() if taken[id] == 1 and id not in exact}
        return [name if name in known else loose.get(name) for name in names], sum(name in loose for name in names)

    def below_one_folder(self, names: Sequence[str]) -> dict[str, str]:
        """Name -> the id that is left of it without folders that all names begin with, of which most names are ids."""
        plain = {name: decoded_name(name) for name in names if name}
        shared = len(os.path.commonprefix([name.split("/")[:-1] for name in plain.values()]))
        tails = [{name: text.split("/", depth)[-1] for name, text in plain.items()} for depth in range(1, shared + 1)]
        found = [{name: tail for name, tail in some.items() if tail in self.known} for some in tails]
        return max(found, key=len, default={})

    def loosely(self, name: str) -> str | None:
        """The id that a name means which is none; None where there is no single one."""
        for tried in dict.fromkeys((name, decoded_name(name))):
            if tried in self.known:
                return tried
            for fold in (str, str.casefold):
                base = PurePosixPath(fold(tried))
                whole = base.suffix.lower() in EXTENSIONS

                def ends_alike(id: str, fold=fold, base=base, whole=whole) -> bool:
                    return fold(id if whole else str(PurePosixPath(id).with_suffix(""))).endswith(base.name)

                if found := longest_tail(base, self.candidates(base.name, base, ends_alike, fold, ""), fold):
                    return found
            plain = PurePosixPath(tried)
            of_image = plain.suffix.lower() in EXTENSIONS
            word = plain.stem if of_image else plain.name

            def of_kind(id: str, plain=plain, of_image=of_image) -> bool:
                return not of_image or PurePosixPath(id).suffix.lower() == plain.suffix.lower()

            for fold in (str, str.casefold):
                ending = plain.suffix.lower() if of_image else "any"
                of_number = self.candidates(number(word), PurePosixPath(fold(tried)), of_kind, fold, ending)
                if found := longest_tail(PurePosixPath(fold(tried)), of_number, fold):
                    return found
        return None

    def candidates(
        self, key: Any, name: PurePosixPath, fits: Callable[[str], bool], fold: Callable[[str], str], ending: str
    ) -> list[str]:
        """Those of the ids called `key` that `longest_tail` needs to see: where there are many, as of image.jpg in
        each folder, those in the same last folders as the name, each folder looked up and never gone through for each
        name; two, which are no single one, where still many share as much. ending: of the name, which `fits` goes by.
        """
        at: tuple[Any, ...] = key, fold, ending
        if at not in self.called:
            self.called[at] = list(filter(fits, self.by_base.get(key, [])))
        ids = self.called[at]
        for depth, folder in enumerate(list(folders_of(name))[::-1], start=2):
            if len(ids) <= FEW:
                return ids
            if at not in self.by_folder:
                self.by_folder[at] = defaultdict(list)
                for id in ids:
                    parts = id.rsplit("/", depth)
                    self.by_folder[at][fold(parts[-depth]) if len(parts) >= depth else ""].append(id)
            if folder not in self.by_folder[at]:
                break
            ids, at = self.by_folder[at][folder], (*at, folder)
        return ids if len(ids) <= FEW else ids[:2]


def number(stem: str) -> int | None:
    """Of a name that is a number; None of another."""
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 40 else None


def longest_tail(name: PurePosixPath, candidates: Sequence[str], fold: Callable[[str], str] = str) -> str | None:
    """The only one of the candidates that shares most of the last folders with the name; None where a folder that
    both have before these is another."""
    folders = list(folders_of(name))[::-1]
    others = [fold(id).split("/")[-2::-1] for id in candidates]
    shared = [
        next((k for k, (a, b) in enumerate(zip(folders, of)) if a != b), min(len(folders), len(of))) for of in others
    ]
    best = [k for k, count in enumerate(shared) if count == max(shared)]
    whole = len(best) == 1 and shared[best[0]] == min(len(folders), len(others[best[0]]))
    return candidates[best[0]] if whole else None


def folders_of(name: PurePosixPath) -> Iterator[str]:
    """The folders of a name, without what stands before the first: a root, a drive, "..", which no id has."""
    parts = PurePosixPath(posixpath.normpath(name.parent)).parts
    return itertools.dropwhile(lambda part: part in ("/", "//", "..") or part.endswith(":"), parts)
