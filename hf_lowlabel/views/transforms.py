"""From stored images to the views of a batch: what a stream calls, the same for every task.

A transform takes uint8 images and `Draws` and returns the tensors of a batch by key. `Separate` gives each view a
geometry of its own, for images whose label is of the whole; `Joint` one geometry to all views and the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .counter_rng import keys, uniforms
from .joint import JointView
from .table import View


@dataclass(frozen=True)
class Draws:
    """Random numbers of some samples of a stream, a pure function of (seed, stream, sample).

    first, count: the samples whose numbers are drawn. rows: which of them these images are, int64 [n].
    """

    seed: int
    stream: str
    first: int
    count: int
    rows: Tensor

    def uniforms(self, name: str, width: int) -> Tensor:
        """float64 [n, width] in [0, 1), on the CPU."""
        return uniforms(self.seed, f"{self.stream}/{name}", self.first, self.count, width)[self.rows]

    def keys(self, name: str) -> Tensor:
        """int64 [n]: what a method draws from for each image (`counter_rng.keyed`), on the CPU."""
        return keys(self.seed, f"{self.stream}/{name}", self.first, self.count)[self.rows]


class BatchTransform(Protocol):
    """in_advance: whether views of several steps may be made in one call, which small images gain by."""

    in_advance: bool

    def __call__(self, images: Tensor, draws: Draws, sizes: Tensor | None) -> dict[str, Tensor]:
        """images: uint8 [n, C, H, W] on the device; sizes: int64 [n, 2], height and width of each in px, where
        padded."""
        ...


class Separate:
    """views: batch key -> View. geometry: the batch also holds KEY/box and KEY/flip, where each view was cut."""

    in_advance = True

    def __init__(self, views: Mapping[str, View], *, geometry: bool = False):
        self.views, self.geometry = dict(views), geometry

    def __call__(self, images: Tensor, draws: Draws, sizes: Tensor | None = None) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for key, view in self.views.items():
            u = draws.uniforms(key, view.width)  # [n, width]
            out[key] = view(images, u)
            if self.geometry:
                box, flip = view.geometry(u, images.shape[-1])
                out[f"{key}/box"] = box.to(images.device, non_blocking=True)
                out[f"{key}/flip"] = flip.to(images.device, non_blocking=True)
        return out


class Joint:
    """A JointView; the batch also holds "key", what a method draws its boxes and classes from."""

    in_advance = False

    def __init__(self, view: JointView):
        self.view = view

    def __call__(self, images: Tensor, draws: Draws, sizes: Tensor | None) -> dict[str, Tensor]:
        if sizes is None:
            raise ValueError("images with masks need their sizes")
        out = self.view(images, sizes, draws.uniforms("joint", self.view.width))
        out["key"] = draws.keys("method").to(images.device, non_blocking=True)
        return out
