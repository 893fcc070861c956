"""Each strategy against its paper's definition, written as plain loops; what all of them must do; copies of images."""

import numpy as np
import pytest

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.neighbors import neighbours
from hf_lowlabel.selection import strategies
from hf_lowlabel.selection.clustering import kmeans
from hf_lowlabel.selection.strategies import (
    STRATEGIES,
    choose,
    class_balanced,
    coreset,
    identical,
    k_medoids,
    typiclust,
    usl,
)

from .conftest import blobs


def distances(x):
    x = x.astype(np.float64)
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("budget", [1, 7, 60])
def test_every_strategy_keeps_its_budget_and_its_seed(name, budget):
    x, y = blobs(3, 20, spread=0.4)
    if name == "class-balanced" and budget < 3:
        pytest.skip("fewer than the classes")
    chosen = choose(name, x, budget, seed=4, labels=y)
    assert (
        chosen.dtype == np.int64 and len(set(chosen.tolist())) == budget and 0 <= chosen.min() and chosen.max() < len(x)
    )
    assert (chosen == choose(name, x, budget, seed=4, labels=y)).all()


def test_random_depends_on_the_seed_and_ignores_the_features():
    x, _ = blobs()
    assert set(choose("random", x, 20, 0)) != set(choose("random", x, 20, 1))
    assert (choose("random", x, 20, 0) == choose("random", x[::-1].copy(), 20, 0)).all()


def test_class_balanced_counts():
    _, y = blobs(4, 10)
    chosen = class_balanced(None, 10, 0, labels=y)
    assert sorted(np.bincount(y[chosen])) == [2, 2, 3, 3]
    with pytest.raises(UserError, match="3 images cannot cover 4 classes. Use --budget 4"):
        class_balanced(None, 3, labels=y)
    with pytest.raises(UserError, match="10 images of class"):
        class_balanced(None, 44, labels=y)


def test_coreset_is_greedy_k_center():
    x, _ = blobs(5, 20, spread=0.3)
    chosen, d = coreset(x, 12, seed=1), distances(x)
    expected = [int(chosen[0])]
    while len(expected) < 12:
        expected.append(int(d[:, expected].min(1).argmax()))
    assert chosen.tolist() == expected


def test_coreset_begins_with_what_is_labeled():
    x, _ = blobs(4, 20, spread=0.3)
    d, known = distances(x), [3, 41]
    rest, expected = np.setdiff1d(np.arange(80), known), []
    while len(expected) < 10:
        nearest = d[np.ix_(rest, known + [int(rest[i]) for i in expected])].min(1)
        nearest[expected] = -1
        expected.append(int(nearest.argmax()))
    assert choose("coreset", x[rest], 10, known=x[known]).tolist() == expected


def test_k_medoids_is_a_fixed_point():
    x, _ = blobs(4, 25, spread=0.4)
    medoids, d = k_medoids(x, 4, seed=0), distances(x) ** 2
    assigned = d[:, medoids].argmin(1)
    for k, medoid in enumerate(medoids):
        members = np.flatnonzero(assigned == k)
        assert medoid == members[d[np.ix_(members, members)].sum(0).argmin()]


@pytest.mark.parametrize("weight", [0.7, 1.0, 2.0, 5.0])
def test_usl_against_its_equations(weight):
    """The regulariser grows from round to round: a round that changes nothing is not the last one that might."""
    x, _ = blobs(4, 30, spread=0.5, seed=2)
    k, alpha, momentum = 9, 0.5, 0.9
    d = distances(x)
    u = 1 / np.sort(d**2, 1)[:, :k].mean(1)  # the image itself among them
    assigned = kmeans(x, 4, seed=3).assigned
    chosen = [max(np.flatnonzero(assigned == c), key=lambda i: u[i]) for c in range(4)]
    smooth, plain = np.zeros(len(x)), list(chosen)
    for _ in range(9):
        reg = np.array(
            [sum(d[i, chosen[j]] ** (-2 * alpha) for j in range(4) if j != assigned[i]) for i in range(len(x))]
        )
        smooth = momentum * smooth + (1 - momentum) * reg
        chosen = [max(np.flatnonzero(assigned == c), key=lambda i: u[i] - weight * smooth[i]) for c in range(4)]
    found = usl(x, 4, seed=3, k=k, weight=weight, alpha=alpha, momentum=momentum)
    assert found.tolist() == chosen
    assert usl(x, 4, seed=3, k=k, weight=0.0).tolist() == plain
    assert usl(x, 4, seed=3, k=k, weight=50.0).tolist() != plain  # the regulariser moves the choice


def test_typiclust_takes_the_most_typical_of_each_large_cluster():
    x, _ = blobs(3, 30, spread=0.3)
    d, assigned = distances(x), kmeans(x, 3, seed=1).assigned
    expected = []
    for c in range(3):
        mine = np.flatnonzero(assigned == c)
        near = np.sort(d[np.ix_(mine, mine)] ** 2, 1)[:, 1 : min(20, len(mine) // 2) + 1].mean(1)
        expected.append((len(mine), int(mine[near.argmin()])))
    assert sorted(typiclust(x, 3, seed=1).tolist()) == sorted(image for _, image in expected)
    by_size = sorted(expected, key=lambda e: -e[0])
    assert typiclust(x, 3, seed=1)[0] in {image for size, image in by_size if size == by_size[0][0]}
    again = typiclust(x, 9, seed=1, most=3)
    assert np.bincount(assigned[again]).tolist() == [3, 3, 3]  # clusters in turn


def test_typiclust_measures_a_cluster_once_however_many_images_it_gives(monkeypatch):
    """What is chosen is what measuring all that is left anew before every choice gives."""
    x, _ = blobs(3, 24, spread=0.4)
    d, assigned, k = distances(x) ** 2, kmeans(x, 3, seed=1).assigned, 7
    expected = []
    for c in range(3):
        left = np.flatnonzero(assigned == c).tolist()
        while len(left) > 2:
            near = np.sort(d[np.ix_(left, left)], 1)[:, 1 : min(k, len(left) // 2) + 1].mean(1)
            expected.append(left.pop(int(near.argmin())))
    calls = []
    monkeypatch.setattr(strategies, "neighbours", lambda *a, **more: calls.append(1) or neighbours(*a, **more))
    found = typiclust(x, len(x), seed=1, most=3, k=k).tolist()
    assert len(calls) == 3 and sorted(found) == list(range(len(x)))
    for c in range(3):
        mine = [i for i in expected if assigned[i] == c]
        assert [i for i in found if assigned[i] == c][: len(mine)] == mine


@pytest.mark.parametrize("strategy, more", [(usl, {"weight": 0.0}), (typiclust, {})])
def test_densities_of_many_images_are_measured_by_some_of_them(strategy, more, monkeypatch):
    """The bank of neighbours no longer grows with the images, and what is chosen is still dense."""
    x, _ = blobs(4, 400, spread=0.4)
    exact, banks = strategy(x, 4, seed=1, k=20, **more).tolist(), []
    monkeypatch.setattr(strategies, "neighbours", lambda *a, **b: banks.append(b["among"]) or neighbours(*a, **b))
    monkeypatch.setattr(strategies, "DENSITY", len(x))
    assert strategy(x, 4, seed=1, k=20, **more).tolist() == exact and all(bank is None for bank in banks)
    monkeypatch.setattr(strategies, "DENSITY", 150)
    banks.clear()
    found = strategy(x, 4, seed=1, k=20, **more)
    assert banks and all(len(bank) == 150 for bank in banks)
    assert strategy(x, 4, seed=1, k=20, **more).tolist() == found.tolist()
    assigned, spread = kmeans(x, 4, seed=1).assigned, np.sort(distances(x) ** 2, 1)[:, 1:21].mean(1)
    for i in found:  # among the densest fifth of its cluster
        assert (spread[assigned == assigned[i]] < spread[i]).mean() < 0.2


def test_neighbours_among_some_rows_are_those_of_all_that_are_left():
    x, _ = blobs(3, 20, spread=0.4)
    among = np.array([0, 3, 4, 20, 21, 33, 50, 59])
    index, distance = neighbours(x, 3, among=among)
    d = distances(x) ** 2
    np.fill_diagonal(d, np.inf)
    for i in range(len(x)):
        assert index[i].tolist() == among[np.argsort(d[i, among], kind="stable")[:3]].tolist()
        np.testing.assert_allclose(distance[i], d[i, index[i]], atol=1e-5)


def test_typiclust_leaves_small_clusters_for_last():
    x, y = blobs(3, 30, spread=0.05)
    kept = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:4]])
    chosen = y[kept][typiclust(x[kept], 61, most=3)]
    assert sorted(chosen[:60].tolist()) == [0] * 30 + [1] * 30 and chosen[60] == 2


def test_budgets_and_names_that_cannot_be():
    x, _ = blobs(2, 5)
    for budget in (0, 11):
        with pytest.raises(UserError, match="Use --budget 1 to 10"):
            choose("random", x, budget)
    with pytest.raises(UserError, match="did you mean 'coreset'"):
        choose("corset", x, 2)
    with pytest.raises(UserError, match="no labels for the strategy class-balanced"):
        choose("class-balanced", x, 2, labels=np.full(10, -1))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_features_that_are_no_numbers_are_named(name, value):
    """k-center took the same image again and again, and others ended in an error of sklearn."""
    x, y = blobs(3, 20, spread=0.4)
    x[[3, 7], 0] = value
    with pytest.raises(UserError, match="The features of 2 of 60 images are NaN or infinite"):
        choose(name, x, 6, labels=y)


def test_copies_are_found_and_neighbours_are_not():
    x, _ = blobs(4, 50, 32, spread=0.2)
    x[70] = x[3]
    x[71] = x[3] + np.float32(1e-7)
    x[150] = x[149] + np.float32(2e-6)
    x[151] = x[20] + np.float32(3e-3)
    first = identical(x)
    assert first[70] == first[71] == first[3] == 3 and first[150] == 149 and first[151] == 151
    assert (first != np.arange(len(x))).sum() == 3
    assert (identical(np.ones((500, 4), np.float32) / 2) == 0).all()  # a collapsed network: one image and its copies
