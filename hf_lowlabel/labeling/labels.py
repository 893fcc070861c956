"""Chosen images and their labels: selection.json and labels.csv. No label is ever lost.

    file_name,id,label,skipped        one row per chosen image; an empty label = not labeled

Every fault is found before anything is written, and named with its row. Rows are matched by file name or by id, so that
either may have been edited; labels.csv itself is only ever replaced whole.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.files.table_files import match_names, plain_name
from ..data.files.uploads import Uploads
from ..data.labels.labels import RULES, LabelRules, joined, parts_of, tell_dates
from ..data.labels.several import contradicts, merged_labels
from ..data.splits.split_names import split_named
from ..errors import UserError, nearest
from ..fields import check_types
from ..files import read_json, read_text, write_text
from ..table_writer import inert
from .label_faults import class_faults, list_faults, several_hint
from .label_rows import SHOWN, between_commas, cell_text, numbered, read_rows, refuse

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from ..data.splits.splits import Split

COLUMNS = ("file_name", "id", "label", "skipped")
OF_SPLIT = ("class_names", "labeled", "validation", "test", "held_labels", "passed_over", "reviewed")
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?|[+-]?\.\d+")


@dataclass
class Asked:
    """What `select` asked for: selection.json of a folder. files: name in images/ -> id in the data set."""

    dataset: str
    fingerprint: str | None
    files: dict[str, str]
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    class_names: list[str] = field(default_factory=list)
    task: str = "classification"
    strategy: str | None = None
    seed: int = 0
    model: str | None = None
    given: dict = field(default_factory=dict)  # to `select`: data and model, by the names of their settings
    labeled: dict[str, str | None] = field(default_factory=dict)  # before this round; None: with a mask
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    held_labels: dict[str, str] = field(default_factory=dict)  # of those two, where they are not the data's
    passed_over: list[str] = field(default_factory=list)  # before this round, and not to be asked for again
    reviewed: list[str] = field(default_factory=list)  # before this round, by a second look at their labels
    report: dict = field(default_factory=dict)
    class_colors: dict = field(default_factory=dict)  # name -> its colours, where the masks of the data are of colours

    @classmethod
    def of(cls, dataset: ImageDataset, split: Split | None = None, **more: Any) -> Asked:
        """What is asked for of a data set, which knows all that a split says; more: further fields, or others."""
        own = {name: getattr(dataset, name) for name in ("fingerprint", "config", "split", "revision")}
        known = {} if split is None else {name: copy.copy(getattr(split, name)) for name in OF_SPLIT}
        return cls(
            **{"dataset": dataset.name, "files": {}, "class_names": [*dataset.class_names], **own, **known, **more}
        )

    def save(self, folder: Path) -> None:
        write_text(folder / "selection.json", json.dumps(asdict(self), indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: str | Path) -> Asked:
        path = Path(folder) / "selection.json"
        content = read_json(path, "Give a folder that `hf-lowlabel select` wrote, as it wrote it.")
        if not isinstance(content, dict):
            raise UserError(f"{path} holds no mapping. Give a folder that `hf-lowlabel select` wrote, as it wrote it.")
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        check_types(cls, known, str(path))
        strange = [n for n in known.get("files", ()) if {*"/\\"} & {*n} or n in (".", "..") or not n.isprintable()]
        if strange:
            raise UserError(
                f"{path} names {strange[0]!r}, which is no file of images/. Give a folder as it was written."
            )
        return cls(**known)

    def classes(self, folder: Path) -> list[str]:
        """The classes of classes.txt, which a person may edit; else those of the data."""
        path = folder / "classes.txt"
        return read_classes(path) if path.is_file() else list(self.class_names)


def read_classes(path: str | Path) -> list[str]:
    """One class a line, in order, each once."""
    # by the ends of lines that editors write: names of the data may hold others
    lines = re.split("\r\n|\r|\n", read_text(path, "Give a list of classes, UTF-8 text with one a line."))
    return list(dict.fromkeys(clean(line) for line in lines if clean(line)))


@dataclass
class Labels:
    """labels: id -> class. skipped: ids a person passed over. notes: what was odd but harmless. left_out: (name, why)
    of rows that are not used. why: ids of `skipped` -> the reason that was given. classes: those that have a column.
    parts: id -> split ("train", "test", ...), where columns say so. more: column of a person's own, such as those, ->
    id -> cell."""

    labels: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    more: dict[str, dict[str, str]] = field(default_factory=dict)


def clean(text: object) -> str:
    return unicodedata.normalize("NFC", str(text or "").strip())


# ---- labels.csv ------------------------------------------------------------------------------------------------------
def read_labels(
    path: str | Path,
    task: Asked,
    *,
    classes: list[str] | None = None,
    new_classes: bool = False,
    allow_missing: bool = False,
    rules: LabelRules = RULES,
) -> Labels:
    """The labels of a table, or one UserError that lists all its faults.

    Args:
        path: the file.
        task: what was asked.
        classes: the names a label may have (None or empty: any).
        new_classes: any name counts, beside those.
        allow_missing: images without a row are left unlabeled.
        rules: what means no label, and whether rows without an image and contradictions are left out.

    Raises:
        UserError: lists every fault.
    """
    path = Path(path)
    rows, names = read_rows(path, rules)
    by_file = {clean(name): id for name, id in task.files.items()}
    ids = set(task.files.values())
    out, faults, seen, torn, shared = Labels(classes=names), [], dict[str, int](), set[str](), 0
    by_id = list[str]()  # file names that are not known
    flags = set[str]()  # by which faults are left out
    texts = texts_of(rows, path, None if names else classes, rules, out.notes)
    find_names(rows, by_file, ids, out.notes)
    for (line, row), text in zip(rows, texts):
        text = joined(parts_of(text)) if text and rules.several and not contradicts(text) else text
        label, skipped, strange = text or "", bool(clean(row.get("skipped"))), list[str]()
        advise = len(faults) + len(out.left_out) < SHOWN  # for each of ten thousand rows it would take hours
        known = image_of_row(line, row, label, by_file, ids, by_id, strange, advise)
        if rules.skip_missing and known is None:
            out.left_out += [(plain_name(row.get("file_name")), fault) for fault in strange]
        else:
            faults += strange
            flags |= {"skip_missing"} if strange else set()
        if known is None:
            continue
        keep(out.more, known, row["more"], row.get("of_split", ()))
        if "split" in row and out.parts.setdefault(known, part := split_named(row["split"])) != part:
            faults.append(f"row {line}: {known!r} is of split {part!r} here, and of {out.parts[known]!r} above")
        before = out.labels.get(known, "")
        if (
            rules.several and known in seen and known not in torn and (both := merged_labels(before, label)) is not None
        ):  # one class a row
            if both:
                out.labels[known] = both
                out.skipped.discard(known)
            shared += both != before
            continue
        if known in seen and before != label:
            if rules.skip_conflicts:
                why = f"row {line} says {label!r}, and row {seen[known]} {out.labels.pop(known, '')!r}"
                out.left_out.append((known, why))
                torn.add(known)
            else:
                hint = several_hint(before, label, rules.several)
                faults.append(f"row {line}: {known!r} is {label!r} here and {before!r} in row {seen[known]}{hint}")
                flags.add("skip_conflicts")
            continue
        if known in torn:
            continue
        seen[known] = line
        if label:
            out.labels[known] = label
        elif skipped:
            out.skipped.add(known)
            if (why := clean(row["skipped"])) != "x":
                out.why[known] = why
    faults += [] if allow_missing else missing_rows(task, seen)
    if by_id:
        such = f"{len(by_id)}, such as {by_id[0]!r}"
        out.notes.append(f"rows whose file name is not known are matched by their id ({such})")
    if shared:
        out.notes.append(f"{shared} rows name a further class of an image of another row; it has all of them")
    where = {id: f"row {line}" for id, line in seen.items()}
    if rules.several and not names and classes is not None:
        faults += list_faults(out.labels, where, classes)
    faults += class_faults(out.labels, where, classes, new_classes, rules.several)
    refuse(faults, path, flags)
    out.more = {name: cells for name, cells in out.more.items() if cells or not re.fullmatch(r"column \d+", name)}
    return out


def texts_of(
    rows: Sequence[tuple[int, dict]], path: Path, classes: list[str] | None, rules: LabelRules, notes: list[str]
) -> list[str | None]:
    """The label of each row as text, by the classes it may have; None: those of its columns, or any."""
    tell_dates([row["label"] for _, row in rows], path.name)
    texts = [cell_text(row["label"], f"row {line} of {path.name}", rules.several) for line, row in rows]
    texts = rules.without_none(texts, path.name)
    if classes is not None:  # on a page a class is added by its name
        texts = numbered(texts, path.name, classes, rules.several, notes)
        texts = between_commas(texts, rows, path.name, classes) if rules.several else texts
    return texts


def missing_rows(task: Asked, seen: Collection[str]) -> list[str]:
    """What is wrong where chosen images have no row."""
    missing = [id for id in task.files.values() if id not in seen]
    if not missing:
        return []
    return [
        f"{len(missing)} of {len(task.files)} images have no row, such as {missing[0]!r}; put the row back (an empty "
        "label is fine), or give --allow-missing to leave them unlabeled"
    ]


def keep(more: dict[str, dict[str, str]], id: str, cells: dict[str, Any], once: Collection[str]) -> None:
    """Add what a row says in columns of a person's own; an image of several rows has all of it, but one cell of those
    that say its split (`once`)."""
    for column, cell in cells.items():
        there, text = more.setdefault(column, {}), "" if cell is None else str(cell)
        if text and text not in (before := there.get(id, "")).split("; "):
            there[id] = f"{before}; {text}" if before and column not in once else before or text


def find_names(rows: list[tuple[int, dict]], by_file: dict[str, str], ids: set[str], notes: list[str]) -> None:
    """Names that mean an image by the end they share with its name are replaced by that; a note counts them."""
    names, uploads = [plain_name(row.get("file_name")) for _, row in rows], Uploads(by_file)
    for k, name in enumerate(names):
        if name not in by_file and (original := uploads.original(name)) != name:
            rows[k][1]["file_name"] = names[k] = original
    unknown = [k for k, name in enumerate(names) if name not in by_file and rows[k][1].get("id") not in ids]
    found, loose = match_names(names, list(by_file))
    changed = [k for k in unknown if found[k] is not None]
    for k in changed if loose else ():
        rows[k][1]["file_name"] = found[k]
    changed = [k for k in changed if names[k] != f"images/{found[k]}"]  # as the folder of `select` has them
    if loose and changed:
        first = changed[0]
        notes.append(
            f"{len(changed)} file names are matched by the end they share with an image, such as {names[first]!r} with "
            f"{found[first]!r}"
        )


def image_of_row(
    line: int,
    row: dict,
    label: str,
    by_file: dict[str, str],
    ids: set[str],
    by_id: list[str],
    faults: list[str],
    advise: bool,
) -> str | None:
    """The id of the chosen image that a row is about, by its file name or its id; None where it is about none.

    What is wrong with the row is added to `faults`, an unknown name beside a known id to `by_id`. advise: look for the
    name that may be meant among all names.
    """
    name, id = plain_name(row.get("file_name")), plain_name(row.get("id"))
    if "annotation_id" in row:  # Label Studio's CSV, whose id is the number of a task
        id = ""
    if name not in by_file:  # with the folder it lies in, as spreadsheets and scripts may write it
        name = name.rsplit("images/", 1)[-1]
    found = by_file.get(name)
    known = next((known for known in (found, id) if known in ids), None)
    if known is None:
        if label or name or id:
            near = nearest(name or id, [*by_file, *ids]) if advise else []
            faults.append(
                f"row {line}: no image has the file name {name!r}"
                + (f" or the id {id!r}" if id else "")
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return None
    if found is not None and id in ids and id != found:
        faults.append(
            f"row {line}: file name {name!r} is the image {found!r}, but the id says {id!r}; empty one of the two cells"
        )
        return None
    if found is None and name:
        by_id.append(name)
    return known


def write_labels(path: Path, task: Asked, labels: Labels) -> None:
    """Replace labels.csv as a whole; with the mark that lets spreadsheets see it is UTF-8, and with the columns that a
    person has added, for splits or for anything else."""
    given, skipped, why = labels.labels, labels.skipped, labels.why
    rows = [
        row_text(
            *(file, id, given.get(id, ""), why.get(id, "x") if id in skipped else ""),
            own=tuple(cells.get(id, "") for cells in labels.more.values()),
        )
        for file, id in task.files.items()
    ]
    write_text(path, "\ufeff" + "\n".join([row_text(*COLUMNS, *labels.more), *rows]) + "\n")


@functools.lru_cache(maxsize=1 << 16)  # of ten thousand rows one changes with each label
def row_text(*cells: str, own: tuple[str, ...] = ()) -> str:
    """own: cells of a person's own columns, whose numbers stay numbers in a spreadsheet."""
    safe = [*map(inert, cells), *(cell if NUMBER.fullmatch(cell) else inert(cell) for cell in own)]
    return ",".join('"' + c.replace('"', '""') + '"' if any(s in c for s in ',"\n\r;') else c for c in safe)
