"""Pieces of a model card that are computed from facts: the table of results, limits, settings, code to copy."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from ..arguments import FinetuneConfig, PretrainConfig, default_of
from ..methods import METHODS, find
from ..records import RunRecord

HARDLY_MOVED = (
    0.003  # of the backbone's weights, a share of their length: target pretraining that changed next to nothing
)
SHORT = {  # metric -> (title, shown as per cent)
    "accuracy": ("Accuracy", True),
    "top5_accuracy": ("Top-5 accuracy", True),
    "balanced_accuracy": ("Mean accuracy of the classes", True),
    "miou": ("Mean IoU", True),
    "dice": ("Mean Dice", True),
    "pixel_accuracy": ("Pixel accuracy", True),
    "object_iou": ("IoU of the object", True),
    "knn_accuracy": ("k-NN accuracy", True),
    "linear_probe_accuracy": ("Linear probe accuracy", True),
    "clustering_accuracy": ("Clustering accuracy", True),
    "ece": ("Calibration error", True),
    "nll": ("Log loss (nats)", False),
    "feature_std": ("Spread of features", False),
}


def results_table(facts: RunRecord) -> str:
    """A row for this model and for each comparison, a column for every metric that a row has; "" without metrics."""
    rows = [("**this model**", facts.metrics), *((cell(row.name), row.metrics) for row in facts.comparisons)]
    columns = [key for key in SHORT if any(metrics.get(key) is not None for _, metrics in rows)]
    if len(facts.class_names) <= 5:
        columns = [key for key in columns if key != "top5_accuracy"]
    if not columns or not facts.metrics:
        return ""
    lines = ["| | " + " | ".join(SHORT[key][0] for key in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, metrics in rows:
        lines.append(f"| {name} | " + " | ".join(_value(key, metrics.get(key)) for key in columns) + " |")
    images = facts.metrics.get("images")
    if not images:
        return "\n".join(lines)
    which = f" ({cell(facts.data.test)})" if facts.data and facts.data.test else ""
    error = facts.metrics.get("accuracy_error")
    error = f"; standard error of this model's accuracy {percent(error)}" if error is not None else ""
    return "\n".join([*lines, "", f"{images:,} test images{which}{error}."])


def _value(key: str, value: float | None) -> str:
    return "–" if value is None else percent(value) if SHORT[key][1] else f"{value:.3f}"


def limits(facts: RunRecord) -> list[str]:
    """What a user should know before trusting it, each sentence from a number that was recorded."""
    lines = {"backbone": _backbone_limits, "classification": _class_limits, "segmentation": _mask_limits}[facts.kind](
        facts
    )
    if facts.kind == "classification" and facts.class_names:
        lines.append(
            f"It answers with one of its {len(facts.class_names):,} classes for every image, "
            "also for one that shows none of them."
        )
    lines = _seen_before(facts) + lines + _no_better(facts)
    if not facts.metrics:
        lines.append("It was not evaluated.")
    return lines


def _seen_before(facts: RunRecord) -> list[str]:
    """The warning that results are too good, because test images had been trained on."""
    lines = []
    for stage in facts.lineage:
        if stage.saw_test:
            lines.append(
                f"**{stage.saw_test:,} test images of its {cell(stage.what)} had been trained on** by the stages before "
                "it, with or without labels: results on them may be too good."
            )
    return lines


def _no_better(facts: RunRecord) -> list[str]:
    """What does as well on the same test images, by the first metric that both have."""
    lines = []
    for row in facts.comparisons:
        for key in ("accuracy", "miou", "knn_accuracy"):
            own, other = facts.metrics.get(key), row.metrics.get(key)
            if own is None or other is None:
                continue
            if own <= other:
                lines.append(f"{SHORT[key][0]}: {percent(own)}, no better than {percent(other)} ({cell(row.name)}).")
            break
    return lines


def _backbone_limits(facts: RunRecord) -> list[str]:
    lines = ["It gives features, not classes: a classifier has to be trained on top."]
    spread = facts.metrics.get("feature_std")
    if spread is not None and spread < 0.2:
        lines.append(
            f"The features hardly differ between images (spread {spread:.2f}; 1 isotropic, 0 collapsed): "
            "do not rely on them."
        )
    moved = facts.metrics.get("moved")
    if moved is not None and moved < HARDLY_MOVED:
        lines.append(
            f"Its weights are within {100 * moved:.2g} % of those it started from: pretraining has hardly changed it."
        )
    if facts.data:
        lines.append(f"It was adapted to the images of {cell(facts.data.name)}; other images were not measured.")
    return lines


def _class_limits(facts: RunRecord) -> list[str]:
    metrics, lines = facts.metrics, []
    names, shares = metrics.get("class_names") or facts.class_names, metrics.get("per_class") or []
    numbers = metrics.get("per_class_images") or [0] * len(shares)
    measured = (
        [(a, n, name) for name, a, n in zip(names, shares, numbers, strict=True) if a is not None and n]
        if shares
        else []
    )
    by_name = {name: f" ({percent(a)} correct)" for a, n, name in measured}
    if facts.labels and facts.labels.without:
        missing = [f"{code(name)}{by_name.get(name, '')}" for name in facts.labels.without]
        lines.append(f"No labeled image showed {_some(missing, 20)}: never named in training.")
    worst = [(a, n, name) for a, n, name in sorted(measured, key=lambda m: (m[0], -m[1])) if a < 1][:5]
    if worst:
        lines.append(
            "Worst classes: "
            + ", ".join(f"{code(name)} {percent(a)} ({round(a * n)} of {n:,})" for a, n, name in worst)
            + "."
        )
    unseen = [code(name) for name, a in zip(names, shares, strict=bool(shares)) if a is None]
    if unseen:
        lines.append(
            f"No test image showed {_some(unseen, 20)}: nothing is known about {'it' if len(unseen) == 1 else 'them'}."
        )
    lines += _calibration(metrics)
    if 0 < (metrics.get("images") or 0) < 200:
        lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
    return lines


def _mask_limits(facts: RunRecord) -> list[str]:
    metrics, lines = facts.metrics, []
    names, iou = metrics.get("class_names") or facts.class_names, metrics.get("per_class") or []
    share = metrics.get("per_class_share") or [None] * len(iou)
    if facts.labels and facts.labels.without:
        lines.append(f"No mask showed {_some(map(code, facts.labels.without), 20)}: never named in training.")
    measured = sorted((v, name, s) for v, name, s in zip(iou, names, share, strict=False) if v is not None and v < 1)
    if measured:
        worst = [
            f"{code(name)} IoU {percent(v)}" + (f" ({percent(s)} of the test pixels)" if s is not None else "")
            for v, name, s in measured[:5]
        ]
        lines.append("Worst classes: " + ", ".join(worst) + ".")
    unseen = [code(name) for name, s in zip(names, share, strict=False) if s == 0]
    if unseen:
        lines.append(
            f"No test pixel showed {_some(unseen, 20)}: nothing is known about {'it' if len(unseen) == 1 else 'them'}."
        )
    if 0 < (metrics.get("images") or 0) < 100:
        lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
    if facts.class_names:
        lines.append(
            f"Every pixel gets one of its {len(facts.class_names):,} classes, also where an image shows none of them."
        )
    return lines


def _calibration(metrics: dict[str, Any]) -> list[str]:
    if metrics.get("ece") is None or metrics.get("confidence") is None:
        return []
    gap = 100 * (metrics["confidence"] - metrics["accuracy"])
    side = (
        f"on average {abs(gap):.1f} points too {'high' if gap > 0 else 'low'}"
        if abs(gap) >= 1
        else "on average about right"
    )
    return [f"Its confidence is {side} (expected calibration error {percent(metrics['ece'])})."]


def snippets(facts: RunRecord, model_id: str) -> list[str]:
    """Python to copy; a test executes it beside the folder and a photo.jpg."""
    ours = needs_package(facts.architecture)
    first = f"import hf_lowlabel.models  # {facts.architecture} is an architecture of this package\n" if ours else ""
    load = (
        f'processor = AutoImageProcessor.from_pretrained("{model_id}")\n'
        f'model = {{auto}}.from_pretrained("{model_id}").eval()\n'
        'image = Image.open("photo.jpg").convert("RGB")\n'
        "with torch.no_grad():\n"
        '    output = model(**processor(image, return_tensors="pt"))\n'
    )
    imports = f"import torch\n{first}from PIL import Image\nfrom transformers import AutoImageProcessor, {{auto}}\n\n"
    if facts.kind == "segmentation":
        return _mask_snippets(model_id, ours)
    if facts.kind == "backbone":
        source = f"hf-hub:{facts.hub_id}" if facts.hub_id else f"local-dir:{model_id}"
        auto = (imports + load).format(
            auto="AutoModel"
        ) + "features = output.pooler_output  # [1, D]\nprint(features.shape)"
        with_timm = (
            f'import timm\n{first}\nencoder = timm.create_model("{source}", pretrained=True, num_classes=0).eval()'
        )
        with_smp = f'import segmentation_models_pytorch as smp\n\nsegmenter = smp.Unet("tu-{source}", encoder_weights=True, classes=2)'
        return [auto, with_timm, with_smp] if not ours and fits_unet(facts) else [auto, with_timm]
    if facts.method in ("knn", "label-spreading"):  # they leave classes of these images, and no model
        return ['import pandas as pd\n\nprint(pd.read_parquet("predictions.parquet").head())']
    pipe = (
        f'from transformers import pipeline\n{first}\nclassify = pipeline("image-classification", model="{model_id}")\n'
    )
    auto = (imports + load).format(auto="AutoModelForImageClassification")
    answer = (
        "probabilities = output.logits.softmax(-1)[0]\n"
        "best = int(probabilities.argmax())\n"
        "print(model.config.id2label[best], float(probabilities[best]))"
    )
    return [pipe + 'print(classify("photo.jpg"))', auto + answer]


def _mask_snippets(model_id: str, ours: bool) -> list[str]:
    more = "import hf_lowlabel.models  # the encoder is an architecture of this package\n" if ours else ""
    return [
        f"import torch\n{more}from PIL import Image\nfrom transformers import AutoImageProcessor, AutoModelForSemanticSegmentation\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{model_id}")\n'
        "# its code lies beside the weights: read it before you trust it; after\n"
        "# `import hf_lowlabel.models.segmentation` it loads without trust_remote_code\n"
        f'model = AutoModelForSemanticSegmentation.from_pretrained("{model_id}", trust_remote_code=True).eval()\n'
        'image = Image.open("photo.jpg").convert("RGB")\n'
        "with torch.no_grad():\n"
        '    output = model(**processor(image, return_tensors="pt"))\n'
        "mask = processor.post_process_semantic_segmentation(output, target_sizes=[image.size[::-1]])[0]  # [H, W]\n"
        "print({model.config.id2label[int(k)]: float((mask == k).float().mean()) for k in mask.unique()})",
    ]


def needs_package(architecture: str | None) -> bool:
    """Whether the model loads only after `import hf_lowlabel.models`."""
    if architecture is None:
        return False
    from .. import models  # torch and timm: not before they are needed

    return models.needs_package(architecture)


def fits_unet(facts: RunRecord) -> bool:
    """Whether smp builds a Unet on this backbone: not on a plain ViT, nor on maps that end at another stride than 32."""
    whole = facts.hyperparameters.get("output_stride") in (None, 32)
    return whole and facts.architecture is not None and smp_builds(facts.architecture)


@functools.cache  # a card is written at every checkpoint
def smp_builds(architecture: str) -> bool:
    import segmentation_models_pytorch as smp
    import torch

    try:
        with torch.device("meta"):  # shapes alone: no memory, no time
            smp.Unet(f"tu-{architecture}", encoder_weights=None)
    except Exception:  # whatever timm and smp raise for a network they do not fit
        return False
    return True


def settings(facts: RunRecord) -> str:
    """Hyperparameters, versions and hardware as one table; None is left out, and so is a setting at its default."""
    config = PretrainConfig if facts.kind == "backbone" else FinetuneConfig
    defaults = {f.name: default_of(f) for f in fields(config) if f.name != "seed"}
    rows = [
        (name, value)
        for name, value in facts.hyperparameters.items()
        if name not in defaults or value != defaults[name]
    ]
    rows += [("seed", facts.seed)] if "seed" not in facts.hyperparameters else []
    rows += [
        ("encoder" if facts.kind == "segmentation" else "architecture", facts.architecture),
        ("weights", facts.parameters and f"{facts.parameters:,}"),
    ]
    rows += [(f"version of {name}", version) for name, version in facts.versions.items()]
    rows += [(name.replace("_", " ").replace("gib", "(GiB)"), value) for name, value in facts.hardware.items()]
    lines = [f"| {cell(name)} | {code(value)} |" for name, value in rows if value not in (None, {}, [], "")]
    return "\n".join(["| setting | value |", "|---|---|", *lines]) if lines else ""


def method_name(name: str) -> str:
    """The method as a link to its paper, when it is one of ours and has one."""
    paper = find(name) if name in METHODS else None
    return f"[{name}](https://arxiv.org/abs/{paper.arxiv})" if paper and paper.arxiv else cell(name)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s" if minutes else f"{seconds:.0f} s"


def cell(text: Any) -> str:
    """Text that may stand in a Markdown line or table: one line, no markup of its own."""
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return text.replace("<", "&lt;")


def code(text: Any) -> str:
    """Text in code quotes."""
    text = " ".join(str(text).split()).replace("|", "¦")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _some(items: Iterable[str], most: int) -> str:
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")
