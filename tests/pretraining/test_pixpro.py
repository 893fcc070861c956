"""PixPro against Xie et al. Eq. 1, 3-5."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_pixels import is_positive, propagate
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.pretraining.pixpro import cell_centres, pair_cosine, positive_pairs


@pytest.mark.parametrize("tau,gamma", [(0.7, 2.0), (1.5, 1.0)])
def test_loss_is_the_sum_of_both_directions_over_positive_pairs(tau, gamma):
    objective = make("pixpro", norm=True, tau=tau, gamma=gamma)
    train(objective, lr=0.05)
    batch = batch_for(objective, seed=5)
    assert any(f.any() for f in batch["flips"]) and not all(f.all() for f in batch["flips"])
    twin = copy.deepcopy(objective)
    x = [array(twin.projector(twin.encoder.feature_map(v)).flatten(2)) for v in batch["views"]]
    k = [array(twin.teacher_projector(twin.teacher_encoder.module.feature_map(v)).flatten(2)) for v in batch["views"]]
    total, count = 0.0, 0
    for b in range(4):
        y = [propagate(x[v][b], objective.value, gamma) for v in (0, 1)]
        pairs = [(i, j) for i in range(16) for j in range(16) if is_positive(batch, b, i, j, 4, 4, tau)]
        count += len(pairs)
        if pairs:
            total += np.mean([-unit(y[0], 0)[:, i] @ unit(k[1][b], 0)[:, j] for i, j in pairs])
            total += np.mean([-unit(y[1], 0)[:, j] @ unit(k[0][b], 0)[:, i] for i, j in pairs])
    out = objective(batch, 0.5)
    assert count > 20 and out["pairs"].item() == count / 4
    assert out["loss"].item() == pytest.approx(total / 4, rel=1e-4)


def pairs_of(box1, box2, flip1=False, flip2=False, h=4, w=4, tau=0.7) -> np.ndarray:
    maps = [
        cell_centres(torch.tensor(np.array([b]), dtype=torch.float32), torch.tensor([f]), h, w)
        for b, f in ((box1, flip1), (box2, flip2))
    ]
    return positive_pairs(*maps, tau)[0].numpy()


def test_centres_and_diagonal_of_a_map_that_is_not_square():
    box, flip = torch.tensor([[10.0, 20.0, 40.0, 28.0]] * 2), torch.tensor([False, True])
    at, diagonal = cell_centres(box, flip, 2, 3)
    assert at[0].tolist() == [[15, 22], [25, 22], [35, 22], [15, 26], [25, 26], [35, 26]]
    assert at[1].tolist() == [[35, 22], [25, 22], [15, 22], [35, 26], [25, 26], [15, 26]]
    assert diagonal.tolist() == pytest.approx([np.hypot(10, 4)] * 2)


def test_equal_views_pair_every_cell_with_itself():
    """Neighbours of a square cell are 0.707 diagonals apart, just beyond 0.7."""
    assert np.array_equal(pairs_of((0, 0, 8, 8), (0, 0, 8, 8)), np.eye(16, dtype=bool))
    assert pairs_of((0, 0, 8, 8), (0, 0, 8, 8), tau=0.71).sum() > 16


def test_a_mirrored_view_pairs_with_the_mirrored_column():
    mirrored = pairs_of((0, 0, 8, 8), (0, 0, 8, 8), flip2=True)
    column = np.arange(16).reshape(4, 4)[:, ::-1].flatten()
    assert np.array_equal(mirrored, np.eye(16, dtype=bool)[column])
    assert np.array_equal(pairs_of((0, 0, 8, 8), (0, 0, 8, 8), flip1=True, flip2=True), np.eye(16, dtype=bool))


def test_pairs_do_not_depend_on_the_unit_of_the_boxes_and_use_the_larger_diagonal():
    first, second = np.array([3.0, 1.0, 15.0, 12.0]), np.array([6.0, 2.0, 10.0, 7.0])
    assert np.array_equal(pairs_of(first, second), pairs_of(first / 16, second / 16))
    assert np.array_equal(pairs_of(first, second), pairs_of(second, first).T)
    assert pairs_of(first, second).sum() > 16  # small cells inside a large one


def test_views_that_do_not_meet_cost_nothing():
    objective = make("pixpro")
    batch = batch_for(objective)
    batch["boxes"] = [torch.tensor([[0.0, 0, 4, 4]]).expand(4, 4), torch.tensor([[50.0, 50, 54, 54]]).expand(4, 4)]
    out = objective(batch, 0.0)
    out["loss"].backward()
    assert out["loss"].item() == 0 and out["pairs"].item() == 0
    assert all(p.grad.abs().sum() == 0 for p in objective.parameters() if p.requires_grad)
    y, pairs = torch.randn(2, 3, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    pairs[1, 0, 2] = True
    cosine = pair_cosine(y, y, pairs)
    u = unit(array(y[1]), 0)
    assert cosine[0] == 0 and cosine[1].item() == pytest.approx(u[:, 0] @ u[:, 2], abs=1e-6)


def test_cells_that_are_not_valid_pass_nothing_on():
    objective = make("pixpro")
    x = torch.randn(2, 8, 3, 3)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, 4] = False
    changed = x.clone()
    changed[:, :, 1, 1] += 5
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    before, after = objective.propagate(x, valid), objective.propagate(changed, valid)
    torch.testing.assert_close(before[0][:, others], after[0][:, others])
    assert not torch.allclose(before[1][:, others], after[1][:, others])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_propagation_has_a_finite_gradient(gamma):
    objective = make("pixpro", gamma=gamma)
    x = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(4, 1).view(1, 8, 1, 3).requires_grad_()
    objective.propagate(x).square().sum().backward()  # cosines of exactly -1 and 0
    assert x.grad.isfinite().all()


def test_the_batch_must_bring_boxes():
    assert make("pixpro").geometry and make("pixpro-affine").geometry and not make("byol").geometry
