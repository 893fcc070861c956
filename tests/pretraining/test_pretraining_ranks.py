"""Two processes of half the batch are one process of the whole: gradients, teachers, queues, centres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretraining_ranks import NAMES, run, steps
from pretraining_stand_in import array, batch_for, make

from hf_lowlabel import distributed


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return run(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_are_one_rank_of_the_global_batch(name, two_ranks):
    alone = steps(make(name))
    for rank in two_ranks[name]:
        assert rank.keys() == alone.keys()
        for key, expected in alone.items():
            np.testing.assert_allclose(rank[key], expected, rtol=2e-4, atol=2e-5, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", NAMES)
def test_ranks_stay_in_step(name, two_ranks):
    first, second = two_ranks[name]
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=f"{name} {key}")


def test_the_comparison_can_fail(two_ranks):
    """Half a batch alone has another SimCLR gradient, another MoCo queue and another DINO centre."""
    half = {name: steps(make(name), n=4) for name in ("simclr", "moco", "dino")}
    for name, key in (("simclr", "grad/encoder.conv.weight"), ("moco", "state/queue.keys"), ("dino", "state/center")):
        assert np.abs(half[name][key] - two_ranks[name][0][key]).max() > 1e-3, name


def test_simclr_gradient_needs_the_gather_to_be_differentiable(monkeypatch):
    """A gather that cuts the gradient gives another one: what the equality above protects."""

    def gradient() -> np.ndarray:
        objective = make("simclr")
        objective(batch_for(objective), 0.0)["loss"].backward()
        return array(objective.encoder.conv.weight.grad)

    whole = gradient()
    monkeypatch.setattr("hf_lowlabel.pretraining.simclr.all_gather", lambda x, grad=False: x.detach())
    assert np.abs(gradient() - whole).max() > 0.1 * np.abs(whole).max()


def test_one_process_gathers_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.all_gather(x, grad=True) is x
    assert not distributed.all_gather(x).requires_grad and not distributed.all_mean(x).requires_grad
