"""Prior pseudo-labels and label spreading against direct computations; the file that finetuning reads."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_lowlabel.arguments import Config
from hf_lowlabel.errors import UserError
from hf_lowlabel.models import create_classifier
from hf_lowlabel.selection.clustering import constrained_kmeans
from hf_lowlabel.selection.priors import balance, cluster_priors, graph_priors, harden, report
from hf_lowlabel.settings import resolve
from hf_lowlabel.training.priors import load_priors, save_priors
from hf_lowlabel.training.run import make_objective

from .conftest import blobs


def some_labels(y, each=1):
    at = np.concatenate([np.flatnonzero(y == c)[:each] for c in np.unique(y)])
    return at, y[at]


def test_priors_are_the_average_vote_of_the_labeled_images():
    x, y = blobs(4, 30, spread=0.5)
    labeled, labels = some_labels(y, 3)
    counts = [4, 9, 20]
    expected = np.zeros((len(x), 4))
    for run, k in enumerate(counts):
        found, _ = constrained_kmeans(x, k, labeled, labels, seed=run)
        for i, cluster in enumerate(found.assigned):
            inside = labels[found.assigned[labeled] == cluster]
            expected[i] += np.bincount(inside, minlength=4) / len(inside) if len(inside) else np.full(4, 1 / 4)
    np.testing.assert_allclose(cluster_priors(x, labeled, labels, 4, counts=counts), expected / 3, atol=1e-6)


def test_easy_classes_are_propagated_and_far_images_stay_unsure():
    x, y = blobs(5, 30, spread=0.1)
    labeled, labels = some_labels(y)
    p = cluster_priors(x, labeled, labels, 5)
    assert p.dtype == np.float32 and np.allclose(p.sum(1), 1, atol=1e-5)
    assert (p[labeled].max(1) == 1).all() and (p.argmax(1) == y).mean() > 0.95
    rest = np.setdiff1d(np.arange(len(x)), labeled)
    assert p[rest].max(1).min() < 0.5 < p[rest].max(1).max()  # K grows beyond the labels: some runs say nothing
    assert (p == cluster_priors(x, labeled, labels, 5)).all()


def test_a_class_without_labels_gets_none():
    x, y = blobs(4, 20, spread=0.2)
    labeled, labels = some_labels(np.where(y == 3, 2, y))
    p = cluster_priors(x, labeled, labels, 4)
    assert (p.argmax(1) != 3).all() and np.isfinite(p).all()


@pytest.mark.parametrize("spread_by", [cluster_priors, graph_priors])
@pytest.mark.parametrize("unlabeled, each, classes", [(2, 1, 10), (1, 3, 10), (3, 1, 5)])
def test_fewer_unlabeled_images_than_classes(spread_by, unlabeled, each, classes):
    """Everything labeled but the last few images: they take the class of the labeled images around them."""
    x, y = blobs(classes, each + 1, 16, spread=0.01)
    at = np.concatenate([np.flatnonzero(y == c)[:each] for c in range(classes)])
    rest = np.setdiff1d(np.arange(len(x)), at)[:unlabeled]
    kept = np.concatenate([at, rest])
    p = spread_by(x[kept], np.arange(len(at)), y[at], classes)
    assert (p[len(at) :].argmax(1) == y[rest]).all() and np.allclose(p.sum(1), 1, atol=1e-5)


def test_graph_priors_against_a_dense_solution():
    """Classes with one, two and two labels count the same."""
    x, y = blobs(3, 20, 6, spread=0.4)
    labeled, labels = some_labels(y, 2)
    first = np.flatnonzero(labels == 0)[0]
    labeled, labels = np.delete(labeled, first), np.delete(labels, first)
    s = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(s, -np.inf)
    a = np.zeros_like(s)
    for i in range(len(x)):
        near = np.argsort(-s[i])[:7]
        a[i, near] = np.maximum(s[i, near], 0) ** 3
    w = a + a.T
    d = np.diag(1 / np.sqrt(w.sum(1)))
    target = np.zeros((len(x), 3))
    target[labeled, labels] = 1 / np.array([1, 2, 2])[labels]
    z = np.linalg.solve(np.eye(len(x)) - 0.9 * d @ w @ d, target)
    found = graph_priors(x, labeled, labels, 3, k=7, alpha=0.9)
    np.testing.assert_allclose(found, z / z.sum(1, keepdims=True), atol=2e-4)
    assert (found.argmax(1) == y).mean() > 0.8


def test_an_island_without_labels_is_uniform():
    x = np.repeat(np.eye(3, dtype=np.float32), 6, axis=0)
    p = graph_priors(x, np.array([0, 6]), np.array([0, 1]), 2, k=3)
    assert (p[:6, 0] > 0.99).all() and (p[6:12, 1] > 0.99).all() and np.allclose(p[12:], 0.5)


def test_hard_priors_keep_the_class_and_say_nothing_where_no_label_reached():
    p = np.array([[0.30, 0.36, 0.34], [1 / 3, 1 / 3, 1 / 3], [0.8, 0.1, 0.1]], np.float32)
    assert np.allclose(harden(p), [[0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]])


def test_balanced_priors_are_the_scaling_with_equal_masses():
    """D1 P D2 with rows of 1 and columns of N / K is unique; here it is found by Newton's method on its logarithms."""
    p = np.random.default_rng(0).dirichlet([2.0, 1.0, 0.5], 12)
    found = balance(p.astype(np.float32))
    assert np.allclose(found.sum(1), 1, atol=1e-6) and np.allclose(found.sum(0), 4, atol=1e-4)
    v = np.zeros(3)  # log of the columns' factors; the rows' follow
    for _ in range(50):
        b = p * np.exp(v) / (p * np.exp(v)).sum(1, keepdims=True)
        jacobian = np.diag(b.sum(0)) - b.T @ b
        v -= np.linalg.pinv(jacobian) @ (b.sum(0) - 4)
    assert np.allclose(found, b, atol=1e-4) and (found.argmax(1) != p.argmax(1)).any()


def test_bad_labels_are_refused():
    x, y = blobs()
    for labeled, labels in (
        (np.zeros(0, int), np.zeros(0, int)),
        (np.arange(len(x)), y),
        (np.array([0]), np.array([4])),
        (np.array([0]), np.array([-1])),
    ):
        with pytest.raises(UserError):
            cluster_priors(x, labeled, labels, 4)


def test_report_by_hand():
    p = np.array([[1, 0, 0], [0.6, 0.4, 0], [0.2, 0.7, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.1, 0.8]], np.float32)
    out = report(p, np.array([0, 0, 0, -1, 2]), np.array([0]))
    assert out["images"] == 5 and out["labeled"] == 1 and out["classes"] == 1
    assert out["coverage"] == pytest.approx(3 / 4) and out["accuracy"] == pytest.approx(2 / 3)
    assert out["ece"] == pytest.approx((0.4 + 0.7 + 0.2) / 3, abs=1e-6)  # each alone in its bin: |1-.6|, |0-.7|, |1-.8|
    assert "accuracy" not in report(p, np.full(5, -1), np.array([0]))


def test_file_is_read_by_image_and_class(tmp_path):
    ids, names = [f"bild {i} ü" for i in range(6)], ["ant", "bee", "cat"]
    p = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float32)
    save_priors(tmp_path / "p.safetensors", p, ids, names, {"accuracy": 0.5})
    got = load_priors(tmp_path / "p.safetensors", [ids[4], ids[1]], ["cat", "ant", "bee"])
    assert torch.equal(got, torch.as_tensor(p[[4, 1]][:, [2, 0, 1]]))
    got = load_priors(tmp_path / "p.safetensors", ids[::-1], names)  # as many, and in another order
    assert torch.equal(got, torch.as_tensor(p[::-1].copy()))
    few = load_priors(tmp_path / "p.safetensors", [*ids, *ids, "other"], names)  # a tenth may lack them
    assert torch.equal(few[:-1], torch.as_tensor(np.concatenate([p, p]))) and not few[-1].any()
    with pytest.raises(UserError, match="1 of 2 training images have no prior pseudo-label, such as 'other'"):
        load_priors(tmp_path / "p.safetensors", [ids[0], "other"], names)
    with pytest.raises(UserError, match="classes ant, bee, cat, and the run has ant, bee"):
        load_priors(tmp_path / "p.safetensors", ids, ["ant", "bee"])
    with pytest.raises(UserError, match="hf-lowlabel priors"):
        load_priors(tmp_path / "none.safetensors", ids, names)
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UserError, match="holds no prior"):
        load_priors(tmp_path / "bad.safetensors", ids, names)


def resolved(**settings) -> Config:
    return resolve(Config.from_flat("finetune", dict(dataset="digits", **settings)))


def test_priors_reach_the_rule_for_as_long_as_they_are_asked_to(tmp_path):
    """A row for each training image, in its order."""

    class Cache(list):
        ids = property(lambda self: list(self))

    p = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    save_priors(tmp_path / "p.safetensors", p, ["a", "b", "c"], ["ant", "bee"])
    ready = SimpleNamespace(
        config=resolved(
            method="flexmatch",
            num_labels=2,
            prior=str(tmp_path / "p.safetensors"),
            prior_until=0.3,
            head_init="random",
        ),
        network=SimpleNamespace(model=create_classifier("cnn6_16", 2, pretrained=False)),
        names=["ant", "bee"],
        training=Cache(["c", "a", "b"]),
        labeled=SimpleNamespace(members=[0, 1]),
        chosen=SimpleNamespace(split=None),
    )
    rule = make_objective(ready).rule
    assert rule.until == 0.3 and rule.priors.tolist() == [[0, 0], [1, 0], [0, 1]]  # c says nothing


def test_priors_that_are_no_probabilities_are_refused(tmp_path):
    ids, names = ["a", "b"], ["ant", "bee"]
    for bad, words in (
        ([[np.nan, 1], [0, 1]], "not all finite"),
        ([[-1, 2], [0, 1]], "at least 0"),
        ([[1, 0]], r"are \(1, 2\), for 2 images"),
    ):
        save_priors(tmp_path / "p.safetensors", np.array(bad, np.float32), ids, names)
        with pytest.raises(UserError, match=words):
            load_priors(tmp_path / "p.safetensors", ids, names)


def test_methods_without_a_rule_refuse_priors():
    given = dict(num_labels=10, prior=__file__)
    with pytest.raises(UserError, match="mean-teacher has no use for prior pseudo-labels.*flexmatch"):
        resolved(method="mean-teacher", **given)
    resolved(method="flexmatch", **given)
    with pytest.raises(UserError, match="prior_until is 60"):
        resolved(method="flexmatch", prior_until=60.0, **given)
