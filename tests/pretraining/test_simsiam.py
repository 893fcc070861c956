"""SimSiam against Chen & He Eq. 1-4."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining_stand_in import array, batch_for, make, train, unit
from torch import nn

from hf_lowlabel.pretraining.simsiam import negative_cosine


def embed(objective, batch):
    z = [objective.projector(objective.encoder.pooled(x)) for x in batch["views"]]
    return z, [objective.predictor(v) for v in z]


def test_loss_is_equation_4():
    objective = make("simsiam", norm=True)
    train(objective)
    batch = batch_for(objective, seed=5)
    (z1, z2), (p1, p2) = ([array(v) for v in part] for part in embed(copy.deepcopy(objective), batch))
    expected = np.mean([-0.5 * unit(p1)[i] @ unit(z2)[i] - 0.5 * unit(p2)[i] @ unit(z1)[i] for i in range(len(p1))])
    assert objective(batch, 0.5)["loss"].item() == pytest.approx(expected, abs=1e-6)


def test_stop_gradient():
    """The gradient is that of a loss whose targets are constants, and not that of the plain cosine."""
    batch = batch_for(make("simsiam"))

    def gradient(loss) -> torch.Tensor:
        objective = make("simsiam")
        loss(objective).backward()
        return objective.encoder.conv.weight.grad

    def cosine(objective, stop: bool) -> torch.Tensor:
        (z1, z2), (p1, p2) = embed(objective, batch)
        if stop:
            z1, z2 = torch.tensor(array(z1)).float(), torch.tensor(array(z2)).float()
        return -(F.cosine_similarity(p1, z2) + F.cosine_similarity(p2, z1)).mean() / 2

    actual = gradient(lambda o: o(batch, 0.0)["loss"])
    torch.testing.assert_close(actual, gradient(lambda o: cosine(o, stop=True)), atol=1e-6, rtol=1e-4)
    assert not torch.allclose(actual, gradient(lambda o: cosine(o, stop=False)), atol=1e-4)
    z = torch.randn(3, 4, requires_grad=True)
    negative_cosine(torch.randn(3, 4, requires_grad=True), z).sum().backward()
    assert z.grad is None


def test_the_predictors_learning_rate_is_fixed():
    objective = make("simsiam")
    groups = objective.param_groups()
    assert {id(p) for p in groups["fixed"]} == {id(p) for p in objective.predictor.parameters()}
    assert {id(p) for p in objective.encoder.parameters()} <= {id(p) for p in groups["base"]}


def test_the_layers_are_the_papers():
    """Section 3: BatchNorm after every linear layer of the projector, the last without scale and shift; none at the end
    of the predictor."""
    objective = make("simsiam")
    linear = [m for m in objective.projector.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in objective.projector.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(linear) == len(norms) == 3 and [n.affine for n in norms] == [True, True, False]
    assert [type(m) for m in objective.predictor] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert objective.predictor[0].out_features == 8 and objective.predictor[-1].bias is not None
