"""Candidate linear heads on frozen features, and their predictions in cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..finetuning.graph import MASSES, unevenness, weight_by_class
from ..finetuning.linear import softmax
from ..finetuning.temperature import KNOWN_T, temperature, usual_t
from ..text import percent


@dataclass(frozen=True, eq=False)
class Rung:
    """A candidate linear head. name: in tables. method, args: for `finetune --method ... --method-args`.
    unlabeled: whether it uses images without a label. names: whether what the names of the classes say spreads too.
    """

    name: str
    method: str
    args: Mapping[str, Any] = field(default_factory=dict)
    unlabeled: bool = True
    names: bool = False


PROBE = Rung("linear probe", "probe", unlabeled=False)
RUNGS = (
    PROBE,
    Rung("propagation, class shares of the labels", "propagation", {"masses": "labels"}),
    Rung("propagation, class shares of the graph", "propagation", {"masses": "graph"}),
    Rung("probe and propagation", "propagation", {"masses": "labels", "with_probe": True}),
)
WITH_NAMES = tuple(
    Rung(f"propagation with class names, class shares of the {masses}", "propagation", {"masses": masses}, names=True)
    for masses in MASSES
)
UNTRIED = RUNGS[3]  # where no label can be left out; with names that of the graph
BELIEFS = Rung("what a probe believes", "probe")  # no answer of its own
PARTS = (*RUNGS[1:], BELIEFS)  # of a blend, in the order of `Propagation`; with names also `WITH_NAMES`
EVENLY = 0.25  # unevenness of labels below which somebody chose them by class


def tried_words(kind: str, name: str, score: float | None) -> str:
    """One line of what was tried; its arrays are pages."""
    known = "not cross-validated" if score is None else f"{percent(score)} cross-validated"
    return f"{kind}({name!r}, {known})"


@dataclass
class Tried:
    """A candidate on the features of an encoder, and its predictions in cross-validation.

    votes: whether its targets are the votes of all encoders. blend: whether it is all rungs together.
    label: which label, int64 [M], of a picture with copies the first; logits: float64 [M, K], before the temperature t.
    None where no label can be left out. targets: what the saved head is fitted to, [N, K]; None for the probe. t:
    the usual one, 0 for that of the head, until labels have judged it. group: number of the group of each label, int
    [L]; None: each is one (`group_of`). even: the shares of the classes that as many labels of each stand for, [K], or
    None (`shares_behind`). evenly: whether there are about as many of each.
    adapted: whether the encoder has learned from the images.
    """

    rung: Rung
    encoder: str
    votes: bool
    label: np.ndarray
    logits: np.ndarray
    targets: np.ndarray | None
    t: float = 0.0
    blend: bool = False
    group: np.ndarray | None = None
    even: np.ndarray | None = None
    evenly: bool = field(default=False, init=False)
    adapted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.t = self.t or (1.0 if self.targets is None else usual_t(self.targets.shape[1]))

    @property
    def unlabeled(self) -> bool:
        """Whether images without a label have part in it."""
        return self.rung.unlabeled or self.adapted

    def judge(self, y: np.ndarray) -> None:
        """Means over repetitions, [G], for each group of labels that was left out: correct, probability of the class,
        confidence. asked: the labels, [A]; place: of each its group among the G.

        weight: [G], of each group in a mean over all. The class of a label counts by its likely share of all images:
        the only label of its class is never left out, so that plain means are about the classes that happen to have
        more of them, and flatter what prefers these.
        """
        self.evenly = len(np.unique(y)) > 1 and unevenness(y) < EVENLY
        if not len(self.label):
            self.asked = self.place = np.zeros(0, np.int64)
            self.weight = self.correct = self.probability = self.confidence = np.zeros(0)
            return
        truth, times = y[self.label], np.bincount(self.label, minlength=len(y))
        self.t = temperature(self.logits, truth, 1 / times[self.label], usual=self.t, width=KNOWN_T)
        p = softmax(self.logits / temperature(self.logits, truth))  # as sure as these labels make it, to rank by
        sure = softmax(self.logits / self.t)
        self.asked = np.unique(self.label)
        group: np.ndarray = self.asked if self.group is None else self.group[self.asked]
        self.place = np.unique(group, return_inverse=True)[1]
        each = weight_by_class(y[self.asked], p.shape[1], self.even)
        self.weight = np.asarray(np.bincount(self.place, each), float)
        count = times[self.asked]

        def mean(values: np.ndarray) -> np.ndarray:
            of_label = np.bincount(self.label, values, minlength=len(y))[self.asked] / count
            return np.bincount(self.place, each * of_label) / self.weight

        self.correct = mean((p.argmax(1) == truth).astype(float))
        self.probability = mean(p[np.arange(len(truth)), truth])
        self.confidence = mean(sure.max(1))

    @property
    def accuracy(self) -> float | None:
        return float(self.weight @ self.correct) if len(self.label) else None

    @property
    def score(self) -> float:
        """The ranking score: the mean probability of the true class, which is finer than the accuracy."""
        return float(self.weight @ self.probability) if len(self.label) else 0.0

    @property
    def name(self) -> str:
        return f"{self.rung.name}{', votes of all encoders' if self.votes else ''}, {self.encoder}"

    def __repr__(self) -> str:
        return tried_words("Tried", self.name, self.accuracy)

    @property
    def key(self) -> tuple[Rung, str, bool]:
        return self.rung, self.encoder, self.votes


def clearly_more(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether more of the same labels are right, wins - losses > sqrt(wins + losses + 1): a sign test with a doubtful
    label more, since one label decides nothing. one, other: [n], 1 where it is right."""
    differs = one - other
    return bool(differs.sum() > (np.abs(differs).sum() + 1) ** 0.5)


def better(one: Tried, other: Tried) -> bool:
    """Whether clearly more labels are right, and the true classes are more probable besides."""
    return clearly_more(one.correct, other.correct) and one.score > other.score
