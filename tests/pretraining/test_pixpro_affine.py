"""The affine views of Xu et al., section 3.1: the warp, its inverse, and PixPro on the maps warped back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretraining_pixels import bilinear, is_positive, propagate
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.pretraining.pixpro_affine import inverse, random_affine, warp

RANGES = dict(scale=1.25, rotation=30.0, shear=0.25, translation=0.1)
CPU = torch.device("cpu")


def sampled(n: int = 4, p: float = 0.5, **ranges) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return random_affine(n, CPU, **{**RANGES, **ranges}, p=p)


@pytest.mark.parametrize("h,w", [(6, 6), (5, 8)])
def test_the_warp_is_one_bilinear_resampling(h, w):
    a, b = sampled(3, p=1.0)
    x = torch.randn(3, 2, h, w)
    out, inside = warp(x, a, b)
    for n in range(3):
        for row in range(h):
            for column in range(w):
                at = np.array([(2 * column + 1) / w - 1, (2 * row + 1) / h - 1])
                there = a[n].double().numpy() @ at + b[n].double().numpy()
                px, py = ((there[0] + 1) * w - 1) / 2, ((there[1] + 1) * h - 1) / 2
                for channel in range(2):
                    expected = bilinear(x[n, channel].double().numpy(), px, py)
                    assert out[n, channel, row, column].item() == pytest.approx(expected, abs=1e-5)
                assert inside[n, row * w + column].item() == bool(np.abs(there).max() <= 1)


def test_each_operation_is_drawn_half_of_the_time_within_its_range():
    n = 20000
    only = {name: {**dict(scale=1.0, rotation=0.0, shear=0.0, translation=0.0), name: RANGES[name]} for name in RANGES}
    for name, ranges in only.items():
        a, b = sampled(n, **ranges)
        neutral = (a == torch.eye(2)).all(2).all(1) & (b == 0).all(1)
        assert neutral.float().mean().item() == pytest.approx(0.5, abs=0.02), name
        det = a.det()
        if name == "scale":
            zoom = det.rsqrt()
            assert 0.8 <= zoom.min() < 0.81 and 1.24 < zoom.max() <= 1.2501
            assert zoom.log().mean().abs() < 0.003
        if name == "rotation":
            angle = torch.atan2(a[:, 1, 0], a[:, 0, 0]).rad2deg()
            assert -30.01 < angle.min() < -29.5 and 29.5 < angle.max() < 30.01
            torch.testing.assert_close(a @ a.mT, torch.eye(2).expand(n, 2, 2), atol=1e-5, rtol=0)
        if name == "shear":
            assert 0.24 < a[:, 0, 1].max() <= 0.25 and (a[:, 1, 0] == 0).all()
        if name == "translation":
            assert 0.19 < b.abs().max() <= 0.2  # 0.1 of the side, which is 2 long
        if name != "scale":
            torch.testing.assert_close(det, torch.ones(n), atol=1e-5, rtol=0)


def test_the_four_operations_are_independent():
    a, b = sampled(20000)
    neutral = torch.stack([a.det().sub(1).abs() < 1e-6, a[:, 1, 0].abs() < 1e-6, (b == 0).all(1)], dim=1).float()
    assert torch.corrcoef(neutral.T).sub(torch.eye(3)).abs().max() < 0.03
    assert (neutral.sum(1) == 0).any() and (neutral.sum(1) == 3).any()  # shear does not show in these three


def test_inverse():
    a, b = sampled(50, p=1.0)
    c, d = inverse(a, b)
    u = torch.randn(50, 2)
    there = (a @ u[:, :, None])[:, :, 0] + b
    torch.testing.assert_close((c @ there[:, :, None])[:, :, 0] + d, u, atol=1e-5, rtol=1e-5)


def test_warping_back_restores_a_smooth_image_where_it_is_valid():
    a, b = sampled(8, p=1.0)
    v, u = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    x = (torch.sin(2 * u + 1) + torch.cos(3 * v)).expand(8, 1, 64, 64)
    turned, _ = warp(x, a, b, padding="border")
    back, valid = warp(turned, *inverse(a, b), padding="border")
    error = (back - x).abs().flatten(1)
    assert error[valid].max() < 0.1 and error[valid].mean() < 0.01 and 0.3 < valid.float().mean() < 0.95
    assert (turned - x).abs().max() > 0.5 and error[~valid].max() > 0.1


def test_the_gradient_flows_through_the_warp():
    """The warp is linear: its gradient is its transpose."""
    a, b = sampled(2, p=1.0)
    x, delta, g = torch.randn(2, 3, 7, 7, requires_grad=True), torch.randn(2, 3, 7, 7), torch.randn(2, 3, 7, 7)
    (warp(x, a, b)[0] * g).sum().backward()
    change = (warp(delta, a, b)[0] * g).sum()
    torch.testing.assert_close((x.grad * delta).sum(), change, rtol=1e-4, atol=1e-4)


def test_bf16_features_are_warped_in_float32():
    a, b = sampled(2, p=1.0)
    x = torch.randn(2, 3, 14, 14).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = warp(x, a, b)
    assert out.dtype == torch.float32 and torch.equal(out, warp(x.float(), a, b)[0])


def warped_back(maps: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t^-1 of a map [D, h, w] that was seen at A u + b: [D, P], and which cells have their centre inside the frame."""
    h, w = maps.shape[1:]
    cells, valid = [], []
    for row in range(h):
        for column in range(w):
            at = np.linalg.inv(a) @ (np.array([(2 * column + 1) / w - 1, (2 * row + 1) / h - 1]) - b)
            x, y = ((at[0] + 1) * w - 1) / 2, ((at[1] + 1) * h - 1) / 2
            cells.append([bilinear(m, min(max(x, 0), w - 1), min(max(y, 0), h - 1)) for m in maps])
            valid.append(np.abs(at).max() <= 1)
    return np.array(cells).T, np.array(valid)


def test_loss_is_pixpro_on_the_maps_warped_back():
    objective = make("pixpro-affine", tau=1.2, scale=1.5)
    train(objective, lr=0.05)
    batch, twin = batch_for(objective, seed=5), copy.deepcopy(objective)
    torch.manual_seed(3)
    maps = [random_affine(4, CPU, **{**RANGES, "scale": 1.5}) for _ in range(2)]
    turned = [warp(x, *m)[0] for x, m in zip(batch["views"], maps, strict=True)]
    x = [array(twin.projector(twin.encoder.feature_map(v))) for v in turned]
    k = [array(twin.teacher_projector(twin.teacher_encoder.module.feature_map(v))) for v in turned]
    total, count, lost = 0.0, 0, 0
    for i in range(4):
        (x1, in1), (x2, in2) = (warped_back(x[v][i], array(maps[v][0][i]), array(maps[v][1][i])) for v in (0, 1))
        k1, k2 = (warped_back(k[v][i], array(maps[v][0][i]), array(maps[v][1][i]))[0] for v in (0, 1))
        y1, y2 = unit(propagate(x1, objective.value, 2.0, in1), 0), unit(propagate(x2, objective.value, 2.0, in2), 0)
        near = [(p, q) for p in range(16) for q in range(16) if is_positive(batch, i, p, q, 4, 4, 1.2)]
        pairs = [(p, q) for p, q in near if in1[p] and in2[q]]
        count, lost = count + len(pairs), lost + len(near) - len(pairs)
        if pairs:
            total -= np.mean([y1[:, p] @ unit(k2, 0)[:, q] + y2[:, q] @ unit(k1, 0)[:, p] for p, q in pairs])
    assert count > 20 and lost > 5
    torch.manual_seed(3)
    out = objective(batch, 0.5)
    assert out["loss"].item() == pytest.approx(total / 4, rel=1e-4) and out["pairs"].item() == count / 4


def test_without_any_range_it_is_pixpro():
    plain = make("pixpro")
    neutral = make("pixpro-affine", scale=1.0, rotation=0.0, shear=0.0, translation=0.0)
    assert plain.state_dict().keys() == neutral.state_dict().keys()
    batch = batch_for(plain)
    out = neutral(batch, 0.0)
    assert out["loss"].item() == pytest.approx(plain(batch, 0.0)["loss"].item(), abs=1e-5) and out["valid"] == 1


def test_the_warp_changes_loss_and_pairs_and_comes_from_torchs_generator():
    objective = make("pixpro-affine")
    batch = batch_for(objective)

    def run(seed: int) -> dict:
        torch.manual_seed(seed)
        return {k: v.item() for k, v in objective(batch, 0.0).items()}

    assert run(0) == run(0) and run(0)["loss"] != run(1)["loss"] and run(0)["valid"] < 1
    assert run(0)["pairs"] < make("pixpro")(batch, 0.0)["pairs"]


def test_an_equivariant_encoder_gives_the_same_map_on_warped_views():
    """1x1 features commute with a warp, so that t^-1(f(t(X))) is f(X) on valid cells."""
    torch.manual_seed(0)
    objective = make("pixpro-affine")
    objective.encoder.conv = torch.nn.Conv2d(3, 8, 1)
    ramp = torch.linspace(-1, 1, 32)
    x = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)]).expand(4, 3, 32, 32)
    a, b = sampled(4, p=1.0)
    features = objective.encoder.feature_map
    back, valid = warp(features(warp(x, a, b, padding="border")[0]), *inverse(a, b), padding="border")
    error = (back - features(x)).abs().amax(1).flatten(1)
    assert error[valid].max() < 0.1 and error[valid].mean() < 0.01


@pytest.mark.parametrize("side", [7, 14, 28])
def test_most_cells_stay_valid_in_the_default_ranges(side):
    a, b = sampled(2000)
    share = warp(torch.zeros(2000, 1, side, side), *inverse(a, b))[1].float().mean(1)
    assert share.mean().item() == pytest.approx(0.9, abs=0.02) and 0.45 < share.min() < 0.7
