from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import probes
from hf_lowlabel.evaluation.neighbors import neighbor_votes
from hf_lowlabel.finetuning.probes import knn


def clusters(n=60, k=3, d=8, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    features = np.eye(d)[labels] * 2 + rng.normal(size=(n, d)) * spread
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


def knn_by_hand(bank, labels, queries, truth, k, alone):
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    right = 0
    for i, q in enumerate(queries):
        s = bank @ q
        if alone:
            s[i] = -np.inf
        votes = np.zeros(labels.max() + 1)
        for j in np.argsort(-s)[:k]:
            votes[labels[j]] += np.exp(s[j] / 0.07)
        right += votes.argmax() == truth[i]
    return right / len(queries)


@pytest.mark.parametrize("k, batch", [(1, 7), (5, 64), (20, 1024)])
def test_knn_against_a_loop(k, batch):
    f, y = clusters(spread=1.5)
    q, t = clusters(n=40, spread=1.5, seed=1)
    by_hand = [x.double().numpy() if x.is_floating_point() else x.numpy() for x in (f, y, q, t)]
    ours = probes.knn_accuracy(f, y, q, t, k=k, batch=batch)
    assert ours == pytest.approx(knn_by_hand(*by_hand, k, False)) and 0.4 < ours < 1
    alone = probes.knn_accuracy(f, y, k=k, batch=batch)
    assert alone == pytest.approx(knn_by_hand(by_hand[0], by_hand[1], by_hand[0], by_hand[1], k, True))


def test_knn_of_small_sets_and_unlabeled_images():
    f, y = clusters(n=6, spread=0.01)
    assert probes.knn_accuracy(f, y) == 1  # k = 20 is cut down to 5 neighbours; the nearest one wins by weight
    y[:3] = -1
    assert probes.knn_accuracy(f, y, *clusters(n=30, spread=0.01)) == 1
    f, y = clusters(n=4, spread=0.01)
    with pytest.raises(UserError, match="There are 1 labeled"):
        probes.knn_accuracy(f, torch.tensor([0, -1, -1, -1]))
    with pytest.raises(ValueError, match="together"):
        probes.knn_accuracy(f, y, f)


def test_an_image_does_not_vote_for_itself():
    f, _ = clusters(n=12)
    assert probes.knn_accuracy(f, torch.arange(12), k=1) == 0


def test_feature_std_isotropic_and_collapsed():
    assert float(probes.feature_std(torch.eye(2))) == pytest.approx(
        2**0.5 / 2
    )  # deviation 1/2 in each of two directions
    z = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert float(probes.feature_std(z)) == pytest.approx(1, abs=0.02)
    assert float(probes.feature_std(z[:1].expand(100, -1) * torch.rand(100, 1))) == pytest.approx(0, abs=1e-5)
    line = torch.where(torch.rand(100, 1) < 0.5, -1.0, 1.0) * z[:1]  # all features on one line: far from isotropic
    assert float(probes.feature_std(line)) < 0.85
    assert float(probes.feature_std(z * 100)) == pytest.approx(float(probes.feature_std(z)), abs=1e-5)


def test_linear_probe_tells_structure_from_noise():
    f, y = clusters(n=90, spread=0.6)
    q, t = clusters(n=90, spread=0.6, seed=3)
    assert probes.linear_probe(f, y, q, t) > 0.9
    shuffled = t[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    assert probes.linear_probe(f, y, q, shuffled) < 0.6
    with pytest.raises(UserError, match="at least two"):
        probes.linear_probe(f, torch.zeros_like(y), q, t)


def test_votes_are_probabilities_at_any_temperature():
    f, y = clusters(spread=1.5)
    q, _ = clusters(n=40, spread=1.5, seed=1)
    votes = neighbor_votes(f, y, q, num_classes=5, k=7)
    assert votes.shape == (40, 5) and (votes[:, 3:] == 0).all()
    cold = neighbor_votes(f, y, q, k=7, temperature=1e-4)
    for p in (votes, cold, neighbor_votes(f, y)):
        torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
    assert (cold.argmax(1) == neighbor_votes(f, y, q, k=1).argmax(1)).all()
    theirs = knn(f.numpy(), y.numpy(), q.numpy(), num_classes=5, k=7)
    np.testing.assert_allclose(votes.numpy(), theirs, atol=1e-5)
