"""Segmentation metrics against their definitions and torchmetrics, windows, ranks, pictures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hf_lowlabel.data.caches.image_cache import ResidentCache
from hf_lowlabel.errors import UserError
from hf_lowlabel.evaluation.confusion import (
    confusion_of,
    errors_over_images,
    per_image_jaccard,
    segmentation_metrics,
    shown_miou,
)
from hf_lowlabel.evaluation.overlays import Examples, lit, overlay, palette, save_mask, voc_color
from hf_lowlabel.evaluation.segmentation import (
    evaluate_segmentation,
    probabilities,
    segment,
    starts,
)

NAMES = ["background", "a", "b", "c"]


def labels(seed: int, classes: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def test_agreement_with_torchmetrics():
    segmentation = pytest.importorskip("torchmetrics.functional.classification")
    target, predicted = labels(0, 4, 5, 20, 30), labels(1, 4, 5, 20, 30)
    target[:, :3] = 255
    target[:, 3] = -100
    counted = (target != 255) & (target >= 0)
    t, p = target[counted], predicted[counted]
    out = segmentation_metrics(confusion_of(predicted, target, 4).numpy(), NAMES)
    iou = segmentation.multiclass_jaccard_index(p, t, 4, average=None)
    assert np.allclose(out["per_class"], iou, atol=1e-6)
    assert abs(out["miou"] - segmentation.multiclass_jaccard_index(p, t, 4, average="macro")) < 1e-6
    assert abs(out["pixel_accuracy"] - segmentation.multiclass_accuracy(p, t, 4, average="micro")) < 1e-6
    assert abs(out["class_accuracy"] - segmentation.multiclass_accuracy(p, t, 4, average="macro")) < 1e-6
    assert np.allclose(out["per_class_dice"], segmentation.multiclass_f1_score(p, t, 4, average=None), atol=1e-6)
    assert out["pixels"] == len(t)
    t[t == 3], p[p == 3] = 0, 0  # a class that is nowhere
    out = segmentation_metrics(confusion_of(p, t, 4).numpy(), NAMES)
    assert abs(out["miou"] - segmentation.multiclass_jaccard_index(p, t, 4, average="macro")) < 1e-6
    assert out["per_class"][3] is None and abs(out["miou_all"] - out["miou"] * 3 / 4) < 1e-12
    json.dumps(out, allow_nan=False)


def test_sets_of_pixels():
    """Intersections and unions counted one by one."""
    target, predicted = labels(2, 3, 9, 11), labels(3, 3, 9, 11)
    out = segmentation_metrics(confusion_of(predicted, target, 3).numpy(), NAMES[:3])
    places = [(i, j) for i in range(9) for j in range(11)]
    for k in range(3):
        t, p = ({x for x in places if m[x] == k} for m in (target, predicted))
        assert out["per_class"][k] == pytest.approx(len(t & p) / len(t | p))
        assert out["per_class_dice"][k] == pytest.approx(2 * len(t & p) / (len(t) + len(p)))
        assert out["per_class_share"][k] == pytest.approx(len(t) / len(places))


class PerPixel(nn.Module):
    """Logits that are a fixed function of each pixel: windows and batches must not matter."""

    def __init__(self, classes: int):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 1)

    def forward(self, x):
        return SimpleNamespace(logits=self.conv(x))


def canvas(n: int, classes: int) -> ResidentCache:
    g = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, 4, 24, 31), dtype=torch.uint8, generator=g)
    images[:, 3] = torch.randint(0, classes, (n, 24, 31), generator=g)
    images[:, 3, :2] = 255
    sizes = np.array([[24 - i % 3, 31 - 4 * (i % 2)] for i in range(n)])
    for i, (h, w) in enumerate(sizes):
        images[i, 3, h:] = images[i, 3, :, w:] = 255
    return ResidentCache(images, [f"i{i}" for i in range(n)], np.arange(n), sizes=sizes)


NORM = dict(mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("window", [None, (16, 16)])
def test_evaluation_of_a_pool(window):
    torch.manual_seed(0)
    model, pool, total = PerPixel(3).train(), canvas(7, 3), np.zeros((3, 3), int)
    for i in range(7):
        h, w = pool.sizes[i].tolist()
        x = (pool.images[i : i + 1, :3, :h, :w].double() / 255 - 0.5) / 0.25
        called = nn.functional.conv2d(x, model.conv.weight.double(), model.conv.bias.double()).argmax(1)[0]
        for t, p in zip(pool.images[i, 3, :h, :w].flatten().tolist(), called.flatten().tolist()):
            if t != 255:
                total[t, p] += 1
    shown = []
    model.register_forward_pre_hook(lambda module, args: shown.append(tuple(args[0].shape[-2:])))
    out = evaluate_segmentation(model, pool, NAMES[:3], window=window, batch_size=2, **NORM)
    assert set(shown) == (
        {window} if window else set(map(tuple, pool.sizes.tolist()))
    )  # no image with the canvas beside it
    assert np.abs(np.array(out["confusion"]) - total).sum() <= 2 and out["images"] == 7  # float32 against float64
    with pytest.raises(ZeroDivisionError):
        evaluate_segmentation(model, pool, NAMES[:3], each=lambda *one: 1 / 0, **NORM)
    assert model.training  # after a failure too
    some = evaluate_segmentation(model, pool, NAMES[:3], indices=torch.tensor([6, 2]), **NORM)
    assert some["images"] == 2 and some["pixels"] < out["pixels"]


def test_both_readings_of_two_classes():
    torch.manual_seed(0)
    model, pool = PerPixel(2), canvas(5, 2)
    seen = {}
    out = evaluate_segmentation(model, pool, NAMES[:2], each=lambda i, image, t, p: seen.update({i: (t, p)}), **NORM)
    both = [confusion_of(p.argmax(0), t, 2).double() for t, p in seen.values()]
    jaccard = [float(m[1, 1] / (m[1].sum() + m[0, 1])) for m in both]
    whole = sum(both)
    background, lesion = (float(whole[k, k] / (whole[k].sum() + whole[:, k].sum() - whole[k, k])) for k in (0, 1))
    assert out["object_jaccard"] == pytest.approx(np.mean(jaccard), abs=1e-6)
    assert out["object_iou"] == pytest.approx(lesion) and out["miou"] == pytest.approx((lesion + background) / 2)
    assert per_image_jaccard(torch.tensor([[9, 0], [0, 0]])) == 1
    assert per_image_jaccard(torch.tensor([[9, 1], [0, 0]])) == 0


def test_windows_cover_everything_and_are_averaged():
    assert starts(10, 4, 3) == [0, 3, 6] and starts(11, 4, 3) == [0, 3, 6, 7] and starts(4, 4, 3) == [0]
    assert starts(3, 4, 3) == [0]

    class Where(nn.Module):
        """Confident of a class that depends on where the window begins."""

        def forward(self, x):
            k = int(x[0, 0, 0, 0]) % 2
            logits = torch.zeros(len(x), 2, *x.shape[-2:])
            logits[:, k] = 2.0
            return SimpleNamespace(logits=logits)

    x = torch.arange(7.0).expand(1, 3, 4, 7).contiguous()
    out = probabilities(Where(), x, (4, 4))  # windows from 0, 2, 3: classes 0, 0, 1
    p = float(torch.tensor([2.0, 0.0]).softmax(0)[0])
    q = 1 - p
    expected = [p, p, p, (p + p + q) / 3, (p + q) / 2, (p + q) / 2, q]
    assert torch.allclose(out[0, 0, 0], torch.tensor(expected), atol=1e-6)
    assert torch.allclose(out.sum(1), torch.ones(1, 4, 7), atol=1e-6)


def test_segment_answers_at_the_size_of_the_image():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    model = PerPixel(3)
    classes, confidence = segment(model, image, **NORM)
    x = torch.from_numpy((image / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()
    p = model(x).logits.softmax(1)[0]
    assert (classes == p.argmax(0).numpy()).mean() > 0.99 and np.allclose(confidence, p.amax(0).detach(), atol=1e-5)
    classes, confidence = segment(model, image, long_side=16, **NORM)
    assert classes.shape == confidence.shape == (31, 17)


def test_bad_input():
    with pytest.raises(UserError, match="shape .2, 2., but there are 4 class names"):
        segmentation_metrics(np.ones((2, 2)), NAMES)
    with pytest.raises(UserError, match="No pixel has a class"):
        segmentation_metrics(np.zeros((4, 4)), NAMES)


@pytest.mark.pictures
def test_masks_as_files_and_pictures(tmp_path):
    assert [voc_color(k) for k in (0, 1, 2, 3, 15, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]
    mask = np.array([[0, 1], [255, 3]], np.uint8)
    save_mask(mask, NAMES, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as again:
        assert again.mode == "P" and (np.asarray(again) == mask).all()
        assert (np.asarray(again.convert("RGB"))[0, 0] == 0).all()
    image = np.full((2, 2, 3), 100, np.uint8)
    mixed = overlay(image, mask, NAMES)
    assert (mixed[0, 0] == 100).all() and (mixed[0, 1] == (0.4 * 100 + 0.6 * palette(NAMES)[1]).round()).all()
    assert (overlay(image, mask, ["sky", "b", "c", "d"])[0, 0] != 100).any()
    red = overlay(np.full((2, 2, 3), (200, 0, 0), np.uint8), mask, NAMES)  # of its brightness alone, 60
    assert (red[0, 0] == (200, 0, 0)).all() and (red[0, 1] == (0.4 * 60 + 0.6 * palette(NAMES)[1]).round()).all()
    assert len({tuple(c) for c in palette([str(k) for k in range(30)])[:30].tolist()}) == 30

    pool, seen = canvas(3, 4), Examples([0, 2], ["i0", "i1", "i2"])
    evaluate_segmentation(PerPixel(4), pool, NAMES, each=seen, **NORM)
    file = seen.save(NAMES, tmp_path / "predictions.png")
    assert [row["id"] for row in seen.rows.values()] != [] and sorted(seen.rows) == [0, 2]
    with Image.open(file) as picture:
        assert picture.width > 400 and len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert file.stat().st_size < 300_000


@pytest.mark.parametrize("classes", [2, 3])
def test_errors_over_images_are_those_of_whole_scores(classes):
    """The formula by itself: the deviation of a score over draws of the images with replacement."""
    random, each = np.random.default_rng(3), []
    tables = random.integers(0, 50, (5, classes, classes))
    tables[:2] = 0  # images of which no pixel takes part
    again = np.random.default_rng(0)
    for _ in range(200):
        total = tables[again.integers(0, 5, 5)].sum(0)
        each += [segmentation_metrics(total, [f"{k}" for k in range(classes)])] if total.any() else []
    expected = {"miou", "dice", "pixel_accuracy", *(["object_iou"] if classes == 2 else [])}
    found = errors_over_images(tables)
    assert found == pytest.approx({f"{key}_error": np.std([one[key] for one in each]) for key in expected})
    assert len(each) < 200 and errors_over_images(tables[:3]) == {}


def test_the_score_of_masks_left_out_is_the_mean_over_the_classes_they_show():
    """A class that is called and nowhere shown takes no part; the metrics count it as 0."""
    rng = np.random.default_rng(0)
    for shown in range(1, 4):
        counts = rng.integers(0, 9, (4, 4)) + np.eye(4, dtype=int)
        counts[shown:] = 0
        found = segmentation_metrics(counts, list("abcd"))
        assert shown_miou(counts) == pytest.approx(np.mean(found["per_class"][:shown]))
    with pytest.raises(UserError, match="No pixel has a class"):
        shown_miou(np.zeros((4, 4)))


def test_an_image_that_is_all_but_black_is_shown_brighter():
    dim = np.tile(np.arange(20, dtype=np.uint8)[:, None, None], (1, 20, 3))
    shown = lit(dim)
    assert shown.max() == 255 and shown.min() == 0 and (np.diff(shown[:, 0, 0].astype(int)) > 0).all()
    for usual in (dim + 100, np.zeros_like(dim)):
        assert (lit(usual) == usual).all()
