"""Every operation of RandAugment is bit-identical to Pillow's, at every level and at odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from views_reference import PIL_OPS, cutout, from_pil, images, to_pil

from hf_lowlabel.views import pil_ops
from hf_lowlabel.views.counter_rng import Groups
from hf_lowlabel.views.randaugment import OP, OPS, PRESETS, RandAugment, apply_layer

SIZES = (5, 8, 17, 32, 33, 96)
LEVELS = np.arange(1, 10)


def strengths(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Both presets' strengths of an operation in Pillow's unit, and limits."""
    both_signs = np.concatenate([LEVELS, -LEVELS])
    return {
        "posterize": np.arange(1, 9.0),
        "solarize": np.concatenate([256 - LEVELS * 256 // 10, [0, 1, 255, 256, 0.5, 254.3], rng.uniform(0, 256, 9)]),
        "rotate": np.concatenate([both_signs * 3, rng.uniform(-30, 30, 9)]),
        "shear_x": np.concatenate([both_signs * 0.3 / 10, rng.uniform(-0.3, 0.3, 9)]),
        "shear_y": np.concatenate([both_signs * 0.3 / 10, rng.uniform(-0.3, 0.3, 9)]),
        "translate_x": np.concatenate([np.trunc(both_signs * 0.03 * size), rng.uniform(-0.3, 0.3, 9) * size]),
        "translate_y": np.concatenate([np.trunc(both_signs * 0.03 * size), rng.uniform(-0.3, 0.3, 9) * size]),
        "autocontrast": np.zeros(8),
        "equalize": np.zeros(8),
        "identity": np.zeros(2),
    }.get(name, np.concatenate([LEVELS * 0.9 / 10 + 0.05, [0.0, 1.0], rng.uniform(0.05, 0.95, 9)])).astype(float)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPS)
def test_operation_is_pillows(name, size):
    rng = np.random.default_rng(size)
    x = images(12, size, seed=size)
    strength = strengths(name, size, rng)
    x, strength = x.repeat(len(strength), 1, 1, 1), strength.repeat(12)  # every image at every strength
    batch = Groups(x.clone())
    apply_layer(batch, np.full(len(x), OP[name]), strength)
    expected = from_pil([PIL_OPS[name](image, float(v)) for image, v in zip(to_pil(x), strength)])
    assert torch.equal(batch.restored(), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_mixed_layer_is_pillows(size):
    rng = np.random.default_rng(size)
    x = images(240, size, seed=size)
    op = rng.integers(0, len(OPS), len(x))
    strength = np.array([rng.choice(strengths(OPS[k], size, rng)) for k in op])
    batch = Groups(x.clone())
    apply_layer(batch, op, strength)
    expected = from_pil([PIL_OPS[OPS[k]](image, float(v)) for image, k, v in zip(to_pil(x), op, strength)])
    assert torch.equal(batch.restored(), expected)


@pytest.mark.parametrize("size", (17, 32, 96))
@pytest.mark.parametrize("preset", PRESETS)
def test_all_of_randaugment_is_pillows(preset, size):
    """Operations in their order, gates and cutout of the same draws, composed by Pillow image by image."""
    rng, x = np.random.default_rng(1), images(200, size, seed=1)
    step = RandAugment(PRESETS[preset])
    u = rng.random((len(x), step.width))
    op, strength, _ = step.parameters(u, size)
    expected = to_pil(x)
    for layer in range(step.preset.layers):
        expected = [PIL_OPS[OPS[k]](image, float(v)) for image, k, v in zip(expected, op[:, layer], strength[:, layer])]
    sides = np.full(len(x), size // 2) if preset == "fixmatch-pytorch" else 0.5 * u[:, -1] * size
    centre = u[:, -3:-1] * size
    expected = [cutout(image, *at, side, step.preset.level) for image, at, side in zip(expected, centre, sides)]
    assert torch.equal(step(x.clone(), u), from_pil(expected))


def test_luma_is_pillows():
    x = images(12, 33)
    expected = torch.stack([torch.from_numpy(np.array(image.convert("L"))) for image in to_pil(x)])
    assert torch.equal(pil_ops.luma(x), expected.int())


def test_every_level_of_a_contrast_of_eight_hundred_means():
    """The rounding of the mean, which one image in hundreds decides."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (800, 3, 5, 5), dtype=np.uint8))
    factor = rng.uniform(0.05, 0.95, len(x))
    expected = from_pil([PIL_OPS["contrast"](image, float(f)) for image, f in zip(to_pil(x), factor)])
    assert torch.equal(pil_ops.contrast(x, factor), expected)
