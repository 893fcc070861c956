"""The scores of every task as modules of the Hugging Face library `evaluate`; each score of a run comes from here.

    scores = SegmentationScores(class_names)
    scores.add_batch(predictions=masks, references=targets)   # as often as there are batches
    scores.compute()["miou"]

What a batch adds is kept in memory, in the process that added it: no file is written and no connection opened.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
import torch

from ..errors import UserError
from .classification import check_class_scores, classification_scores
from .confusion import confusion_of, per_image_jaccard, segmentation_metrics
from .multilabel import THRESHOLD, check_label_scores, multilabel_scores


class Scores(evaluate.Metric, abc.ABC):
    """An evaluate.Metric that collects rows of predictions and references as arrays.

    Arrow tables, in which evaluate.Metric keeps what is added, took 140 ms for 10,000 images of 10 classes and 3.6 s
    for 1,000 classes; arrays take nothing.

    Args:
        class_names: the K names.
        kwargs: what `evaluate.load` gives (config_name, experiment_id, ...). Only num_process=1 is possible: under
            torch.distributed every process has a module of its own.
    """

    def __init__(self, class_names: Sequence[str], **kwargs):
        super().__init__(**{**kwargs, "keep_in_memory": True})
        self.class_names = list(class_names)
        self.reset()

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features(self._features()),
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root  # nothing is kept on disk, so no folder is made

    @abc.abstractmethod
    def _features(self) -> dict:
        """The types of one row of predictions and references."""

    def reset(self) -> None:
        """Forget what was added."""
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []

    def add_batch(self, *, predictions=None, references=None, **kwargs) -> None:
        """Add the predictions and references of some images: arrays, tensors or lists with one row for each image."""
        self._rows.append((np.asarray(predictions), np.asarray(references)))

    def add(self, *, prediction=None, reference=None, **kwargs) -> None:
        """Add the prediction and the reference of one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, *, predictions=None, references=None, **options) -> dict:
        """The scores of all that was added since the last call, and of `predictions` and `references` if given."""
        try:
            if predictions is not None:
                self.add_batch(predictions=predictions, references=references)
            return self._compute(**options)
        finally:
            self.reset()

    def _collected(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._rows:
            raise UserError("Nothing has been added to the metric. Call add_batch before compute.")
        predictions, references = zip(*self._rows)
        return np.concatenate(predictions), np.concatenate(references)


class ClassificationScores(Scores):
    """Scores of a classifier with one class for each image: accuracy (also top 5, balanced and of each class), expected
    calibration error, negative log likelihood, confusion matrix.

    predictions: probabilities, float [N, K], whose rows sum to 1. references: true classes, int [N] in 0..K-1.
    """

    def _features(self) -> dict:
        return {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}

    def _compute(self) -> dict:
        probs, targets = check_class_scores(*self._collected(), len(self.class_names))
        return classification_scores(probs, targets, self.class_names)


class MultiLabelScores(Scores):
    """Scores of a classifier with any number of classes for each image: mean average precision, F1 (macro, micro and of
    each class), share of images all of whose classes are right.

    predictions: probabilities, float [N, K]. references: which classes each image has, int8 [N, K] of 0 and 1.
    compute(threshold=0.5): a class counts as predicted where its probability is larger.
    """

    def _features(self) -> dict:
        return {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int8")),
        }

    def _compute(self, threshold: float = THRESHOLD) -> dict:
        probs, targets = check_label_scores(*self._collected(), len(self.class_names))
        return multilabel_scores(probs, targets, self.class_names, threshold)


class SegmentationScores(Scores):
    """Scores of a segmenter over all pixels of a data set: mean IoU, Dice, pixel accuracy, each class, the confusion
    matrix; with two classes also the IoU of the second and its mean over images.

    predictions: classes, int [N, H, W] or a list of [H, W]. references: true classes of the same shape; pixels of
    255 or below 0 take no part. Tensors are counted on their own device.
    """

    def _features(self) -> dict:
        mask = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return {"predictions": mask, "references": mask}

    def reset(self) -> None:
        """Forget what was added."""
        k = len(self.class_names)
        self.confusion = torch.zeros(k, k, dtype=torch.int64)
        self.jaccard = torch.zeros(3)  # sum over images with a pixel that counts, their number, images

    def add_batch(self, *, predictions=None, references=None, **kwargs) -> None:
        """Count the pixels of some images. Raises UserError where their shapes or classes do not fit."""
        if len(predictions) != len(references):
            raise UserError(
                f"There are {len(predictions)} predictions and {len(references)} references. Give one of each for "
                "every image."
            )
        for prediction, reference in zip(predictions, references):
            target = torch.as_tensor(reference)
            self.to(target.device)
            one = confusion_of(torch.as_tensor(prediction).to(target.device), target, len(self.class_names))
            self.confusion += one
            iou = per_image_jaccard(one) if len(one) == 2 else one.new_zeros((), dtype=torch.float32)
            seen = (one.sum() > 0).to(iou.dtype)
            self.jaccard += torch.stack([iou * seen, seen, torch.ones_like(iou)])

    def to(self, device: torch.device) -> None:
        """Count on this device from now on."""
        self.confusion, self.jaccard = self.confusion.to(device), self.jaccard.to(device)

    def all_reduce(self) -> None:
        """Take in what the other processes of torch.distributed have counted; every one of them has to call this."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.confusion)
            torch.distributed.all_reduce(self.jaccard)

    def _compute(self) -> dict:
        out = {"images": int(self.jaccard[2]), **segmentation_metrics(self.confusion.cpu().numpy(), self.class_names)}
        if len(self.class_names) == 2:
            out["object_jaccard"] = float(self.jaccard[0] / self.jaccard[1].clamp(min=1))
        return out
