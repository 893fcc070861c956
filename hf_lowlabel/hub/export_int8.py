"""8-bit integer quantisation of a model's ONNX file, and its loss on the test images."""

from __future__ import annotations

import copy
import itertools
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import ImageDataset
from ..data.pixels.images import BadImage, load_rgb, open_image
from ..data.splits.splits import Split
from ..errors import MissingSplit, UserError
from ..files import of_disk
from ..tasks.base import Task
from ..tasks.deployment import Deployment
from ..tasks.testing import test_images
from .export_graph import by_onnxruntime, quiet
from .report_data import config_of

log = logging.getLogger("hf_lowlabel")
CALIBRATED = 64  # images at most whose activations give the ranges
NAME = "model_int8.onnx"


@dataclass(frozen=True)
class Eight:
    """metric: name of the score. before, after: of the float and the int8 file on `images` test images; None where
    there are none. calibrated: images that gave the ranges. sizes: bytes of both files.
    """

    metric: str
    before: float | None
    after: float | None
    images: int
    calibrated: int
    sizes: tuple[int, int]

    def __str__(self) -> str:
        small, large = (f"{size / 1e6:.1f} MB" for size in self.sizes[::-1])
        said = f"int8 ({NAME}, {small} instead of {large}; ranges from {self.calibrated} images)"
        if self.before is None or self.after is None:
            return (
                f"{said}: there are no test images at hand, so that what it costs is not known; measure it before you "
                "use it"
            )
        cost = 100 * (self.after - self.before)
        return (
            f"{said}: {self.metric} {100 * self.after:.1f} % instead of {100 * self.before:.1f} % ({cost:+.1f} points) "
            f"on {self.images} test images"
        )


def write_int8(
    task: Task, model: nn.Module, plan: Deployment, run: Path | None, part: Path, files: list[Path] | None
) -> Eight:
    """Write model_int8.onnx beside model.onnx (static, weights by channel), and score both.

    Args:
        task: of the model.
        model: the model itself.
        plan: what surrounds it.
        run: its run folder, whose data and test images are taken; None: it has none.
        part: folder with model.onnx.
        files: images that give the ranges; None: training images of the run.

    Raises:
        UserError: there are no images for the ranges, or onnxruntime cannot do it.
        OSError: the disk is full.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    known = run if run is not None and (run / "training.yaml").is_file() and (run / "run.json").is_file() else None
    images = calibration(task, plan, known, files)  # one at a time: sixty photos of a phone are gigabytes
    first = next(images, None)
    if first is None:
        raise UserError("int8 needs images to see which numbers occur. Give --images, best your own.")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left, self.count = itertools.chain([first], images), 0
            self.error: Exception | None = None  # of the images

        def get_next(self) -> dict[str, np.ndarray] | None:
            try:
                x = next(self.left, None)
            except Exception as error:
                self.error = error
                raise
            self.count += x is not None
            return None if x is None else {"pixel_values": x.numpy()}

    reader, whole, small = Reader(), part / "model.onnx", part / NAME
    with tempfile.TemporaryDirectory(dir=part) as place:
        ready = str(Path(place, "ready.onnx"))
        try:
            quant_pre_process(str(whole), ready, skip_symbolic_shape=True)
            how = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
            with quiet():
                quantize_static(ready, str(small), reader, quant_format=QuantFormat.QDQ, **how)
        except Exception as error:  # whatever onnxruntime raises: what it cannot express
            if error is reader.error:
                raise
            places = (small, Path(tempfile.gettempdir(), NAME))  # where it writes; to the second of its own accord
            if disk := next(filter(None, (of_disk(error, to, whole.stat().st_size) for to in places)), None):
                raise disk from error
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"onnxruntime cannot write this network in int8 ({type(error).__name__}: {reason}). Leave out --int8."
            ) from error
    metric, sizes = task.score, (whole.stat().st_size, small.stat().st_size)
    held = None if known is None else tested(task, model, known, needed=files is None)
    if held is None:
        return Eight(metric.title, None, None, 0, reader.count, sizes)
    scores = [task.evaluate(by_file(model, plan, file), *held)[metric.key] for file in (whole, small)]
    return Eight(metric.title, float(scores[0]), float(scores[1]), len(held[0].members), reader.count, sizes)


def calibration(task: Task, plan: Deployment, run: Path | None, files: list[Path] | None) -> Iterator[Tensor]:
    """What the network sees of up to `CALIBRATED` images, float32 [1, 3, H, W] each; of a run, of those that it did not
    hold out: on the others the file is scored."""
    if files is None and run is None:
        return
    source = None if files is not None else task.open_images(config_of(run).data)
    at = np.arange(len(files)) if files is not None else trained_on(source, run / "split.json")
    for i in at[np.unique(np.linspace(0, len(at) - 1, min(CALIBRATED, len(at))).astype(int))]:
        try:
            with open_image(files[i]) if files is not None else source.image(int(i)) as image:
                yield plan.prepare(load_rgb(image, plan.value_range))
        except BadImage:
            continue


def trained_on(source: ImageDataset, manifest: Path) -> np.ndarray:
    """Positions of the images that a run did not hold out; of all where it has no manifest."""
    split = Split.load(manifest) if manifest.is_file() else None
    held = {*split.validation, *split.test} if split is not None else set[str]()
    return np.flatnonzero([id not in held for id in source.ids])


def tested(task: Task, model: nn.Module, run: Path, needed: bool = True) -> tuple[Any, list[str]] | None:
    """The test images of a run and the names of the classes; None where it has none.

    needed: whether data that cannot be opened are an error, since the ranges came from them too; else a warning.
    """
    try:
        data, names = config_of(run).data, task.names_of(model)
        images, indices = test_images(task, data, names, None, run / "split.json")
        return task.held(model, data, images, indices, names, "test"), names
    except MissingSplit:
        return None
    except UserError as error:
        if needed:
            raise
        log.warning("int8 is not scored: the test images of %s cannot be opened: %s", run, error)
        return None


def by_file(model: nn.Module, plan: Deployment, file: Path) -> nn.Module:
    """The model with the logits of an ONNX file in place of its own."""
    answers = by_onnxruntime(file)

    def forward(pixel_values: Tensor, **_: Any) -> SimpleNamespace:
        height, width = pixel_values.shape[-2:]
        x = model.pad(pixel_values) if plan.multiple else pixel_values
        out = torch.from_numpy(answers(x.float().cpu().numpy()))
        return SimpleNamespace(logits=out[..., :height, :width] if plan.multiple else out)

    other = copy.copy(model)
    other.forward = forward
    return other
