"""Text of cards and reports of multi-label classifiers, from recorded numbers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from ..data.dataset import ImageDataset
from ..data.labels.labels import NOTHING
from ..evaluation import charts
from ..evaluation.multilabel import THRESHOLD
from ..records import RunRecord
from ..text import code, listed, percent
from . import classification_card as card
from .data_classes import Examples, Section

MOST_UNLEARNED = 5  # classes that are named
MOST_LISTED = 12  # classes on the console


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
    lines += [f"On the test images, {words}." for words in unlearned(metrics, code)]
    if unseen := [code(name) for v, name in per if v is None]:
        lines.append(f"No test image showed {listed(unseen, 20)}: how well it finds them is not known.")
    if 0 < (metrics.get("images") or 0) < card.FEW_TESTED:
        lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
    return [
        *lines,
        f"A class is predicted above a probability of {percent(THRESHOLD)}; this threshold was not tuned.",
    ]


def unlearned(metrics: dict[str, Any], quoted: Callable[[str], str] = str) -> list[str]:
    """Sentences on classes near chance level, with too few images to tell, or predicted on all images; [] for none."""
    keys = ("class_names", "per_class", "per_class_images", "per_class_named")
    found, few, near, n = list[str](), list[str](), metrics.get("near_chance") or (), metrics.get("images")
    for name, ap, shown, named in zip(*(metrics.get(key) or () for key in keys), strict=False):
        words = []
        if name in near:
            words.append(
                f"is hardly better than chance (average precision {percent(ap, 0)}; {percent(shown / n, 0)} of the "
                "images show it)"
            )
        if named == n > shown:
            words.append("is named on all images")
        found += [f"{quoted(name)} {' and '.join(words)}"] if words else []
        few += [f"{quoted(name)} (on {shown} of {n} images)"] if name in (metrics.get("too_few") or ()) else []
    more = [f"and so are {len(found) - MOST_UNLEARNED} more classes"] if len(found) > MOST_UNLEARNED else []
    said = ["; ".join([*found[:MOST_UNLEARNED], *more])] if found else []
    return [*said, f"{listed(few, MOST_UNLEARNED)} cannot be told from chance with so few"] if few else said


def by_class(metrics: dict[str, Any]) -> list[str]:
    """A line for each class that images show or that is named, the worst first."""
    keys = ("per_class_f1", "class_names", "per_class", "per_class_images", "per_class_named")
    every = [*zip(*(metrics.get(key) or () for key in keys), strict=False)]
    rows = sorted(row for row in every if row[0] is not None)
    lines = []
    for f1, name, ap, shown, named in rows[:MOST_LISTED]:
        hits = round(f1 * (shown + named) / 2)
        precision = f"precision {hits / named:.2f}, " if named else ""
        lines.append(
            f"{name}: F1 {f1:.2f}, {precision}recall {hits / shown:.2f}, average precision {ap:.2f}; {shown} images "
            f"show it, it is named on {named}"
        )
    lines += [f"and {len(rows) - MOST_LISTED} better ones"] if len(rows) > MOST_LISTED else []
    wrong = [f"{name} ({named})" for f1, name, _, _, named in every if f1 is None and named]
    return lines + ([f"no image shows {listed(wrong, MOST_LISTED)}, named on so many"] if wrong else [])


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
            shown = charts.inline(card.picture(dataset, int(images.cache.indices[i])))
            words = f"<b>{escape(names[k])}</b> {100 * p[i, k]:.0f} %<br>{'is there' if y[i, k] else 'is not there'}"
            tiles.append(f"<div class=tile><img alt='' src='{shown}'>{words}</div>")
    note = f"The most confident wrong answers among {len(y):,} test images: a class, its probability, and the truth."
    return [("Worst mistakes", note, f"<div class=tiles>{''.join(tiles)}</div>")] if tiles else []


def said(there, names: Sequence[str], between: str = ", ") -> str:
    """The classes that are there, as text. there: bool [K]."""
    return between.join(name for name, is_there in zip(names, there, strict=True) if is_there) or NOTHING
