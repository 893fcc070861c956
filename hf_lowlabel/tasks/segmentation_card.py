"""Text of cards and reports of segmenters."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..evaluation import charts
from ..evaluation.confusion import confusion_of, segmentation_metrics
from ..evaluation.overlays import IGNORE, Declared, Examples, overlay, palette
from ..evaluation.segmentation import Normalise, evaluate_segmentation, probabilities
from ..files import read_json
from ..records import RunRecord
from ..text import code, listed, percent
from . import classification_card
from .data_classes import Section, photo_code

PICTURED = 6  # test images in the sheet of overlays
MOST_SEGMENTED = 500  # test images that are segmented in search of the worst
MOST_MASKS = 12
SCORED_AT = "scored_at_px"  # of the longer side, among the metrics
FEW_TESTED = 100  # images below which small differences mean nothing


def summary(record: RunRecord, data: str, method: Callable[[str], str]) -> str:
    return classification_card.summary(record, data, method, "every pixel of images", "images with masks")


def per_class(metrics: dict[str, Any]) -> str:
    """The IoU of each class on one line; "–" for a class that is nowhere."""
    pairs = zip(metrics["class_names"], metrics["per_class"], strict=True)
    return "  ".join(f"{name} {'–' if value is None else format(value, '.3f')}" for name, value in pairs)


def size_scored(model: nn.Module) -> dict[str, int]:
    """What the scores say of the size of the images; nothing where each has its own."""
    side = getattr(model.config, "image_size", None)
    return {SCORED_AT: side} if side else {}


def size_note(metrics: dict[str, Any]) -> list[str]:
    side = metrics.get(SCORED_AT)
    if not side:
        return []
    said = f"Scored on images and masks resized to {side} px on the longer side, so that each weighs about the same; "
    if (own := metrics.get("miou_own_size")) is None:
        own = "where finer borders may score some points lower."
        return [f"{said}`predict` writes masks at the image's own size, {own}"]
    each = per_class({**metrics, "per_class": metrics["per_class_own_size"]})
    return [f"{said}at their own size, as `predict` writes masks, mean IoU is {own:.4f}.", f"IoU at own size  {each}"]


def seen_at(record: RunRecord) -> str:
    """That of use; what `image_size` names is the side of a training view, which a probe has none of."""
    if not record.image_size:
        return ""
    side = record.hyperparameters.get("stored_size")
    return f"{side} px on the longer side" if side else "their own size"


def limits(record: RunRecord) -> list[str]:
    metrics, lines = record.metrics, []
    names, iou = metrics.get("class_names") or record.class_names, metrics.get("per_class") or []
    share = metrics.get("per_class_share") or [None] * len(iou)
    if record.labels and record.labels.without:
        lines.append(f"No mask showed {listed(map(code, record.labels.without), 20)}: never named in training.")
    together = list(zip(iou, names, share, strict=False))
    measured = sorted((v, name, s) for v, name, s in together if v is not None and v < 1)
    if measured:
        worst = [
            f"{code(name)} IoU {percent(v)}" + (f" ({percent(s)} of the test pixels)" if s is not None else "")
            for v, name, s in measured[:5]
        ]
        lines.append("Worst classes: " + ", ".join(worst) + ".")
    unseen = [code(name) for _, name, s in together if s == 0]
    if unseen:
        them = "it" if len(unseen) == 1 else "them"
        lines.append(f"No test pixel showed {listed(unseen, 20)}: nothing is known about {them}.")
    if 0 < (metrics.get("images") or 0) < FEW_TESTED:
        lines.append(f"Only {metrics['images']} test images: differences of a few per cent mean nothing.")
    if record.class_names:
        lines.append(
            f"Every pixel gets one of its {len(record.class_names):,} classes, even if an image shows none of them."
        )
    return [*lines, *size_note(metrics)]


def snippets(record: RunRecord, model_id: str) -> list[str]:
    auto = "AutoModelForSemanticSegmentation"
    return [
        "import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom PIL import Image, ImageOps\n"
        f"from transformers import AutoImageProcessor, {auto}\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{model_id}")\n'
        "# its code lies beside the weights: read it before you trust it; after\n"
        "# `import hf_lowlabel.models.segmentation` it loads without trust_remote_code\n"
        f'model = {auto}.from_pretrained("{model_id}", trust_remote_code=True).eval()\n'
        f"{photo_code(record.hyperparameters.get('value_range'))}"
        'x = processor(image, do_resize=False, return_tensors="pt")["pixel_values"]\n'
        "if model.config.image_size:  # px of the longer side; the processor would round to whole colours\n"
        "    scale = model.config.image_size / max(image.size)\n"
        "    size = [max(int(side * scale), 1) for side in image.size[::-1]]\n"
        '    x = F.interpolate(x, size=size, mode="bilinear", antialias=True)\n'
        "with torch.no_grad():\n"
        "    p = model(x).logits.softmax(1)\n"
        'mask = F.interpolate(p, size=image.size[::-1], mode="bilinear").argmax(1)[0]  # [H, W]\n'
        "print({model.config.id2label[int(k)]: float((mask == k).float().mean()) for k in mask.unique()})",
    ]


@torch.inference_mode()
def examples(model: nn.Module, cache, window: int | None, mean, std) -> Examples:
    """Input, truth and prediction of a few images spread over the cache, computed on this process alone."""
    positions = torch.linspace(0, len(cache) - 1, min(PICTURED, len(cache))).long().unique()
    found, normalise = Examples(positions.tolist(), cache.ids), Normalise(mean, std)
    device = next(model.parameters()).device
    model.eval()
    for i in positions.tolist():
        h, w = cache.sizes[i].tolist()
        packed = cache.take(torch.tensor([i]))[..., :h, :w]
        p = probabilities(model, normalise(packed[:, :3].to(device)), window and (window, window))
        found(i, packed[0, :3], packed[0, 3], p[0])
    return found


def declared_by(model: nn.Module) -> Declared:
    """The colours of the classes in the masks that a model learned from, in which `predict` shows them."""
    return getattr(model.config, "class_colors", None)


def space(record: RunRecord, model: Path) -> dict[str, Any]:
    """See `Task.space`."""
    declared = read_json(model / "config.json").get("class_colors")
    return {"answer": "mask", "colors": palette(record.class_names, declared).tolist()}


# ---- the report -----------------------------------------------------------------------------------------------------
def figures(metrics: dict[str, Any], names: list[str]) -> list[str]:
    out = classification_card.confusion_figures(metrics, names, pixels=True)
    if metrics.get("per_class"):
        together = zip(metrics["per_class"], metrics["per_class_share"], names, strict=True)
        per = sorted((v, share, name) for v, share, name in together if v is not None)
        rows = [(name, v, f"{percent(v)}, {percent(share)} of pixels") for v, share, name in per]
        out.append(classification_card.worst_first("IoU of the classes, worst first", rows))
    return out


def findings(task, folder: Path, config, dataset, chosen: np.ndarray, names: list[str]) -> list[Section]:
    """The test images whose masks came out worst, by the mean IoU of each."""
    model, window = task.load(folder), config.views.window
    at = chosen[classification_card.spread(len(chosen), MOST_SEGMENTED)]
    images = task.held(model, classification_card.any_bad(config.data), dataset, at, names, "test")
    worst: list[tuple[float, int, tuple]] = []

    def keep(i: int, image: Tensor, target: Tensor, p: Tensor) -> None:
        prediction = p.argmax(0)
        matrix = confusion_of(prediction, target, len(names)).cpu().numpy()
        if not matrix.sum():
            return  # nothing but pixels that take no part
        worst.append((segmentation_metrics(matrix, names)["miou"], i, (image.cpu(), target.cpu(), prediction.cpu())))
        worst.sort(key=lambda f: f[:2])
        del worst[MOST_MASKS:]

    seen = dict(mean=model.config.image_mean, std=model.config.image_std)
    evaluate_segmentation(model, images.cache, names, window=window and (window, window), each=keep, **seen)
    declared = declared_by(model)
    tiles = [
        f"<div class=tile><img alt='' src='{charts.inline(strip(pictures, names, declared))}'>"
        f"{escape(str(images.cache.ids[i]))}: IoU {percent(miou)}</div>"
        for miou, i, pictures in worst
    ]
    colors = zip(names, map(tuple, palette(names, declared).tolist()), strict=False)
    items = (f'<span><i class=box style="background:rgb{color}"></i>{escape(name)}</span>' for name, color in colors)
    note = f"The test images of lowest mean IoU among {len(images.cache):,}: image, true mask, answer."
    body = f"<div class=legend>{''.join(items)}</div><div class='tiles strips'>{''.join(tiles)}</div>"
    return [("Worst masks", note, body)] if tiles else []


def strip(pictures: tuple[Tensor, Tensor, Tensor], names: list[str], declared: Declared) -> bytes:
    """PNG: image, truth and prediction side by side."""
    image, mask, prediction = pictures
    pixels, truth = image.permute(1, 2, 0).numpy(), mask.numpy()
    answer = np.where(truth == IGNORE, IGNORE, prediction.numpy()).astype(np.uint8)
    parts = (pixels, *(overlay(pixels, mask, names, declared) for mask in (truth, answer)))
    shown = [classification_card.small(Image.fromarray(p)) for p in parts]
    joined = Image.new("RGBA", (sum(s.width for s in shown) + 4 * (len(shown) - 1), shown[0].height))
    for n, s in enumerate(shown):
        joined.paste(s, (n * (shown[0].width + 4), 0))
    return classification_card.encoded(joined)
