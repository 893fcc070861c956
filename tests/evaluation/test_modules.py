"""The modules of `evaluate` that compute a run's scores: equal to the formulas, in memory."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import average_precision_score, f1_score

from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation import classification, modules
from hf_lowlabel.evaluation.confusion import confusion_of, segmentation_metrics
from hf_lowlabel.evaluation.multilabel import multilabel_scores
from hf_lowlabel.tasks.classification import Classification
from hf_lowlabel.tasks.multilabel import MultiLabel
from tests.processes import ranks

NAMES = list("abcd")


def classes(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return classification.softmax(rng.normal(size=(n, 4)) * 2), rng.integers(0, 4, n)


def several(n=60, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 4)) < 0.3).astype(np.int8)
    targets[:, 3] = 0  # a class without a positive
    return np.clip(0.3 * targets + 0.7 * rng.random((n, 4)), 0, 1), targets


def masks(n=6, seed=0):
    rng = np.random.default_rng(seed)
    references = rng.integers(0, 4, (n, 9, 7))
    references[:, 0] = 255
    return rng.integers(0, 4, (n, 9, 7)), references


DATA = {modules.ClassificationScores: classes, modules.MultiLabelScores: several, modules.SegmentationScores: masks}


def class_scores(probs, targets):
    return modules.ClassificationScores(NAMES).compute(predictions=probs, references=targets)


def multilabel_metrics(probs, targets, names):
    return modules.MultiLabelScores(names).compute(predictions=probs, references=targets)


def by_batches(module, predictions, references, parts=3):
    for rows in np.array_split(np.arange(len(predictions)), parts):
        module.add_batch(predictions=predictions[rows], references=references[rows])
    return module.compute()


def same(a: dict, b: dict) -> bool:
    return json.dumps(a, allow_nan=False) == json.dumps(b, allow_nan=False)


@pytest.mark.parametrize("kind", DATA)
def test_batches_rows_and_the_whole_are_one(kind):
    assert isinstance(module := kind(NAMES), evaluate.EvaluationModule)
    x, y = DATA[kind]()
    whole = module.compute(predictions=x, references=y)
    assert whole["images"] == len(x) and whole["class_names"] == NAMES
    assert same(by_batches(module, x, y), whole)
    for prediction, reference in zip(x, y):
        module.add(prediction=prediction, reference=reference)
    assert same(module.compute(), whole)
    with pytest.raises(UserError, match="No"):  # what was added is forgotten
        module.compute()


def test_a_run_s_scores_are_those_of_the_formulas():
    probs, targets = classes()
    m = by_batches(modules.ClassificationScores(NAMES), probs, targets)
    assert same(m, classification.classification_scores(probs, targets, NAMES))
    assert m == Classification().scores(probs, targets, NAMES)
    x, y = several()
    m = by_batches(modules.MultiLabelScores(NAMES), x, y)
    assert same(m, multilabel_scores(x, y, NAMES)) and same(m, MultiLabel().scores(x, y, NAMES))


def test_the_error_of_the_mean_average_precision_is_that_of_images_drawn_again():
    """Against sklearn's AP of the drawn images themselves, with many equal probabilities and a rare class."""
    from hf_lowlabel.evaluation.multilabel import DRAWS, mean_average_precision

    rng = np.random.default_rng(1)
    p, y = np.round(rng.random((50, 3)), 1), (rng.random((50, 3)) < (0.5, 0.2, 0.04)).astype(np.int8)
    draw, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        i = draw.integers(0, len(y), len(y))
        some = np.flatnonzero(y[i].sum(0))
        found.append(np.mean([average_precision_score(y[i][:, k], p[i][:, k]) for k in some]))
    assert multilabel_metrics(p, y, NAMES[:3])["map_error"] == pytest.approx(np.std(found))
    assert multilabel_metrics(p[:3], np.ones_like(y[:3]), NAMES[:3])["map_error"] is None
    for count in (50, 9):
        some = np.flatnonzero(y[:count].sum(0))
        each = [average_precision_score(y[:count, k], p[:count, k]) for k in some]
        assert mean_average_precision(p[:count], y[:count]) == pytest.approx(np.mean(each))
    with pytest.raises(UserError, match="None of the 50 images"):
        mean_average_precision(p, np.zeros_like(y))


def test_multilabel_scores_against_sklearn():
    x, y = several(200)
    m = multilabel_metrics(x.astype(np.float32), y, NAMES)
    x = x.astype(np.float32)
    assert m["map"] == pytest.approx(average_precision_score(y[:, :3], x[:, :3], average="macro"), abs=1e-12)
    assert m["f1_macro"] == pytest.approx(f1_score(y[:, :3], x[:, :3] > 0.5, average="macro"), abs=1e-12)
    assert m["f1_micro"] == pytest.approx(f1_score(y, x > 0.5, average="micro"), abs=1e-12)
    assert m["exact_match"] == np.mean([np.array_equal(a > 0.5, b) for a, b in zip(x, y)])
    assert m["per_class"][3] is m["per_class_f1"][3] is None and m["per_class_images"] == y.sum(0).tolist()
    assert m["per_class"][:3] == pytest.approx(average_precision_score(y[:, :3], x[:, :3], average=None), abs=1e-12)
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    low = modules.MultiLabelScores(NAMES).compute(predictions=x, references=y, threshold=0.1)
    assert low["map"] == m["map"] and low["f1_micro"] == pytest.approx(f1_score(y, x > 0.1, average="micro"))
    one = multilabel_metrics(x[:, :1], y[:, :1], ["a"])  # a single class is a yes or no
    assert one["f1_macro"] == one["f1_micro"] == pytest.approx(f1_score(y[:, 0], x[:, 0] > 0.5))


@pytest.mark.parametrize(
    "probs, targets, words",
    [
        (np.zeros((4, 2)), np.ones((4, 2)), "For 4 class names"),
        (np.zeros((0, 4)), np.ones((0, 4)), "N >= 1"),
        (np.zeros((3, 4)), np.full((3, 4), -1), "has to be 0 or 1"),
        (np.full((3, 4), np.nan), np.ones((3, 4)), "training did not diverge"),
        (np.full((3, 4), 2.0), np.ones((3, 4)), "Take the sigmoid"),
        (np.zeros((3, 4)), np.zeros((3, 4)), "None of the 3 images"),
    ],
)
def test_bad_labels_are_named(probs, targets, words):
    with pytest.raises(UserError, match=words):
        multilabel_metrics(probs, targets, NAMES)


@pytest.mark.parametrize(
    "predicted, true, words",
    [
        ([0, 1], [4, 1], "true classes of pixels are from 1 to 4, but 4 class names need integers from 0 to 3"),
        ([2, 1], [4, 1], "true classes of pixels are from 1 to 4"),
        ([0, 1], [300, 255], "from 300 to 300"),
        ([4, 1], [0, 1], "predicted classes of pixels are from 1 to 4"),
        ([-1, 1], [0, 1], "predicted classes of pixels are from -1 to 1"),
        ([255, 1], [0, 1], "predicted classes of pixels are from 1 to 255"),
        ([0.5, 1.0], [0, 1], "predicted classes of pixels are no whole numbers"),
        ([0, 1], [0.0, np.inf], "true classes of pixels are no whole numbers"),
        ([0, 1, 1], [0, 1], r"the shape \(1, 3\) and the true ones \(1, 2\)"),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int64])
def test_pixels_of_no_class_are_named(predicted, true, words, kind):
    """A target of K with a prediction of 0 was counted as ignored, and a prediction of K in the next row."""
    given = [np.array([x]) for x in (predicted, true)]
    given = [x if x.dtype == float or x.min() < 0 or x.max() > np.iinfo(kind).max else x.astype(kind) for x in given]
    with pytest.raises(UserError, match=words):
        modules.SegmentationScores(NAMES).add_batch(predictions=given[:1], references=given[1:])


def test_what_is_called_where_nothing_is_true_does_not_matter():
    predicted, true = torch.tensor([[255, -7, 9, 1]]), torch.tensor([[255, -100, -1, 1]])
    copies = predicted.clone(), true.clone()
    assert confusion_of(predicted, true, 2).tolist() == [[0, 0], [0, 1]]
    assert torch.equal(predicted, copies[0]) and torch.equal(true, copies[1])
    assert confusion_of(predicted[:, :0], true[:, :0], 2).sum() == 0
    with pytest.raises(UserError, match="There are 1 predictions and 2 references"):
        modules.SegmentationScores(NAMES).add_batch(predictions=predicted, references=[true, true])


def test_masks_of_several_sizes_and_the_two_readings_of_two_classes():
    x, y = masks()
    both = confusion_of(torch.as_tensor(x), torch.as_tensor(y), 4)
    m = modules.SegmentationScores(NAMES)
    assert same(m.compute(predictions=x, references=y), {"images": 6, **segmentation_metrics(both.numpy(), NAMES)})
    two = modules.SegmentationScores(NAMES[:2])
    two.add_batch(
        predictions=[np.ones((2, 2), int), np.zeros((3, 5), int)], references=[np.ones((2, 2)), np.ones((3, 5))]
    )
    assert two.compute()["object_jaccard"] == 0.5
    nothing = [np.ones((1, 2), int)] * 2, [np.array([[1, 0]]), np.full((1, 2), 255)]  # of the second all is ignored
    found = two.compute(predictions=nothing[0], references=nothing[1])
    assert found["object_jaccard"] == 0.5 and found["images"] == 2


def test_no_file_and_no_connection(monkeypatch, tmp_path):
    monkeypatch.setattr(socket.socket, "connect", lambda *a, **k: pytest.fail("a metric opened a connection"))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    probs, targets = classes(500)
    state = np.random.get_state()[1].tolist()
    found = class_scores(probs, targets)
    assert found["accuracy"] == classification.classification_scores(probs, targets, NAMES)["accuracy"]
    assert not list(tmp_path.iterdir()) and np.random.get_state()[1].tolist() == state


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    x, y = masks()
    m = modules.SegmentationScores(NAMES)
    m.add_batch(predictions=x[rank::2], references=y[rank::2])
    m.all_reduce()
    found = {"segmentation": m.compute(), "classification": class_scores(*classes())}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    ranks(work, tmp_path, folder=tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    x, y = masks()
    assert found[0] == found[1]
    assert same(found[0]["segmentation"], modules.SegmentationScores(NAMES).compute(predictions=x, references=y))
    assert same(found[0]["classification"], class_scores(*classes()))
