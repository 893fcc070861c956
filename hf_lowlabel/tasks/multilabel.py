"""Multi-label classification: all classes of an image that apply, any number of them.

Labels are lists in a table, text such as "cat;dog", or one column of 0 and 1 for each class. An image is unlabeled where
its list is missing, its text is empty, or all its columns are. "none" and an empty list say that no class applies.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from ..arguments import Config, DataArguments
from ..data import shapes
from ..data.dataset import ArrayReader, ImageDataset, Origin, make_dataset
from ..data.folders import FileReader, image_files, metadata_file, metadata_rows, split_root
from ..data.labels import class_order, label_column
from ..data.tables import ID_COLUMNS, Table
from ..data.targets import Targets
from ..errors import MissingSplit, UserError, unknown
from ..evaluation import plots
from ..evaluation.inference import logits_of
from ..evaluation.modules import MultiLabelScores
from ..records import Metric, Row, RunRecord
from ..text import code, listed, percent
from . import classification_card
from .classification import Classification, eval_view
from .demos import Demo, Stage
from .parts import PRETRAINING, Examples, Findings

NOTHING = "none"  # text of a label that says: none of the classes
SEPARATORS = ";|"
THRESHOLD = 0.5  # probability from which a class is named
TOO_FEW = 100  # test images below which small differences mean nothing


class MultiLabelTargets(Targets):
    """label_column: holds the list or text; where it is not given, it is found, else columns of 0 and 1 are the classes."""

    def __init__(self, label_column: str | None = None):
        self.label_column, self.embedded = label_column, {"scenes": scenes}

    def folder(self, path: Path, split: str) -> ImageDataset:
        root, _ = split_root(path, split)
        files = image_files(root)
        ids, rows = [file.id for file in files], {}
        labels, names = np.full((len(ids), 0), -1, np.int8), []
        if (metadata := metadata_file(root)) is not None:
            found, columns = metadata_rows(metadata, ids)
            rows = dict(found)
            table = {c: [rows.get(id, {}).get(c) for id in ids] for c in columns if c != "file_name"}
            labels, names = self.read(table, ids, metadata.name)
        reader = FileReader(root, [file.path for file in files])
        origin = Origin(path.resolve().name, split)
        return make_dataset(origin, ids, labels, names, with_labels(labels, [f.size for f in files]), reader)

    def table(self, table: Table) -> ImageDataset:
        reader, ids = table.images()
        plain = [c for c in table.features if c not in ID_COLUMNS and not is_image(table.column(c))]
        columns = {c: named(table.column(c).to_pylist(), table.features[c]) for c in plain}
        labels, names = self.read(columns, ids, table.origin.name)
        return make_dataset(table.origin, ids, labels, names, with_labels(labels, table.content(reader)), reader)

    def pairs(self, values: Sequence) -> tuple[str, pa.Array]:
        texts = [value if isinstance(value, str) or value is None else ";".join(value) or NOTHING for value in values]
        return "labels", pa.array(texts, pa.string())

    def read(self, columns: dict[str, list], ids: list[str], where: str) -> tuple[np.ndarray, list[str]]:
        """(int8 [N, K] of 0 and 1, rows of -1 where there is no label; class names)."""
        column = label_column(columns, self.label_column, f" in {where}")
        if column is not None:
            found = [label_list(value, id) for value, id in zip(columns[column], ids, strict=True)]
            names = class_order({name for labels in found for name in labels or ()})
            index = {name: k for k, name in enumerate(names)}
            out = np.full((len(ids), len(names)), -1, np.int8)
            for row, labels in zip(out, found, strict=True):
                if labels is not None:
                    row[:] = 0
                    row[[index[name] for name in labels]] = 1
            return out, names
        switches = {c: [switch(v) for v in values] for c, values in columns.items()}
        names = [c for c, values in switches.items() if "other" not in values and set(values) - {None}]
        out = np.array([[-1 if v is None else v for v in switches[c]] for c in names], np.int8).reshape(-1, len(ids)).T
        partly = np.flatnonzero((out < 0).any(1) & (out >= 0).any(1))
        if len(partly):
            raise UserError(
                f"Image {ids[partly[0]]!r} of {where!r} has a label for some classes and none for others. Fill in 0 or 1 for "
                "each, or leave all of them empty."
            )
        return out, names


def with_labels(labels: np.ndarray, content) -> list[str]:
    """For the fingerprint: the labels beside the content of each image."""
    return [f"{what}/{''.join(map(str, row))}" for what, row in zip(content, labels.tolist(), strict=True)]


def is_image(column: pa.ChunkedArray) -> bool:
    return pa.types.is_struct(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)


def named(values: list, feature) -> list:
    """Numbers of declared classes as their names."""
    names = getattr(getattr(feature, "feature", None), "names", None)
    return values if names is None else [v if v is None else [names[k] for k in v] for v in values]


def label_list(value: Any, id: str) -> list[str] | None:
    """The classes that a cell names; None where it names nothing and does not say "none"."""
    if value is None or isinstance(value, float) and np.isnan(value):
        return None
    if isinstance(value, str):
        for separator in SEPARATORS:
            value = value.replace(separator, "\n")
        parts = [unicodedata.normalize("NFC", part.strip()) for part in value.split("\n") if part.strip()]
        return None if not parts else [p for p in parts if p != NOTHING]
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise UserError(f"The label {value!r} of image {id!r} is neither a list nor text. Write it as a;b.")
    return [unicodedata.normalize("NFC", str(part)) for part in value]


def switch(value: Any) -> Any:
    """0, 1, None for an empty cell, or "other" for what is no switch."""
    if value is None or value == "" or isinstance(value, float) and np.isnan(value):
        return None
    text = str(value).strip().lower()
    return {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}.get(text, "other")


def scenes(split: str = "train") -> ImageDataset:
    """The embedded set: the generated images of `shapes`, and which of its four shapes are in each of them."""
    if split not in shapes.SIZES:
        raise unknown("split of 'scenes'", split, shapes.SIZES, MissingSplit)
    drawn = [shapes.draw(split, i) for i in range(shapes.SIZES[split])]
    names = shapes.CLASSES[1:]
    labels = np.array([[(mask == k + 1).any() for k in range(len(names))] for _, mask in drawn]).astype(np.int8)
    ids, reader = (
        [f"{split}-{i:04d}" for i in range(len(drawn))],
        ArrayReader(np.stack([pixels for pixels, _ in drawn])),
    )
    return make_dataset(
        Origin("scenes", split, license="cc0-1.0"), ids, labels, names, with_labels(labels, ids), reader
    )


class MultiLabel(Classification):
    """All classes of an image that apply."""

    name = "multilabel"
    product = "multi-label classifier"
    metrics = (
        Metric("map", "Mean average precision"),
        Metric("f1_macro", "F1, mean of the classes"),
        Metric("f1_micro", "F1, all classes together", hub="f1"),
        Metric("exact_match", "All classes of an image right"),
    )
    takes = Classification.takes - {"class_balanced", "prior", "prior_until"}
    fallbacks = {"pretrain": PRETRAINING, "finetune": {**Classification.fallbacks["finetune"]}}
    own_methods = {
        "supervised": "finetuning.multilabel:MultiLabelSupervised",
        "probe": "finetuning.multilabel:MultiLabelProbe",
        "mean-teacher": "finetuning.multilabel:MultiLabelMeanTeacher",
        "fixmatch": "finetuning.multilabel:MultiLabelFixMatch",
    }
    labels_score, has_neighbours, labeling = False, False, "classes"
    problem_type = "multi_label_classification"
    demo = Demo(
        "scenes",
        40,
        dict(
            task="multilabel",
            dataset="scenes",
            model="cnn6_16",
            optimizer="adamw",
            weight_decay=1e-2,
            logging_steps=100,
        ),
        tuple(
            Stage(
                name,
                title,
                dict(method=method, image_size=48, max_steps=600, batch_size=16, learning_rate=3e-3, **more),
            )
            for name, title, method, more in (
                ("supervised", "supervised, labels alone", "supervised", dict(method_args=dict(ema_decay=0.99))),
                ("model", "FixMatch", "fixmatch", dict(unlabeled_ratio=3, method_args=dict(ema_decay=0.99))),
            )
        ),
    )

    def targets(self, data: DataArguments, names: Sequence[str] | None = None) -> Targets:
        return MultiLabelTargets(data.label_column)

    def labels_of(self, dataset: ImageDataset, indices: np.ndarray, labels: np.ndarray | None) -> torch.Tensor:
        return torch.as_tensor(dataset.labels[indices], dtype=torch.float32)

    def known_labels(self, labeled: Examples, count: int) -> np.ndarray:
        labels = np.full((count, labeled.targets.shape[1]), -1)
        labels[labeled.members.numpy()] = labeled.targets.numpy()
        return labels

    def shown(self, labeled: Examples, names: list[str]) -> dict[str, int]:
        return dict(zip(names, labeled.targets.sum(0).int().tolist(), strict=True))

    def activated(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def predictions(self, model: nn.Module, cache, members: torch.Tensor | None = None) -> np.ndarray:
        return logits_of(model, cache, eval_view(model), members).double().sigmoid().numpy()

    def scores(self, probabilities: np.ndarray, targets: np.ndarray, names: list[str]) -> dict[str, Any]:
        return MultiLabelScores(names).compute(predictions=probabilities, references=targets.astype(np.int8))

    def frozen_row(self, model: nn.Module, weights: str, labeled: Examples, test: Examples) -> Row | None:
        return None

    def answer(self, p: torch.Tensor, names: list[str], top: int = 1) -> dict[str, Any]:
        """The classes of a probability above one half, and the probability of each."""
        chances = [round(c, 6) for c in p.tolist()]
        said = ";".join(name for name, c in zip(names, chances, strict=True) if c > THRESHOLD)
        return {"classes": said or NOTHING} | {f"confidence_{name}": c for name, c in zip(names, chances, strict=True)}

    def pictures(self, p: np.ndarray, images: Examples, names: list[str], metrics: dict, folder: Path) -> None:
        def words(row: np.ndarray) -> str:
            return ", ".join(name for name, there in zip(names, row, strict=True) if there) or NOTHING

        chosen = classification_card.spread(len(p), plots.MOST_CAPTIONED)
        pixels = images.cache.take(images.members[chosen]).permute(0, 2, 3, 1).cpu().numpy()
        guess, truth = p[chosen] > THRESHOLD, images.targets.numpy()[chosen] > THRESHOLD
        captions = [(words(g), words(t), bool((g == t).all())) for g, t in zip(guess, truth, strict=True)]
        plots.captioned(pixels, captions, folder / "predictions.png")

    # ---- card and report --------------------------------------------------------------------------------------------
    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        words = classification_card.summary(record, data, method, "images", "labeled images")
        return words.replace("Sorts images", "Names what is in images", 1).replace(" into ", ", out of ", 1)

    def limits(self, record: RunRecord) -> list[str]:
        metrics = record.metrics
        names, ap = metrics.get("class_names") or record.class_names, metrics.get("per_class") or []
        lines = []
        if record.labels and record.labels.without:
            lines.append(f"No labeled image showed {listed(map(code, record.labels.without), 20)}.")
        worst = sorted((v, name) for v, name in zip(ap, names, strict=False) if v is not None and v < 1)[:5]
        if worst:
            lines.append(
                "Worst classes: " + ", ".join(f"{code(n)} average precision {percent(v)}" for v, n in worst) + "."
            )
        unseen = [code(name) for v, name in zip(ap, names, strict=False) if v is None]
        if unseen:
            lines.append(f"No test image showed {listed(unseen, 20)}: nothing is known about them.")
        if 0 < (metrics.get("images") or 0) < TOO_FEW:
            lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
        return [
            *lines,
            f"A class is named from a probability of {percent(THRESHOLD)} on; no other threshold was fitted.",
        ]

    def snippets(self, record: RunRecord, model_id: str) -> list[str]:
        named = "print({model.config.id2label[k]: float(p) for k, p in enumerate(output.logits.sigmoid()[0])})"
        loaded = classification_card.load_code(model_id, record.architecture, "AutoModelForImageClassification")
        return [classification_card.pipeline_code(model_id, record.architecture), loaded + named]

    def space(self, record: RunRecord) -> dict[str, Any]:
        return {"answer": "labels"}

    def figures(self, metrics: dict[str, Any], names: list[str]) -> list[str]:
        per = zip(metrics.get("per_class") or [], metrics.get("per_class_images") or [], names, strict=False)
        rows = [
            (name, v, f"{percent(v)}, {n:,} images show it")
            for v, n, name in sorted(p for p in per if p[0] is not None)
        ]
        return [classification_card.worst_first("Average precision of the classes, worst first", rows)] if rows else []

    def findings(
        self, folder: Path, config: Config, dataset: ImageDataset, chosen: np.ndarray, names: list[str]
    ) -> Findings:
        """The test images whose probabilities are farthest from the truth."""
        model = self.load(folder)
        images = self.held(model, config.data, dataset, chosen, names, "test")
        p, y = self.predictions(model, images.cache), images.targets.numpy()
        gap, tiles = np.abs(p - y), []
        for i in np.argsort(-gap.max(1), kind="stable")[: classification_card.MOST_MISTAKES]:
            k = int(gap[i].argmax())
            if gap[i, k] > THRESHOLD:
                shown = classification_card.inline(classification_card.picture(dataset, int(images.cache.indices[i])))
                word = "is there" if y[i, k] else "is not there"
                said = f"<b>{escape(names[k])}</b> {100 * p[i, k]:.0f} %<br>{word}"
                tiles.append(f"<div class=tile><img alt='' src='{shown}'>{said}</div>")
        note = (
            f"The most confident wrong answers among {len(y):,} test images: a class, its probability, and the truth."
        )
        return Findings([("Worst mistakes", note, f"<div class=tiles>{''.join(tiles)}</div>")] if tiles else [])
