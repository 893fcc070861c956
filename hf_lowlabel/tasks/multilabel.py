"""Multi-label classification: all classes of an image that apply, any number of them.

Labels are lists in a table, of classes or of 0 and 1 for each class, text such as "cat;dog" or "cat|dog", or a column
for each class of 0 and 1 or other words for no and yes. Without a list, with an empty text, empty columns or nothing
but -1 in a list an image is unlabeled; "none" and an empty list say that no class applies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from ..arguments import Config, DataArguments
from ..data.dataset import ArrayReader, ImageDataset, Origin, make_dataset
from ..data.labels.commas import at_commas
from ..data.labels.labels import NOTHING, RULES, LabelRules, class_order, joined, label_column, tell_alike, tell_unsure
from ..data.labels.multi_hot import is_hot, multi_hot
from ..data.labels.numbers import of_numbers
from ..data.labels.several import (
    comma_fault,
    comma_lists,
    label_list,
    lists_of,
    of_declared,
    together,
    without_none_class,
)
from ..data.labels.ticks import emptied, refuse_strays, switches, tell_unread, with_blanks, without_nothing
from ..data.sources import shapes
from ..data.sources.class_targets import images_of, of_files, refuse_masks
from ..data.sources.tables import ID_COLUMNS, Table, is_image
from ..data.sources.targets import Targets
from ..data.splits.division import of_split, read_division, split_of
from ..data.splits.metadata import Metadata, read_metadata
from ..demo_stages import SCENES
from ..errors import UserError
from ..evaluation import sheets
from ..evaluation.inference import logits_of
from ..evaluation.modules import MultiLabelScores
from ..evaluation.multilabel import mean_average_precision
from ..records import Metric, RunRecord
from ..text import code, listed, percent
from . import LABELING, classification_card as card
from .attempts import MULTILABEL
from .classification import Classification, eval_view
from .left_out import of_several
from .parts import Examples, LeftOut, Section, label_rules

THRESHOLD = 0.5  # probability from which a class is named
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
            both = together(*texts) if texts else None
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
            warnings.warn(
                f"{where} has several rows of {len(shared)} images, such as {min(shared)!r}: each has all classes of "
                "its rows.",
                stacklevel=4,
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
            hot = None if known else multi_hot(values, f"column {column!r} of {where}", lambda k: f"image {ids[k]!r}")
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
            for name, parts in () if known else comma_lists(names).items():
                id = next(id for id, labels in zip(ids, lists) if name in (labels or ()))
                raise UserError(f"Image {id!r} of {where}: {comma_fault(name, parts)}.")
            tell_alike(names)
            tell_unsure(() if known else (name for some in lists for name in some or ()), where)
            rows = [[-1 if labels is None else int(name in labels) for name in names] for labels in lists]
            return np.array(rows, np.int8).reshape(len(ids), len(names)), list(names)
        cells = emptied(cells, self.rules.no_label)
        refuse_strays(cells, repr(where), lambda k: f"Image {ids[k]!r}")
        found = switches(cells)
        tell_unread(cells, found, where)
        found = without_nothing(with_blanks(found, where), where, lambda k: f"Image {ids[k]!r}")
        names = list(found)
        out = np.array([[-1 if v is None else v for v in found[c]] for c in names], np.int8).reshape(-1, len(ids)).T
        partly = np.flatnonzero((out < 0).any(1) & (out >= 0).any(1))
        if len(partly):
            raise UserError(f"Image {ids[partly[0]]!r} of {where!r} has 0 or 1 for some classes. Fill in all, or none.")
        return out, names

    def is_none(self, value: Any) -> bool:
        """Whether a cell says that nobody has looked, which NOTHING does not."""
        return isinstance(value, str) and value.strip().lower() != NOTHING and self.rules.is_none(value.strip())


def scenes(split: str = "train") -> ImageDataset:
    """The embedded set: the shapes of `shapes` on a gray ground, and which of the four kinds are in each image."""
    ids, names = shapes.shapes(split).ids, shapes.CLASSES[1:]
    drawn = [shapes.draw(split, i) for i in range(len(ids))]
    labels = np.array([[(mask == k).sum() >= VISIBLE for k in range(1, len(names) + 1)] for _, mask in drawn], np.int8)
    reader = ArrayReader(np.stack([np.where(mask[..., None], pixels, GRAY) for pixels, mask in drawn]))
    return make_dataset(Origin("scenes", split, license="cc0-1.0"), ids, labels, names, ids, reader)


class MultiLabel(Classification):
    """All classes of an image that apply."""

    name, product = "multilabel", "multi-label classifier"
    metrics = (
        Metric("map", "Mean average precision"),
        Metric("f1_macro", "F1, mean of the classes"),
        Metric("f1_micro", "F1, all classes together", hub="f1"),
        Metric("exact_match", "All classes of an image right"),
    )
    takes = Classification.takes - {"class_balanced", "prior", "prior_until", "head_init"}
    own_methods = {
        "supervised": "finetuning.multilabel:MultiLabelSupervised",
        "probe": "finetuning.multilabel:MultiLabelProbe",
        "mean-teacher": "finetuning.multilabel:MultiLabelMeanTeacher",
        "fixmatch": "finetuning.multilabel:MultiLabelFixMatch",
    }
    climbs, labels_score, has_neighbours, labeling = False, False, False, LABELING["multilabel"]
    attempts = MULTILABEL
    problem_type = "multi_label_classification"
    demo = SCENES

    def targets(self, data: DataArguments, names: Sequence[str] | None = None) -> Targets:
        return MultiLabelTargets(data.label_column, label_rules(data))

    def caches(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, at):
        return super().caches(model, data, self.match(dataset, self.names_of(model)), at)

    def labels_of(self, dataset: ImageDataset, indices: np.ndarray, labels: np.ndarray | None) -> torch.Tensor:
        return torch.as_tensor(dataset.labels[indices], dtype=torch.float32)

    def held(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices, names, what) -> Examples:
        images = super().held(model, data, dataset, indices, names, what)
        if not (images.targets > 0).any():
            raise UserError(
                f"None of the {len(images.members)} {what} images has any of the classes {listed(names, 5)}, and a "
                f"score needs one that has. Hold out more (--{'test-fraction' if what == 'test' else what}), or draw "
                "others (--seed)."
            )
        return images

    def known_labels(self, labeled: Examples, count: int) -> np.ndarray:
        labels = np.full((count, labeled.targets.shape[1]), -1)
        labels[labeled.members.numpy()] = labeled.targets.numpy()
        return labels

    def shows(self, labeled: Examples, names: list[str]) -> np.ndarray:
        return labeled.targets.numpy() > 0

    def activated(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def predictions(self, model: nn.Module, cache, members: torch.Tensor | None = None) -> np.ndarray:
        return logits_of(model, cache, eval_view(model), members).double().sigmoid().numpy()

    def shares(self, targets: torch.Tensor, names: list[str]) -> np.ndarray:
        return targets.double().numpy()

    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        return mean_average_precision(tallies[:, 0], tallies[:, 1])

    def weights(self, tallies: np.ndarray) -> np.ndarray | None:
        return None

    def unsure(self, p: np.ndarray, by: str) -> np.ndarray:
        """Mean over the classes, each of which is there or not."""
        if by == "margin":
            return 1 - np.abs(2 * p - 1).mean(1)
        return -sum(q * np.log2(np.maximum(q, 1e-12)) for q in (p, 1 - p)).mean(1)

    def scores(self, probabilities: np.ndarray, targets: np.ndarray, names: list[str]) -> dict[str, Any]:
        return MultiLabelScores(names).compute(predictions=probabilities, references=targets.astype(np.int8))

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        return of_several(self, model, labeled)

    def answer(self, p: torch.Tensor, names: list[str], top: int = 1) -> dict[str, Any]:
        """The classes of a probability above one half, and the probability of each; `top` means nothing here."""
        chances = [round(c, 6) for c in p.tolist()]
        return {"classes": said(p > THRESHOLD, names, ";")} | {f"confidence_{n}": c for n, c in zip(names, chances)}

    def pictures(self, p: np.ndarray, images: Examples, names: list[str], metrics: dict, folder: Path) -> None:
        chosen = card.spread(len(p), sheets.MOST_CAPTIONED)
        pixels = images.cache.take(images.members[chosen]).permute(0, 2, 3, 1).cpu().numpy()
        guess, truth = p[chosen] > THRESHOLD, images.targets.numpy()[chosen] > THRESHOLD
        captions = [(said(g, names), said(t, names), bool((g == t).all())) for g, t in zip(guess, truth, strict=True)]
        sheets.captioned(pixels, captions, folder / "predictions.png")

    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        words = card.summary(record, data, method, "images", "labeled images")
        return words.replace("Sorts images", "Names what is in images", 1).replace(" into ", ", out of ", 1)

    def limits(self, record: RunRecord) -> list[str]:
        metrics, lines = record.metrics, []
        per = list(zip(metrics.get("per_class") or [], metrics.get("class_names") or record.class_names, strict=False))
        if record.labels and record.labels.without:
            lines.append(f"No labeled image showed {listed(map(code, record.labels.without), 20)}.")
        if record.labels and (always := record.labels.always):
            lines.append(f"Every labeled image showed {listed(map(code, always), 20)}: nothing was learned of it.")
        worst = [f"{code(n)} {percent(v)}" for v, n in sorted(p for p in per if p[0] is not None) if v < 1][:5]
        if worst:
            lines.append(f"Worst classes, by average precision: {', '.join(worst)}.")
        if unseen := [code(name) for v, name in per if v is None]:
            lines.append(f"No test image showed {listed(unseen, 20)}: how well it finds them is not known.")
        if 0 < (metrics.get("images") or 0) < card.FEW_TESTED:
            lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
        return [
            *lines,
            f"A class is named from a probability of {percent(THRESHOLD)} on; no other threshold was fitted.",
        ]

    def snippets(self, record: RunRecord, model_id: str) -> list[str]:
        shown = "print({model.config.id2label[k]: float(p) for k, p in enumerate(output.logits.sigmoid()[0])})"
        loaded = card.load_code(record, model_id, "AutoModelForImageClassification")
        return [*card.pipeline_code(record, model_id), loaded + shown]

    def space(self, record: RunRecord, model: Path) -> dict[str, Any]:
        return {"answer": "labels"}

    def figures(self, metrics: dict[str, Any], names: list[str]) -> list[str]:
        per = zip(metrics.get("per_class") or [], names, metrics.get("per_class_images") or [], strict=False)
        shown = sorted(p for p in per if p[0] is not None)
        rows = [(name, v, f"{percent(v)}, {n:,} images show it") for v, name, n in shown]
        return [card.worst_first("Average precision of the classes, worst first", rows)] if rows else []

    def findings(
        self, folder: Path, config: Config, dataset: ImageDataset, chosen: np.ndarray, names: list[str]
    ) -> list[Section]:
        """The test images whose probabilities are farthest from the truth."""
        model = self.load(folder)
        images = self.held(
            model, config.data, dataset, chosen[card.spread(len(chosen), card.MOST_TESTED)], names, "test"
        )
        p, y = self.predictions(model, images.cache), images.targets.numpy()
        gap, tiles = np.abs(p - y), []
        for i in np.argsort(-gap.max(1), kind="stable")[: card.MOST_MISTAKES]:
            k = int(gap[i].argmax())
            if gap[i, k] > THRESHOLD:
                shown = card.inline(card.picture(dataset, int(images.cache.indices[i])))
                words = (
                    f"<b>{escape(names[k])}</b> {100 * p[i, k]:.0f} %<br>{'is there' if y[i, k] else 'is not there'}"
                )
                tiles.append(f"<div class=tile><img alt='' src='{shown}'>{words}</div>")
        note = (
            f"The most confident wrong answers among {len(y):,} test images: a class, its probability, and the truth."
        )
        return [("Worst mistakes", note, f"<div class=tiles>{''.join(tiles)}</div>")] if tiles else []


def said(there, names: Sequence[str], between: str = ", ") -> str:
    """The classes that are there, as text. there: bool [K]."""
    return between.join(name for name, is_there in zip(names, there, strict=True) if is_there) or NOTHING
