"""The graph of a model as an ONNX file, and what runs it: onnxruntime, or OpenVINO, which reads such a file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..files import of_disk
from ..tasks.deployment import Deployment

OPSET = 18
Answers = Callable[[np.ndarray], np.ndarray]  # pixel_values -> logits


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
        OSError: the disk is full.
    """
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    height, width = plan.side, plan.side
    if plan.multiple is not None:
        free |= {2: plan.multiple * torch.export.Dim("rows"), 3: plan.multiple * torch.export.Dim("columns")}
        width += plan.multiple  # equal sides would be taken for one
    example = torch.rand(2, 3, height, width)
    try:
        with warnings.catch_warnings(), quiet():
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
        if disk := of_disk(error, path):
            raise disk from error
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(
            f"torch.onnx cannot write this network ({type(error).__name__}: {reason}). Export a model of another "
            "architecture, or use it through transformers."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch.onnx and onnxscript tell of every pass, and onnxruntime of axes, at the root of all loggers."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def by_onnxruntime(path: Path) -> Answers:
    """What onnxruntime answers on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with _refusing("onnxruntime"):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits(x: np.ndarray) -> np.ndarray:
        with _refusing("onnxruntime"):
            return session.run(["logits"], {"pixel_values": x})[0]

    return logits


@contextlib.contextmanager
def _refusing(package: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the package raises for a graph that it cannot run
        raise UserError(
            f"{package} cannot run the file of this network ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}). Nothing was kept; use the model through transformers."
        ) from error


def write_openvino(graph: Path, path: Path) -> None:
    """An ONNX file as OpenVINO's model.xml and model.bin, in float32.

    Raises:
        UserError: OpenVINO cannot read the graph.
        OSError: the disk is full.
    """
    import openvino

    try:
        openvino.save_model(openvino.convert_model(str(graph)), str(path), compress_to_fp16=False)
    except Exception as error:  # whatever OpenVINO raises: what it cannot express
        if disk := of_disk(error, path, graph.stat().st_size):
            raise disk from error
        raise UserError(
            f"OpenVINO cannot write this network ({type(error).__name__}: {' '.join(str(error).split())[:300]}). Take "
            "--format onnx."
        ) from error


def by_openvino(path: Path) -> Answers:
    """What OpenVINO answers on the processor; in float32, where some would take bfloat16."""
    import openvino

    with _refusing("OpenVINO"):
        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def logits(x: np.ndarray) -> np.ndarray:
        with _refusing("OpenVINO"):
            return compiled({"pixel_values": x})["logits"]

    return logits
