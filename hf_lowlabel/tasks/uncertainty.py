"""How unsure a model is of images without a label, by which the next ones to label are chosen."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from ..arguments import DataArguments
from ..data.dataset import ImageDataset


class Doubt(NamedTuple):
    """unsure: [n], the larger the more doubtful. p: probabilities of the classes, of masks the shares of their pixels,
    [n, K]. x: features of the images, [n, D]."""

    unsure: np.ndarray
    p: np.ndarray
    x: np.ndarray


class Doubting:
    """The part of a task that looks at images without a label; as it stands here, where a label is of a whole image.

    doubts: ways to measure it, the usual one first.
    """

    doubts: ClassVar[tuple[str, ...]] = ("margin", "entropy")

    def look(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices: np.ndarray) -> Any:
        """A cache of images, of which no label is read; `indices` are positions in the data set."""
        task: Any = self
        return task._cache(data, model, dataset, indices, "unlabeled")

    def doubt(self, model: nn.Module, cache: Any, members: torch.Tensor, by: str | None = None) -> Doubt:
        """How unsure a model is of images of a cache, by one of `doubts` (None: the first)."""
        task: Any = self
        return self.doubt_of(model, task.features(model, cache, members), by)

    def doubt_of(self, model: nn.Module, features: np.ndarray, by: str | None = None) -> Doubt:
        """The same of images whose features [n, D] by the model are known."""
        task: Any = self
        p = task.predictions_of(model, features)
        return Doubt(self.unsure(p, by or self.doubts[0]), p, features)

    def unsure(self, p: np.ndarray, by: str) -> np.ndarray:
        """1 less the lead of the most probable class over the next, or the entropy as a share of log K."""
        if by == "entropy":
            return -(p * np.log(np.maximum(p, 1e-12))).sum(1) / np.log(max(p.shape[1], 2))
        top = np.sort(p, 1)
        return 1 - (top[:, -1] - top[:, -2]) if p.shape[1] > 1 else 1 - top[:, -1]
