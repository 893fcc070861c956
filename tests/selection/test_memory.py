"""How often a choice holds the features: 100 million images of 512 numbers are 205 GB in float32."""

import tracemalloc

import numpy as np
import pytest
import torch

from hf_lowlabel.arguments import DataArguments
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.evaluation import neighbors
from hf_lowlabel.evaluation.neighbors import rows_of, squared_lengths, unit
from hf_lowlabel.selection import clustering, strategies, verbs
from hf_lowlabel.selection.feature_file import Features


@pytest.fixture
def found(monkeypatch):
    """Features of the digits, of 2048 numbers each, handled a few at a time."""
    for module in (neighbors, strategies, clustering):
        monkeypatch.setattr(module, "BLOCK", 64)
    count = len(load_source("digits"))
    values = np.random.default_rng(0).standard_normal((count, 2048), dtype=np.float32)
    return Features(values, np.arange(count))


def test_select_holds_features_without_copies_once(found, tmp_path, monkeypatch):
    monkeypatch.setattr(verbs, "extract", lambda *given, **more: found)
    given = dict(budget=10, strategy="random", output=tmp_path / "out", device="cpu")
    tracemalloc.start()
    try:
        chosen = verbs.select("resnet10t", DataArguments("digits"), **given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(chosen.ids) == 10 and peak < found.values.nbytes  # beside the features themselves: less than a copy


def test_helpers_that_spare_copies_compute_the_same(found):
    x = found.values
    lengths = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(squared_lengths(torch.from_numpy(x)), lengths**2, rtol=1e-5)
    apart = unit(x)
    assert (np.linalg.norm(x, axis=1) == lengths).all()
    assert unit(x, in_place=True) is x and (x == apart).all()
    assert rows_of(x, np.arange(len(x))) is x
    for rows in (np.array([5, 2]), np.arange(len(x))[::-1], np.arange(len(x) - 1)):
        assert (rows_of(x, rows) == x[rows]).all()
