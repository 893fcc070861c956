"""RotNet against Gidaris et al. Eq. 3."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train

from hf_lowlabel.pretraining.rotnet import four_rotations


def test_every_image_is_turned_four_ways():
    x = torch.randn(3, 2, 5, 5)
    turned, target = four_rotations(x)
    assert turned.shape == (12, 2, 5, 5) and target.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for row in range(12):
        angle, image = divmod(row, 3)
        for channel in range(2):
            np.testing.assert_array_equal(turned[row, channel].numpy(), np.rot90(x[image, channel].numpy(), angle))


def test_loss_is_the_mean_cross_entropy_over_images_and_rotations():
    objective = make("rotnet", norm=True)
    train(objective)
    batch = batch_for(objective, seed=5)
    twin = copy.deepcopy(objective)
    turned = four_rotations(batch["views"][0])[0]
    logits = array(twin.head(twin.encoder.pooled(turned))).reshape(4, 4, 4)  # rotation, image, class
    right = [np.exp(logits[r, i, r]) / np.exp(logits[r, i]).sum() for r in range(4) for i in range(4)]
    expected = -np.mean(np.log(right))
    out = objective(batch, 0.5)
    assert out["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert out["accuracy"].item() == np.mean([logits[r, i].argmax() == r for r in range(4) for i in range(4)])


def test_one_image_is_learnt():
    objective = make("rotnet")
    ramp = {"views": [torch.linspace(-1, 1, 8).expand(4, 3, 8, 8).contiguous()]}
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        out = objective(ramp, 0.0)
        out["loss"].backward()
        optimizer.step()
    assert out["accuracy"] == 1
