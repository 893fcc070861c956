"""All classes of an image that apply: lists in a table, of classes or of 0 and 1 for each class, text such as "cat;dog"
or "cat|dog", or a column for each class of 0 and 1 or other words for no and yes.

Without a list, with an empty text, empty columns or nothing but -1 in a list an image is unlabeled; "none" and an empty
list say that no class applies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import UserError
from ...text import listed, warn
from ..dataset import ArrayReader, ImageDataset, Origin, make_dataset
from ..labels.commas import at_commas
from ..labels.labels import NOTHING, RULES, LabelRules, class_order, joined, label_column, tell_alike, tell_unsure
from ..labels.multi_hot import is_hot, multi_hot
from ..labels.numbers import of_numbers
from ..labels.several import (
    COMMA,
    label_list,
    list_fault,
    lists_among,
    lists_of,
    merged_labels,
    of_declared,
    without_none_class,
)
from ..labels.ticks import (
    emptied,
    refuse_strays,
    switches,
    warn_columns_unread,
    whole_answers,
    with_blanks,
    without_nothing,
)
from ..splits.division import of_split, read_division, split_of
from ..splits.metadata import Metadata, read_metadata
from . import shapes
from .class_targets import folder_labels, images_of, of_files, refuse_masks
from .tables import ID_COLUMNS, Table, is_image
from .targets import Targets

VISIBLE, GRAY = 20, np.uint8(128)  # of the embedded set: px of a shape that is shown, value of the ground


class MultiLabelTargets(Targets):
    """label_column: of lists or text; where it is not given, it is found, else columns of yes and no are classes."""

    def __init__(self, label_column: str | None = None, rules: LabelRules = RULES):
        self.label_column, self.rules, self.embedded = label_column, rules, {"scenes": scenes}

    def folder(self, path: Path, split: str) -> ImageDataset:
        division = read_division(path, self.label_column, self.rules.skip_missing)
        root, _, own = split_of(path, split, division)
        files = images_of(root)
        ids = [file.id for file in files]
        refuse_masks(root, ids)
        metadata = read_metadata(path, root, split, ids, self.rules, self.label_column, several=True)
        cells: dict[str, list] = {}
        if metadata is not None:
            row_of = self.one_row_each(metadata)
            cells = {c: [row_of.get(id, {}).get(c) for id in ids] for c in metadata.columns}
        labels, names = self.read(cells, ids, metadata.file.name if metadata is not None else path.name)
        if not (labels >= 0).any():
            tell_folders(ids)
        kept = of_split(division, path, root, ids, split, own)
        files, labels = [file for file, here in zip(files, kept) if here], labels[kept]
        made = of_files(Origin(path.resolve().name, split), root, files, labels, names)
        return replace(made, left_out=metadata.left_out if metadata is not None else ())

    def one_row_each(self, metadata: Metadata) -> dict[str, dict]:
        """The row of each image; those of one class each are taken together, and equal ones are one."""
        column = label_column(metadata.columns, self.label_column)
        rows: dict[str, dict] = {}
        shared, twice = set[str](), dict[str, None]()
        for id, row in metadata.rows:
            first = rows.setdefault(id, row)
            if first == row:
                continue
            two = [one.get(column) for one in (first, row)] if column else []
            texts = [] if any(is_hot(cell, f"image {id!r}") for cell in two) else [self.text_of(v, id) for v in two]
            both = merged_labels(*texts) if texts else None
            if both is None:
                twice[id] = None
            elif column is not None:
                rows[id] = {**first, column: both or None}
                shared.add(id)
        where = metadata.file.name
        if twice and not self.rules.skip_conflicts:
            raise UserError(
                f"{where} names {next(iter(twice))!r} twice, and the rows contradict each other. Keep one of them, or "
                "give --skip-conflicts."
            )
        if shared:
            warn(
                f"{where} has several rows of {len(shared)} images, such as {min(shared)!r}: each has all classes of "
                "its rows."
            )
        metadata.left_out += [(id, "it has several rows") for id in twice]
        return {id: row for id, row in rows.items() if id not in twice}

    def text_of(self, cell: Any, id: str) -> str:
        """A cell as a;b; "" where nobody has looked."""
        labels = None if self.is_none(cell) else label_list(cell, f"image {id!r}")
        return "" if labels is None else joined(labels)

    def table(self, table: Table) -> ImageDataset:
        reader, ids = table.images()
        plain = {c: f for c, f in table.features.items() if c not in ID_COLUMNS and not is_image(f)}
        column = label_column(plain, self.label_column, f" in {table.origin.name}")
        cells, declared = of_declared({c: table.column(c).to_pylist() for c in plain}, plain, column, ids)
        labels, names = self.read(cells, ids, table.origin.name, declared)
        return make_dataset(table.origin, ids, labels, names, table.content(reader), reader)

    def pairs(self, values: Sequence) -> tuple[str, pa.Array]:
        return "labels", lists_of(at_commas(values, "The list of images"))

    def label_in(self, columns: Collection[str]) -> str | None:
        return label_column(columns, self.label_column, " in memory")

    def read(self, cells: dict[str, list], ids: list[str], where: str, declared: dict | None = None):
        """(int8 [N, K], rows of -1 without a label; class names). declared: column -> what its numbers mean."""
        column = label_column(cells, self.label_column, f" in {where}")
        if column is not None:
            known = (declared or {}).get(column)
            values = [None if self.is_none(value) else value for value in cells[column]]
            called = f"column {column!r} of {where}", lambda k: f"image {ids[k]!r}"
            hot = None if known else multi_hot(values, *called, self.rules)
            if hot is not None:
                return hot, [str(k) for k in range(hot.shape[1])]
            values = values if known else at_commas(values, f"The column {column!r} of {where}")
            lists = [label_list(value, f"image {id!r}", known) for value, id in zip(values, ids, strict=True)]
            if not known:
                whole = of_numbers([labels for labels in lists if labels], f"The column {column!r} of {where}")
                lists = [labels and [whole.get(label, label) for label in labels] for labels in lists]
            names = (
                without_none_class(known, column, where)
                if known
                else class_order({n for some in lists for n in some or ()})
            )
            for name, parts in () if known else lists_among(names, signs=COMMA).items():
                id = next(id for id, labels in zip(ids, lists) if name in (labels or ()))
                raise UserError(f"Image {id!r} of {where}: {list_fault(name, parts)}.")
            tell_alike(names)
            tell_unsure(() if known else (name for some in lists for name in some or ()), where)
            rows = [[-1 if labels is None else int(name in labels) for name in names] for labels in lists]
            return np.array(rows, np.int8).reshape(len(ids), len(names)), list(names)
        cells = emptied(cells, self.rules.no_label)
        refuse_strays(cells, repr(where), lambda k: f"Image {ids[k]!r}")
        found = switches(cells)
        warn_columns_unread(cells, found, where)
        found = without_nothing(with_blanks(found, where), where, lambda k: f"Image {ids[k]!r}")
        names = list(found)
        out = np.array([[-1 if v is None else v for v in found[c]] for c in names], np.int8).reshape(-1, len(ids)).T
        out = whole_answers(out, where, lambda k: f"image {ids[k]!r}", self.rules)
        return out, names

    def is_none(self, value: Any) -> bool:
        """Whether a cell says that nobody has looked, which NOTHING does not."""
        return isinstance(value, str) and value.strip().lower() != NOTHING and self.rules.is_none(value.strip())


def tell_folders(ids: Sequence[str]) -> None:
    """A warning that folders that might be classes say nothing of several classes."""
    names = folder_labels(ids)
    if len(names) > 1:
        warn(
            f"--task multilabel reads labels from a table, such as metadata.csv: the folders {listed(names, 5)} are no "
            "labels."
        )


def scenes(split: str = "train") -> ImageDataset:
    """The embedded set: the shapes of `shapes` on a gray ground, and which of the four kinds are in each image."""
    ids, names = shapes.shapes(split).ids, shapes.CLASSES[1:]
    drawn = [shapes.draw(split, i) for i in range(len(ids))]
    labels = np.array([[(mask == k).sum() >= VISIBLE for k in range(1, len(names) + 1)] for _, mask in drawn], np.int8)
    reader = ArrayReader(np.stack([np.where(mask[..., None], pixels, GRAY) for pixels, mask in drawn]))
    return make_dataset(Origin("scenes", split, license="cc0-1.0"), ids, labels, names, ids, reader)
