"""Cross-validated score of a task, and the unscored classes."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from torch import nn

from ..evaluation.confusion import segmentation_metrics, shown_miou
from ..text import listed, percent
from .cross_validation import of_masks
from .data_classes import Examples, LeftOut

FEW = 5  # classes at most whose scores fit in a sentence


class Judging(abc.ABC):
    """The part of a task that makes a score of tallies of n images (`Task.tallies`), here float64 [n, 2, K]:
    probabilities, and 1 where a class is the image's."""

    label_words: ClassVar[str]

    @abc.abstractmethod
    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        """The score by labels that were left out in turn, and `judged`: what it is likely to be on new images."""

    def weights(self, tallies: np.ndarray) -> np.ndarray | None:
        return None  # of images, [n], where `total` is the share of them that is right

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        """`tallies` of labeled images by frozen features (tasks.left_out), or None."""
        return None

    def shown(self, tallies: np.ndarray) -> np.ndarray:
        """How many of the images show each class, int [K]."""
        return tallies[:, 1].sum(0).astype(int)

    def lone(self, tallies: np.ndarray) -> np.ndarray:
        """Classes that nothing is left to learn from where a label is left out, bool [K]."""
        return np.zeros(tallies.shape[-1], bool)

    def judged(self, tallies: np.ndarray) -> np.ndarray:
        """The tallies without the classes that are `lone`, for `total`."""
        return tallies

    def said_left_out(self, tallies: np.ndarray, names: list[str]) -> list[str]:
        """Sentences on classes that cross-validation cannot score, or that are not learned."""
        if not (lone := self.lone(tallies)).any():
            return []
        number, of = self.shown(tallies), f"of the {len(tallies)} {self.label_words}"
        alone = [f"{names[k]} ({number[k]} {of})" for k in np.flatnonzero(lone)]
        return [f"The score is without {listed(alone, 5)}, which cross-validation cannot score."]


class JudgingMasks(Judging):
    """The same of tallies that are confusion matrices, [n, K, K]; the rows are the truth."""

    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        """Mean IoU of the classes that the masks show."""
        return shown_miou(tallies.sum(0))

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        return of_masks(model, labeled, len(names))

    def shown(self, tallies: np.ndarray) -> np.ndarray:
        return (tallies.sum(2) > 0).sum(0)

    def said_left_out(self, tallies: np.ndarray, names: list[str]) -> list[str]:
        """The IoU of each class too, where they are few."""
        said = super().said_left_out(tallies, names)
        if len(names) > FEW:
            return said
        found = segmentation_metrics(self.judged(tallies).sum(0), names)
        three = zip(names, found["per_class"], found["per_class_share"], strict=True)
        each = ", ".join(f"{name} {percent(iou, 0)}" for name, iou, share in three if share)
        return [f"IoU of each class in cross-validation: {each}.", *said]

    def lone(self, tallies: np.ndarray) -> np.ndarray:
        shown = self.shown(tallies)
        return (shown == 1) & bool((shown > 1).sum() > 1)  # a score of the background alone is no score

    def judged(self, tallies: np.ndarray) -> np.ndarray:
        return np.where(self.lone(tallies)[:, None], 0, tallies)
