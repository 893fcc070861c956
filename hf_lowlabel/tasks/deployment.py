"""Exported models: inputs and outputs of the graph, for programs, and as Python code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..data.pages import range_of
from ..data.pixels.images import Range, decode, square_of
from ..evaluation.multilabel import THRESHOLD
from ..evaluation.segmentation import as_seen
from .base import Task
from .classification import eval_view
from .data_classes import photo_code
from .segmentation import seen

HEAD = """import json

import numpy as np
import {package}
from PIL import Image, ImageOps

said = json.load(open("preprocessing.json", encoding="utf-8"))
{photo}"""
SQUARE = """w, h = ({short} * side // min(image.size) for side in image.size)
small = image.resize((w, h), Image.Resampling.{interpolation})
left, top = (round((side - {short}) / 2) + {inside} for side in (w, h))
pixels = small.crop((left, top, left + {side}, top + {side}))
"""
SQUASHED = """small = image.resize(({short}, {short}), Image.Resampling.{interpolation})
pixels = small.crop(({inside}, {inside}, {inside} + {side}, {inside} + {side}))
"""
WHOLE = """scale = {scale}
h, w = (max(int(side * scale), 1) for side in image.size[::-1])
pixels = image.resize((w, h), Image.Resampling.BILINEAR)
"""
INPUT = """x = (np.asarray(pixels) / 255 - said["mean"]) / said["std"]
{pad}x = x.transpose(2, 0, 1)[None].astype(np.float32)
"""
RUN = {  # the package that runs the file -> the lines
    "onnxruntime": """session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(["logits"], {"pixel_values": x})
""",
    "openvino": """session = openvino.Core().compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
logits = session({"pixel_values": x})["logits"]
""",
}
PAD = """x = np.pad(x, ((0, -h % {divisor}), (0, -w % {divisor}), (0, 0)), mode="edge")
"""
ANSWERS = {
    "class": """p = np.exp(logits[0] - logits[0].max())
print(said["classes"][p.argmax()], p.max() / p.sum())
""",
    "classes": """p = 1 / (1 + np.exp(-logits[0]))
print({name: float(v) for name, v in zip(said["classes"], p) if v > said["threshold"]})
""",
    "mask": """p = np.exp(logits[0, :, :h, :w] - logits[0, :, :h, :w].max(0))
grown = (image.size, Image.Transform.EXTENT, (0, 0, w, h), Image.Resampling.BILINEAR)
p = [Image.fromarray(one).transform(*grown) for one in p / p.sum(0)]
Image.fromarray(np.argmax(p, 0).astype(np.uint8)).save("mask.png")  # numbers of said["classes"]
""",
}

ANSWER = (
    "softmax of the logits without the padded ones, each class scaled to the size of the image (bilinear), and of "
    "these the largest at each pixel"
)


@dataclass(frozen=True)
class Deployment:
    """What surrounds a network.

    prepare: upright RGB picture -> what the network sees of it, float32 [1, 3, H, W], normalised. side: H and W of an
    example, px. multiple: H and W are any multiples of it, px; None: `side` alone. facts: JSON values that describe
    the same. before, after: Python between the picture and the input, and from the logits to an answer. value_range:
    see `images.grey16`.
    """

    prepare: Callable[[Image.Image], Tensor]
    side: int
    multiple: int | None
    facts: dict[str, Any]
    before: str
    after: str
    value_range: Range

    def snippet(self, package: str) -> str:
        """Python that answers for photo.jpg with "onnxruntime" or "openvino", NumPy and Pillow."""
        head = HEAD.format(package=package, photo=photo_code(self.value_range))
        return head + self.before + RUN[package] + self.after


def deployment(task: Task, model: nn.Module) -> Deployment:
    """How the graph of a model is used; `model` as `task.load` gives it."""
    make = _segmenter if task.labeling == "mask" else _classifier
    return make(task, model)


def _range(model: nn.Module) -> Range:
    return range_of(getattr(model.config, "value_range", None) or ())


def _facts(task: Task, model: nn.Module, **more: Any) -> dict[str, Any]:
    return {
        "task": task.name,
        "value_range": list(_range(model) or (0, 65535)),  # of images of more than 8 bits
        "input": {"name": "pixel_values", "layout": "float32 [batch, 3, height, width], RGB, normalised"},
        "colors": "x / 255, less mean, divided by std, each channel by itself",
        **more,
        "output": {"name": "logits"},
        "classes": task.names_of(model),
    }


def _classifier(task: Task, model: Any) -> Deployment:
    """Squares out of the middle or of whole images, as `evaluate` and `predict` see them."""
    prep, view = model.preprocessing, eval_view(model)
    square, side = square_of(prep), prep["input_size"][-1]
    short, interpolation, squash = square.values()
    inside = round((short - side) / 2)

    def prepare(picture: Image.Image) -> Tensor:
        return view(decode(picture, **square)[None], torch.zeros(1, view.width, dtype=torch.float64))

    steps = [
        {"resize": "both sides to this, whatever the shape", "px": short}
        if squash
        else {"resize": "the shorter side to this, the longer one in proportion, rounded down", "px": short},
        {"crop": "a square out of the middle", "px": side},
    ]
    several = task.labeling == "classes"
    answer = {"answer": "the sigmoid of each logit", "threshold": THRESHOLD} if several else {"answer": "softmax"}
    colors = {"mean": list(map(float, prep["mean"])), "std": list(map(float, prep["std"]))}
    facts = _facts(task, model, steps=steps, interpolation=interpolation, **colors, **answer)
    cut = (SQUASHED if squash else SQUARE).format(
        short=short, inside=inside, side=side, interpolation=interpolation.upper()
    )
    return Deployment(prepare, side, None, facts, cut + INPUT.format(pad=""), ANSWERS[task.labeling], _range(model))


def _segmenter(task: Task, model: Any) -> Deployment:
    """Whole images, as `predict` sees them without a window, padded to multiples of the network's stride."""
    long_side, divisor = model.config.image_size, model.divisor

    def prepare(picture: Image.Image) -> Tensor:
        return model.pad(as_seen(np.asarray(picture), long_side=long_side, **seen(model)))

    pad = {"pad": "below and at the right, the last row and column repeated, to a multiple of this", "px": divisor}
    resize = {"resize": "the longer side to this, the shorter one in proportion, rounded down", "px": long_side}
    colors = {name: list(map(float, value)) for name, value in seen(model).items()}
    answer = {"answer": ANSWER}
    steps = [*([resize] if long_side else []), pad]
    facts = _facts(task, model, steps=steps, interpolation="bilinear", **colors, **answer)
    whole = WHOLE.format(scale=f"{long_side} / max(image.size)" if long_side else "1")
    before = whole + INPUT.format(pad=PAD.format(divisor=divisor))
    side = max(-(-(long_side or 4 * divisor) // divisor), 2) * divisor  # torch.export takes a single row for a constant
    return Deployment(prepare, side, divisor, facts, before, ANSWERS[task.labeling], _range(model))
