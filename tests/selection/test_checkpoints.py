"""Sel and the median of the last evaluations, by hand."""

import numpy as np
import pytest

from hf_lowlabel.evaluation.checkpoints import median_of_last, sel


def rows(labels, confidence, k=4):
    p = np.full((len(labels), k), (1 - confidence) / (k - 1))
    p[np.arange(len(labels)), labels] = confidence
    return p


def test_sel_by_hand():
    assert sel(rows([0, 1, 2, 3], 0.99)) == pytest.approx(1)  # all confident, even
    assert sel(rows([0, 0, 0, 0], 0.99)) == pytest.approx(0)  # all confident, one class
    assert sel(rows([0, 1, 2, 3], 0.9)) == 0  # none confident
    half = np.concatenate([rows([0, 1], 0.99), rows([2, 3], 0.5)])
    assert sel(half) == pytest.approx(0.5 * np.log(2) / np.log(4))  # half of them, two of four classes
    assert sel(rows([0, 1, 2, 3], 0.9), tau=0.8) == pytest.approx(1)


def test_median_needs_twenty_evaluations():
    history = [{"step": i, "test_accuracy": float(i)} for i in range(30)] + [{"step": 30, "loss": 1.0}]
    assert median_of_last(history) == 19.5
    assert median_of_last(history[:15]) is None
