from __future__ import annotations

import numpy as np
import pytest

from hf_lowlabel.data.permutation import epoch_permutation, permutations, philox_key
from hf_lowlabel.errors import UserError


@pytest.mark.parametrize("n", [1, 2, 5, 64, 1001])
def test_every_epoch_holds_every_image_once(n):
    rows = epoch_permutation(3, "unlabeled", 0, 4 * n, n).reshape(4, n)
    assert (np.sort(rows, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("n", [1, 3, 7, 100])
def test_any_stretch_equals_the_same_part_of_the_whole(n):
    whole = epoch_permutation(5, "labeled", 0, 500, n)
    for start, count in [(0, 1), (n - 1, 2), (3, 50), (n, n), (17, 300), (499, 1), (40, 0)]:
        assert np.array_equal(epoch_permutation(5, "labeled", start, count, n), whole[start : start + count])


def test_a_batch_is_its_ranks_parts():
    batch = epoch_permutation(0, "unlabeled", 12 * 8, 8, 50)
    ranks = [epoch_permutation(0, "unlabeled", 12 * 8 + 4 * rank, 4, 50) for rank in range(2)]
    assert np.array_equal(batch, np.concatenate(ranks))


def test_seeds_streams_and_epochs_differ():
    base = epoch_permutation(0, "unlabeled", 0, 200, 100)
    assert not np.array_equal(base[:100], base[100:])
    assert not np.array_equal(base, epoch_permutation(1, "unlabeled", 0, 200, 100))
    assert not np.array_equal(base, epoch_permutation(0, "labeled", 0, 200, 100))


def test_against_the_formula_word_by_word():
    n, epoch = 10, 7
    words = np.random.Philox(key=philox_key(4, "x"), counter=epoch * 3).random_raw(12)[:n]  # 3 = ceil(10 / 4)
    expected = sorted(range(n), key=lambda i: int(words[i]))
    assert epoch_permutation(4, "x", epoch * n, n, n).tolist() == expected


def test_positions_are_uniform():
    """Over 4,000 epochs of 5 images each image is first about 800 times: chi-square with 4 degrees of freedom."""
    first = epoch_permutation(0, "uniform", 0, 4000 * 5, 5).reshape(-1, 5)[:, 0]
    counts = np.bincount(first, minlength=5)
    assert ((counts - 800) ** 2 / 800).sum() < 18.5  # p = 0.001


def test_the_caller_may_change_the_result():
    epoch_permutation(9, "own", 0, 20, 20)[:] = 0
    assert len(set(epoch_permutation(9, "own", 0, 20, 20))) == 20
    assert not permutations(9, "own", 0, 1, 20).flags.writeable


def test_an_empty_cache_is_an_error():
    with pytest.raises(UserError, match="no images for 'labeled'"):
        epoch_permutation(0, "labeled", 0, 8, 0)
