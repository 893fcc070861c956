"""DenseCL against Wang et al. Eq. 1-4."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.pretraining.densecl import matches


def term(q: np.ndarray, k: np.ndarray, negatives: np.ndarray, tau: float) -> float:
    positive = np.exp(q @ k / tau)
    return -np.log(positive / (positive + sum(np.exp(q @ n / tau) for n in negatives)))


@pytest.mark.parametrize("dense", [0.5, 0.2])
def test_loss_is_equation_3(dense):
    objective = make("densecl", norm=True, dense=dense)
    train(objective)
    batch = batch_for(objective, seed=5)
    twin = copy.deepcopy(objective)
    f1 = twin.encoder.feature_map(batch["views"][0])
    f2 = twin.teacher_encoder.module.feature_map(batch["views"][1])
    q, r = (array(o) for o in twin.heads(f1))  # [B, out], [B, out, P]
    k, s = (array(o) for o in twin.teacher_heads.module(f2))
    f1, f2 = unit(array(f1.flatten(2))), unit(array(f2.flatten(2)))
    whole, cells, negatives = [], [], array(objective.queue.keys)
    for b in range(4):
        whole.append(term(unit(q)[b], unit(k)[b], negatives, 0.2))
        for i in range(16):
            c = int(np.argmax([f1[b, :, i] @ f2[b, :, j] for j in range(16)]))
            cells.append(term(unit(r)[b, :, i], unit(s)[b, :, c], array(objective.dense_queue.keys), 0.2))
    out = objective(batch, 0.5)
    assert out["whole"].item() == pytest.approx(np.mean(whole), rel=1e-4)
    assert out["dense"].item() == pytest.approx(np.mean(cells), rel=1e-4)
    assert out["loss"].item() == pytest.approx((1 - dense) * np.mean(whole) + dense * np.mean(cells), rel=1e-4)


def test_the_dense_queue_takes_one_pooled_key_per_image():
    objective = make("densecl")
    batch = batch_for(objective)
    cells = objective.teacher_heads(objective.teacher_encoder.module.feature_map(batch["views"][1]))[1]
    expected = unit(array(cells).mean(2))
    objective(batch, 0.0)["loss"].backward()
    objective.after_step(0.0)
    np.testing.assert_allclose(array(objective.dense_queue.keys)[:4], expected, atol=1e-6)
    assert objective.dense_queue.pointer == objective.queue.pointer == 4
    assert not torch.allclose(objective.queue.keys[:4], objective.dense_queue.keys[:4])
    state = objective.state_dict().keys()
    assert {"queue.keys", "queue.pointer", "dense_queue.keys", "dense_queue.pointer"} <= state


def test_cells_find_themselves_in_a_permuted_map():
    f = torch.randn(2, 16, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(matches(f, f[:, :, order]), order.argsort().expand(2, 9))
