"""What a card and a report say of a model that names several classes, each sentence from a number that was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ..data.dataset import ImageDataset
from ..data.labels.labels import NOTHING
from ..evaluation.multilabel import THRESHOLD
from ..records import RunRecord
from ..text import code, listed, percent
from . import classification_card as card
from .parts import Examples, Section


def limits(record: RunRecord) -> list[str]:
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


def figures(metrics: dict[str, Any], names: list[str]) -> list[str]:
    per = zip(metrics.get("per_class") or [], names, metrics.get("per_class_images") or [], strict=False)
    shown = sorted(p for p in per if p[0] is not None)
    rows = [(name, v, f"{percent(v)}, {n:,} images show it") for v, name, n in shown]
    return [card.worst_first("Average precision of the classes, worst first", rows)] if rows else []


def findings(p: np.ndarray, images: Examples, dataset: ImageDataset, names: list[str]) -> list[Section]:
    """The test images whose probabilities p [n, K] are farthest from the truth."""
    y = images.targets.numpy()
    gap, tiles = np.abs(p - y), []
    for i in np.argsort(-gap.max(1), kind="stable")[: card.MOST_MISTAKES]:
        k = int(gap[i].argmax())
        if gap[i, k] > THRESHOLD:
            shown = card.inline(card.picture(dataset, int(images.cache.indices[i])))
            words = f"<b>{escape(names[k])}</b> {100 * p[i, k]:.0f} %<br>{'is there' if y[i, k] else 'is not there'}"
            tiles.append(f"<div class=tile><img alt='' src='{shown}'>{words}</div>")
    note = f"The most confident wrong answers among {len(y):,} test images: a class, its probability, and the truth."
    return [("Worst mistakes", note, f"<div class=tiles>{''.join(tiles)}</div>")] if tiles else []


def said(there, names: Sequence[str], between: str = ", ") -> str:
    """The classes that are there, as text. there: bool [K]."""
    return between.join(name for name, is_there in zip(names, there, strict=True) if is_there) or NOTHING
