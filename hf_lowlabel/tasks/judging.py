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

    def judgeable(self, shows: np.ndarray) -> np.ndarray:
        """Which labeled images can be judged, bool [n]. shows: which classes each shows, bool [n, K]."""
        return np.ones(len(shows), bool)

    def lone(self, tallies: np.ndarray) -> np.ndarray:
        """Classes that nothing is left to learn from where a label is left out, bool [K]."""
        return np.zeros(tallies.shape[-1], bool)

    def judged(self, tallies: np.ndarray) -> np.ndarray:
        """The tallies without the classes that are `lone`, for `total`."""
        return tallies

    def tells_apart(self, tallies: np.ndarray) -> bool:
        """Whether two classes are judged: the score of one, which is right wherever it is called, says nothing."""
        return True

    def never_left_out(self, tallies: np.ndarray, shows: np.ndarray, names: list[str]) -> list[str]:
        """Classes, with how many show them, that labeled images show (bool [n, K]) and none of the tallies."""
        never = np.flatnonzero(shows.any(0) & (self.shown(tallies) == 0))
        return [f"{names[k]} ({shows[:, k].sum()} of the {len(shows)} {self.label_words})" for k in never]

    def said_left_out(self, tallies: np.ndarray, names: list[str], shows: np.ndarray | None = None) -> list[str]:
        """Sentences on classes that cross-validation cannot score, or that are not learned. shows: which classes each
        labeled image shows, bool [n, K], where not all of them are left out."""
        alone = []
        if (lone := self.lone(tallies)).any():
            number, of = self.shown(tallies), f"of the {len(tallies)} {self.label_words}"
            alone = [f"{names[k]} ({number[k]} {of})" for k in np.flatnonzero(lone)]
        alone += [] if shows is None else self.never_left_out(tallies, shows, names)
        return [f"The score is without {listed(alone, 5)}, which cross-validation cannot score."] if alone else []

    def said_untold(self, tallies: np.ndarray, names: list[str], shows: np.ndarray) -> str:
        """What is said instead of a score where `tells_apart` is not so."""
        judged = listed([names[k] for k in np.flatnonzero(self.shown(tallies))], 5) or "no class"
        never = listed(self.never_left_out(tallies, shows, names), 5)
        more = f"{never} cannot be left out, so label more that show others" if never else "label some that show others"
        return (
            f"On new images: not known. The {self.label_words} that can be left out show {judged} alone, whose score "
            f"says nothing; {more}."
        )


class JudgingMasks(Judging):
    """The same of tallies that are confusion matrices, [n, K, K]; the rows are the truth."""

    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        """Mean IoU of the classes that the masks show."""
        return shown_miou(tallies.sum(0))

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        return of_masks(model, labeled, len(names))

    def shown(self, tallies: np.ndarray) -> np.ndarray:
        return (tallies.sum(2) > 0).sum(0)

    def judgeable(self, shows: np.ndarray) -> np.ndarray:
        return np.asarray(shows.any(1))  # a mask may be ignored everywhere

    def said_left_out(self, tallies: np.ndarray, names: list[str], shows: np.ndarray | None = None) -> list[str]:
        """The IoU of each class too, where they are few."""
        said = super().said_left_out(tallies, names, shows)
        if len(names) > FEW or not self.tells_apart(tallies):
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

    def tells_apart(self, tallies: np.ndarray) -> bool:
        return bool((self.shown(self.judged(tallies)) > 0).sum() > 1)
