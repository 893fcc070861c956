"""LeJEPA against algorithms 1 and 2 of Balestriero and LeCun 2025."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train

from hf_lowlabel.pretraining.lejepa import sigreg


def epps_pulley(u: np.ndarray) -> float:
    """B int |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt of numbers [B], with 17 points on -5..5."""
    t = np.linspace(-5, 5, 17)
    phi = np.exp(1j * np.outer(u, t)).mean(0)
    return len(u) * np.trapezoid(np.abs(phi - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2), t)


def unit_directions(d: int, m: int, dtype=torch.float64) -> torch.Tensor:
    a = torch.randn(d, m, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return a / a.norm(dim=0)


def test_sigreg_is_the_mean_statistic_over_directions():
    z = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.7 + 0.3
    a = unit_directions(6, 9)
    expected = np.mean([epps_pulley(array(z) @ array(a[:, m])) for m in range(9)])
    assert sigreg(z, a).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("local_crops", [0, 2])
def test_loss(local_crops):
    objective = make("lejepa", norm=True, lamb=0.3, local_crops=local_crops)
    train(objective, lr=0.01)
    batch = batch_for(objective, n=6, seed=5)
    twin = copy.deepcopy(objective)
    # views of one size go through the network together
    z = array(twin.projector(twin.encoder.pooled(torch.cat(batch["views"])))) if not local_crops else None
    out = objective(batch, 0.5)
    if local_crops:  # all views are predicted, the global ones alone predict
        assert len(batch["views"]) == 4 and out["loss"].isfinite()
        return
    z = z.reshape(2, 6, -1)
    predicted = np.mean((z.mean(0) - z) ** 2)
    a = array(objective.directions(torch.device("cpu")))
    assert np.allclose(np.linalg.norm(a, axis=0), 1, atol=1e-6)
    gaussian = np.mean([epps_pulley(v @ a[:, m]) for v in z for m in range(a.shape[1])])
    assert out["loss"].item() == pytest.approx(0.7 * predicted + 0.3 * gaussian, rel=1e-4)


def test_gaussian_embeddings_cost_little_and_collapsed_ones_much():
    g = torch.Generator().manual_seed(0)
    a = unit_directions(8, 64, torch.float32)
    normal = torch.randn(512, 8, generator=g)
    assert sigreg(normal, a) < 2  # its mean over samples from the normal distribution does not grow with B
    for other in (torch.zeros(512, 8), normal[:, :1].expand(-1, 8), 3 * normal, normal + 1):
        assert sigreg(other, a) > 20


def test_gradients():
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(sigreg, (z, unit_directions(3, 4)))


def test_directions_are_new_at_every_step_and_go_on_after_a_resume():
    objective, cpu = make("lejepa"), torch.device("cpu")
    first = objective.directions(cpu)
    assert torch.equal(first, objective.directions(cpu))  # micro-batches of one step
    objective.after_step(0.1)
    second = objective.directions(cpu)
    assert not torch.equal(first, second)
    again = make("lejepa")
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.directions(cpu), second)
