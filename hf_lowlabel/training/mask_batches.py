"""Batches of images with masks: as in batches.py, with one geometry for all views of an image."""

from __future__ import annotations

from torch import Tensor

from ..views.counter_rng import keys, uniforms
from ..views.joint import JointView
from .batches import ViewStream


class MaskStream(ViewStream):
    """`views` is a JointView; the pool a canvas (data.padded_cache), with masks for labeled images and without for others.

    A batch holds the views, "valid", "index", "key" (what methods draw from, views.counter_rng.keyed), and with masks "target".
    """

    views: JointView

    def render(self, chunk: int, images: Tensor) -> dict[str, Tensor]:
        first, count, rows = self.positions(chunk)
        index = self.indices(chunk)
        u = uniforms(self.seed, f"{self.name}/joint", first, count, self.views.width)[rows]  # [n, width]
        out = self.views(images, self.pool.sizes[self.members[index]], u)
        out["index"] = index.to(images.device, non_blocking=True)
        out["key"] = keys(self.seed, f"{self.name}/method", first, count)[rows].to(images.device, non_blocking=True)
        return out
