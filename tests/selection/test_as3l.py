"""AS3L's steps against independent computations: Eq. 6 by autograd, multi-clustering by trying all permutations."""

import itertools

import numpy as np
import pytest
import torch

from hf_lowlabel.selection import as3l
from hf_lowlabel.selection.as3l import (
    as3l as select,
    cluster_runs,
    descend,
    finetune_features,
    moments,
    multi_cluster,
    nearest_images,
)

from .conftest import blobs


def equation_6(fine: torch.Tensor, found) -> torch.Tensor:
    """1/(C N) sum_i sum_j |f_fine,i - f_center,i,j|^2, as printed."""
    total = fine.new_zeros(())
    for run in found:
        for i, k in enumerate(run.assigned):
            total = total + (fine[i] - torch.as_tensor(run.centres[k], dtype=fine.dtype)).square().sum()
    return total / (len(found) * len(fine))


def test_finetuning_is_gradient_descent_on_equation_6():
    x, _ = blobs(3, 12, 5, spread=0.4)
    found = cluster_runs(x, 3, 4, seed=0)
    layer = torch.nn.Linear(5, 5).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(5))
        layer.bias.zero_()
    data, losses = torch.as_tensor(x).double(), []
    for _ in range(30):
        loss = equation_6(layer(data), found)
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, layer.parameters())
        with torch.no_grad():
            for p, g in zip(layer.parameters(), grads):
                p -= 0.1 * g
    a = descend(*moments(x, found), learning_rate=0.1, steps=30)
    np.testing.assert_allclose(a[:, :-1], layer.weight.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(a[:, -1], layer.bias.detach().numpy(), atol=1e-6)
    assert losses[-1] < 0.8 * losses[0]
    fine = finetune_features(x, 3, runs=4, epochs=30, batch_size=len(x), learning_rate=0.1, seed=0)
    np.testing.assert_allclose(fine, layer(data).detach().numpy(), atol=1e-5)


def test_a_rate_that_diverges_is_refused():
    x, _ = blobs()
    with pytest.raises(ValueError, match="diverges"):
        finetune_features(x, 4, learning_rate=1.0)


def test_multi_clustering_against_all_permutations():
    x, _ = blobs(3, 30, 4, spread=0.5, seed=5)
    found = cluster_runs(x, 3, as3l.RUNS, 500)
    first = int(np.argmin([run.inertia for run in found]))
    agree = np.ones(len(x), bool)
    for run in found:
        names = max(
            itertools.permutations(range(3)), key=lambda p: (np.array(p)[run.assigned] == found[first].assigned).sum()
        )
        agree &= np.array(names)[run.assigned] == found[first].assigned
    assert 0 < agree.sum() < len(x)  # else this test shows nothing
    label, x64 = found[first].assigned, x.astype(np.float64)
    expected = [int(((x64 - x64[agree & (label == k)].mean(0)) ** 2).sum(1).argmin()) for k in range(3)]
    assert multi_cluster(x, 3, seed=0).tolist() == expected


def test_a_core_without_full_agreement_takes_the_most_agreed_images(monkeypatch):
    """Two runs that agree on nothing in one of their clusters still give one image per cluster."""
    x = np.eye(4, dtype=np.float32).repeat(3, 0)
    a = np.repeat([0, 1, 2, 3], 3)
    b = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2])
    runs = [as3l.Clusters(np.eye(4, dtype=np.float32), a, 0.0), as3l.Clusters(np.eye(4, dtype=np.float32), b, 1.0)]
    monkeypatch.setattr(as3l, "cluster_runs", lambda *args: runs)
    chosen = multi_cluster(x, 4, runs=2)
    assert sorted(a[chosen]) == [0, 1, 2, 3]


def test_each_image_is_chosen_once_and_the_nearer_centre_has_it():
    x = np.array([[0.0], [1.0], [5.0]], np.float32)
    assert nearest_images(x, np.array([[0.1], [0.2], [0.0]], np.float32)).tolist() == [2, 1, 0]


def test_the_choice_covers_separate_classes_and_depends_on_the_seed_only():
    x, y = blobs(6, 40, 12, spread=0.12)
    chosen = select(x, 6, seed=2)
    assert sorted(y[chosen]) == list(range(6))
    assert (chosen == select(x, 6, seed=2)).all() and len(set(select(x, 40, seed=0).tolist())) == 40
