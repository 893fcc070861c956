"""A trained model as a file that runs without torch and without this package; checked before it is there."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.given_files import find_images
from ..data.pixels.images import BadImage, load_rgb, open_image
from ..errors import UserError, unknown
from ..files import as_folder, whole_folder, write_json, write_text
from ..prediction import task_of
from ..tasks.deployment import Deployment, deployment
from .export_graph import Answers, by_onnxruntime, by_openvino, write_graph, write_openvino
from .export_int8 import Eight, write_int8

log = logging.getLogger("hf_lowlabel")
FORMATS = {"onnx": ("onnxruntime", "model.onnx"), "openvino": ("openvino", "model.xml")}  # what runs it, its file
TITLES = {"onnx": "ONNX", "openvino": "OpenVINO"}
NOT_WRITTEN = (
    "TorchScript is deprecated by torch, and a .pt2 file of torch.export may not open in another version of torch and "
    "may hold pickles: neither is written. Take --format onnx or openvino; where torch is, transformers loads the run."
)
CHECKED = 16  # images at most
CLOSE = 1e-3  # of the largest logit: the most by which logits may differ
README = """# {name} as {title}

`{file}` takes `pixel_values`, float32 [batch, 3, {height}, {width}], and gives `logits`; `preprocessing.json` says
how an image becomes its input and what the numbers mean. Any number of images at a time. In this folder, after
`pip install {package} numpy pillow`:

```python
{snippet}```

{checked}
"""


@dataclass(frozen=True)
class Exported:
    """folder: the model, preprocessing.json, README.md. images: on what both were compared. difference: the largest
    between two logits. largest: the largest logit. same: share of images (of segmenters: of pixels) whose largest logit
    is the same. snippet: Python that uses it. package: what runs it. eight: the file in int8, where one was asked for.
    """

    folder: Path
    images: str
    difference: float
    largest: float
    same: float
    snippet: str
    package: str = "onnxruntime"
    eight: Eight | None = None

    def __str__(self) -> str:
        eight = "" if self.eight is None else f"; {self.eight}"
        return (
            f"{self.package} against the model on {self.images}: logits differ by {self.difference:.2g} at most (the "
            f"largest is {self.largest:.3g}), {self.same:.2%} of the answers are the same{eight}"
        )


def export(
    model: str | os.PathLike[str] | nn.Module,
    output: str | Path | None = None,
    *,
    format: str = "onnx",
    images: str | Path | Sequence[str | Path] | None = None,
    revision: str | None = None,
    int8: bool = False,
) -> Exported:
    """Write a model as ONNX or OpenVINO, and compare it with the model before it counts as done.

    Args:
        model: a run folder, a saved model, a Hub id at `revision`, or a model in memory.
        output: folder to write; None: onnx/ or openvino/ in the run folder.
        format: "onnx", or "openvino" (model.xml and model.bin).
        images: files or folders of images to compare on; None: random pixels.
        int8: write model_int8.onnx too, with the ranges that `images` (None: training images of the run) give, and
            score both files on the test images of the run.

    Returns:
        The folder, and how much the answers differ.

    Raises:
        UserError: packages are missing, there is an `output` already, torch cannot write this network, or its answers
            differ. Nothing is left then.
    """
    check_format(format, int8)
    package, file = FORMATS[format]
    check_packages(package)
    model = as_folder(model)
    task = task_of(model, None, revision)
    folder = _folder(model, output, format)
    files = None if images is None else find_images(images)
    if isinstance(model, nn.Module):  # the caller goes on with it as it is
        model = copy.deepcopy(model).float()
    network = task.load(model, revision, "cpu")
    plan = deployment(task, network)
    inputs, words = inputs_of(plan, files)
    with whole_folder(folder) as part:
        if format == "onnx":
            write_graph(network, plan, part / file)
            answers = by_onnxruntime(part / file)
        else:
            with tempfile.TemporaryDirectory(dir=part) as place:
                write_graph(network, plan, Path(place, "model.onnx"))
                write_openvino(Path(place, "model.onnx"), part / file)
            answers = by_openvino(part / file)
        done = Exported(folder, words, *compare(network, inputs, answers), plan.snippet(package), package)
        if int8:
            run = Path(model) if isinstance(model, (str, Path)) and Path(model).is_dir() else None
            done = replace(done, eight=write_int8(task, network, plan, run, part, files))
        write_json(part / "preprocessing.json", plan.facts)
        size = "height" if plan.multiple else str(plan.side), "width" if plan.multiple else str(plan.side)
        name = folder.resolve().parent.name if output is None else folder.name
        how = dict(title=TITLES[format], file=file, package=package, snippet=done.snippet)
        text = README.format(name=name, height=size[0], width=size[1], checked=f"Checked: {done}.", **how)
        write_text(part / "README.md", text)
    return done


def check_format(format: str, int8: bool) -> None:
    if format in ("torchscript", "pt2"):
        raise UserError(NOT_WRITTEN)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if int8 and format != "onnx":
        raise UserError("--int8 is written by onnxruntime alone. Leave it out, or take --format onnx.")


def check_packages(package: str) -> None:
    needed = ("onnx", "onnxscript", package)
    for name in needed:
        try:
            importlib.import_module(name)
        except ImportError as error:
            extra = "export" if package == "onnxruntime" else package
            raise UserError(
                f"This export needs {', '.join(needed)}, and {name} cannot be imported ({error}). Install them: pip "
                f"install 'hf_lowlabel[{extra}]'."
            ) from error


def _folder(model: Any, output: str | Path | None, format: str) -> Path:
    if output is None and not (isinstance(model, (str, Path)) and Path(model).is_dir()):
        raise UserError("The model is in no folder of this machine. Give --output, the folder to write.")
    folder = Path(model, format) if output is None else Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already. Give another --output, or remove it.")
    return folder


@torch.inference_mode()
def compare(model: nn.Module, inputs: list[Tensor], answers: Answers) -> tuple[float, float, float]:
    """What a file says of images, one at a time and together, beside what the model says.

    Returns:
        difference, largest and same of `Exported`.

    Raises:
        UserError: they differ by more than rounding.
    """
    difference, largest, same, total = 0.0, 0.0, 0, 0
    for x in inputs:
        found = answers(x.numpy())
        expected = model(x).logits.float().numpy()
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise UserError(
                f"The file gives {list(found.shape)} where the model gives {list(expected.shape)}, or numbers "
                "that are not finite. Nothing was kept; use the model through transformers."
            )
        difference = max(difference, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        same += int((found.argmax(1) == expected.argmax(1)).sum())
        total += expected.argmax(1).size
    if difference > CLOSE * max(largest, 1.0):
        raise UserError(
            f"The file does not answer as the model does: logits differ by {difference:.3g} (the largest is "
            f"{largest:.3g}). Nothing was kept; use the model through transformers."
        )
    return difference, largest, same / total


def inputs_of(plan: Deployment, files: list[Path] | None) -> tuple[list[Tensor], str]:
    """Batches to compare on, and what they are."""
    if files is None:
        torch.manual_seed(0)
        step = plan.multiple or 0
        return [torch.randn(n, 3, plan.side, plan.side + n * step) for n in (1, 3)], "random pixels"
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(CHECKED, len(files))).astype(int))]
    seen, reason = [], ""
    for file in chosen:
        try:
            with open_image(file) as image:
                seen.append(plan.prepare(load_rgb(image, plan.value_range)))
        except BadImage as error:
            reason = f"{file}: {error.reason}"
            log.warning("%s is left out: %s", file, error.reason)
    if not seen:
        raise UserError(f"None of {len(chosen)} images could be read, for example {reason}. Give other --images.")
    together = torch.cat([x for x in seen if x.shape == seen[0].shape])
    return [*seen, together], f"{len(seen)} images"
