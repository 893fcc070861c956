"""The frozen rungs and what is said of them, on features whose truth is known."""

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning import graph
from hf_lowlabel.finetuning.linear import left_out_in_turn, softmax
from hf_lowlabel.ladder import advice, estimates, frozen, report
from hf_lowlabel.ladder.encoders import Features
from hf_lowlabel.ladder.fair_sample import likeness, some_without
from hf_lowlabel.ladder.frozen import climb, said, wanted
from hf_lowlabel.ladder.rungs import PROBE, RUNGS, UNTRIED, WITH_NAMES, Rung, Tried, better
from hf_lowlabel.methods import find


def clusters(classes=4, each=60, spread=0.6, width=24, seed=0):
    """(x [N, D] at least 0, y [N]): a class is two clusters, of which a few labels may miss one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2 * classes, width))
    y = np.repeat(np.arange(2 * classes), each)
    x = np.maximum(centres[y] + spread * rng.normal(size=(len(y), width)) + 1, 0).astype(np.float32)
    return x, y // 2


def drawn(y, each, seed=0):
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == k))[:each] for k in np.unique(y)]))


@pytest.fixture(scope="module")
def known():
    x, y = clusters()
    rows = drawn(y, 5)
    encoder = Features("net", x, rows, y[rows], 4)
    return x, y, rows, encoder, climb([encoder], y[rows])


def right(head, x, y):
    weight, bias = head
    return (np.argmax(x @ weight.T + bias, 1) == y).mean()


def test_every_rung_is_judged_on_labels_that_had_no_part_in_it(known):
    x, y, rows, encoder, tried = known
    assert tried[0].blend and {one.rung for one in tried[1:]} == set(RUNGS)
    assert [one.score for one in tried[1:]] == sorted((one.score for one in tried[1:]), reverse=True)
    for one in tried:
        assert len(one.asked) == 20 and set(np.bincount(one.label)) == {3}  # each three times
    flipped = y[rows].copy()
    flipped[:] = np.random.default_rng(0).permutation(flipped)
    chance = climb([Features("net", x, rows, flipped, 4)], flipped)
    assert max(one.accuracy for one in chance) < 0.6 < tried[0].accuracy


def test_the_best_rung_is_close_to_the_best_in_hindsight_and_not_below_the_probe():
    gaps, gains = [], []
    for seed in range(6):
        x, y = clusters(seed=seed, spread=0.8)
        rows = drawn(y, 5, seed)
        encoder = Features("net", x, rows, y[rows], 4)
        tried = climb([encoder], y[rows], seed=seed)
        reached = {one.rung: right(encoder.head(one), x, y) for one in tried}
        gaps.append(max(reached.values()) - reached[tried[0].rung])
        gains.append(reached[tried[0].rung] - reached[PROBE])
    assert np.mean(gaps) < 0.02 and np.mean(gains) > 0


def test_a_blend_says_what_its_parts_say_and_is_made_by_hand(known):
    """Its left-out logits are those of a head that is fitted again, and the method with its shares gives its layer."""
    x, y, rows, encoder, tried = known
    blend = tried[0]
    shares = blend.rung.args["blend"]
    assert sum(shares) == pytest.approx(1, abs=2e-3) and shares[3] < shares[0]  # a probe is the worst here
    at = {r: i for i, r in enumerate([*RUNGS[1:], PROBE])}
    order = sorted(tried[1:], key=lambda one: -one.score)
    assert [shares[at[one.rung]] for one in order] == sorted(shares, reverse=True)
    parts = [next(one for one in tried if one.rung is rung) for rung in (*RUNGS[1:], PROBE)]
    out = left_out_in_turn(y[rows], repeats=3, seed=0)[0]
    for n, i in enumerate(np.flatnonzero(out)):  # of each label by the weights that the others give
        others = parts[0].asked != i
        scores = [np.average(one.probability[others], weights=one.weight[others]) for one in parts]
        mine = softmax(frozen.SHARPNESS * (20 / 40) ** 0.5 * np.array([scores]))[0]
        rung = Rung("by hand", "propagation", {"blend": mine.tolist()})
        z = said([encoder], np.where(out, -1, y[rows]), np.array([i]), [rung])[rung, "net", False]
        np.testing.assert_allclose(blend.logits[n], z[0], atol=1e-5)
    labels = np.full(len(x), -1)
    labels[rows] = y[rows]
    weight, bias = find("propagation")(**blend.rung.args).head(x, labels, num_classes=4)
    own, b = encoder.head(blend)
    np.testing.assert_allclose(weight / np.abs(weight).max(), own / np.abs(own).max(), atol=1e-5)  # but for t
    for bad in ([1, 0, 0], [2, -1, 0, 0], [0.5, 0, 0, 0]):
        with pytest.raises(UserError, match="Give four shares"):
            find("propagation").check(dict(blend=bad))


def test_in_a_blend_a_probe_does_not_give_all_images_to_one_of_two_classes(known):
    """Of beliefs that are nearly all of one class half the way goes to the shares of the labels, and the order of the
    images stays; more classes are as they are."""
    x, y, rows, encoder, _ = known
    beliefs, labels = softmax(np.random.default_rng(0).normal(size=(len(x), 2)) + [3.0, 0]), y[rows] % 2
    own, shares = beliefs.mean(0), graph.class_shares(labels, 2, even=encoder.pool.even)
    found = encoder.pool.between(beliefs, labels)
    assert own[0] > 0.9 and shares[0] < 0.6
    np.testing.assert_allclose(found.mean(0), (own + shares) / 2, atol=1e-3)
    assert (np.argsort(found[:, 0], kind="stable") == np.argsort(beliefs[:, 0], kind="stable")).all()
    four = softmax(np.random.default_rng(0).normal(size=(len(x), 4)))
    assert encoder.pool.between(four, y[rows]) is four


@pytest.mark.parametrize("classes", [2, 10])
def test_few_labels_do_not_make_a_head_as_sure_as_they_are_right(classes):
    """Eight labels of eight right, by answers near 1 and 0 as least squares gives them: the likeliest T is 0."""
    y = np.arange(8) % classes
    z = np.full((8, classes), 0.1)
    z[np.arange(8), y] = 0.9
    one = Tried(RUNGS[1], "net", False, np.arange(8), z, np.eye(classes))
    one.judge(y)
    assert one.accuracy == 1 and one.confidence.mean() < 0.97 and one.t > 0.05
    repeated = Tried(RUNGS[1], "net", False, np.tile(np.arange(8), 3), np.tile(z, (3, 1)), np.eye(classes))
    repeated.judge(y)
    assert repeated.t == one.t  # a label that is left out three times is one label


def judged(y, label, logits):
    one = Tried(PROBE, "net", False, np.asarray(label), np.asarray(logits, float), None)
    one.judge(np.asarray(y))
    return one


def test_classes_count_by_their_likely_share_and_not_by_how_often_they_are_asked():
    """Two labels each of three classes and one of a fourth, which is never left out: a model that knows the first class
    alone is right on a third. Six, two and two are even shares or not, and count as much as they say."""
    even, K = [0, 0, 1, 1, 2, 2, 3], 4
    always = judged(even, range(6), np.eye(K)[np.zeros(6, int)] * 5)
    assert always.accuracy == pytest.approx(1 / 3) and always.weight.sum() == pytest.approx(1)
    y = np.repeat([0, 1, 2], [6, 2, 2])
    always = judged(y, range(10), np.eye(3)[np.zeros(10, int)] * 5)
    assert 1 / 3 < always.accuracy < 6 / 10
    y = np.repeat([0, 1, 2], [600, 200, 200])
    always = judged(y, range(1000), np.eye(3)[np.zeros(1000, int)] * 5)
    assert always.accuracy == pytest.approx(0.6, abs=0.01)


def test_a_probe_is_better_where_clearly_more_labels_are_right_and_the_true_classes_are_more_probable():
    y = np.repeat([0, 1], 10)
    every = judged(y, range(20), np.eye(2)[y])
    wrong = np.where(np.arange(20) < 5, 1 - y, y)
    five_wrong = judged(y, range(20), np.eye(2)[wrong])
    assert better(every, five_wrong) and not better(five_wrong, every)
    one_wrong = judged(y, range(20), np.eye(2)[np.where(np.arange(20) < 1, 1 - y, y)])
    assert not better(every, one_wrong)  # one label decides nothing
    five_wrong.probability = every.probability + 0.01
    assert not better(every, five_wrong)


def test_one_label_a_class_cannot_be_judged():
    x, y = clusters()
    rows = drawn(y, 1)
    tried = climb([Features("net", x, rows, y[rows], 4)], y[rows])
    assert tried[0].rung is UNTRIED and tried[0].accuracy is None
    assert estimates.accuracy(tried[0], 0.9) is None and estimates.unlabeled_help(tried).verdict == "unclear"


def names_that_are_right(y, share, seed=0):
    """Priors [N, K] whose most probable class is the true one of that share of the images."""
    rng, K = np.random.default_rng(seed), y.max() + 1
    said = np.where(rng.random(len(y)) < share, y, rng.integers(0, K, len(y)))
    return 0.6 * np.eye(K)[said] + 0.4 / K


def test_names_of_the_classes_are_used_where_the_labels_support_them():
    """Names that are mostly right help two labels a class; the answer with names drawn by lot is not worse for them."""
    helped, spoiled = [], []
    for seed in range(3):
        x, y = clusters(each=30, spread=1.1, seed=seed)
        rows = drawn(y, 3, seed)

        def answer(names):
            encoder = Features("net", x, rows, y[rows], 4, names)
            best = climb([encoder], y[rows], seed=seed)[0]
            return right(encoder.head(best), x, y), best

        alone, _ = answer(None)
        with_names, best = answer(names_that_are_right(y, 0.7, seed))
        by_lot, _ = answer(names_that_are_right(y, 0.0, seed))
        helped.append(with_names - alone)
        spoiled.append(by_lot - alone)
        assert best.rung.names and len(best.rung.args["blend"]) == 6
    assert np.mean(helped) > 0.02 and np.mean(spoiled) > -0.01


def test_names_spread_by_hand_as_in_auto():
    """The method with --prior gives the layer of the rung; a class without a label has its images by its name."""
    x, y = clusters(each=30)
    rows = drawn(y, 3)
    rows = rows[y[rows] < 3]
    p = names_that_are_right(y, 0.9)
    encoder = Features("net", x, rows, y[rows], 4, p)
    tried = climb([encoder], y[rows])
    assert {one.rung for one in tried if not one.blend} == {*RUNGS, *WITH_NAMES} and tried[0].rung in WITH_NAMES
    labels = np.full(len(x), -1)
    labels[rows] = y[rows]
    for one in tried:
        if one.rung.names:
            weight, bias = find("propagation")(**one.rung.args).head(x, labels, num_classes=4, priors=p)
            own, _ = encoder.head(one)
            np.testing.assert_allclose(weight / np.abs(weight).max(), own / np.abs(own).max(), atol=1e-5)
            if not one.blend:
                assert right((weight, bias), x[y == 3], y[y == 3]) > 0.8
    with pytest.raises(UserError, match="four shares without --prior and six with it"):
        find("propagation")(blend=[0.25] * 4).head(x, labels, num_classes=4, priors=p)
    untried = climb([Features("net", x, rows[::3], y[rows[::3]], 4, p)], y[rows[::3]])
    assert untried[0].rung is WITH_NAMES[1]


def test_the_layer_says_what_the_rung_says(known):
    """On images that are far from deciding its fit, leaving one out changes little."""
    x, _, _, encoder, tried = known
    for one in tried:
        weight, bias = encoder.head(one)
        np.testing.assert_allclose(softmax(x @ weight.T + bias).mean(0), encoder.say(one).mean(0), atol=0.02)


def test_a_second_encoder_that_is_noise_is_not_taken(known):
    x, y, rows, encoder, _ = known
    noise = np.random.default_rng(1).random((len(x), 16)).astype(np.float32)
    tried = climb([Features("noise", noise, rows, y[rows], 4), encoder], y[rows])
    assert tried[0].encoder == "net" and any(one.votes for one in tried)
    assert all(one.encoder == "net" for one in tried if one.votes) and not tried[0].votes


def test_two_encoders_of_a_kind_vote(known):
    x, y, rows, encoder, _ = known
    other = Features("other", np.maximum(x[:, ::-1] + 0.05, 0).astype(np.float32), rows, y[rows], 4)
    tried = climb([encoder, other], y[rows])
    best = tried[0]
    alone = [one for one in tried if not one.votes]  # what voting gains is not what unlabeled images do
    assert estimates.unlabeled_help(tried) == estimates.unlabeled_help(alone)
    assert all(one.even is best.even for one in climb([other], y[rows], beside=best))
    assert best.votes and best.blend and "votes of all encoders" in best.name
    again = wanted([encoder, other], y[rows], [best.rung])[best.key]  # as a network is trained on from it
    np.testing.assert_allclose(again, best.targets, atol=2e-3)  # weights are rounded


# ---- estimates -------------------------------------------------------------------------------------------------------
def test_intervals_for_the_accuracy_hold_about_as_often_as_they_say():
    hits = []
    for seed in range(10):
        x, y = clusters(each=40, spread=1.1, seed=seed)
        rows = drawn(y, 6, seed)
        encoder = Features("net", x, rows, y[rows], 4)
        best = climb([encoder], y[rows], seed=seed)[0]
        true, said = right(encoder.head(best), x, y), estimates.accuracy(best, estimates.confidence(encoder, best))
        hits.append(said.low <= true <= said.high)
    assert 0.65 <= np.mean(hits) <= 0.97


def one_that_said(correct, rung=PROBE, confidence=None):
    """A rung that gave each of the labels, all of class 0, this probability."""
    p = np.asarray(correct, float)
    logits = np.log(np.stack([p, 1 - p], 1))
    one = Tried(rung, "net", False, np.arange(len(p)), logits, None if rung is PROBE else np.eye(2)[[0]], 1.0)
    one.judge(np.zeros(len(p), int))
    return one


def test_whether_unlabeled_images_help():
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0.2, 0.5, 30), rng.uniform(0.6, 0.9, 30)
    better, worse = one_that_said(high, RUNGS[1]), one_that_said(low, RUNGS[1])
    assert estimates.unlabeled_help([better, one_that_said(low)]).verdict == "yes"
    assert estimates.unlabeled_help([worse, one_that_said(high)]).verdict == "no"
    assert estimates.unlabeled_help([one_that_said(low, RUNGS[1]), one_that_said(low[::-1])]).verdict == "unclear"
    better.correct, other = np.zeros(30), one_that_said(low)
    other.correct = np.ones(30)
    found = estimates.unlabeled_help([better, other])  # surer of the truth, and right of fewer
    assert found.verdict == "unclear" and found.gain.value == -1
    little, of_the_same = one_that_said(low, RUNGS[1]), one_that_said(low)  # as many are right
    little.probability = of_the_same.probability + np.tile([0.12, -0.07], 15)  # 1.4 standard errors
    assert estimates.unlabeled_help([little, of_the_same]).verdict == "yes"
    little.evenly = True  # labels that somebody chose by class say less of all images
    assert estimates.unlabeled_help([little, of_the_same]).verdict == "unclear"


def test_an_encoder_that_learned_from_the_images_is_not_what_they_are_compared_with():
    rng = np.random.default_rng(0)
    low, high, highest = rng.uniform(0.2, 0.5, 30), rng.uniform(0.6, 0.7, 30), rng.uniform(0.8, 0.9, 30)
    adapted, own = [one_that_said(highest, RUNGS[1]), one_that_said(highest)], one_that_said(low)
    assert estimates.unlabeled_help([*adapted, one_that_said(high, RUNGS[1]), own]).verdict == "unclear"
    for one in adapted:
        one.adapted = True
    found = estimates.unlabeled_help([adapted[1], one_that_said(high, RUNGS[1]), own])  # its probe is one of those
    assert found.verdict == "yes" and found.gain.value == 1
    assert estimates.unlabeled_help(adapted).gain is None  # nothing without them to compare with


def test_what_classes_count_by_is_said_where_labels_do_not_tell():
    assert advice.said_shares(None, ["a", "b"]) == []
    said = advice.said_shares(np.array([0.2, 0.7, 0.1]), ["cat", "dog", "bird"])
    assert said == [
        "The labels are balanced over the classes, but the images as a whole look like dog 70 %, cat 20 %, bird 10 %; "
        "classes are weighted by these shares."
    ]
    assert "..." in advice.said_shares(np.full(6, 1 / 6), list("abcdef"))[0]
    assert "bird" not in advice.said_shares(np.array([0.8, 0.2, 0]), ["cat", "dog", "bird"])[0]


def test_what_is_said_of_unlabeled_images_fits_its_numbers():
    """A verdict by probabilities beside an interval of right answers that holds 0 needs its reason."""
    high, low = np.linspace(0.6, 0.9, 30), np.linspace(0.2, 0.45, 30)
    plain = report.said_help(estimates.unlabeled_help([one_that_said(high, RUNGS[1]), one_that_said(low)]), 100)
    assert plain.startswith("Unlabeled images: they probably help, +100 points of accuracy (")
    assert plain.endswith(" to +100).")
    slightly = [one_that_said(np.linspace(0.75, 0.95, 30), RUNGS[1]), one_that_said(np.linspace(0.55, 0.75, 30))]
    reason = report.said_help(estimates.unlabeled_help(slightly), 100)
    assert "probably help, +0 points" in reason and reason.endswith(
        "with them the true classes of held-out labels are clearly more probable."
    )
    reason = report.said_help(
        estimates.unlabeled_help([one_that_said(p, r) for p, r in zip((low / 2, low), (RUNGS[1], PROBE))]), 9
    )
    assert "they do not help" in reason and reason.endswith(
        "with them the true classes of held-out labels are clearly less probable."
    )
    assert report.said_help(estimates.Help("unclear", None), 100) == "Unlabeled images: whether they help is unclear."


def test_a_forecast_never_falls_and_stays_below_one(known):
    _, y, rows, encoder, tried = known
    now = estimates.accuracy(tried[0], estimates.confidence(encoder, tried[0]))
    curve = estimates.learning_curve([encoder], y[rows], tried[0], now)
    expected = [curve.expected(n) for n in (20, 40, 80, 1000, 10**6)]
    assert expected == sorted(expected) and expected[-1] < 1
    assert curve.labels[-1] == 20 and curve.forecast.low <= curve.forecast.value <= curve.forecast.high
    assert estimates.labels_for(curve, curve.expected(20), 20) == 20


def test_where_time_is_short_labels_are_left_out_less_often(known, monkeypatch):
    """Once in any case; what was said in that round stays as it is, and the curve keeps its points."""
    _, y, rows, encoder, tried = known
    short, once = climb([encoder], y[rows], seconds=0), climb([encoder], y[rows], rounds=1)
    assert (frozen.rounds_of(tried), frozen.rounds_of(short)) == (3, 1)
    for one, other in zip(short, once, strict=True):
        assert one.name == other.name and np.array_equal(one.logits, other.logits)
    of_all = {one.key: one for one in tried if not one.blend}
    for one in (one for one in short if not one.blend):
        assert np.array_equal(one.logits, of_all[one.key].logits[: len(one.logits)])
    asked, count = [], estimates.said
    monkeypatch.setattr(estimates, "said", lambda *given: asked.append(1) or count(*given))
    curves = [estimates.curve_of([encoder], tried, seconds) for seconds in (0, float("inf"))]
    assert len(asked) == len(estimates.PARTS) * (1 + estimates.DRAWS)
    assert curves[0].labels == curves[1].labels


@pytest.mark.parametrize("names", [False, True])
def test_labels_spread_once_for_all_rungs(known, monkeypatch, names):
    """Each takes seconds where images are many."""
    x, y, rows, encoder, _ = known
    if names:
        encoder = Features("net", x, rows, y[rows], 4, names_that_are_right(y, 0.8))
    made, propagate = [], graph.Pool.propagate
    monkeypatch.setattr(
        graph.Pool, "propagate", lambda *given, **own: made.append(own["masses"]) or propagate(*given, **own)
    )
    rungs = (*RUNGS, *(WITH_NAMES if names else ()))
    found = frozen.wanted([encoder], y[rows], rungs)
    assert sorted(made) == sorted(graph.MASSES * (1 + names))
    for rung in rungs[1:]:
        alone = frozen.wanted([encoder], y[rows], [rung])[rung, "net", False]
        assert np.array_equal(found[rung, "net", False], alone)


def test_labels_for_a_goal_come_with_the_range_of_the_forecast():
    def curve(wide):
        value = estimates.Interval(0.7, 0.7 - wide, 0.7 + wide)
        return estimates.Curve([10, 20], [0.3, 0.4], value, lambda n: 1 - 0.6 * (20 / n) ** 0.5)

    assert report.said_needed(curve(0.02), 0.74, 20, "labels") == "about 110 labels (92 to 130)"
    assert report.said_needed(curve(0.1), 0.8, 20, "labels") == "about 180 labels (82 to more than 10 times as many)"
    beyond = "probably more than 10 times as many labels{}; how many cannot be said from so few"
    assert report.said_needed(curve(0.1), 0.9, 20, "labels") == beyond.format(" (180 at best)")
    assert report.said_needed(curve(0.05), 0.98, 20, "labels") == beyond.format("")


@pytest.mark.parametrize("power, off", [(0.2, 0.01), (0.5, 0.06)])
def test_power_law_is_found_again(power, off):
    """The usual one exactly, a steeper one is leant towards the usual one."""
    m = np.array([10, 20, 40, 80])
    error = 0.4 * (m / 80.0) ** -power
    expected = estimates.average_of_families(m, 1 - error, 80, 0.6)
    assert expected(200) == pytest.approx(1 - 0.4 * 2.5**-power, abs=off)
    assert expected(200) >= 1 - 0.4 * 2.5**-0.2 - 0.01


# ---- advice ----------------------------------------------------------------------------------------------------------
def one_wrong():
    """Which images are labeled, their labels, of which the fourth is wrong, and the best rung."""
    x, y = clusters(spread=0.3)
    rows = drawn(y, 8)
    given = y[rows].copy()
    given[3] = (given[3] + 1) % 4
    return rows, given, climb([Features("net", x, rows, given, 4)], given)[0]


def test_a_wrong_label_is_named_first():
    rows, given, best = one_wrong()
    found = advice.doubtful_labels(best, given, rows, list("abcd"))
    assert found[0].rows == (rows[3],) and len(found) <= 3 and "looks like" in found[0].why


def test_a_rung_that_is_mostly_wrong_doubts_no_label():
    """Its errors are its own: with classes that look alike all labels are right."""
    x, y = clusters(spread=0.3)
    y = np.random.default_rng(1).permutation(y)
    rows = drawn(y, 8)
    best = climb([Features("net", x, rows, y[rows], 4)], y[rows])[0]
    assert best.accuracy < 0.5 and advice.doubtful_labels(best, y[rows], rows, list("abcd")) == []


def test_the_accuracy_that_is_told_decides_whether_labels_are_doubted():
    """That of classes weighted by their share of the images, which may be below that of the labels."""
    rows, given, best = one_wrong()
    assert best.correct.mean() >= advice.TRUSTED and advice.doubtful_labels(best, given, rows, list("abcd"))
    best.weight = (1 - best.correct + 1e-3) / (1 - best.correct + 1e-3).sum()
    assert best.accuracy < advice.TRUSTED and advice.doubtful_labels(best, given, rows, list("abcd")) == []


@pytest.mark.parametrize(
    "unlabeled, then", [(500, "Label 20, then"), (3, "Label 3, then"), (0, "All images here have")]
)
def test_no_more_images_are_asked_for_than_there_are(unlabeled, then):
    told = report.Advice([], estimates.Interval(0.6, 0.5, 0.7), "no", None, None)
    curve = estimates.Curve(
        [10, 20], [0.5, 0.6], estimates.Interval(0.7, 0.6, 0.8), lambda m: 1 - 0.4 * (m / 20) ** -0.2
    )
    assert then in report.said_more(told, curve, 20, unlabeled, "labels")[-1]
    assert ("then ask again" in report.said_more(told, None, 20, unlabeled, "labels")[0]) == bool(unlabeled)


def test_next_to_label_are_in_doubt_and_differ():
    x, y = clusters()
    p = np.full((len(x), 4), 0.02)
    p[np.arange(len(x)), y] = 0.94
    p[:250] = 0.25  # the first half is in doubt
    free = np.arange(10, len(x))
    found = [r.rows[0] for r in advice.next_to_label(p, x, free, list("abcd"), 12)]
    assert len(set(found)) == 12 and all(10 <= i < len(x) for i in found)
    assert np.mean([i < 250 for i in found]) == 1 and len({int(i) // 60 for i in found}) > 2
    p[:] = 0.02
    p[np.arange(len(x)), y] = 0.94  # nothing is: nobody reads "uncertain: a (94 %) or b (2 %)"
    assert all(
        "uncertain" not in r.why and "(94 %)" in r.why for r in advice.next_to_label(p, x, free, list("abcd"), 3)
    )


def test_strangers():
    x, _ = clusters(spread=0.3)
    x[9] = 0
    x[9, ::3] = 40
    assert advice.strangers(x)[0].rows == (9,)
    blank = np.abs(np.random.default_rng(0).normal(size=(100, 64))).astype(np.float32)
    blank[:60] = blank[0]  # most of a scan is empty: what is not is no stranger for that
    assert advice.strangers(blank) == [] == advice.strangers(blank[:60])


def test_confused_classes():
    p = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    assert advice.confused(p, ["a", "b", "c"])[0] == ("a", "b", pytest.approx(1 / 3))


def test_labels_that_are_no_fair_sample_are_told_from_those_that_are():
    """Drawn at random, the words come once in a hundred draws; from one of two kinds of images, nine of ten times."""
    rng = np.random.default_rng(0)
    kind = np.arange(400) % 2
    x = rng.normal(size=(400, 8)) + 4 * np.eye(8)[kind]
    fair, one_kind = [], []
    for seed in range(100):
        random = np.random.default_rng(seed)
        drawn = random.choice(400, 20, replace=False)
        fair.append(likeness(x[drawn], x[some_without(400, drawn)], seed).sentence)
        drawn = random.choice(np.flatnonzero(kind == 0), 20, replace=False)
        one_kind.append(likeness(x[drawn], x[some_without(400, drawn)], seed).sentence)
    assert sum(map(bool, fair)) <= 4 and sum(map(bool, one_kind)) >= 80
    assert "not representative" in one_kind[0]
    assert likeness(x[:4], x[4:]) is None is likeness(x, x[:0])
    many = np.concatenate([x[:200]] * 500)  # a hundred thousand labels are no matrix of distances
    assert likeness(many, x[200:]) is not None


def copied(times: int, seed: int):
    """24 labeled images of four classes among 400, each with so many copies, which have its label."""
    random = np.random.default_rng(seed)
    middles, kinds = 0.55 * random.normal(size=(4, 16)), np.arange(400) % 4
    x, rows = middles[kinds] + random.normal(size=(400, 16)), np.arange(24)
    again = np.repeat(rows, times - 1)
    x = np.concatenate([x, x[again] + 1e-3 * random.normal(size=(len(again), 16))]).astype(np.float32)
    picture = np.concatenate([rows, again])
    where = np.concatenate([rows, 400 + np.arange(len(again))])
    return Features("e", x, where, kinds[picture], 4, copies=picture if times > 1 else None)


def test_copies_of_a_labeled_picture_change_nothing_of_what_is_said():
    """They are left out with it, and leave the others in; it is asked once."""
    said = {times: [] for times in (1, 8)}
    for seed in range(3):
        for times, found in said.items():
            encoder = copied(times, seed)
            best = climb([encoder], encoder.y)[0]
            assert best.asked.tolist() == list(range(24)) and len(best.correct) == 24
            now = estimates.accuracy(best, estimates.confidence(encoder, best))
            curve = estimates.learning_curve([encoder], encoder.y, best, now)
            assert curve.labels[-1] == 24 and curve.labels == sorted(curve.labels)
            found.append((best.accuracy, now.high - now.low))
    once, often = np.array(said[1]), np.array(said[8])
    assert abs(once[:, 0].mean() - often[:, 0].mean()) < 0.05  # 0.2 apart where folds were drawn by image
    assert often[:, 1] == pytest.approx(once[:, 1], abs=0.06)  # 192 labels would make it 0.1


def test_every_page_of_a_file_is_judged_and_files_are_what_is_counted():
    """24 files of 3 pages: the first of each is plain to tell, the other two look alike and have labels of their own.
    Judged by first pages alone all would be right."""
    random = np.random.default_rng(0)
    kinds = np.tile([0, 1, 2], 24)
    middles = np.stack([np.full(16, 4.0), np.zeros(16), np.zeros(16)])
    x = (middles[kinds] + random.normal(size=(72, 16))).astype(np.float32)
    files = np.stack([np.repeat(np.arange(24), 3), np.arange(72)], 1)
    encoder = Features("e", x, np.arange(72), kinds, 3, copies=files)
    best = climb([encoder], kinds)[0]
    assert best.asked.tolist() == list(range(72)) and best.accuracy < 0.8
    assert len(best.correct) == 24 and best.weight.sum() == pytest.approx(1)
    now = estimates.accuracy(best, estimates.confidence(encoder, best))
    alone = climb([Features("e", x, np.arange(72), kinds, 3)], kinds)[0]
    apart = estimates.accuracy(alone, estimates.confidence(encoder, alone))
    assert now.high - now.low > 1.4 * (apart.high - apart.low)  # of 24 files, not of 72 images
    assert estimates.learning_curve([encoder], kinds, best, now).labels[-1] == 24


@pytest.mark.parametrize("folds", [2, 5])
def test_copies_are_left_out_together(folds):
    y = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    copies = np.array([7, 7, 3, 3, 5, 5, 9, 1])
    masks = left_out_in_turn(y, folds=folds, copies=copies)
    assert masks and all(len({*copies[m]} & {*copies[~m]}) == 0 for m in masks)
    assert sorted({*copies[np.any(masks, 0)]}) == [3, 5, 7, 9]  # the only picture of its class is never left out
    assert left_out_in_turn(y[:6], folds=folds, copies=np.array([0, 0, 0, 0, 1, 1])) == []


class PictureCache:
    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def take(self, at):
        return torch.from_numpy(self.pictures[at.numpy()])

    def shown(self, at):
        return at


def test_of_many_images_a_part_is_compared_with_all(monkeypatch):
    """As many pairs as of a smaller number: of copies those that are equal or asked for, of strangers the farthest."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (300, 3, 16, 16)).astype(np.uint8)
    pictures[[200, 210, 220]] = pictures[[10, 20, 30]]
    pictures[[10, 20], 0, :2] ^= 4  # all but the same; the third pair is equal
    training = PictureCache(pictures)
    x = rng.normal(size=(300, 8)) / 10 + np.eye(8)[rng.integers(0, 2, 300)]
    x[[7, 77]] = -3 * np.eye(8)[[2, 3]]
    every = [one.rows for one in advice.copies(training, np.array([20, 3]))]
    strange = {one.rows for one in advice.strangers(x)}
    assert every == [(10, 200), (20, 210), (30, 220)] and {(7,), (77,)} <= strange
    asked, seen = advice.neighbours, []
    monkeypatch.setattr(
        advice, "neighbours", lambda x, k, q=None: seen.append(len(x) * len(x if q is None else q)) or asked(x, k, q)
    )
    monkeypatch.setattr(advice, "COMPARED", 120)
    assert [one.rows for one in advice.copies(training, np.array([20, 3]))] == [(20, 210), (30, 220)]
    assert {one.rows for one in advice.strangers(x)} >= {(7,), (77,)} and sum(seen) <= 2.1 * 120**2


def test_ordinary_images_beside_copies_are_no_strangers():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 16))
    again = np.repeat(x[:40], 7, 0) + 0.02 * random.normal(size=(280, 16))
    pairs = [advice.Remark((i // 7, 60 + i), "nearly identical") for i in range(280)]
    far = np.concatenate([x, again, 40 * np.ones((1, 16))])
    assert [one.rows for one in advice.strangers(far, pairs) if one.rows[0] < 340] == []
    assert advice.strangers(np.concatenate([x, again]), pairs) == []
    assert (
        len(advice.strangers(np.concatenate([x, again]))) == 20
    )  # those without copies, where nobody says what is one
    assert advice.strangers(np.concatenate([x[:1], x[:1]]), [advice.Remark((0, 1), "")]) == []


def test_several_encoders_keep_no_more_of_the_graph_than_one(known, monkeypatch):
    """[images, labels] of each: of more labels in all, what spreads is solved for, and says the same."""
    x, y, rows, encoder, tried = known
    monkeypatch.setattr(graph, "MOST_REACHED", 2 * len(rows) - 1)
    assert isinstance(Features("net", x, rows, y[rows], 4).reach, np.ndarray)
    of_two = Features("net", x, rows, y[rows], 4, among=2)
    assert isinstance(of_two.reach, graph.Solved)
    for one, other in zip(tried, climb([of_two], y[rows]), strict=True):
        assert (
            one.name == other.name
            and np.abs(softmax(one.logits / one.t) - softmax(other.logits / other.t)).max() < 0.01
        )
