"""A trained model as an ONNX file, which runs without torch and without this package; checked before it is there."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.images import BadImage, load_rgb, open_image
from ..errors import UserError
from ..files import whole_folder, write_json, write_text
from ..prediction import find_images, task_of
from ..tasks.deployment import Deployment, deployment
from .export_int8 import Eight, write_int8

log = logging.getLogger("hf_lowlabel")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CHECKED = 16  # images at most
CLOSE = 1e-3  # of the largest logit: the most by which logits may differ
OPSET = 18
README = """# {name} as ONNX

`model.onnx` takes `pixel_values`, float32 [batch, 3, {height}, {width}], and gives `logits`; `preprocessing.json` says
how an image becomes its input and what the numbers mean. Any number of images at a time. In this folder, after
`pip install onnxruntime numpy pillow`:

```python
{snippet}```

{checked}
"""


@dataclass(frozen=True)
class Exported:
    """folder: model.onnx, preprocessing.json, README.md. images: on what both were compared. difference: the largest
    between two logits. largest: the largest logit. same: share of images (of segmenters: of pixels) whose largest logit
    is the same. snippet: Python that uses it. eight: the file in int8, where one was asked for.
    """

    folder: Path
    images: str
    difference: float
    largest: float
    same: float
    snippet: str
    eight: Eight | None = None

    def __str__(self) -> str:
        eight = "" if self.eight is None else f"; {self.eight}"
        return (
            f"onnxruntime against the model on {self.images}: logits differ by {self.difference:.2g} at most (the "
            f"largest is {self.largest:.3g}), {self.same:.2%} of the answers are the same{eight}"
        )


def export_onnx(
    model: str | Path | nn.Module,
    output: str | Path | None = None,
    *,
    images: str | Path | Sequence[str | Path] | None = None,
    revision: str | None = None,
    int8: bool = False,
) -> Exported:
    """Write a model as ONNX, and compare it with the model before it counts as done.

    Args:
        model: a run folder, a saved model, a Hub id at `revision`, or a model in memory.
        output: folder to write; None: onnx/ in the run folder.
        images: files or folders of images to compare on; None: random pixels.
        int8: write model_int8.onnx too, with the ranges that `images` (None: training images of the run) give, and
            score both files on the test images of the run.

    Returns:
        The folder, and how much the answers differ.

    Raises:
        UserError: packages are missing, there is an `output` already, torch cannot write this network, or its answers
            differ. Nothing is left then.
    """
    check_packages()
    task = task_of(model, None, revision)
    folder = _folder(model, output)
    files = None if images is None else find_images(images)
    network = task.load(model, revision, "cpu")
    plan = deployment(task, network)
    inputs, words = inputs_of(plan, files)
    with whole_folder(folder) as part:
        write_graph(network, plan, part / "model.onnx")
        difference, largest, same = compare(network, inputs, part / "model.onnx")
        done = Exported(folder, words, difference, largest, same, plan.snippet)
        if int8:
            run = Path(model) if isinstance(model, (str, Path)) and Path(model).is_dir() else None
            done = replace(done, eight=write_int8(task, network, plan, run, part, files))
        write_json(part / "preprocessing.json", plan.facts)
        size = "height" if plan.multiple else str(plan.side), "width" if plan.multiple else str(plan.side)
        name = folder.resolve().parent.name if output is None else folder.name
        text = README.format(
            name=name, height=size[0], width=size[1], snippet=plan.snippet, checked=f"Checked: {done}."
        )
        write_text(part / "README.md", text)
    return done


def check_packages() -> None:
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"An export needs {', '.join(PACKAGES)}, and {name} cannot be imported ({error}). Install them: pip "
                "install 'hf_lowlabel[export]'."
            ) from error


def _folder(model: Any, output: str | Path | None) -> Path:
    if output is None and not (isinstance(model, (str, Path)) and Path(model).is_dir()):
        raise UserError("The model is in no folder of this machine. Give --output, the folder to write.")
    folder = Path(model, "onnx") if output is None else Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already. Give another --output, or remove it.")
    return folder


class _Logits(nn.Module):
    """A network from normalised images to logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


def write_graph(model: nn.Module, plan: Deployment, path: Path) -> None:
    """The graph, with a free number of images and, of segmenters, free height and width.

    Raises:
        UserError: torch.onnx cannot express the network.
    """
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    height, width = plan.side, plan.side
    if plan.multiple is not None:
        free |= {2: plan.multiple * torch.export.Dim("rows"), 3: plan.multiple * torch.export.Dim("columns")}
        width += plan.multiple  # equal sides would be taken for one
    example = torch.rand(2, 3, height, width)
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(),
                (example,),
                str(path),
                dynamo=True,
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"pixel_values": free},
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever torch.export and onnxscript raise: what they cannot express
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(
            f"torch.onnx cannot write this network ({type(error).__name__}: {reason}). Export a model of another "
            "architecture, or use it through transformers."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx and onnxscript tell of every pass."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


@torch.inference_mode()
def compare(model: nn.Module, inputs: list[Tensor], path: Path) -> tuple[float, float, float]:
    """What onnxruntime says of images, one at a time and together, beside what the model says.

    Returns:
        difference, largest and same of `Exported`.

    Raises:
        UserError: they differ by more than rounding.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    difference, largest, same, total = 0.0, 0.0, 0, 0
    for x in inputs:
        (found,) = session.run(["logits"], {"pixel_values": x.numpy()})
        expected = model(x).logits.float().numpy()
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise UserError(
                f"The ONNX file gives {list(found.shape)} where the model gives {list(expected.shape)}, or numbers "
                "that are not finite. Nothing was kept; use the model through transformers."
            )
        difference = max(difference, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        same += int((found.argmax(1) == expected.argmax(1)).sum())
        total += expected.argmax(1).size
    if difference > CLOSE * max(largest, 1.0):
        raise UserError(
            f"The ONNX file does not answer as the model does: logits differ by {difference:.3g} (the largest is "
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
                seen.append(plan.prepare(load_rgb(image)))
        except BadImage as error:
            reason = f"{file}: {error.reason}"
            log.warning("%s is left out: %s", file, error.reason)
    if not seen:
        raise UserError(f"None of {len(chosen)} images could be read, for example {reason}. Give other --images.")
    together = torch.cat([x for x in seen if x.shape == seen[0].shape])
    return [*seen, together], f"{len(seen)} images"
