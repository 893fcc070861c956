"""An image whose prior says nothing (a uniform row, or zeros) counts everywhere as one without a prior."""

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.graph import Pool
from hf_lowlabel.finetuning.self_training import SelfTraining
from hf_lowlabel.finetuning.uninformative import informative, over_all_classes, without_uninformative
from hf_lowlabel.finetuning.weights import Fixed, Flex, Prior
from hf_lowlabel.models import create_classifier
from hf_lowlabel.selection.by_class import within_classes
from hf_lowlabel.selection.priors import balance, harden, report
from hf_lowlabel.training.frozen import with_priors
from hf_lowlabel.training.head import priors_head
from hf_lowlabel.training.priors import load_priors, save_priors

K = 4
SILENT = {"uniform": 1 / K, "zero": 0.0}


def some(kind, n=40, seed=0):
    """Priors [n, K] of which every second row says nothing."""
    p = np.random.default_rng(seed).dirichlet(np.ones(K), n).astype(np.float32)
    p[1::2] = SILENT[kind]
    return p


@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_which_rows_say_something(of):
    rows = [[0.25] * 4, [0.0] * 4, [0.26, 0.25, 0.25, 0.24], [0.5, 0.5, 0, 0], [0.2, 0.1, 0.1, 0.1], [0.1] * 4]
    p = of(np.array(rows, np.float32))
    assert informative(p).tolist() == [False, False, True, True, True, False]
    assert without_uninformative(p)[0].tolist() == [0] * 4 and without_uninformative(p)[2].tolist() == p[2].tolist()
    assert informative(of(np.array([[0.5, 0.5], [1, 0]], np.float32))).tolist() == [
        False,
        True,
    ]  # two votes that differ


@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_a_row_says_the_same_whichever_rows_are_beside_it(of):
    p = of(np.array([[0.5, 0.5, 0], [1 / 3] * 3, [0.6, 0.4, 0], [0, 0, 0], [1, 0, 0]], np.float32))
    alone = [bool(informative(p[i : i + 1])[0]) for i in range(len(p))]
    assert informative(p).tolist() == alone == [True, False, True, False, True]


def test_the_same_of_each_class_that_has_a_label_becomes_a_prior_that_says_nothing():
    """What label spreading says of an image that no label reaches, where a class has no label."""
    p = over_all_classes(np.array([[0.5, 0.5, 0], [0.6, 0.4, 0], [1, 0, 0]], np.float32))
    assert p.dtype == np.float32 and informative(p).tolist() == [False, True, True]
    assert np.allclose(p, [[1 / 3] * 3, [0.6, 0.4, 0], [1, 0, 0]])
    one = np.array([[1, 0, 0]] * 2, np.float32)
    assert np.array_equal(over_all_classes(one), one)


@pytest.mark.parametrize("kind", SILENT)
def test_no_label_comes_of_it(kind):
    p, labels = some(kind), np.full(40, -1)
    labels[:4] = 3
    found = with_priors(labels, p)
    assert (found[5::2] == -1).all() and (found[4::2] == p[4::2].argmax(1)).all() and (found[:4] == 3).all()


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize("labels", [0, 4])
def test_no_head_is_fitted_to_it(kind, labels):
    x, p = np.random.default_rng(1).normal(size=(40, 6)), some(kind).astype(float)
    own, y = x[:labels], np.arange(labels)
    for a, b in zip(priors_head(x, p, own, y), priors_head(x[::2], p[::2], own, y), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize("rule", [lambda: Fixed(tau=0.6), lambda: Flex(num_classes=K, num_images=40, tau=0.6)])
def test_a_rule_sees_what_the_network_says(kind, rule):
    p = torch.tensor([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0]])
    asked = Prior(rule(), torch.from_numpy(some(kind)), until=1.0)
    plain = rule()
    index = torch.tensor([1, 3])
    for a, b in zip(asked(p, index, p, 0.0), plain(p, index, p, 0.0), strict=True):
        assert torch.equal(a, b)


def test_self_training_leaves_it_out():
    torch.manual_seed(0)
    model = create_classifier("cnn6_16", K, pretrained=False).eval()
    x = torch.randn(4, 3, 16, 16)
    batch = {
        "labeled": {"image": x[:2], "target": torch.tensor([0, 1])},
        "unlabeled": {"weak": x, "index": torch.arange(4)},
    }
    losses = [SelfTraining(model, priors=torch.from_numpy(some(kind, 4))).eval()(batch, 0.0) for kind in SILENT]
    assert losses[0]["pseudo"] == losses[1]["pseudo"] > 0
    with pytest.raises(UserError, match="for none of the images"):
        SelfTraining(model, priors=torch.full((4, K), 1 / K))


def test_it_sends_nothing_over_the_graph():
    x = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    pool = Pool(x, k=5)
    assert np.array_equal(pool.seeds(some("uniform")), pool.seeds(some("zero")))
    one = np.full((40, K), 1 / K)
    one[0] = [1, 0, 0, 0]
    assert (pool.seeds(one)[:, 1:] == 0).all()


def test_it_stays_silent_where_the_rest_is_balanced():
    p = some("uniform")
    found = balance(p)
    assert np.array_equal(found[1::2], p[1::2]) and not np.array_equal(found[::2], p[::2])


@pytest.mark.parametrize("kind", SILENT)
def test_no_class_comes_of_it_where_classes_have_no_label(kind):
    """Neither balanced nor made hard it says one, and a class that has no label gets no mass."""
    p = np.pad(some(kind)[:, :3], ((0, 0), (0, 1)))
    p[::2, 3] = 0
    p[1::2] = SILENT[kind]
    found = balance(p)
    assert informative(found).tolist() == informative(p).tolist() and np.array_equal(found[1::2], p[1::2])
    assert (found[::2, 3] == 0).all() and np.allclose(found[::2].sum(1), 1)
    hard = harden(found)
    assert np.allclose(hard[1::2], 1 / K) and (hard[::2].max(1) == 1).all() and (hard[::2, 3] == 0).all()
    assert np.array_equal(balance(p[1::2]), p[1::2])  # nobody says anything


def test_it_is_no_answer_that_is_right():
    """All images are of class 0, which is the first of equals."""
    p = np.array([[1, 0, 0, 0], [0, 1, 0, 0], *[[0.25] * 4] * 8], np.float32)
    out = report(p, np.zeros(10, int), np.zeros(0, int))
    assert out["accuracy"] == 0.5 and out["coverage"] == pytest.approx(0.2)
    assert "accuracy" not in report(p[2:], np.zeros(8, int), np.zeros(0, int))


@pytest.mark.parametrize("kind", SILENT)
def test_it_is_chosen_after_those_of_a_class(kind):
    p = np.eye(K, dtype=np.float32)[[0, 0, 0, 1, 1, 2, 3, 3, 3, 3]]
    p = np.concatenate([p, np.full((10, K), SILENT[kind], np.float32)])
    first = lambda rows, n: np.arange(n)  # noqa: E731
    rows = np.arange(20)[::-1].copy()
    each = rows[within_classes(p, rows, 4, first)]
    assert sorted(p[each].argmax(1)) == [0, 1, 2, 3] and each.max() < 10
    more = rows[within_classes(p, rows, 13, first)]
    assert len(set(more)) == 13 and set(range(10)) < set(more)


def test_priors_that_say_nothing_at_all_are_refused(tmp_path):
    names = ["a", "b"]
    save_priors(tmp_path / "p.safetensors", np.array([[1, 0], [0.5, 0.5]], np.float32), ["x", "y"], names)
    assert load_priors(tmp_path / "p.safetensors", ["y", "x"], names).shape == (2, 2)
    with pytest.raises(UserError, match="the same share for each of the 1 training images. Give another --prior"):
        load_priors(tmp_path / "p.safetensors", ["y"], names)
