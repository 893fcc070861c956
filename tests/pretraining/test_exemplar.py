"""Exemplar against the batch-hard triplet loss with soft margin (Hermans et al. 2017)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_stand_in import array, batch_for, make, train

from hf_lowlabel.errors import UserError
from hf_lowlabel.pretraining.exemplar import batch_hard


def test_loss_is_batch_hard_with_soft_margin_over_8_instances():
    objective = make("exemplar", norm=True)
    assert objective.views == ("exemplar",) * 8
    train(objective)
    batch = batch_for(objective, n=3, seed=5)
    twin = copy.deepcopy(objective)
    z = array(twin.head(twin.encoder.pooled(torch.cat(batch["views"])))).reshape(8, 3, -1)  # instance, image
    losses = []
    for v in range(8):
        for i in range(3):
            own = [np.linalg.norm(z[v, i] - z[w, i]) for w in range(8) if w != v]
            others = [np.linalg.norm(z[v, i] - z[w, j]) for w in range(8) for j in range(3) if j != i]
            losses.append(np.log(1 + np.exp(max(own) - min(others))))
    assert objective(batch, 0.5)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_only_the_hardest_pairs_count():
    z = torch.tensor([[0.0], [1.0], [3.0], [7.0], [20.0]])
    image = torch.tensor([0, 0, 0, 1, 1])
    positive, negative = batch_hard(z, image, z, image)
    assert positive.tolist() == [3, 2, 3, 13, 13] and negative.tolist() == [7, 6, 4, 4, 17]


def test_equal_embeddings_have_a_finite_gradient():
    z = torch.zeros(6, 4, requires_grad=True)
    image = torch.arange(3).repeat(2)
    positive, negative = batch_hard(z, image, z, image)
    torch.nn.functional.softplus(positive - negative).mean().backward()
    assert z.grad.isfinite().all()


def test_one_image_or_one_instance_is_refused():
    objective = make("exemplar")
    with pytest.raises(UserError, match="batch_size of 2 or more"):
        objective(batch_for(objective, n=1), 0.0)


def test_an_image_that_is_twice_in_the_batch_is_no_negative_of_itself():
    objective = make("exemplar")
    batch = batch_for(objective, n=4)
    batch["index"] = torch.tensor([5, 9, 5, 9])
    batch["views"] = [torch.cat([v[:2], v[:2]]) for v in batch["views"]]
    twice = objective(batch, 0.0)["loss"]
    once = objective({**batch, "index": batch["index"][:2], "views": [v[:2] for v in batch["views"]]}, 0.0)["loss"]
    torch.testing.assert_close(twice, once)
