"""Draws are a pure function of (seed, stream, row), uniform and independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from hf_lowlabel.errors import UserError
from hf_lowlabel.views import uniforms
from hf_lowlabel.views.counter_rng import Groups, _mixed, between, integers, keyed, keys, permutations, signs


@pytest.mark.parametrize("width", [1, 3, 4, 11, 23])
def test_rows_do_not_depend_on_how_they_are_asked_for(width):
    whole = uniforms(3, "weak", 1000, 257, width)
    assert whole.shape == (257, width) and whole.dtype == torch.float64
    for cuts in ([1, 100, 156], [256, 1], [64] * 4 + [1], [1] * 257):
        parts, start = [], 1000
        for count in cuts:
            parts.append(uniforms(3, "weak", start, count, width))
            start += count
        assert torch.equal(torch.cat(parts), whole)


def test_two_ranks_see_what_one_sees():
    """Step 5 of 8 samples, split over 2 ranks, and again after a resume."""
    step = uniforms(0, "strong", 5 * 8, 8, 11)
    ranks = [uniforms(0, "strong", 5 * 8 + rank * 4, 4, 11) for rank in range(2)]
    assert torch.equal(torch.cat(ranks), step)


def test_seed_stream_and_row_all_matter():
    rows = [uniforms(seed, stream, start, 4, 8) for seed in (0, 1) for stream in ("a", "b") for start in (0, 4)]
    rows.append(uniforms(10, "a", 0, 4, 8))
    assert len({row.numpy().tobytes() for row in rows}) == len(rows)
    assert not np.isin(rows[0].numpy(), rows[1].numpy()).any()


def splitmix(z: int) -> int:
    """SplitMix64's output function as it was published, on Python's unbounded integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_keyed_draws():
    words = [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15]
    mixed = _mixed(torch.tensor([w - 2**64 if w >= 2**63 else w for w in words]))
    assert [w % 2**64 for w in mixed.tolist()] == [splitmix(w) for w in words]
    key = keys(0, "unlabeled", 64, 2000)
    assert torch.equal(key[5:9], keys(0, "unlabeled", 69, 4)) and not torch.equal(key, keys(1, "unlabeled", 64, 2000))
    u = keyed(key, "box", 30)
    assert u.dtype == torch.float32 and torch.equal(keyed(key[7:9], "box", 30), u[7:9])
    for other in (keyed(key, "classes", 30), keyed(~key, "box", 30), u.roll(1, 0), u.roll(1, 1)):
        assert abs(np.corrcoef(u.flatten(), other.flatten())[0, 1]) < 0.02
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3 and u.max() < 1
    assert (
        stats.kstest(u[:, 0].numpy(), "uniform").pvalue > 1e-3 and stats.kstest(u[0].numpy(), "uniform").pvalue > 1e-3
    )


def test_far_rows_and_empty_requests():
    assert torch.equal(uniforms(0, "a", 2**40, 3, 5)[1:], uniforms(0, "a", 2**40 + 1, 2, 5))
    assert uniforms(0, "a", 7, 0, 5).shape == (0, 5) and uniforms(0, "a", 7, 3, 0).shape == (3, 0)
    with pytest.raises(UserError, match="negative"):
        uniforms(0, "a", -1, 2, 4)


def test_uniform_and_independent():
    u = uniforms(0, "chi", 0, 250_000, 4).numpy()
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    for a, b in ((u[:, 0], u[:, 1]), (u[:-1, 3], u[1:, 0]), (u[:-1, 0], u[1:, 0])):  # columns, neighbouring rows
        table = np.histogram2d(a, b, bins=16)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_helpers():
    u = uniforms(0, "helpers", 0, 120_000, 4).numpy()
    whole = integers(u[:, 0], 1, 10)
    assert set(np.unique(whole)) == set(range(1, 10))
    assert stats.chisquare(np.bincount(whole)[1:]).pvalue > 1e-4
    assert set(np.unique(signs(u[:, 0]))) == {-1, 1} and abs(signs(u[:, 0]).mean()) < 0.02
    assert between(np.array([0.0, 0.5]), -2, 4).tolist() == [-2.0, 1.0]
    orders = permutations(u)
    assert (np.sort(orders, 1) == np.arange(4)).all()
    assert stats.chisquare(np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]).pvalue > 1e-4
    assert len(np.unique(orders @ [64, 16, 4, 1])) == 24


def test_groups_sort_and_restore():
    x = torch.arange(10.0)[:, None].repeat(1, 3)
    batch = Groups(x)
    for key in (np.array([2, 0, 1, 2, 0, 1, 2, 0, 1, 2]), np.array([1, 1, 0, 0, 5, 5, 1, 0, 0, 1])):
        slices = batch.by(key)
        assert sorted(slices) == sorted(set(key.tolist()))
        for value, part in slices.items():
            assert (key[batch.x[part, 0].long().numpy()] == value).all()
            assert batch.x[part, 0].long().tolist() == batch.origin[part].tolist()
    assert torch.equal(batch.restored(), torch.arange(10.0)[:, None].repeat(1, 3))
