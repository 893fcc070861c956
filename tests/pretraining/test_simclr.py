"""SimCLR against Chen et al. Eq. 1."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.pretraining.simclr import nt_xent


def nt_xent_in_numpy(first: np.ndarray, second: np.ndarray, tau: float) -> float:
    """The paper numbers the views 2k - 1 and 2k; l(i, j) over both orders of every pair."""
    z = unit(np.stack([first, second], axis=1).reshape(-1, first.shape[1]))
    sim = np.array([[z[i] @ z[j] for j in range(len(z))] for i in range(len(z))])

    def term(i: int, j: int) -> float:
        return -np.log(np.exp(sim[i, j] / tau) / sum(np.exp(sim[i, k] / tau) for k in range(len(z)) if k != i))

    return float(np.mean([term(2 * k, 2 * k + 1) + term(2 * k + 1, 2 * k) for k in range(len(first))]) / 2)


@pytest.mark.parametrize("tau", [0.5, 0.1])
def test_loss_is_equation_1(tau):
    objective = make("simclr", norm=True, tau=tau)
    train(objective)
    batch = batch_for(objective, n=5, seed=5)
    twin = copy.deepcopy(objective)
    z = array(twin.projector(twin.encoder.pooled(torch.cat(batch["views"]))))
    assert objective(batch, 0.5)["loss"].item() == pytest.approx(nt_xent_in_numpy(z[:5], z[5:], tau), rel=1e-5)


def test_gradient_flows_to_both_views():
    z = F.normalize(torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.3), z)
    nt_xent(z, 0.3).backward()
    assert (z.grad.abs().sum(1) > 0).all()


def test_views_of_one_image_attract_and_others_repel():
    z = torch.eye(4)
    apart = nt_xent(torch.cat([z, z]), 0.1)
    together = nt_xent(torch.ones(8, 4) / 2, 0.1)
    assert apart < 0.01 and together.item() == pytest.approx(np.log(7), abs=1e-5)


def test_hidden_0_is_the_width_of_the_features():
    assert make("simclr").projector[0].out_features == 8 and make("simclr", hidden=20).projector[0].out_features == 20


def test_an_image_that_is_twice_in_the_batch_is_no_negative_of_itself():
    z = F.normalize(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    index = torch.tensor([3, 7, 3, 1])
    s = (z @ z.T / 0.2).exp()
    rows = []
    for i in range(8):
        own, partner = index[i % 4], (i + 4) % 8
        others = [k for k in range(8) if index[k % 4] != own]
        rows.append(-torch.log(s[i, partner] / (s[i, partner] + s[i, others].sum())))
    torch.testing.assert_close(nt_xent(z, 0.2, index), torch.stack(rows).mean())


def test_the_method_knows_which_image_is_twice_in_the_batch():
    objective = make("simclr", norm=False).eval()
    batch = batch_for(objective, n=4, seed=2)
    apart = objective(batch, 0.5)["loss"]
    assert objective({**batch, "index": torch.tensor([3, 7, 3, 1])}, 0.5)["loss"] < apart
