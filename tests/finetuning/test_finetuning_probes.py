import numpy as np
import pytest
from sklearn.datasets import load_digits, make_moons

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning.graph import (
    Graph,
    Pool,
    class_shares,
    rooted,
    shares_behind,
    spread,
    unevenness,
    with_masses,
)
from hf_lowlabel.finetuning.graph_choice import ALPHAS, GRAPHS, left_out_likelihood
from hf_lowlabel.finetuning.linear import (
    STRENGTHS,
    LeastSquares,
    best_l2,
    left_out_logits,
    softmax,
    stratified_folds,
)
from hf_lowlabel.finetuning.multilabel import MultiLabelProbe
from hf_lowlabel.finetuning.pooling import of_each_class, pooled_rows
from hf_lowlabel.finetuning.probes import (
    KNN,
    LabelSpreading,
    Probe,
    Propagation,
    ask,
    knn,
    label_spreading,
    probe_head,
)
from hf_lowlabel.finetuning.temperature import temperature
from hf_lowlabel.ladder.encoders import Features
from hf_lowlabel.ladder.frozen import climb


def digits(per_class=4, seed=0):
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    labels = np.full(1400, -1)
    for c in range(10):
        labels[np.flatnonzero(y[:1400] == c)[:per_class]] = c
    return x[:1400], labels, x[1400:], y[1400:]


@pytest.mark.parametrize("method", [KNN, LabelSpreading, Probe, Propagation])
def test_forty_labels_are_worth_something(method):
    x, labels, query, truth = digits()
    p = method().fit_predict(x, labels, query, num_classes=10)
    assert p.shape == (len(query), 10) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-4)
    assert (p.argmax(1) == truth).mean() > 0.7


def two_moons_and_a_label_each(n=400):
    """Moons in random Fourier features: cosines of those are distances in the plane."""
    plane, y = make_moons(n, noise=0.05, random_state=0)
    rng = np.random.default_rng(0)
    x = np.cos(plane @ rng.normal(size=(2, 200)) * 4 + rng.uniform(0, 2 * np.pi, 200)).astype(np.float32)
    labels = np.full(n, -1)
    labels[[np.flatnonzero(y == 0)[0], np.flatnonzero(y == 1)[0]]] = [0, 1]
    return x, y, labels


def test_label_spreading_uses_the_unlabeled():
    x, y, labels = two_moons_and_a_label_each()
    right = lambda f, **kw: (f(x, labels, x, num_classes=2, **kw).argmax(1) == y).mean()  # noqa: E731
    assert right(label_spreading, alpha=0.99, neighbours=10) > 0.95 > 0.9 > right(knn)


def test_label_spreading_answers_for_images_outside_its_graph():
    x, y, labels = two_moons_and_a_label_each()
    inside = label_spreading(x[:300], labels[:300], x[:300], num_classes=2, alpha=0.99, neighbours=10)
    asked = label_spreading(x[:300], labels[:300], x, num_classes=2, alpha=0.99, neighbours=10)
    np.testing.assert_allclose(asked[:300], inside, atol=1e-6)  # an image of the graph keeps what it has
    assert (asked[300:].argmax(1) == y[300:]).mean() > 0.9


def test_neighbours_and_alpha_are_those_under_which_the_labels_are_likeliest():
    x, labels, _, _ = digits(3)
    rows = np.flatnonzero(labels >= 0)
    y = labels[rows]
    likelihood = {
        (k, a): left_out_likelihood(Graph(rooted(x), k).reach(rows, a)[rows], y, 10, rows)
        for k in GRAPHS
        for a in ALPHAS
    }
    k, a = max(likelihood, key=likelihood.get)
    chosen = label_spreading(x, labels, x, num_classes=10)
    np.testing.assert_allclose(chosen, label_spreading(x, labels, x, num_classes=10, neighbours=k, alpha=a), atol=1e-6)


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
    """The penalty is that of features scaled as a whole: weights on raw ones count s^2 times."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(50, 4)) * [1, 1, 1, 9], rng.integers(3, size=50)
    s2 = ((x - x.mean(0)) ** 2).sum(1).mean()

    def cost(weight, bias):
        z = x @ weight.T + bias
        z = z - z.max(1, keepdims=True)
        return (np.log(np.exp(z).sum(1)) - z[np.arange(50), labels]).sum() + s2 * (weight**2).sum() * 0.5 / 2

    weight, bias = (v.astype(np.float64) for v in probe_head(x, labels, num_classes=3, l2=0.5))
    best = cost(weight, bias)
    for _ in range(20):
        step = 0.05 / np.sqrt(s2)
        assert cost(weight + step * rng.normal(size=weight.shape), bias + 0.05 * rng.normal(size=3)) > best - 1e-6


def test_the_penalty_is_the_one_that_cross_validation_prefers():
    """Two classes far apart want next to none, pure noise all there is."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    noise = rng.normal(size=(40, 50))
    apart = noise * 0.01 + y[:, None]
    assert best_l2(apart / np.sqrt(50), y) == min(STRENGTHS) and best_l2(noise, rng.permutation(y)) == max(STRENGTHS)
    assert best_l2(noise[:2], y[:2]) == 1.0  # no class has two labels


NOISE = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)  # says nothing of the classes
RANDOM_CLASSES = np.random.default_rng(1).permutation(np.arange(40) % 2)


def eight_of_each(x, y, unlabeled=20):
    """(features, labels, pictures) of eight all but equal copies of each labeled image, and of some without a label."""
    rng = np.random.default_rng(2)
    many = np.concatenate([np.repeat(x, 8, 0), rng.normal(size=(unlabeled, x.shape[1]))])
    many += 1e-3 * rng.normal(size=many.shape)
    labels = np.concatenate([np.repeat(y, 8), np.full(unlabeled, -1)])
    return (
        many.astype(np.float32),
        labels,
        np.concatenate([np.repeat(np.arange(len(y)), 8), 100 + np.arange(unlabeled)]),
    )


@pytest.mark.parametrize("method", [Probe, Propagation, MultiLabelProbe])
def test_copies_of_an_image_do_not_make_a_head_sure_of_noise(method):
    """Left out one by one, each would be recognised by its copies."""
    x, y, shows = eight_of_each(NOISE, RANDOM_CLASSES)
    if method is MultiLabelProbe:
        y = np.where(y[:, None] < 0, -1, np.eye(2, dtype=int)[y])
    new = np.random.default_rng(3).normal(size=(200, 50)).astype(np.float32)

    def sure(**known):
        weight, bias = method().head(x, y, num_classes=2, **known)
        return softmax(new @ weight.T + bias).max(1).mean()

    assert sure() > 0.8 and sure(copies=shows) < 0.75


def test_near_copies_of_several_classes_leave_none_of_them_out_whole():
    """The only label of class 2 is the next frame of one of class 1: left out with it, the class would be unknown."""
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    y, copies = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 2, 3, 3])
    for seed in range(5):
        fold = stratified_folds(y, 5, np.random.default_rng(seed), copies)
        assert all(len(np.unique(y[fold != f])) == 3 for f in range(5)) and fold[3] == fold[4] == -1
        assert (fold[:2] >= 0).all() and fold[2] >= 0
    _, logits, rows = left_out_logits(x, y, 3, copies)
    assert sorted(rows) == [0, 1, 2] and np.isfinite(logits).all()
    assert best_l2(x, np.array([1, 1, 2, 2, 0]), copies=copies) in STRENGTHS  # no class takes another's place


def test_copies_do_not_choose_the_graph_of_label_spreading():
    x, y, shows = eight_of_each(NOISE, RANDOM_CLASSES)
    rows = np.flatnonzero(y >= 0)
    reach = Graph(rooted(x), 10).reach(rows, 0.9)[rows]
    apart, together = (left_out_likelihood(reach, y[rows], 2, of) for of in (rows, shows[rows]))
    assert apart > np.log(0.9) and together < np.log(0.7)


def test_least_squares_is_ridge_regression_and_leaves_out_what_it_says():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(30, 5)) + 3, rng.normal(size=(30, 2))
    s2 = ((x - x.mean(0)) ** 2).sum(1).mean()
    layer, l2 = LeastSquares(x), 0.01
    weight, bias = layer.fit(t, l2)
    own = Ridge(alpha=l2 * 30 * s2).fit(x, t)
    np.testing.assert_allclose(weight, own.coef_, atol=1e-4)
    np.testing.assert_allclose(x @ weight.T + bias, layer.predict(t, l2), atol=1e-4)
    without = np.arange(30) != 7  # centred on all images, as the features are: the intercept is fitted anew
    z = (x - x.mean(0)) / np.sqrt(s2)
    a = np.c_[z[without], np.ones(29)]
    penalty = np.diag([l2 * 30] * 5 + [0])
    other = np.linalg.solve(a.T @ a + penalty, a.T @ t[without])
    np.testing.assert_allclose(layer.left_out(t, l2, np.array([7]))[0], np.r_[z[7], 1] @ other, atol=1e-4)


def test_reach_is_linear_in_the_labels_and_solves_the_graph():
    x, y, labels = two_moons_and_a_label_each(60)
    graph, rows = Graph(rooted(x), 6), np.flatnonzero(labels >= 0)
    reach, s = graph.reach(rows, 0.9), graph.similarity.toarray()
    exact = np.linalg.solve(np.eye(60) - 0.9 * s, np.eye(60)[:, rows])
    np.testing.assert_allclose(reach, exact, atol=1e-3)
    p = spread(reach, labels[rows], 2)
    np.testing.assert_allclose(p.sum(1), 1)
    assert spread(np.zeros((5, 2)), labels[rows], 2) == pytest.approx(0.5)


@pytest.fixture
def few_reached(monkeypatch):
    """More than so many labels are many."""
    for module in ("graph", "graph_choice"):
        monkeypatch.setattr(f"hf_lowlabel.finetuning.{module}.MOST_REACHED", 30)


def test_many_labels_spread_without_a_matrix_of_their_reach(few_reached, monkeypatch):
    """Whether they are solved one by one or together is the same."""
    x, labels, _, _ = digits(6)
    rows = np.flatnonzero(labels >= 0)
    pool, y = Pool(x), labels[rows]
    reach = pool.reach(rows)
    assert not isinstance(reach, np.ndarray) and isinstance(pool.reach(rows[:30]), np.ndarray)
    monkeypatch.setattr("hf_lowlabel.finetuning.graph.MOST_REACHED", 60)
    known = pool.reach(rows)
    for out in (y, np.where(np.arange(60) % 5 == 0, -1, y)):
        np.testing.assert_allclose(spread(reach, out, 10), spread(known, out, 10), atol=2e-3)
        same = pool.propagate(reach, rows, out, 10).argmax(1) == pool.propagate(known, rows, out, 10).argmax(1)
        assert same.mean() > 0.99


def test_label_spreading_of_many_labels_uses_all_of_them(few_reached):
    x, labels, query, truth = digits(60)
    p = label_spreading(x, labels, query, num_classes=10)
    few = labels.copy()
    kept = of_each_class(np.flatnonzero(labels >= 0), labels[labels >= 0], 30)
    few[np.setdiff1d(np.flatnonzero(labels >= 0), kept)] = -1
    right = [(q.argmax(1) == truth).mean() for q in (p, label_spreading(x, few, query, num_classes=10))]
    assert right[0] > right[1] + 0.02


def test_label_spreading_of_many_images_solves_for_classes_and_tries_a_part(monkeypatch):
    """What is solved never has a column for each label of them all, and the answer is that of all labels."""
    x, labels, query, truth = digits(40)
    whole = label_spreading(x, labels, query, num_classes=10, neighbours=20, alpha=0.9)
    sizes, solve = [], Graph.solve
    monkeypatch.setattr(Graph, "solve", lambda self, y, *a, **k: sizes.append(y.shape) or solve(self, y, *a, **k))
    monkeypatch.setattr("hf_lowlabel.finetuning.graph_choice.MOST_TRIED", 12_000)
    monkeypatch.setattr("hf_lowlabel.finetuning.graph_choice.MOST_JUDGED", 30)
    solved = label_spreading(x, labels, query, num_classes=10, neighbours=20, alpha=0.9)
    assert sizes == [(1400, 10)]  # nothing to choose
    np.testing.assert_allclose(solved, whole, atol=2e-3)
    p = label_spreading(x, labels, query, num_classes=10)
    assert sizes[1:] == [(400, 30)] * 9 + [(1400, 10)] and (p.argmax(1) == truth).mean() > 0.9
    monkeypatch.setattr("hf_lowlabel.finetuning.pooling.MOST_POOLED", 200)  # few labels leave room for no more images
    sizes.clear()
    label_spreading(x, labels, query, num_classes=10)
    assert {n for n, _ in sizes[:9]} == {200} and sizes[9:] == [(1400, 10)]
    copies = np.stack([np.arange(1400) // 2] * 2, 1)
    assert np.isfinite(label_spreading(x, labels, query, num_classes=10, copies=copies)).all()


def test_an_image_that_no_label_reaches_is_of_no_class_without_a_label():
    """Two clusters that share no neighbour, and labels of two of five classes in one of them."""
    rng = np.random.default_rng(0)
    x = (np.repeat([[1.0, 0], [-1, 0]], 20, 0) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(40, 8))) * 3
    labels = np.full(40, -1)
    labels[[0, 1]] = 3, 4
    p = LabelSpreading(neighbours=3).fit_predict(x, labels, np.r_[x, -x], num_classes=5)
    assert (p[:, :3] == 0).all() and np.allclose(p.sum(1), 1) and np.allclose(p[20:40, 3:], 0.5)
    np.testing.assert_allclose(spread(np.zeros((2, 1)), np.array([1]), 3), [[0, 1, 0]] * 2)
    seeds = np.array([[0, 0, 0], [0, 0, 0], [0.2, 0, 0]])  # a class that priors alone have
    np.testing.assert_allclose(spread(np.zeros((3, 1)), np.array([1]), 3, seeds)[0], [0.5, 0.5, 0])
    nobody = spread(np.zeros((2, 1)), np.array([-1]), 4), spread(np.zeros((2, 0)), np.zeros(0, int), 4)
    np.testing.assert_allclose(nobody, 0.25)
    np.testing.assert_allclose(spread(np.zeros((3, 0)), np.zeros(0, int), 3, seeds)[0], [1, 0, 0])
    asked = np.array([[0, 1]], np.float32)
    np.testing.assert_allclose(ask(-asked, np.array([[0, 0.5, 0.5]]), asked, 1), [[0, 0.5, 0.5]])  # none is alike


def test_a_graph_of_many_labels_takes_the_same_share_of_each_class(monkeypatch, caplog):
    monkeypatch.setattr("hf_lowlabel.finetuning.pooling.MOST_POOLED", 100)
    y = np.repeat([0, 1, 2, 3, -1], [100, 44, 5, 1, 250])
    labels = np.random.default_rng(1).permutation(y)
    some = pooled_rows(labels)
    assert len(some) == 100 == len(np.unique(some)) and (np.diff(some) > 0).all()
    assert np.bincount(labels[some] + 1)[1:] == pytest.approx([33, 15, 2, 1], abs=1) and (labels[some] == 3).sum() == 1
    assert len(pooled_rows(labels[labels >= 0])) == 100  # where nothing else is there, labels fill it
    fewer = np.where(np.arange(400) < 50, labels, -1)
    assert {*np.flatnonzero(fewer >= 0)} <= {*pooled_rows(fewer)}
    rare = np.repeat([0, 1, 2], [100, 100, 3])  # of which one may be left out, and the class is still there
    assert np.bincount(rare[of_each_class(np.arange(203), rare, 10)]).tolist() == [4, 4, 2]
    assert np.bincount(rare[of_each_class(np.arange(203), rare, 3)]).tolist() == [1, 1, 1]
    x, labels, query, truth = digits(30)
    caplog.set_level("INFO")
    weight, bias = Propagation().head(x, labels, num_classes=10)
    assert caplog.text.count("labels spread over a graph from 50 of the 300 labels") == 1
    assert ((query @ weight.T + bias).argmax(1) == truth).mean() > 0.7


def test_class_masses_are_met_and_a_class_without_labels_gets_none():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 500)
    shares = class_shares(np.array([0, 0, 0, 1, -1, -1]), 3)  # 3 and 1: nothing that even shares would not give
    np.testing.assert_allclose(shares, [1 / 2, 1 / 2, 0])
    many = class_shares(np.repeat([0, 1, 2], [40, 10, 10]), 3)  # chi-square 30, of which 2 by chance
    np.testing.assert_allclose(many, 2 / 30 / 3 + 28 / 30 * np.array([41, 11, 11]) / 63)
    z = with_masses(p, shares)
    np.testing.assert_allclose(z.sum(1), 1)
    np.testing.assert_allclose(z.mean(0), shares, atol=2e-3)


def test_shares_behind_even_labels_are_those_that_the_images_show():
    """Maximum likelihood of mixture weights, stopped early; what may be chance is none."""
    rng, true = np.random.default_rng(0), np.array([0.7, 0.2, 0.1])
    y = rng.choice(3, 3000, p=true)
    p = np.full((3000, 3), 0.1)
    p[np.arange(3000), np.where(rng.random(3000) < 0.8, y, rng.integers(0, 3, 3000))] = 0.8
    labels, even = np.repeat([0, 1, 2], 8), np.full(3, 1 / 3)
    found = shares_behind(p, labels)
    assert np.abs(found - true).sum() < np.abs(even - true).sum() / 3 and found.sum() == pytest.approx(1)
    assert shares_behind(p[rng.permutation(3000)], labels) == pytest.approx(found)
    assert (
        np.abs(shares_behind(p, np.arange(3)) - even).sum() < np.abs(found - even).sum()
    )  # one label a class says less
    assert shares_behind(np.full((50, 3), 1 / 3), labels) is None
    nearly = shares_behind(p, np.repeat([0, 1, 2], [8, 8, 10]))
    assert np.abs(nearly - true).sum() < np.abs(even - true).sum() / 2  # and not as far as where they are quite even
    assert np.abs(nearly - even).sum() < np.abs(found - even).sum()
    assert unevenness(np.repeat([0, 1, 2], [2, 8, 16])) > 1 > unevenness(np.repeat([0, 1, 2], [8, 8, 10])) > 0
    with_none = shares_behind(np.concatenate([p, np.zeros((3000, 1))], 1), labels)
    assert with_none == pytest.approx([*found, 0])
    shares = class_shares(labels, 3, even=found)
    np.testing.assert_allclose(shares, found)
    many = class_shares(np.repeat([0, 1, 2], [40, 10, 10]), 3, even=found)  # counts that are uneven are believed
    np.testing.assert_allclose(many, 2 / 30 * found + 28 / 30 * np.array([41, 11, 11]) / 63)


def test_as_many_labels_of_each_class_do_not_make_images_of_a_rare_one():
    """The masses of labels that somebody chose evenly would give a rare class as many images as any."""
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1, 2], [700, 200, 100])
    x = np.maximum(rng.normal(0, 1, (3, 32))[y] * 0.6 + rng.normal(0, 1, (1000, 32)), 0).astype(np.float32)
    rows = np.concatenate([np.flatnonzero(y == k)[:8] for k in range(3)])
    labels = np.full(1000, -1)
    labels[rows] = y[rows]

    def right(method):
        weight, bias = method.head(x, labels, num_classes=3)
        return float(((x @ weight.T + bias).argmax(1) == y).mean())

    found = right(Propagation())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "look_behind", lambda *_: None)
        before = right(Propagation())
    assert found > before + 0.05
    encoder = Features("e", x, rows, y[rows], 3)
    shares = np.bincount(y) / 1000
    assert np.abs(encoder.pool.even - shares).sum() < np.abs(1 / 3 - shares).sum() / 2
    tried = climb([encoder], y[rows])
    assert all(one.weight[y[rows][one.asked] == 0].sum() > 0.45 for one in tried)  # what is said is of these images
    few_of_one = rows[[*range(1), *range(8, 24)]]  # as if drawn at random: counts are believed to be what they are
    assert Features("e", x, few_of_one, y[few_of_one], 3).pool.even is None
    labels[np.flatnonzero(y == 2)[8:10]] = 2  # two more of one class do not change what is said of all
    assert right(Propagation()) > before + 0.05


@pytest.mark.parametrize("masses", ["labels", "graph"])
def test_propagation_uses_the_unlabeled_and_leaves_a_layer(masses):
    x, labels, query, truth = digits(2)
    method = Propagation(masses=masses)
    weight, bias = method.head(x, labels, num_classes=10)
    assert weight.shape == (10, 64) and weight.dtype == bias.dtype == np.float32
    right = ((query @ weight.T + bias).argmax(1) == truth).mean()
    assert right > (Probe().fit_predict(x, labels, query, num_classes=10).argmax(1) == truth).mean() + 0.03


def test_a_label_that_is_left_out_has_no_part_in_what_is_believed():
    x, labels, _, _ = digits(3)
    rows = np.flatnonzero(labels >= 0)
    pool, y = Pool(x), labels[rows]
    reach = pool.reach(rows)
    out = np.where(np.arange(30) == 4, -1, y)
    with_it = pool.propagate(reach, rows, out, 10)
    shuffled = reach.copy()
    shuffled[:, 4] = 99  # what it reaches does not matter either
    np.testing.assert_array_equal(pool.propagate(shuffled, rows, out, 10), with_it)
    assert with_it[rows[4]].max() < 1 and pool.propagate(reach, rows, y, 10)[rows[4], y[4]] == 1


def test_temperature_makes_confidence_fit():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    y = np.array([rng.choice(3, p=softmax(2.5 * row[None])[0]) for row in z])
    assert temperature(z, y) == pytest.approx(1 / 2.5, rel=0.12)


@pytest.mark.parametrize("method", [KNN, LabelSpreading, Probe, Propagation])
def test_features_that_are_no_numbers_are_refused(method):
    x, labels, query, _ = digits(1)
    x, labels, query = x[:60].copy(), np.arange(60) % 11 - 1, query[:9].copy()
    x[3, 1], x[8, 0] = np.nan, np.inf
    with pytest.raises(UserError, match="features of 2 of 60 images are NaN or infinite"):
        method().fit_predict(x, labels, query, num_classes=10)
    query[0] = np.nan
    if method in (KNN, LabelSpreading):
        with pytest.raises(UserError, match="features of 1 of 9 images are NaN or infinite"):
            method().fit_predict(x[9:], labels[9:], query, num_classes=10)


def test_a_vector_of_zeros_is_like_no_other():
    """max(x_i.x_j, 0)^3 = 0, though its distance to the others is that of vectors at 60 degrees."""
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    x[3] = 0
    w = Graph(x, 3).similarity.toarray()
    assert w[0, 1] == pytest.approx(1) and (w[3] == 0).all() and (w[:, 3] == 0).all()


def test_errors_name_what_is_missing():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(UserError, match="at least one"):
        knn(x, np.full(4, -1), x, num_classes=2)
    with pytest.raises(UserError, match="at least two"):
        Probe().fit_predict(x, np.array([0, 0, -1, -1]), x, num_classes=2)
