"""Multi-label classification: all classes of an image that apply, any number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..arguments import Config, DataArguments
from ..data.dataset import ImageDataset
from ..data.sources.several_targets import MultiLabelTargets
from ..data.sources.targets import Targets
from ..demo_stages import SCENES
from ..errors import UserError
from ..evaluation import sheets
from ..evaluation.inference import logits_of
from ..evaluation.modules import MultiLabelScores
from ..evaluation.multilabel import THRESHOLD, lone, mean_average_precision, multilabel_scores
from ..records import Metric, RunRecord
from ..text import listed
from . import LABELING, classification_card as card, multilabel_card as several
from .attempts import MULTILABEL
from .classification import Classification, eval_view
from .cross_validation import of_several
from .data_classes import Examples, LeftOut, Section, label_rules
from .multilabel_card import said


class MultiLabel(Classification):
    """All classes of an image that apply."""

    name, product = "multilabel", "multi-label classifier"
    metrics = (
        Metric("map", "Mean average precision"),
        Metric("f1_macro", "F1, mean of the classes"),
        Metric("f1_micro", "F1, all classes together", hub="f1"),
        Metric("exact_match", "All classes of an image right"),
    )
    takes = Classification.takes - {"class_balanced", "prior", "prior_until", "head_init"}
    own_methods = {
        "supervised": "finetuning.multilabel:MultiLabelSupervised",
        "probe": "finetuning.multilabel:MultiLabelProbe",
        "mean-teacher": "finetuning.multilabel:MultiLabelMeanTeacher",
        "fixmatch": "finetuning.multilabel:MultiLabelFixMatch",
    }
    climbs, labels_score, has_neighbours, labeling = False, False, False, LABELING["multilabel"]
    attempts = MULTILABEL
    threshold: float = THRESHOLD
    problem_type = "multi_label_classification"
    demo = SCENES

    def targets(self, data: DataArguments, names: Sequence[str] | None = None) -> Targets:
        return MultiLabelTargets(data.label_column, label_rules(data))

    def caches(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, at):
        return super().caches(model, data, self.match(dataset, self.names_of(model)), at)

    def labels_of(self, dataset: ImageDataset, indices: np.ndarray, labels: np.ndarray | None) -> torch.Tensor:
        return torch.as_tensor(dataset.labels[indices], dtype=torch.float32)

    def held(self, model: nn.Module, data: DataArguments, dataset: ImageDataset, indices, names, what) -> Examples:
        images = super().held(model, data, dataset, indices, names, what)
        if not (images.targets > 0).any():
            raise UserError(
                f"None of the {len(images.members)} {what} images has any of the classes {listed(names, 5)}, and a "
                f"score needs one that has. Hold out more (--{'test-fraction' if what == 'test' else what}), or draw "
                "others (--seed)."
            )
        return images

    def known_labels(self, labeled: Examples, count: int) -> np.ndarray:
        labels = np.full((count, labeled.targets.shape[1]), -1)
        labels[labeled.members.numpy()] = labeled.targets.numpy()
        return labels

    def shows(self, labeled: Examples, names: list[str]) -> np.ndarray:
        return labeled.targets.numpy() > 0

    def activated(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def predictions(self, model: nn.Module, cache, members: torch.Tensor | None = None) -> np.ndarray:
        return logits_of(model, cache, eval_view(model), members).double().sigmoid().numpy()

    def shares(self, targets: torch.Tensor, names: list[str]) -> np.ndarray:
        return targets.double().numpy()

    def total(self, tallies: np.ndarray, names: list[str]) -> float:
        return mean_average_precision(tallies[:, 0], tallies[:, 1])

    def lone(self, tallies: np.ndarray) -> np.ndarray:
        shown = self.shown(tallies)
        for out in (lone(tallies[:, 1]), shown == len(tallies)):  # what all have is right in any order
            if (~out & (shown > 0)).any():  # a score of none is no score
                return out
        return np.zeros(len(shown), bool)

    def judged(self, tallies: np.ndarray) -> np.ndarray:
        return tallies[:, :, ~self.lone(tallies)]

    def tells_apart(self, tallies: np.ndarray) -> bool:
        shown = self.shown(tallies)
        return bool(((shown > 0) & (shown < len(tallies))).any())

    def said_untold(self, tallies: np.ndarray, names: list[str], shows: np.ndarray) -> str:
        if not self.shown(tallies).any() or self.never_left_out(tallies, shows, names):
            return super().said_untold(tallies, names, shows)
        every = listed([names[k] for k in np.flatnonzero(self.shown(tallies))], 5)
        return f"On new images: not known. Every labeled image shows {every}: label some without one of these."

    def said_left_out(self, tallies: np.ndarray, names: list[str], shows: np.ndarray | None = None) -> list[str]:
        some = self.judged(tallies)
        kept = [names[k] for k in np.flatnonzero(~self.lone(tallies))]
        weak = several.unlearned(multilabel_scores(some[:, 0], some[:, 1].astype(np.int8), kept))
        return [*super().said_left_out(tallies, names, shows), *(f"In cross-validation, {words}." for words in weak)]

    def weights(self, tallies: np.ndarray) -> np.ndarray | None:
        return None

    def unsure(self, p: np.ndarray, by: str) -> np.ndarray:
        """Mean over the classes, each of which is there or not."""
        if by == "margin":
            return 1 - np.abs(2 * p - 1).mean(1)
        return -sum(q * np.log2(np.maximum(q, 1e-12)) for q in (p, 1 - p)).mean(1)

    def scores(self, probabilities: np.ndarray, targets: np.ndarray, names: list[str]) -> dict[str, Any]:
        given = dict(predictions=probabilities, references=targets.astype(np.int8))
        return MultiLabelScores(names).compute(**given, threshold=self.threshold)

    def tallies_left_out(self, model: nn.Module, labeled: Examples, names: list[str]) -> LeftOut | None:
        return of_several(self, model, labeled)

    def answer(self, p: torch.Tensor, names: list[str], top: int = 1) -> dict[str, Any]:
        """The classes of a probability above the threshold, and the probability of each; `top` means nothing here."""
        chances = [round(c, 6) for c in p.tolist()]
        return {"classes": said(p > self.threshold, names, ";")} | {
            f"confidence_{n}": c for n, c in zip(names, chances)
        }

    def pictures(self, p: np.ndarray, images: Examples, names: list[str], metrics: dict, folder: Path) -> None:
        chosen = card.spread(len(p), sheets.MOST_CAPTIONED)
        pixels = images.cache.take(images.members[chosen]).permute(0, 2, 3, 1).cpu().numpy()
        guess, truth = p[chosen] > self.threshold, images.targets.numpy()[chosen] > 0
        captions = [(said(g, names), said(t, names), bool((g == t).all())) for g, t in zip(guess, truth, strict=True)]
        sheets.captioned(pixels, captions, folder / "predictions.png")

    limits = staticmethod(several.limits)
    console = staticmethod(several.by_class)
    figures = staticmethod(several.figures)

    def summary(self, record: RunRecord, data: str, method: Callable[[str], str]) -> str:
        words = card.summary(record, data, method, "images", "labeled images")
        return words.replace("Sorts images", "Names what is in images", 1).replace(" into ", ", out of ", 1)

    def snippets(self, record: RunRecord, model_id: str) -> list[str]:
        shown = "print({model.config.id2label[k]: float(p) for k, p in enumerate(output.logits.sigmoid()[0])})"
        loaded = card.load_code(record, model_id, "AutoModelForImageClassification")
        return [*card.pipeline_code(record, model_id), loaded + shown]

    def space(self, record: RunRecord, model: Path) -> dict[str, Any]:
        return {"answer": "labels"}

    def findings(
        self, folder: Path, config: Config, dataset: ImageDataset, chosen: np.ndarray, names: list[str]
    ) -> list[Section]:
        model, some = self.load(folder), chosen[card.spread(len(chosen), card.MOST_TESTED)]
        images = self.held(model, card.any_bad(config.data), dataset, some, names, "test")
        return several.findings(self.predictions(model, images.cache), images, dataset, names)
