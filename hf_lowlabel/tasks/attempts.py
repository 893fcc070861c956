"""The ways to train that `auto` tries, the plainest first.

Runs of some hundred steps on few labels: small batches, an average of the weights that forgets soon, the last weights,
since no image is held out to choose by.
"""

from __future__ import annotations

from typing import Any

from .data_classes import Attempt

_CLASSES: dict[str, Any] = dict(head_init="priors", metric_for_best_model="last", batch_size=16, optimizer="sgd")
_CLASSES |= dict(learning_rate=3e-3, max_grad_norm=1.0, freeze_norm=True)
CLASSIFICATION = (  # on from the best head on frozen features, whose beliefs are the priors
    Attempt("self-training", dict(method="self-training", unlabeled_ratio=1, **_CLASSES)),
    Attempt("FixMatch", dict(_CLASSES, method="fixmatch", unlabeled_ratio=2, learning_rate=7.5e-4)),
)

ADAPTATION = Attempt("BYOL", dict(method="byol", batch_size=64))  # of the encoder, by `pretrain`

_LABELS: dict[str, Any] = dict(metric_for_best_model="last", batch_size=16, optimizer="adamw", learning_rate=1e-4)
_LABELS |= dict(weight_decay=1e-2, head_lr=30.0, method_args=dict(ema_decay=0.99))
MULTILABEL = (
    Attempt("linear probe", dict(method="probe"), unlabeled=False, frozen=True, floor=True),
    Attempt("supervised", dict(method="supervised", **_LABELS), unlabeled=False),
    Attempt("FixMatch", dict(method="fixmatch", unlabeled_ratio=2, **_LABELS)),
)

# beside the defaults of finetuning; ten times the rate ends 10 to 50 points lower: the encoder forgets before the
# decoder has learned
_MASKS: dict[str, Any] = dict(batch_size=8, learning_rate=1e-4, head_lr=10.0)
SEGMENTATION = (
    Attempt("linear probe", dict(method="probe", architecture="linear"), unlabeled=False, frozen=True),
    Attempt("nearest pixels", dict(method="knn", architecture="knn"), unlabeled=False, frozen=True),
    Attempt("supervised", dict(method="supervised", **_MASKS), unlabeled=False, floor=True),
    Attempt("CutMix", dict(method="cutmix", **_MASKS)),  # UniMatch takes longer and is no better in short runs
)
