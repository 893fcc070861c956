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


def knn_by_hand(bank, labels, k):
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    right = 0
    for i, q in enumerate(bank):
        s = bank @ q
        s[i] = -np.inf
        votes = np.zeros(labels.max() + 1)
        for j in np.argsort(-s)[:k]:
            votes[labels[j]] += np.exp(s[j] / 0.07)
        right += votes.argmax() == labels[i]
    return right / len(bank)


@pytest.mark.parametrize("k, batch", [(1, 7), (5, 64), (20, 1024)])
def test_knn_against_a_loop(k, batch):
    f, y = clusters(spread=1.5)
    ours = probes.knn_accuracy(f, y, k=k, batch=batch)
    assert ours == pytest.approx(knn_by_hand(f.double().numpy(), y.numpy(), k)) and 0.4 < ours < 1


def test_knn_of_small_sets_and_unlabeled_images():
    f, y = clusters(n=6, spread=0.01)
    assert probes.knn_accuracy(f, y) == 1  # k = 20 is cut down to 5 neighbours; the nearest one wins by weight
    y[2], y[5] = -1, 0  # of the second class beside one of the third, which has no label
    assert probes.knn_accuracy(f, y) == 4 / 5
    f, y = clusters(n=4, spread=0.01)
    with pytest.raises(UserError, match="There are 1 labeled"):
        probes.knn_accuracy(f, torch.tensor([0, -1, -1, -1]))


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
