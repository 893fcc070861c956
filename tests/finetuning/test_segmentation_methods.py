"""Segmentation methods against pixel-by-pixel computations in float64, and what their parts promise."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from segmenter_stand_in import SIDE, D, K, TinySegmenter, double, make_batch, mean_ce, pixels

from hf_lowlabel.errors import UserError
from hf_lowlabel.finetuning import pixels as pixels_module
from hf_lowlabel.finetuning.classmix import ClassMix
from hf_lowlabel.finetuning.clmb import CLMB, to_grid
from hf_lowlabel.finetuning.cutmix import CutMixSeg
from hf_lowlabel.finetuning.fixmatch import FixMatch
from hf_lowlabel.finetuning.mean_teacher import MeanTeacher
from hf_lowlabel.finetuning.pixels import (
    cross_entropy,
    half_box,
    half_classes,
    hard_cross_entropy,
    masked_mean,
    partner,
    paste,
)
from hf_lowlabel.finetuning.supervised import Supervised
from hf_lowlabel.finetuning.unimatch import UniMatch, drop_channels, random_boxes
from hf_lowlabel.finetuning.unimatch_v2 import UniMatchV2, complementary_dropout, one_of_each_pair
from hf_lowlabel.finetuning.weights import Fixed
from hf_lowlabel.objective import build_objective
from hf_lowlabel.views.counter_rng import keys

TAU = 0.5  # half of the pixels of the stand-in lie above it
SMALL = dict(num_classes=K, width=8, memory=6, fresh=3, samples=9, tau=TAU, ramp=0.2)
# method, keywords, a weight of an unlabeled loss
METHODS = [
    (FixMatch, dict(rule=Fixed(tau=TAU)), "lambda_u"),
    (MeanTeacher, {}, "lambda_u"),
    (CutMixSeg, dict(tau=TAU), "lambda_u"),
    (ClassMix, dict(tau=TAU), "lambda_u"),
    (UniMatch, dict(tau=TAU), "lambda_s"),
    (UniMatch, dict(tau=TAU), "lambda_fp"),
    (UniMatchV2, dict(tau=TAU), None),
    (CLMB, SMALL, "lambda_c"),
    (CLMB, SMALL, "lambda_e"),
]


def make(cls, **kwargs):
    objective = cls(TinySegmenter(), **kwargs).train()
    with torch.no_grad():
        if objective.ema is not None:  # a teacher that is not its student
            for p in objective.ema.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return objective


def mate(i: int, n: int) -> int:
    """0 and 1, 2 and 3, ...; the last of an odd number takes the one before it."""
    return i ^ 1 if i ^ 1 < n else i - 1


# ---- rectangles and class masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (321, 321), (256, 512), (8, 6)])
def test_boxes_cover_half_of_the_image_and_lie_inside(size):
    n, (h, w) = 400, size
    boxes = half_box(keys(0, "boxes", 0, n), size)
    area = boxes.flatten(1).sum(1).double()
    rows, columns = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert (area == rows * columns).all()  # one rectangle, no part cut off at the border
    assert ((area / (h * w) - 0.5).abs() <= 0.5 / w + 1e-9).all()  # the width is rounded to whole px
    assert (rows >= h // 2).all() and (rows <= h).all() and (columns >= w // 2).all()
    if size == (64, 64):
        assert ((area / (h * w) - 0.5).abs().mean()) < 0.004
        r = (rows.double() / h).log() / torch.tensor(0.5).double().log()
        assert abs(r.mean() - 0.5) < 0.05 and r.std() > 0.25  # log-uniform
        assert boxes[:, 0].any(1).any() and boxes[:, -1].any(1).any()
        across = boxes.float().mean((0, 1))  # a box inside the image covers the middle column always, the first rarely
        assert across[0] < 0.15 and across[32] > 0.65 and (across - across.flip(0)).abs().max() < 0.1


def test_half_of_the_classes():
    torch.manual_seed(0)
    labels = torch.randint(0, 7, (50, 9, 9))
    labels[0], labels[1] = 3, torch.where(torch.arange(9) < 4, 0, 6)
    valid = torch.rand(50, 9, 9) > 0.3
    counts = torch.zeros(7)
    for v in (None, valid):
        masks = half_classes(keys(0, "classes", 0, 50), labels, 7, v)
        for m, y, ok in zip(masks, labels, valid if v is not None else torch.ones_like(valid)):
            present, taken = set(y[ok].tolist()), set(y[m].tolist())
            assert len(taken) == len(present) // 2 and taken <= present
            assert torch.equal(m, torch.isin(y, torch.tensor(sorted(taken))) & ok)
            for k in taken:
                counts[k] += 1
    assert not masks[0].any() and (counts > 0.25 * 100).all()


def test_half_of_the_classes_and_one_more_without_background():
    """CLMB's trainSSL.py: floor(n / 2) + 1 of n classes; on VOC the background is not one of them, unless alone."""
    labels = torch.randint(0, 5, (60, 6, 6))
    labels[0], labels[1, :3], labels[1, 3:] = 0, 0, 2
    for m, y in zip(half_classes(keys(0, "classes", 0, 60), labels, 5, more=1, background=True), labels, strict=True):
        objects = set(y.flatten().tolist()) - {0} or {0}
        taken = set(y[m].tolist())
        assert taken <= objects and len(taken) == min(len(objects) // 2 + 1, len(objects))


@pytest.mark.parametrize("least", [5, 60, 500])
def test_hard_pixels_alone(least):
    """UniMatch's util/ohem.py: p(y) <= tau, at least the hardest `least`; all where there are not that many."""
    logits, target = 2 * torch.randn(2, K, 8, 8), torch.randint(0, K, (2, 8, 8))
    target[0, :2] = -100
    logp = logits.double().log_softmax(1)
    loss = sorted(
        (-float(logp[i, target[i, r, c], r, c]) for i, r, c in pixels(2) if target[i, r, c] >= 0), reverse=True
    )
    easy = -torch.tensor(0.7).log()
    kept = loss if least > len(loss) else loss[: max(least, sum(v >= easy for v in loss))]
    assert float(hard_cross_entropy(logits, target, 0.7, least)) == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_boxes_of_unimatch():
    boxes = random_boxes(keys(0, "boxes", 0, 600), (60, 80), 0.5)
    area, on = boxes.flatten(1).float().mean(1), boxes.flatten(1).any(1)
    assert abs(on.float().mean() - 0.5) < 0.06
    rows, columns = boxes.any(2).sum(1)[on], boxes.any(1).sum(1)[on]
    assert torch.equal(boxes.flatten(1).sum(1)[on], rows * columns)
    assert (area[on] <= 0.4).all() and (area[on] >= 0.01).all() and 0.1 < area[on].mean() < 0.3
    ratio = rows / columns
    assert (ratio > 0.2).all() and (ratio < 4).all() and (ratio > 1).any() and (ratio < 1).any()
    assert not random_boxes(keys(0, "boxes", 0, 9), (8, 8), 0.0).any()


# ---- means over the pixels that count -------------------------------------------------------------------------------


def test_cross_entropy_of_ignored_pixels():
    z, y = torch.randn(2, K, 5, 5, requires_grad=True), torch.randint(0, K, (2, 5, 5))
    y[0, :2] = -100
    assert torch.allclose(cross_entropy(z, y), F.cross_entropy(z, y))
    assert torch.allclose(cross_entropy(z, y, 0.1), F.cross_entropy(z, y, label_smoothing=0.1))
    nothing = cross_entropy(z, torch.full_like(y, -100))
    nothing.backward()
    assert nothing == 0 and (z.grad == 0).all()
    flat = torch.randn(3, K), torch.tensor([0, 1, 2])
    assert torch.equal(cross_entropy(*flat), F.cross_entropy(*flat))


def test_mean_over():
    v, valid = torch.tensor([[1.0, float("nan")], [3.0, 4.0]]), torch.tensor([[True, False], [True, False]])
    assert masked_mean(v, valid) == 2 and masked_mean(v, torch.zeros(2, 2, dtype=torch.bool)) == 0
    assert masked_mean(v[1], None) == 3.5


@pytest.mark.parametrize("elsewhere", [0, 5])
def test_mean_over_of_several_processes(elsewhere, monkeypatch):
    """The mean over ranks of what each returns is the mean over all values, down to a single one."""
    v, valid = torch.tensor([4.0, 9.0]), torch.tensor([True, False])
    monkeypatch.setattr(pixels_module, "all_mean", lambda x: (x + elsewhere) / 2)
    monkeypatch.setattr(pixels_module, "world", lambda: 2)
    assert masked_mean(v, valid) / 2 == pytest.approx(4 / (1 + elsewhere))


# ---- equations ------------------------------------------------------------------------------------------------------


def test_supervised():
    batch, objective = make_batch(), make(Supervised)
    x = torch.cat([batch["labeled"]["image"], batch["labeled"]["strong"]])
    y = torch.cat([batch["labeled"]["target"]] * 2)
    z = double(x, objective.model)
    out = objective(batch, 0.3)
    assert float(out["loss"]) == pytest.approx(mean_ce(z, y), abs=1e-6)
    assert float(out["train_accuracy"]) == pytest.approx(float((z.argmax(1) == y)[y >= 0].double().mean()))


def test_supervised_without_strong_views():
    """The baseline beside methods that have none: one view, and the run is asked for no other."""
    model, batch = TinySegmenter(), make_batch()
    del batch["labeled"]["strong"]
    objective = Supervised(model, strong=False)
    assert objective.labeled_views == {"image": "weak"} and "strong" in Supervised.labeled_views
    expected = mean_ce(double(batch["labeled"]["image"], model), batch["labeled"]["target"])
    assert float(objective(batch, 0.5)["loss"]) == pytest.approx(expected, abs=1e-5)


def test_fixmatch_by_pixels():
    batch, objective = make_batch(), make(FixMatch, rule=Fixed(tau=TAU), lambda_u=0.7)
    u, total = batch["unlabeled"], 0.0
    p, logq = double(u["weak"], objective.model).softmax(1), double(u["strong"], objective.model).log_softmax(1)
    places = [(i, r, c) for i, r, c in pixels(3) if u["valid"][i, r, c]]
    for i, r, c in places:
        if p[i, :, r, c].max() >= TAU:
            total -= float(logq[i, p[i, :, r, c].argmax(), r, c])
    expected = mean_ce(double(batch["labeled"]["image"], objective.model), batch["labeled"]["target"])
    assert float(objective(batch, 0.3)["loss"]) == pytest.approx(expected + 0.7 * total / len(places), abs=1e-5)


def test_mean_teacher_by_pixels():
    batch, objective = make_batch(), make(MeanTeacher, lambda_u=3.0, ramp=0.0)
    u = batch["unlabeled"]
    a, b = double(u["weak"], objective.model).softmax(1), double(u["weak2"], objective.ema.module).softmax(1)
    places = [(i, r, c) for i, r, c in pixels(3) if u["valid"][i, r, c]]
    total = sum(float((a[i, k, r, c] - b[i, k, r, c]) ** 2) for i, r, c in places for k in range(K))
    expected = mean_ce(double(batch["labeled"]["image"], objective.model), batch["labeled"]["target"])
    assert float(objective(batch, 0.3)["loss"]) == pytest.approx(expected + 3 * total / (K * len(places)), abs=1e-5)
    assert objective.dense_views == {"weak": "strong", "weak2": "weak"}


def test_cutmix():
    batch, objective = make_batch(), make(CutMixSeg, tau=TAU, lambda_u=0.8)
    x, valid = batch["unlabeled"]["weak"], batch["unlabeled"]["valid"]
    box = half_box(batch["unlabeled"]["key"], (SIDE, SIDE))
    out = objective(batch, 0.3)

    mixed, teacher, n = x.clone(), double(x, objective.ema.module).softmax(1), len(x)
    for i, r, c in pixels(n):
        if not box[i, r, c]:
            mixed[i, :, r, c] = x[mate(i, n), :, r, c]
    student = double(mixed, objective.model).softmax(1)
    total, sure = 0.0, 0
    for i, r, c in pixels(n):
        j = i if box[i, r, c] else mate(i, n)
        sure += float(teacher[j, :, r, c].max()) >= TAU
        if valid[j, r, c]:
            total += sum(float(student[i, k, r, c] - teacher[j, k, r, c]) ** 2 for k in range(K))  # sum over classes
    count = n * SIDE * SIDE
    assert 0.1 < sure / count < 0.95 and float(out["mask_ratio"]) == pytest.approx(sure / count)
    consistency = sure / count * total / count
    assert float(out["consistency"]) == pytest.approx(consistency, abs=1e-6)
    expected = mean_ce(double(batch["labeled"]["image"], objective.model), batch["labeled"]["target"])
    assert float(out["loss"]) == pytest.approx(expected + 0.8 * consistency, abs=1e-5)
    assert objective.evaluated is objective.ema.module and not objective.ema.training


def test_cutmix_teacher_averages_batchnorm_too():
    objective = CutMixSeg(TinySegmenter(norm=True), ema_decay=0.99).train()
    for step in range(40):
        before, student = copy.deepcopy(objective.ema.module.norm), objective.model.norm
        objective(make_batch(step), 0.5)["loss"].backward()
        objective.after_step(0.5)
        m = min(0.99, (2 + step) / (11 + step))
        expected = m * before.running_var + (1 - m) * student.running_var
        assert torch.allclose(objective.ema.module.norm.running_var, expected, atol=1e-7)


def test_classmix():
    batch, objective = make_batch(), make(ClassMix, tau=TAU, lambda_u=0.8)
    u, n = batch["unlabeled"], 3
    teacher = double(u["weak"], objective.ema.module).softmax(1)
    labels = teacher.argmax(1)
    mask = half_classes(u["key"], labels, K, u["valid"])
    out = objective(batch, 0.3)
    mixed = u["strong"].clone()
    for i, r, c in pixels(n):
        if not mask[i, r, c]:
            mixed[i, :, r, c] = u["strong"][mate(i, n), :, r, c]
    logq, total, sure = double(mixed, objective.model).log_softmax(1), 0.0, 0
    for i, r, c in pixels(n):
        j = i if mask[i, r, c] else mate(i, n)
        sure += float(teacher[j, :, r, c].max()) >= TAU
        if u["valid"][j, r, c]:
            total -= float(logq[i, labels[j, r, c], r, c])
    count = n * SIDE * SIDE
    assert mask.any() and not mask.all()
    assert float(out["consistency"]) == pytest.approx(sure / count * total / count, abs=1e-6)
    assert objective.evaluated is objective.model


def sure_ce(z: torch.Tensor, teacher: torch.Tensor, box: torch.Tensor | None, valid: torch.Tensor) -> float:
    """Mean over valid pixels of CE to the mixed label where the mixed confidence reaches TAU."""
    logq, n, total, count = z.log_softmax(1), len(z), 0.0, 0
    for i, r, c in pixels(n):
        j = mate(i, n) if box is not None and box[i, r, c] else i
        if valid[j, r, c]:
            count += 1
            if teacher[j, :, r, c].max() >= TAU:
                total -= float(logq[i, teacher[j, :, r, c].argmax(), r, c])
    return total / count


def test_unimatch():
    batch = make_batch()
    u = batch["unlabeled"]
    objective = make(UniMatch, tau=TAU, drop=0.0, box=0.9, lambda_s=0.6, lambda_fp=0.3)
    boxes = [random_boxes(u["key"], (SIDE, SIDE), 0.9, f"box {k}") for k in range(2)]
    out = objective(batch, 0.3)
    assert all(b.any() for b in boxes) and objective.ema is None and objective.evaluated is objective.model
    teacher = double(u["weak"], objective.model).softmax(1)
    strong = [paste(b, partner(u[k]), u[k]) for b, k in zip(boxes, ("strong", "strong2"))]
    s1, s2 = (sure_ce(double(x, objective.model), teacher, b, u["valid"]) for x, b in zip(strong, boxes))
    fp = sure_ce(double(u["weak"], objective.model), teacher, None, u["valid"])
    supervised = mean_ce(double(batch["labeled"]["image"], objective.model), batch["labeled"]["target"])
    assert float(out["loss"]) == pytest.approx((supervised + 0.3 * (s1 + s2) + 0.3 * fp) / 2, abs=1e-5)


def test_batchnorm_sees_the_batches_of_the_authors_code():
    """Labeled (in UniMatch with the weak) and strong views apart; the labels of a box come from eval mode."""
    seen = []
    for cls, kwargs in ((UniMatch, {}), (UniMatchV2, {}), (ClassMix, {}), (CLMB, SMALL)):
        objective = cls(TinySegmenter(norm=True), **kwargs).train()
        norm = objective.model.norm
        norm.register_forward_hook(lambda m, x, out: seen.append((len(x[0]), m.training)))
        seen.clear()
        objective(make_batch(labeled=2, unlabeled=4), 0.5)["loss"].backward()
        strong = 4 if cls is ClassMix else 8
        weak = [(4, False), (6, True)] if cls is UniMatch else [(2, True)]
        assert seen == [*weak, (strong, True)] and norm.training


def test_unimatch_learns_from_the_weak_view_with_dropped_channels():
    batch, objective = make_batch(), make(UniMatch, tau=TAU, box=0.0, lambda_s=0.0, lambda_fp=0.6)
    u, model = batch["unlabeled"], objective.model
    out = objective(batch, 0.3)
    maps = [drop_channels(f, u["key"], 0.5, f"map {k}") for k, f in enumerate(model.encode(u["weak"]))]
    z = model.classify(model.decode(maps), (SIDE, SIDE)).detach().double()
    fp = sure_ce(z, double(u["weak"], model).softmax(1), None, u["valid"])
    supervised = mean_ce(double(batch["labeled"]["image"], model), batch["labeled"]["target"])
    assert out["loss"].item() == pytest.approx((supervised + 0.6 * fp) / 2, abs=1e-5)


def test_dropped_channels():
    x, key = torch.rand(50, 40, 3, 3) + 1, keys(0, "channels", 0, 50)
    y = drop_channels(x, key, 0.5)
    ratio = (y / x).flatten(2)
    assert torch.equal(ratio.amax(2), ratio.amin(2)) and set(ratio.unique().round().tolist()) == {0.0, 2.0}
    assert abs((ratio[:, :, 0] == 0).float().mean() - 0.5) < 0.05
    assert torch.equal(drop_channels(x[20:30], key[20:30], 0.5), y[20:30])  # wherever in a batch an image lies
    assert torch.equal(drop_channels(torch.ones(2, 5, 8), key[:2], 0.5), torch.ones(2, 5, 8))  # prefix tokens


def test_complementary_dropout():
    x, whole, key = torch.rand(6, 40, 3, 3) + 1, torch.tensor([True, False, False]), keys(0, "channels", 0, 3)
    first, second = complementary_dropout(torch.cat([x[:3], x[:3]]), whole, key).chunk(2)
    assert torch.equal(first[0], x[0]) and torch.equal(second[0], x[0])
    assert torch.allclose(first + second, 2 * x[:3]) and ((first == 0) ^ (second == 0))[1:].all()
    assert 0.2 < (first[1:] == 0).float().mean() < 0.8
    tokens = complementary_dropout(torch.ones(4, 2, 9), torch.tensor([False, False]), key[:2])
    assert torch.equal(tokens[0, 0], tokens[0, 1]) and set(tokens.unique().tolist()) == {0.0, 2.0}


def test_maps_of_one_width_drop_the_same_channels():
    """As in the authors' code: of a transformer's layers none may tell what the others have lost."""

    class Layers(TinySegmenter):
        def encode(self, x):
            return [super().encode(x)[-1]] * 2

        def decode(self, maps):
            seen.extend(maps)
            return super().decode(maps[-1:])

    seen: list[torch.Tensor] = []
    UniMatchV2(Layers(), tau=TAU)(make_batch(unlabeled=4), 0.3)
    first, second = ((m[-8:] == 0).all((2, 3)) for m in seen[-2:])  # the student's, after the teacher's
    assert first.any() and torch.equal(first, second)


def test_unimatch_v2():
    batch, objective = make_batch(unlabeled=4), make(UniMatchV2, tau=TAU, box=0.9)
    u, model = batch["unlabeled"], objective.model
    boxes = [random_boxes(u["key"], (SIDE, SIDE), 0.9, f"box {k}") for k in range(2)]
    whole = one_of_each_pair(u["key"])
    out = objective(batch, 0.3)
    teacher = double(u["weak"], objective.ema.module).softmax(1)
    strong = torch.cat([paste(b, partner(u[k]), u[k]) for b, k in zip(boxes, ("strong", "strong2"))])
    maps = [complementary_dropout(f, whole, u["key"]) for f in model.encode(strong)]
    z = model.classify(model.decode(maps), (SIDE, SIDE)).double()
    s1, s2 = (sure_ce(part, teacher, b, u["valid"]) for part, b in zip(z.chunk(2), boxes))
    supervised = mean_ce(double(batch["labeled"]["image"], model), batch["labeled"]["target"])
    assert torch.equal(whole[::2], ~whole[1::2])
    assert float(out["loss"]) == pytest.approx(supervised / 2 + (s1 + s2) / 4, abs=1e-5)
    assert objective.evaluated is objective.ema.module


# ---- CLMB -----------------------------------------------------------------------------------------------------------


def filled_clmb() -> CLMB:
    objective = make(CLMB, **SMALL)
    g = torch.Generator().manual_seed(9)
    objective.memory.copy_(torch.randn(objective.memory.shape, generator=g))
    objective.filled.copy_(torch.tensor([6, 4, 1, 0]))
    return objective


def attention(module, z: torch.Tensor, k: int) -> list[float]:
    """Scores of rows z [n, width] of class k, in float64."""
    z, w = z.detach().double(), {n: p.detach().double() for n, p in module.named_parameters()}
    h = z @ w["hidden"][k]
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
    return (F.leaky_relu(h, 0.2) @ w["out"][k] + w["bias"][k]).sigmoid()[:, 0].tolist()


def test_contrast_is_the_paper_pair_by_pair():
    """1/K sum_c mean over pairs of (S / mean S) (S' / mean S') (1 - cos), all pairs of pixel and memory written out."""
    objective = filled_clmb()
    objective.samples = 100  # all pixels
    features, labels = torch.randn(2, D, 4, 4), torch.randint(0, K, (2, SIDE, SIDE))
    grid = to_grid(labels, features, 2)
    assert torch.equal(grid, labels[:, 1::2, 1::2])
    captured = {}
    objective.predictor.register_forward_hook(lambda m, a, out: captured.update(out=out))
    key = keys(0, "pixels", 0, 2)
    got = objective.contrast(features, labels, key, objective.memory, objective.filled)
    _, used = objective.sample(features, grid, key)
    z = captured["out"].view(*used.shape, -1).double()
    total = 0.0
    for k in range(K):
        rows = F.normalize(z[k][used[k]], dim=1)
        held = F.normalize(objective.memory[k, : objective.filled[k]].double(), dim=1)
        if len(rows) < 2 or len(held) < 2:
            continue
        s, q = attention(objective.attention, rows, k), attention(objective.memory_attention, held, k)
        assert max(q) - min(q) > 1e-3  # the authors' code makes all of these 1
        mean_s, mean_q = sum(s) / len(s), sum(q) / len(q)
        pairs = [
            s[i] / mean_s * q[j] / mean_q * (1 - float(rows[i] @ held[j]))
            for i in range(len(rows))
            for j in range(len(held))
        ]
        total += sum(pairs) / len(pairs)
    assert float(got) == pytest.approx(total / K, abs=1e-5)
    got.backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.attention.parameters())
    assert objective.memory_attention.hidden.grad[:2].abs().sum() > 0


def test_memory_takes_right_and_sure_pixels_of_the_highest_scores():
    objective = filled_clmb()
    objective.samples = 32  # all pixels
    old = objective.memory.clone()
    features = torch.randn(2, D, 4, 4)
    p = torch.full((2, K, SIDE, SIDE), 0.01)
    labels = torch.randint(0, 2, (2, SIDE, SIDE))  # classes 2 and 3 do not occur
    p.scatter_(1, labels[:, None], 0.9)
    p[0, :, :4] = 0.25  # unsure
    wrong = labels.clone()
    wrong[1, 4:] = 1 - labels[1, 4:]  # confident of another class
    score = {}
    objective.memory_attention.register_forward_hook(lambda m, a, out: score.update(z=a[0], used=a[1], s=out))
    objective.remember(features, p, wrong, keys(0, "pixels", 0, 2), 0.5)
    assert torch.equal(objective.memory, old)  # until the step ends
    objective.advance()
    new = F.normalize(objective.memory, dim=2)
    for k in range(2):
        allowed = [
            (i, r, c)
            for i in range(2)
            for r in range(4)
            for c in range(4)
            if wrong[i, 2 * r + 1, 2 * c + 1] == k and (i, r) in ((0, 2), (0, 3), (1, 0), (1, 1))
        ]
        assert score["used"][k].sum() == len(allowed) > 3
        best = score["s"][k].masked_fill(~score["used"][k], -1).topk(3).indices
        assert torch.allclose(new[k, :3], score["z"][k, best], atol=1e-6)
        kept = min(3, int(filled_clmb().filled[k]))
        assert torch.equal(objective.memory[k, 3 : 3 + kept], old[k, :kept])  # newest first, the oldest leave
    assert objective.filled.tolist() == [6, 6, 1, 0] and torch.equal(objective.memory[2, 0], old[2, 0])


def test_clmb_loss():
    """Every term but the contrast, which is tested above, before the first mixing."""
    batch, objective = make_batch(), make(CLMB, **{**SMALL, "ramp": 0.9, "lambda_c": 0.0, "lambda_e": 0.3})
    u, t = batch["unlabeled"], 0.4
    teacher = double(u["weak"], objective.ema.module).softmax(1)
    total = entropy = count = 0.0
    for key in ("strong", "strong2"):
        logq = double(u[key], objective.model).log_softmax(1)
        for i, r, c in pixels(3):
            if u["valid"][i, r, c]:
                count += 1
                p = teacher[i, :, r, c]
                total -= float(p.max()) ** 6 * float(logq[i, p.argmax(), r, c])
                entropy -= float((logq[i, :, r, c].exp() * logq[i, :, r, c]).sum())
    ramp = torch.tensor(-5 * (1 - t / 0.9) ** 2).exp()
    expected = mean_ce(double(batch["labeled"]["image"], objective.model), batch["labeled"]["target"])
    expected += float(ramp) * total / count + 0.3 * entropy / count / torch.tensor(float(K)).log()
    assert float(objective(batch, t)["loss"]) == pytest.approx(float(expected), abs=1e-5)


def test_clmb_contrasts_after_the_ramp_and_scores_do_not_move_features():
    loss, seen = {}, []
    for t in (0.1, 0.5):
        for weight in (0.0, 1.0):
            torch.manual_seed(0)  # of the heads
            objective = make(CLMB, **{**SMALL, "lambda_c": weight})
            objective.attention.register_forward_hook(lambda m, a, out: seen.append(a[0].requires_grad))
            objective.memory.normal_(generator=torch.Generator().manual_seed(9))
            objective.filled.fill_(6)
            out = objective(make_batch(), t)
            loss[t, weight] = out["loss"].item()
    assert loss[0.1, 0.0] == loss[0.1, 1.0] and out["contrast"] > 0.01
    assert loss[0.5, 1.0] - loss[0.5, 0.0] == pytest.approx(out["contrast"].item(), abs=1e-5)
    assert seen and not any(seen)


def test_clmb_teacher_slows_down_to_a_stop():
    objective = make(CLMB, **SMALL, ema_decay=0.9)
    objective.updates = 10**6
    student = [*objective.model.parameters(), *objective.projector.parameters()]
    teacher = [*objective.ema.parameters(), *objective.teacher_projector.parameters()]
    with torch.no_grad():
        for p in student:
            p.add_(0.5)
    before = [p.clone() for p in teacher]
    for t, kept in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        objective.after_step(t)
        before = [kept * b + (1 - kept) * p for b, p in zip(before, student, strict=True)]
        for b, p in zip(before, teacher, strict=True):
            torch.testing.assert_close(p, b, rtol=0, atol=1e-5)


def test_clmb_mixes_after_the_ramp_only():
    objective, u = make(CLMB, **SMALL), make_batch()["unlabeled"]
    labels = torch.randint(0, K, (3, SIDE, SIDE)).masked_fill(~u["valid"], -100)
    args = u["strong"], labels, torch.rand(3, SIDE, SIDE), u["key"]
    for a, b in zip(objective.mixed(*args, 0.1), args[:3], strict=True):
        assert (a == b)[..., :].float().mean() == 1
    objective.mix = 1.0
    x, y, _ = objective.mixed(*args, 0.5)
    assert not torch.equal(x, args[0])
    for i, r, c in pixels(3):
        source = i if torch.equal(x[i, :, r, c], args[0][i, :, r, c]) else mate(i, 3)
        assert torch.equal(x[i, :, r, c], args[0][source, :, r, c]) and y[i, r, c] == labels[source, r, c]


# ---- all of them ----------------------------------------------------------------------------------------------------


def gradient(objective, batch: dict, t: float = 0.5) -> torch.Tensor:
    torch.manual_seed(0)
    objective(batch, t)["loss"].backward()
    return torch.cat([p.grad.flatten() for p in objective.model.parameters()])


@pytest.mark.parametrize(("cls", "kwargs", "weight"), METHODS)
def test_the_gradient_changes_with_the_unlabeled_weight(cls, kwargs, weight):
    batch, grads = make_batch(), []
    for value in (1.0, 2.0):
        objective = make(cls, **kwargs, **({weight: value} if weight else {}))
        if cls is CLMB:
            objective.memory.copy_(filled_clmb().memory)
            objective.filled.copy_(torch.tensor([6, 6, 6, 6]))
        if weight is None:  # no weight: other images
            batch = make_batch(0)
            batch["unlabeled"]["strong"] = batch["unlabeled"]["strong"] * value
        grads.append(gradient(objective, batch))
    assert all(g.isfinite().all() for g in grads) and (grads[0] - grads[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("cls", "kwargs", "weight"), METHODS)
def test_nothing_labeled_and_nothing_valid_is_zero_not_nan(cls, kwargs, weight):
    batch = make_batch()
    batch["labeled"]["target"].fill_(-100)
    batch["unlabeled"]["valid"].fill_(False)
    objective = make(cls, **{**kwargs, **({"lambda_c": 0.0} if cls is CLMB else {})})
    torch.manual_seed(0)
    out = objective(batch, 0.5)
    out["loss"].backward()
    assert out["loss"] == 0 and all(torch.isfinite(v).all() for v in out.values())
    assert all(p.grad is None or (p.grad == 0).all() for p in objective.model.parameters())


TEACHER_ALONE = [
    (FixMatch, dict(rule=Fixed(tau=0.0))),
    (ClassMix, dict(tau=0.0)),
    (UniMatchV2, dict(tau=0.0)),
    (CLMB, dict(SMALL, lambda_c=0.0)),
]


@pytest.mark.parametrize(("cls", "kwargs"), TEACHER_ALONE)
def test_labels_outside_the_image_do_not_matter(cls, kwargs):
    """The view that gives the labels changes where it is not valid (rows 4 to 7), as far as no valid cell sees it."""
    batch, grads = make_batch(), []
    batch["unlabeled"]["valid"] = (torch.arange(SIDE) < 4)[:, None].expand(3, SIDE, SIDE).clone()
    for shift, rows in ((0.0, slice(5, 8)), (5.0, slice(5, 8)), (5.0, slice(0, 3))):
        changed = copy.deepcopy(batch)
        changed["unlabeled"]["weak"][:, :, rows] += shift
        grads.append(gradient(make(cls, **kwargs), changed))
    assert torch.allclose(grads[0], grads[1], atol=1e-6) and (grads[0] - grads[2]).abs().max() > 1e-4


@pytest.mark.parametrize("cls", [CutMixSeg, ClassMix, UniMatch, UniMatchV2, CLMB])
def test_one_image_cannot_be_mixed(cls):
    with pytest.raises(UserError, match="sees 1 unlabeled image, but .* mixes at least 2"):
        make(cls, **(SMALL if cls is CLMB else {}))(make_batch(unlabeled=1), 0.5)


@pytest.mark.parametrize("cls", [CutMixSeg, ClassMix, UniMatchV2, CLMB])
def test_a_teacher_needs_an_average(cls):
    with pytest.raises(UserError, match="ema_decay of .* is 0.0. It must be above 0 and below 1"):
        build_objective(cls, TinySegmenter(), dict(ema_decay=0.0), num_classes=K)


@pytest.mark.parametrize(("cls", "kwargs"), [(c, k) for c, k, w in METHODS if w not in ("lambda_fp", "lambda_e")])
def test_everything_that_trains_on_is_in_the_state(cls, kwargs):
    """Four steps in one go, or two, a fresh objective with the state of the first, and two more: the same weights."""

    def train(objective, steps):
        optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
        for step in steps:
            torch.manual_seed(step)
            out = objective(make_batch(step), step / 5)
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
            objective.after_step(step / 5)
        return objective

    def start(seed):
        torch.manual_seed(seed)  # of heads
        return cls(TinySegmenter(norm=True, seed=seed), **kwargs).train()

    whole, half, fresh = train(start(0), range(4)), train(start(0), range(2)), start(1)
    fresh.load_state_dict(half.state_dict())
    again = train(fresh, range(2, 4))
    for (name, a), (_, b) in zip(whole.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
