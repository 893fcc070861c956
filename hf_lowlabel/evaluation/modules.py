"""The metrics of `metrics.py` as `evaluate` modules: thin adapters, packaged here, nothing fetched and no code loaded.

    metric = ExpectedCalibrationError()
    metric.add_batch(predictions=probabilities, references=targets)   # as often as there are batches
    metric.compute()                                                  # {"ece": 0.031}

`predictions` are rows of probabilities [N, K] (for `ClassificationMetrics` with `class_names`: see there).
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from . import metrics


class _ScoresMetric(evaluate.Metric):
    """An evaluate.Metric over rows of class scores; the first paragraph of the docstring is its description."""

    def __init__(self, *args, keep_in_memory: bool | None = None, num_process: int = 1, **kwargs):
        # One process needs no files to exchange; several share theirs through evaluate's cache folder.
        keep = num_process == 1 if keep_in_memory is None else keep_in_memory
        super().__init__(*args, keep_in_memory=keep, num_process=num_process, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions: rows of K class scores; references: class indices in 0..K-1.",
            features=datasets.Features(features),
        )


class Accuracy(_ScoresMetric):
    """Share of images whose largest score is the true class: metrics.accuracy."""

    def _compute(self, predictions, references) -> dict:
        return {"accuracy": metrics.accuracy(*_checked(predictions, references))}


class TopKAccuracy(_ScoresMetric):
    """Share of images whose true class is among the k largest scores: metrics.top_k_accuracy."""

    def _compute(self, predictions, references, k: int = 5) -> dict:
        return {f"top{k}_accuracy": metrics.top_k_accuracy(*_checked(predictions, references), k)}


class PerClassAccuracy(_ScoresMetric):
    """Recall of every class: metrics.per_class_accuracy."""

    def _compute(self, predictions, references) -> dict:
        scores, targets = _checked(predictions, references)
        confusion = metrics.confusion_matrix(scores.argmax(1), targets, scores.shape[1])
        return {"per_class": metrics.per_class_accuracy(confusion)}


class ConfusionMatrix(_ScoresMetric):
    """Counts of (true class, predicted class): metrics.confusion_matrix."""

    def _compute(self, predictions, references) -> dict:
        scores, targets = _checked(predictions, references)
        return {"confusion": metrics.confusion_matrix(scores.argmax(1), targets, scores.shape[1])}


class ExpectedCalibrationError(_ScoresMetric):
    """Mean gap between confidence and accuracy over equal-width bins: metrics.expected_calibration_error."""

    def _compute(self, predictions, references, bins: int = metrics.BINS) -> dict:
        return {"ece": metrics.expected_calibration_error(*_checked(predictions, references, True), bins)}


class NegativeLogLikelihood(_ScoresMetric):
    """Mean of minus the log of the true class's probability, in nats: metrics.negative_log_likelihood."""

    def _compute(self, predictions, references) -> dict:
        return {"nll": metrics.negative_log_likelihood(*_checked(predictions, references, True))}


class ClassificationMetrics(_ScoresMetric):
    """All of them at once, from logits or (`probabilities=True`) probabilities: metrics.classification_metrics."""

    def _compute(self, predictions, references, class_names=None, probabilities: bool = False) -> dict:
        names = [str(i) for i in range(len(predictions[0]))] if class_names is None else class_names
        return metrics.classification_metrics(
            np.asarray(predictions), np.asarray(references), names, probabilities=probabilities
        )


def _checked(predictions, references, probabilities: bool = False) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(predictions, np.float64)
    return metrics.check(scores, np.asarray(references), scores.shape[-1], probabilities)
