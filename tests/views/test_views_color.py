"""Photometric steps against torchvision's float operations and against independent float64 computations."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as V
from scipy import stats
from views_reference import images

from hf_lowlabel.views import uniforms
from hf_lowlabel.views.color import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NOTHING,
    SATURATION,
    Blur,
    Grayscale,
    HsvJitter,
    Jitter,
    Solarize,
    hue,
    turn_hue,
)

ADJUST = {
    BRIGHTNESS: V.adjust_brightness,
    CONTRAST: V.adjust_contrast,
    SATURATION: V.adjust_saturation,
    HUE: V.adjust_hue,
}


def floats(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return images(n, size, seed).float() / 255


@pytest.mark.parametrize("amounts", [(0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.0, 0.0)])
def test_jitter_is_torchvisions_in_the_samples_own_order(amounts):
    x, step = floats(160, 17), Jitter(*amounts)
    u = uniforms(0, "jitter", 0, len(x), step.width).numpy()
    strength, order = step.parameters(u)
    out = step(x.clone(), u)
    for k in range(len(x)):
        expected = x[k]
        for kind in order[k]:
            if kind != NOTHING:
                expected = ADJUST[kind](expected, float(strength[k, kind]))
        torch.testing.assert_close(out[k], expected, rtol=0, atol=3e-6)
    assert (order == NOTHING).all(1).any() and not torch.equal(out, x)


def test_jitter_draws_what_torchvision_draws():
    step = Jitter(0.4, 1.5, 0.2, 0.1, p=0.8)
    strength, order = step.parameters(uniforms(0, "draws", 0, 200_000, step.width).numpy())
    for k, (low, high) in enumerate([(0.6, 1.4), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)]):
        assert stats.kstest(strength[:, k], stats.uniform(low, high - low).cdf).pvalue > 1e-4
    on = (order != NOTHING).all(1)
    assert ((order == NOTHING).all(1) | on).all() and abs(on.mean() - 0.8) < 0.004
    codes = np.unique(order[on] @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(codes) == 24 and stats.chisquare(codes).pvalue > 1e-4
    off = Jitter(0.4, 0.4, 0.0, 0.0).parameters(uniforms(0, "draws", 0, 100, 9).numpy())[1]
    assert not np.isin(off, [SATURATION, HUE]).any() and np.isin(off, [BRIGHTNESS, CONTRAST]).any()


def test_clamping_between_the_steps_matters():
    """Brighter and then darker than at first loses what was clamped: one matrix for all steps would not."""
    x = torch.full((1, 3, 4, 4), 0.9)
    u = np.zeros((1, 9))
    u[0, :3], u[0, 4:8] = (1, 0.5, 0.5), (0, 1, 2, 3)  # brightness 1.4, the others 1
    u[0, 3] = 0.5
    assert Jitter(0.4, 0.4, 0.2, 0.1)(x.clone(), u).max() == 1


def test_hue_is_that_of_colorsys():
    rng = np.random.default_rng(0)
    corners = [rng.integers(0, 3, (200, 3)) * 127, np.eye(3) * 255]
    colours = np.concatenate([rng.integers(0, 256, (500, 3)), *corners]) / 255
    x = torch.from_numpy(colours.T[None, :, :, None]).float()
    expected = [colorsys.rgb_to_hsv(*colour) for colour in colours]
    h, low, chroma = hue(x.clone())
    turns = (h.flatten() / 6 - torch.tensor([e[0] for e in expected])).double()
    assert (turns - turns.round()).abs().max() < 1e-6  # 0 and 1 are the same hue
    torch.testing.assert_close((low + chroma).flatten(), torch.tensor([e[2] for e in expected]).float())
    for turn in (-0.2, 0.05, 0.5):
        y = x.clone()
        turn_hue(y, np.array([turn]))
        back = torch.tensor([colorsys.hsv_to_rgb((e[0] + turn) % 1, e[1], e[2]) for e in expected])
        torch.testing.assert_close(y[0, :, :, 0].T.double(), back.double(), rtol=0, atol=3e-6)


def test_grayscale_and_solarize():
    x = floats(200, 9)
    u = uniforms(0, "gray", 0, len(x), 1).numpy()
    chosen = torch.from_numpy(u[:, 0] < 0.2)
    gray = Grayscale(0.2)(x.clone(), u)
    torch.testing.assert_close(gray[chosen], V.rgb_to_grayscale(x[chosen], 3))
    assert torch.equal(gray[~chosen], x[~chosen]) and 20 < chosen.sum() < 60
    solarized = Solarize(0.2)(x.clone(), u)
    torch.testing.assert_close(solarized[chosen], V.solarize(x[chosen], 128 / 255))
    assert torch.equal(solarized[~chosen], x[~chosen])
    assert torch.equal(Grayscale(1.0)(x.clone(), u), Grayscale(1.0)(x.clone(), u * 0))


@pytest.mark.parametrize("size", [64, 97, 224])
def test_blur_is_torchvisions(size):
    x, step = floats(4 if size > 100 else 24, size), Blur(0.7, size)
    u = uniforms(0, "blur", 0, len(x), step.width).numpy()
    out, taps = step(x.clone(), u), 2 * step.radius + 1
    assert taps == {64: 7, 97: 9, 224: 23}[size]
    for k in range(len(x)):
        expected = V.gaussian_blur(x[k], [taps, taps], [0.1 + 1.9 * float(u[k, 1])] * 2) if u[k, 0] < 0.7 else x[k]
        torch.testing.assert_close(out[k], expected, rtol=0, atol=1e-3 if u[k, 0] < 0.7 else 0)
    assert 0 < (u[:, 0] < 0.7).sum() < len(x)


def test_blur_keeps_constants_and_the_mean_grows_smoother_with_sigma():
    flat = torch.full((3, 3, 64, 64), 100 / 255)
    u = np.array([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]])
    out = Blur(1.0, 64)(flat, u)
    assert (out - out[0, 0, 0, 0]).abs().max() == 0 and (out - flat).abs().max() < 2**-11
    noise = floats(1, 64).expand(3, -1, -1, -1).clone()
    spread = Blur(1.0, 64)(noise, u).std((1, 2, 3))
    assert spread[0] > spread[1] > spread[2]


def test_hsv_jitter_follows_its_formula():
    """Power, factor and offset on S and V and a shift of H, pixel by pixel in float64."""
    x, step = floats(12, 8, seed=3), HsvJitter()
    u = uniforms(0, "hsv", 0, len(x), step.width).numpy()
    out = step(x.clone(), u)
    for k, row in enumerate(u):
        power, factor = 2 ** (-2 + 4 * row[[0, 3]]), 2 ** (-0.5 + row[[1, 4]])
        offset, turn = -0.1 + 0.2 * row[[2, 5]], -0.1 + 0.2 * row[6]
        for i, j in np.ndindex(8, 8):
            h, s, v = colorsys.rgb_to_hsv(*x[k, :, i, j].double().tolist())
            rounded = np.floor(np.array([s, v]) * 255 + 0.5) / 255
            s, v = (factor * rounded**power + offset).clip(0, 1)
            expected = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v), dtype=torch.float32)
            # a saturation half-way between two levels may be rounded to either
            torch.testing.assert_close(out[k, :, i, j], expected, rtol=0, atol=0.02)
    exact = torch.stack([x[:, c] for c in range(3)], 1)
    assert not torch.equal(out, exact)
