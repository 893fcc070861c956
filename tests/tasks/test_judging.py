"""What labels that were left out say of classes: which cannot be judged by them, and which were not learned."""

from types import SimpleNamespace

import numpy as np
import pytest

from hf_lowlabel.evaluation.modules import MultiLabelScores
from hf_lowlabel.records import RunRecord
from hf_lowlabel.tasks import get_task
from hf_lowlabel.training.cross_validated import interval, redrawn

NAMES = ["daisy", "rose", "roze"]


@pytest.fixture
def tallies():
    """Of 30 labels: `daisy` is as likely on each, `rose` is learned, and one label is of `roze`."""
    rng = np.random.default_rng(0)
    y = np.stack([np.arange(30) % 3 > 0, np.arange(30) % 2 > 0, np.arange(30) == 4], 1).astype(float)
    p = np.stack([rng.uniform(0.62, 0.7, 30), np.where(y[:, 1], 0.9, 0.1) + rng.normal(0, 0.02, 30), np.zeros(30)], 1)
    return np.stack([p, y], 1)


def test_a_class_with_one_label_does_not_count_and_is_named(tallies):
    task = get_task("multilabel")
    score = task.total(task.judged(tallies), NAMES)
    assert score == task.total(tallies[:, :, :2], NAMES[:2]) > task.total(tallies, NAMES) + 0.2
    assert (redrawn(task, [tallies], NAMES, np.arange(30)) > 0.6).all()  # also where a draw has its image twice
    found = SimpleNamespace(tallies=tallies, group=np.arange(30))
    low, high = interval(SimpleNamespace(task=task, names=NAMES), found)
    assert low < score < high
    assert "The score is without roze (1 of the 30 labels)" in task.said_left_out(tallies, NAMES)[0]
    tallies[:, 1, 2] = 1  # and one that is on all images, which counts as found
    assert task.total(task.judged(tallies), NAMES) == score
    assert "roze (30 of the 30 labels)" in task.said_left_out(tallies, NAMES)[0]


def test_where_no_class_has_two_labels_all_count():
    task, y = get_task("multilabel"), np.eye(4)[:, :3]
    tallies = np.stack([y * 0.5 + 0.1, y], 1)
    assert task.total(task.judged(tallies), NAMES) == 1
    assert not any("without" in said for said in task.said_left_out(tallies, NAMES))


def test_a_class_of_one_mask_does_not_count_and_is_named():
    task, names = get_task("segmentation"), ["ground", "leaf", "rust"]
    tallies = np.tile(np.diag([80.0, 20.0, 0.0]), (6, 1, 1))
    tallies[2, 2, 1] = 15  # called leaf in the one mask that has it
    tallies[3, 0, 2] = 5  # and found elsewhere
    assert task.total(task.judged(tallies), names) == pytest.approx((480 / 485 + 1) / 2)
    assert task.said_left_out(tallies, names) == [
        "IoU of each class in cross-validation: ground 99 %, leaf 100 %.",
        "The score is without rust (1 of the 6 masks), which cross-validation cannot score.",
    ]
    tallies[4, 2, 2] = 1
    (each,) = task.said_left_out(tallies, names)
    assert each.endswith("ground 99 %, leaf 89 %, rust 5 %.") and (task.judged(tallies) == tallies).all()
    assert task.said_left_out(np.ones((3, 6, 6)), list("abcdef")) == []  # more than fit in a sentence
    alone = tallies[:3, :2, :2].copy()
    alone[1:, 1] = 0  # the background and a class of one mask: a score of the background alone says nothing
    assert (task.judged(alone) == alone).all()


def test_a_class_that_no_label_left_out_shows_is_named():
    task, names = get_task("segmentation"), ["ground", "leaf", "rust"]
    tallies = np.tile(np.diag([80.0, 20.0, 0.0]), (5, 1, 1))
    shows = np.array([[1, 1, 0]] * 5 + [[1, 0, 1]], bool)
    assert task.tells_apart(tallies) and task.said_left_out(tallies, names, shows)[1:] == [
        "The score is without rust (1 of the 6 masks), which cross-validation cannot score."
    ]
    tallies[:, 1] = 0
    assert not task.tells_apart(tallies)
    said = task.said_untold(tallies, names, shows)
    assert "show ground alone" in said and "leaf (5 of the 6 masks), rust (1 of the 6 masks) cannot be left out" in said


def test_a_class_that_all_images_left_out_have_is_no_score():
    """Right in any order, whatever a network says."""
    task, rng = get_task("multilabel"), np.random.default_rng(0)
    y = np.tile([1.0, 0.0, 0.0], (9, 1))
    tallies = np.stack([rng.uniform(size=(9, 3)), y], 1)
    assert task.total(tallies, NAMES) == 1 and not task.tells_apart(tallies)
    shows = np.vstack([y, [1, 1, 0]]) > 0
    assert (
        "show daisy alone, whose score says nothing; rose (1 of the 10 labels) cannot be left out"
        in task.said_untold(tallies, NAMES, shows)
    )
    tallies[4, 1, 1], tallies[4, 0, 1] = 1, -1  # one has a rose, which comes last: it alone counts
    assert task.tells_apart(tallies) and task.total(task.judged(tallies), NAMES) == pytest.approx(1 / 9)
    assert "without daisy (9 of the 9 labels)" in task.said_left_out(tallies, NAMES)[0]
    none = np.stack([rng.uniform(size=(8, 3)), np.zeros((8, 3))], 1)
    assert not task.tells_apart(none) and "show no class alone" in task.said_untold(none, NAMES, shows)
    both = np.stack([rng.uniform(size=(6, 3)), np.tile([1.0, 1.0, 0.0], (6, 1))], 1)
    assert not task.tells_apart(both)
    assert task.said_untold(both, NAMES, both[:, 1] > 0).endswith(
        "Every labeled image shows daisy, rose: label some without one of these."
    )


def test_labels_of_one_class_an_image_stay_as_they_are(tallies):
    task = get_task("classification")
    assert task.judged(tallies) is tallies and task.said_left_out(tallies, NAMES) == []
    assert task.said_left_out(np.ones((30, 1)), NAMES) == []  # whatever tallies are, where no class is lone


def test_a_class_that_is_not_learned_is_named_in_advice_and_card(tallies):
    task = get_task("multilabel")
    (said,) = [line for line in task.said_left_out(tallies, NAMES) if "chance" in line]
    assert said.startswith("In cross-validation, daisy is hardly better than chance (average precision ")
    assert said.endswith("; 67 % of the images show it) and is named on all images.") and "rose" not in said
    metrics = MultiLabelScores(NAMES).compute(predictions=tallies[:, 0], references=tallies[:, 1].astype(np.int8))
    limits = task.limits(RunRecord("multilabel", class_names=NAMES, metrics=metrics))
    (line,) = [line for line in limits if "chance" in line]
    assert line.startswith("On the test images, `daisy` is hardly better than chance") and "`rose`" not in line
    old = {key: value for key, value in metrics.items() if key not in ("near_chance", "too_few", "per_class_named")}
    assert not any("chance" in line for line in task.limits(RunRecord("multilabel", class_names=NAMES, metrics=old)))
    tallies[:, 0, 0] = tallies[:, 1, 0] * 0.2 + 0.6  # told apart, and called everywhere nevertheless
    (said,) = [line for line in task.said_left_out(tallies, NAMES) if "daisy" in line]
    assert said == "In cross-validation, daisy is named on all images."


@pytest.mark.parametrize("shown", [2, 38])
def test_of_a_class_with_few_images_it_is_said_that_they_are_few(shown):
    """Two images have it, or are without it, and a network ranks them as one that has learned it: 0.74 of the pairs."""
    task, y = get_task("multilabel"), np.stack([np.arange(40) < shown, np.arange(40) % 2 > 0], 1).astype(float)
    p = np.stack([np.linspace(0.4, 0.1, 40), y[:, 1] * 0.8 + 0.1], 1)
    rare = np.flatnonzero(y[:, 0] == (shown == 2))
    place = [5, 15] if shown == 2 else [24, 34]  # by rank, the likeliest first
    rest = [k for k in range(40) if k not in place]
    p[rare, 0], p[np.setdiff1d(np.arange(40), rare), 0] = p[place, 0], p[rest, 0]
    said = task.said_left_out(np.stack([p, y], 1), NAMES[:2])
    assert said == [f"In cross-validation, daisy (on {shown} of 40 images) cannot be told from chance with so few."]
    metrics = MultiLabelScores(NAMES[:2]).compute(predictions=p, references=y.astype(np.int8))
    assert metrics["near_chance"] == [] and metrics["too_few"] == ["daisy"]
    limits = task.limits(RunRecord("multilabel", class_names=NAMES[:2], metrics=metrics))
    assert f"On the test images, `daisy` (on {shown} of 40 images) cannot be told from chance with so few." in limits
    more = np.concatenate([np.stack([p, y], 1)] * 20)  # as well ranked, of many images
    assert task.said_left_out(more, NAMES[:2]) == []
