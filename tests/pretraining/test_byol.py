"""BYOL and BYOL-EMAN against their equations."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.objective import cosine_momentum
from hf_lowlabel.pretraining.byol import byol_loss, feature_std


def outputs(objective, batch) -> list[np.ndarray]:
    """Predictions of both views, then the teacher's projections of both."""
    objective = copy.deepcopy(objective)
    p = [array(objective.predictor(objective.projector(objective.encoder.pooled(x)))) for x in batch["views"]]
    k = [array(objective.teacher_projector(objective.teacher_encoder.module.pooled(x))) for x in batch["views"]]
    return [*p, *k]


@pytest.mark.parametrize("name", ["byol", "byol-eman"])
def test_the_loss_is_the_sum_of_both_directions(name):
    objective = make(name, norm=True)
    train(objective, ts=(0.0, 0.2))  # now the teacher differs from the student
    batch = batch_for(objective, seed=5)
    p1, p2, k1, k2 = outputs(objective, batch)
    expected = np.mean(
        [np.sum((unit(p1)[i] - unit(k2)[i]) ** 2) + np.sum((unit(p2)[i] - unit(k1)[i]) ** 2) for i in range(len(p1))]
    )  # |p - k|^2 of unit vectors is 2 - 2 cos
    assert objective(batch, 0.5)["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_the_target_takes_no_gradient():
    p, k = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    byol_loss(p, k).sum().backward()
    assert k.grad is None and p.grad.abs().sum() > 0


def test_the_loss_ignores_lengths_and_spans_0_to_4():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    k = torch.tensor([[2.0, 0.0], [-5.0, 0.0], [0.0, 1.0]])
    assert byol_loss(p, k).tolist() == pytest.approx([0.0, 4.0, 2.0])


def test_the_momentum_rises_from_m0_to_1():
    for t in (0.0, 0.25, 0.5, 1.0):
        assert cosine_momentum(0.99, t) == pytest.approx(1 - 0.01 * (math.cos(math.pi * t) + 1) / 2)
    assert cosine_momentum(0.99, 0) == pytest.approx(0.99) and cosine_momentum(0.99, 1) == pytest.approx(1)


def teacher_output(objective, x) -> torch.Tensor:
    return copy.deepcopy(objective).teacher_encoder.module.pooled(x)


def test_byol_normalises_the_teacher_by_its_batch_and_eman_does_not():
    x = batch_for(make("byol"))["views"][0]
    batch_norm, averaged = make("byol", norm=True), make("byol-eman", norm=True)
    assert not torch.allclose(teacher_output(batch_norm, x)[:2], teacher_output(batch_norm, x[:2]), atol=1e-3)
    torch.testing.assert_close(teacher_output(averaged, x)[:2], teacher_output(averaged, x[:2]))


def test_eman_averages_the_statistics_like_the_weights():
    objective = make("byol-eman", norm=True, m0=0.9)
    mean = objective.teacher_encoder.module.norm.running_mean
    expected = array(mean)
    for step, t in enumerate((0.0, 0.4)):
        train(objective, ts=(t,), first=step)
        m = 1 - 0.1 * (math.cos(math.pi * t) + 1) / 2
        expected = m * expected + (1 - m) * array(objective.encoder.norm.running_mean)
        np.testing.assert_allclose(array(mean), expected, atol=1e-6)
    assert np.abs(expected).max() > 0
    assert not objective.teacher_encoder.module.training and objective.encoder.training


def test_eman_differs_from_byol_in_the_teachers_normalisation_alone():
    assert train(make("byol"), lr=0.1)[0] != train(make("byol-eman"), lr=0.1)[0]  # the projector has BatchNorm
    byol, eman = make("byol", norm=True), make("byol-eman", norm=True)
    eman.load_state_dict(byol.state_dict())
    assert [type(m).__name__ for m in byol.modules()][1:] == [type(m).__name__ for m in eman.modules()][1:]
    for teacher in (byol.teacher_encoder, byol.teacher_projector):
        teacher.module.eval()  # the same statistics for both
    batch = batch_for(byol)
    assert byol(batch, 0.5)["loss"].item() == eman(batch, 0.5)["loss"].item()


def test_feature_std_tells_collapse_from_spread():
    assert feature_std(torch.ones(64, 16)) == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))) == pytest.approx(1, abs=0.02)
