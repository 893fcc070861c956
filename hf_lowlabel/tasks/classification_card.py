"""Text of cards and reports of classifiers, from recorded numbers only."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..arguments import DataArguments
from ..evaluation import charts
from ..evaluation.classification import wilson
from ..models import brings_code
from ..records import RunRecord
from ..text import code, listed, percent
from .data_classes import Section, photo_code

MOST_BARS = 20  # classes listed in a chart
LARGEST_CONFUSION = 60  # classes of a confusion matrix that can be read
MOST_TESTED = 10_000  # test images that are looked through for mistakes
MOST_MISTAKES = 24
TILE = 112  # px, side of a picture in a report
FEW_TESTED = 200  # images below which small differences mean nothing


def summary(record: RunRecord, data: str, method: Callable[[str], str], what: str, labeled: str) -> str:
    """ "Sorts images of X into 3 classes, learned from 40 labeled images among 1,797 with FixMatch." """
    classes = f"{len(record.class_names):,} classes" if record.class_names else "classes"
    words = f"Sorts {what}{data} into {classes}"
    if record.labels:
        pool = record.data.images if record.data else None
        words += f", learned from **{record.labels.number:,} {labeled}**"
        words += f" among {pool:,}" if pool and record.method != "supervised" else ""
    words += f" with {method(record.method)}" if record.method else ""
    before = [stage.method for stage in record.lineage if stage.what == "target pretraining" and stage.method]
    return words + (f", after target pretraining with {method(before[-1])}" if before else "") + "."


def limits(record: RunRecord) -> list[str]:
    metrics, lines = record.metrics, []
    names, shares = metrics.get("class_names") or record.class_names, metrics.get("per_class") or []
    numbers = metrics.get("per_class_images") or [0] * len(shares)
    together = list(zip(names, shares, numbers, strict=True)) if shares else []
    measured = [(a, n, name) for name, a, n in together if a is not None and n]
    by_name = {name: f" ({percent(a)} correct)" for a, n, name in measured}
    if record.labels and record.labels.without:
        missing = [f"{code(name)}{by_name.get(name, '')}" for name in record.labels.without]
        lines.append(f"No labeled image showed {listed(missing, 20)}: never named in training.")
    worst = [(a, n, name) for a, n, name in sorted(measured, key=lambda m: (m[0], -m[1])) if a < 1][:5]
    if worst:
        said = (f"{code(name)} {percent(a)} ({round(a * n)} of {n:,})" for a, n, name in worst)
        lines.append("Worst classes: " + ", ".join(said) + ".")
    unseen = [code(name) for name, a, _ in together if a is None]
    if unseen:
        them = "it" if len(unseen) == 1 else "them"
        lines.append(f"No test image showed {listed(unseen, 20)}: nothing is known about {them}.")
    lines += calibration(metrics)
    if 0 < (metrics.get("images") or 0) < FEW_TESTED:
        lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
    if record.class_names:
        lines.append(
            f"It answers with one of its {len(record.class_names):,} classes for every image, "
            "even for one that shows none of them."
        )
    return lines


def calibration(metrics: dict[str, Any]) -> list[str]:
    if metrics.get("ece") is None or metrics.get("confidence") is None:
        return []
    gap = 100 * (metrics["confidence"] - metrics["accuracy"])
    side = "on average about right"
    if abs(gap) >= 1:
        side = f"on average {abs(gap):.1f} points too {'high' if gap > 0 else 'low'}"
    return [f"Its confidence is {side} (expected calibration error {percent(metrics['ece'])})."]


def load_code(record: RunRecord, model_id: str, auto: str) -> str:
    """Python code for `output`, the model output for photo.jpg."""
    own = brings_code(record.architecture)
    note = (
        f"# timm lacks {record.architecture}: its code lies beside the weights, read it before you trust it\n"
        if own
        else ""
    )
    trust = ", trust_remote_code=True" if own else ""
    return (
        "import numpy as np\nimport torch\nfrom PIL import Image, ImageOps\n"
        f"from transformers import AutoImageProcessor, {auto}\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{model_id}")\n'
        f'{note}model = {auto}.from_pretrained("{model_id}"{trust}).eval()\n'
        f"{photo_code(record.hyperparameters.get('value_range'))}"
        "with torch.no_grad():\n"
        '    output = model(**processor(image, return_tensors="pt"))\n'
    )


def pipeline_code(record: RunRecord, model_id: str) -> list[str]:
    """Code with a `pipeline`; [] if images have a value range, which pipelines do not support."""
    if record.hyperparameters.get("value_range"):
        return []
    trust = ", trust_remote_code=True" if brings_code(record.architecture) else ""
    return [
        "from transformers import pipeline\n\n"
        f'classify = pipeline("image-classification", model="{model_id}"{trust})\n'
        'print(classify("photo.jpg"))  # 8 bits; for 16 bits see below'
    ]


def snippets(record: RunRecord, model_id: str) -> list[str]:
    if not record.saved_model:
        return ['import pandas as pd\n\nprint(pd.read_parquet("predictions.parquet").head())']
    answer = (
        "probabilities = output.logits.softmax(-1)[0]\n"
        "best = int(probabilities.argmax())\n"
        "print(model.config.id2label[best], float(probabilities[best]))"
    )
    loaded = load_code(record, model_id, "AutoModelForImageClassification")
    return [*pipeline_code(record, model_id), loaded + answer]


# ---- the report -----------------------------------------------------------------------------------------------------
def figures(metrics: dict[str, Any], names: list[str]) -> list[str]:
    out = confusion_figures(metrics, names, pixels=False)
    if metrics.get("reliability"):
        out.append(charts.reliability("Calibration", metrics["reliability"], metrics["ece"]))
    if metrics.get("per_class"):
        per = [
            (a, n, name)
            for name, a, n in zip(names, metrics["per_class"], metrics["per_class_images"], strict=True)
            if a is not None
        ]
        rows = [(name, a, said_share(a, n)) for a, n, name in sorted(per, key=lambda p: p[0])]
        out.append(worst_first("Accuracy of the classes, worst first", rows, "In brackets: 80 % intervals."))
    return out


def said_share(a: float, n: int) -> str:
    low, high = (100 * float(v) for v in wilson(np.array(a), np.array(n)))
    return f"{percent(a)} of {n:,} ({low:.0f} to {high:.0f})"


def worst_first(title: str, rows: list[tuple[str, float, str]], note: str = "") -> str:
    more = f"And {len(rows) - MOST_BARS:,} more. " if len(rows) > MOST_BARS else ""
    return charts.bars(title, rows[:MOST_BARS], f"{more}{note}")


def confusion_figures(metrics: dict[str, Any], names: list[str], *, pixels: bool) -> list[str]:
    if metrics.get("confusion") and len(names) <= LARGEST_CONFUSION:
        return [charts.confusion("Confusion", metrics["confusion"], names, pixels=pixels)]
    if metrics.get("most_confused"):
        most = metrics["most_confused"][:12]
        rows = [
            (f"{p['true']} as {p['predicted']}", p["images"] / most[0]["images"], f"{p['images']:,} images")
            for p in most
        ]
        return [charts.bars("Most frequent confusions", rows)]
    return []


def any_bad(data: DataArguments) -> DataArguments:
    """Data settings without a limit on unreadable images, which the run has checked."""
    return replace(data, max_bad=1.0)


def findings(task, folder: Path, config, dataset, chosen: np.ndarray, names: list[str]) -> list[Section]:
    """The most confident wrong answers among the test images."""
    model = task.load(folder)
    at = chosen[spread(len(chosen), MOST_TESTED)]
    images = task.held(model, any_bad(config.data), dataset, at, names, "test")
    p, y = task.predictions(model, images.cache), images.targets.numpy()
    guess, sure = p.argmax(1), p.max(1)
    wrong = np.flatnonzero(guess != y)
    tiles = [
        f"<div class=tile><img alt='' src='{charts.inline(picture(dataset, int(images.cache.indices[i])))}'>"
        f"<b>✗ {escape(names[guess[i]])}</b> {100 * sure[i]:.0f} %<br>true: {escape(names[y[i]])}</div>"
        for i in wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    ]
    if not tiles:
        return []
    note = f"The most confident wrong answers among {len(y):,} test images."
    return [("Worst mistakes", note, f"<div class=tiles>{''.join(tiles)}</div>")]


def spread(n: int, most: int) -> np.ndarray:
    """Up to `most` positions spread over 0..n-1."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def picture(dataset, index: int) -> bytes:
    """An image of a data set as a small PNG; tiny images keep their pixels."""
    return encoded(small(dataset.rgb(index)))


def small(shown: Image.Image) -> Image.Image:
    if max(shown.size) <= TILE // 2:
        scale = TILE // max(shown.size)
        shown = shown.resize([scale * side for side in shown.size], Image.Resampling.NEAREST)
    shown.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return shown


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
