import numpy as np
import pytest
from sklearn.datasets import load_digits, make_moons

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.probes import KNN, LabelSpreading, Probe, knn, label_spreading, probe_head


def digits(per_class=4, seed=0):
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    labels = np.full(1400, -1)
    for c in range(10):
        labels[np.flatnonzero(y[:1400] == c)[:per_class]] = c
    return x[:1400], labels, x[1400:], y[1400:]


@pytest.mark.parametrize("method", [KNN, LabelSpreading, Probe])
def test_forty_labels_are_worth_something(method):
    x, labels, query, truth = digits()
    p = method().fit_predict(x, labels, query, num_classes=10)
    assert p.shape == (len(query), 10) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-4)
    assert (p.argmax(1) == truth).mean() > 0.7


def test_label_spreading_uses_the_unlabeled():
    x, y = make_moons(400, noise=0.05, random_state=0)
    x = np.c_[x, np.full(len(x), 3)].astype(np.float32)  # cosine sees the plane
    labels = np.full(400, -1)
    labels[[np.flatnonzero(y == 0)[0], np.flatnonzero(y == 1)[0]]] = [0, 1]
    right = lambda f, **kw: (f(x, labels, x, num_classes=2, **kw).argmax(1) == y).mean()  # noqa: E731
    assert right(label_spreading, alpha=0.99) > 0.95 > 0.9 > right(knn)


def test_knn_by_hand():
    x, labels = np.eye(3, dtype=np.float32), np.array([0, 1, -1])
    p = knn(x, labels, np.array([[1, 1, 0], [2, 0, 0]], np.float32), num_classes=3, temperature=0.5)
    e = np.exp(np.array([1, 0]) / 0.5)
    np.testing.assert_allclose(p, [[0.5, 0.5, 0], [*(e / e.sum()), 0]], rtol=1e-5)


@pytest.mark.parametrize("classes", [[0, 1, 3], [1, 2]])
def test_the_head_is_the_probe_and_a_class_without_labels_never_wins(classes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32) * rng.uniform(0.1, 10, 8).astype(np.float32) + 5
    x[:, 7] = 2.5  # never changes
    labels = np.full(60, -1)
    labels[:30] = np.array(classes)[np.arange(30) % len(classes)]
    weight, bias = probe_head(x, labels, num_classes=4)
    z = x @ weight.T + bias
    p = Probe().fit_predict(x, labels, x, num_classes=4)
    e = np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(p, e / e.sum(1, keepdims=True), atol=1e-4)
    assert set(p.argmax(1)) <= set(classes) and np.all(p[:, [c for c in range(4) if c not in classes]] == 0)
    assert np.all(weight[:, 7] == 0)


def test_the_probe_minimises_the_penalised_cross_entropy():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(50, 4)), rng.integers(3, size=50)
    mean, std = x.mean(0), x.std(0)

    def cost(weight, bias):
        z = x @ weight.T + bias
        z = z - z.max(1, keepdims=True)
        return (np.log(np.exp(z).sum(1)) - z[np.arange(50), labels]).sum() + ((weight * std) ** 2).sum() * 0.5 / 2

    weight, bias = (v.astype(np.float64) for v in probe_head(x, labels, num_classes=3, l2=0.5))
    best = cost(weight, bias)
    for _ in range(20):
        assert cost(weight + 0.05 * rng.normal(size=weight.shape), bias + 0.05 * rng.normal(size=3)) > best - 1e-6
    assert mean.shape == (4,)


def test_errors_name_what_is_missing():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(UserError, match="at least one"):
        knn(x, np.full(4, -1), x, num_classes=2)
    with pytest.raises(UserError, match="at least two"):
        Probe().fit_predict(x, np.array([0, 0, -1, -1]), x, num_classes=2)
