"""VICReg against Bardes et al. Eq. 1-6, with the means of algorithm 1."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train

from hf_lowlabel.pretraining.vicreg import covariance, variance


def variance_in_numpy(z: np.ndarray) -> float:
    return np.mean([max(0.0, 1 - np.sqrt(np.var(z[:, d], ddof=1) + 1e-4)) for d in range(z.shape[1])])


def covariance_in_numpy(z: np.ndarray) -> float:
    c = np.cov(z, rowvar=False)
    return sum(c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j) / len(c)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_loss_and_each_of_its_terms(weights):
    lam, mu, nu = weights
    objective = make("vicreg", norm=True, invariance=lam, variance=mu, covariance=nu)
    train(objective, lr=0.01)
    batch = batch_for(objective, n=6, seed=5)
    twin = copy.deepcopy(objective)
    a, b = (array(twin.expander(twin.encoder.pooled(x))) for x in batch["views"])
    s, v = np.mean((a - b) ** 2), (variance_in_numpy(a) + variance_in_numpy(b)) / 2
    c = covariance_in_numpy(a) + covariance_in_numpy(b)
    assert objective(batch, 0.5)["loss"].item() == pytest.approx(lam * s + mu * v + nu * c, rel=1e-5)


def test_collapse_costs_variance_and_copies_cost_covariance():
    z = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    assert variance(torch.zeros(8, 4)).item() == pytest.approx(0.99) and variance(3 * torch.randn(512, 4)).item() == 0
    assert covariance(z.expand(-1, 4)).item() > 2.5 and covariance(torch.randn(4096, 4)).item() < 0.01


def test_gradients():
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul_(0.3).requires_grad_()
    assert torch.autograd.gradcheck(variance, z) and torch.autograd.gradcheck(covariance, z)


@pytest.mark.parametrize("term", ["variance", "covariance"])
def test_each_view_feels_each_term(term):
    objective = make("vicreg", **{**dict(invariance=0.0, variance=0.0, covariance=0.0), term: 1.0})
    with torch.no_grad():
        objective.expander[-1].weight.mul_(0.1)  # standard deviations below 1
    batch = batch_for(objective)
    for x in batch["views"]:
        x.requires_grad_()
    objective(batch, 0.5)["loss"].backward()
    assert all(x.grad.abs().max() > 1e-6 for x in batch["views"])
