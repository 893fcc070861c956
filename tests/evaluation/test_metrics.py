"""Every metric against a second, independent computation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import classification
from hf_lowlabel.evaluation.modules import ClassificationScores


def scores(n=400, k=7, seed=0, absent=()):
    """Logits that are right about half of the time, and targets that never are one of `absent`."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([c for c in range(k) if c not in absent], n)
    logits = rng.normal(size=(n, k)) * 2
    logits[np.arange(n), targets] += 1.5
    return logits, targets


def test_against_sklearn():
    from sklearn.metrics import (
        accuracy_score,
        balanced_accuracy_score,
        confusion_matrix,
        log_loss,
        top_k_accuracy_score,
    )

    logits, targets = scores()
    probs = classification.softmax(logits)
    m = ClassificationScores([f"c{i}" for i in range(7)]).compute(predictions=probs, references=targets)
    assert m["accuracy"] == accuracy_score(targets, logits.argmax(1))
    assert m["top5_accuracy"] == top_k_accuracy_score(targets, logits, k=5)
    assert m["accuracy"] < m["top5_accuracy"] < 1
    assert m["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, logits.argmax(1)), abs=1e-12)
    assert m["nll"] == pytest.approx(log_loss(targets, probs), abs=1e-10)
    np.testing.assert_array_equal(m["confusion"], confusion_matrix(targets, logits.argmax(1)))
    assert m["accuracy_error"] == pytest.approx(math.sqrt(m["accuracy"] * (1 - m["accuracy"]) / 400))


def test_softmax_and_ece_against_torch():
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, targets = scores(1000, 10, seed=1)
    probs = classification.softmax(logits)
    np.testing.assert_allclose(probs, torch.from_numpy(logits).softmax(1), atol=1e-12)
    theirs = multiclass_calibration_error(torch.from_numpy(probs), torch.from_numpy(targets), 10, n_bins=15, norm="l1")
    assert classification.expected_calibration_error(probs, targets) == pytest.approx(float(theirs), abs=1e-6)


def test_ece_by_hand():
    # two bins of ten used: confidence 0.85 three times (2 right), 0.55 once (0 right)
    probs = np.array([[0.85, 0.15], [0.85, 0.15], [0.15, 0.85], [0.55, 0.45]])
    targets = np.array([0, 0, 0, 1])
    by_hand = 3 / 4 * abs(2 / 3 - 0.85) + 1 / 4 * abs(0 - 0.55)
    assert classification.expected_calibration_error(probs, targets, bins=10) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("confidence, expected", [(0.5, 4), (0.6, 5), (0.6 + 1e-9, 6), (1.0, 9)])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(confidence, expected):
    b = classification.calibration_bins(np.array([[confidence, 1 - confidence]]), np.array([0]), bins=10)
    assert b["images"].tolist().index(1) == expected


def test_perfectly_calibrated_and_confidently_wrong():
    right = np.eye(3)[[0, 1, 2]]
    assert classification.expected_calibration_error(right, np.array([0, 1, 2])) == 0
    assert classification.expected_calibration_error(right, np.array([1, 2, 0])) == 1
    assert classification.negative_log_likelihood(right, np.array([1, 2, 0])) == pytest.approx(708.396, abs=1e-3)


def test_top5_with_few_classes_is_top_k_of_all():
    logits, targets = scores(50, 3)
    assert classification.top_k_accuracy(logits, targets, 5) == 1
    tied = np.zeros((1, 4))
    assert [classification.top_k_accuracy(tied, np.array([1]), k) for k in (1, 2)] == [0, 1]
    assert classification.accuracy(tied, np.array([0])) == classification.top_k_accuracy(tied, np.array([0]), 1) == 1


def test_class_without_images_is_none_and_json_has_no_nan():
    logits, targets = scores(absent=(2,))
    probs = classification.softmax(logits)
    m = ClassificationScores("abcdefg").compute(predictions=probs, references=targets)
    assert m["per_class"][2] is None and m["per_class_images"][2] == 0
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    seen = [np.mean(logits[targets == c].argmax(1) == c) for c in range(7) if c != 2]
    assert [a for a in m["per_class"] if a is not None] == pytest.approx(seen, abs=1e-12)
    assert m["balanced_accuracy"] == pytest.approx(np.mean(seen), abs=1e-12)


def test_most_confused_counts_errors_only():
    m = classification.most_confused(np.array([[9, 1, 0], [3, 9, 0], [0, 0, 9]]), ["cat", "dog", "owl"])
    assert m == [
        {"true": "dog", "predicted": "cat", "images": 3},
        {"true": "cat", "predicted": "dog", "images": 1},
    ]


@pytest.mark.parametrize(
    "probs, targets, words",
    [
        (np.zeros((4, 2)), np.zeros(4, int), "3 class names"),
        (np.zeros((4, 3)), np.zeros(3, int), "one row of scores"),
        (np.zeros((0, 3)), np.zeros(0, int), "N >= 1"),
        (np.zeros((4, 3)), np.array([0, 1, 2, 3]), "from 0 to 3"),
        (np.zeros((4, 3)), np.array([0, 1, 2, -1]), "Leave unlabeled images"),
        (np.full((4, 3), np.nan), np.zeros(4, int), "NaN or infinite scores for 4 of 4"),
    ],
)
def test_bad_input_is_named(probs, targets, words):
    with pytest.raises(UserError, match=words):
        ClassificationScores("abc").compute(predictions=probs, references=targets)


def test_logits_passed_as_probabilities_are_refused():
    logits, targets = scores()
    with pytest.raises(UserError, match="Take the softmax of logits"):
        ClassificationScores("abcdefg").compute(predictions=logits, references=targets)
