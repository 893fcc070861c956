"""What RandAugment draws: operations, levels, signs and gates as the two reference implementations, independently."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats
from views_reference import from_pil, images, kekmodel_randaugment, to_pil

from hf_lowlabel.views import uniforms
from hf_lowlabel.views.randaugment import OP, OPS, PRESETS, RandAugment

ROWS = 600_000  # times 2 layers: 1.2 million operations
ENOUGH = 1e-4  # smallest p-value that passes; draws are fixed, so a pass is a pass for ever
ENHANCERS = ("brightness", "color", "contrast", "sharpness")


@pytest.fixture(scope="module")
def fixmatch_pytorch():
    step = RandAugment(PRESETS["fixmatch-pytorch"])
    op, strength, corners = step.parameters(uniforms(0, "chi", 0, ROWS, step.width).numpy(), 32)
    return op, strength, corners


def equally_often(values: np.ndarray, expected: list) -> None:
    found, count = np.unique(values, return_counts=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert stats.chisquare(count).pvalue > ENOUGH


def independent(a: np.ndarray, b: np.ndarray) -> None:
    table = np.histogram2d(a, b, bins=[np.unique(a).size, np.unique(b).size])[0]
    assert (table > 0).all() and stats.chi2_contingency(table).pvalue > ENOUGH


def test_operations_are_gated_with_one_half_and_equally_frequent(fixmatch_pytorch):
    op = fixmatch_pytorch[0]
    for layer in range(2):
        count = np.bincount(op[:, layer], minlength=len(OPS))
        chance = np.full(len(OPS), 0.5 / len(OPS))
        chance[OP["identity"]] += 0.5
        assert stats.chisquare(count, chance * ROWS).pvalue > ENOUGH


def test_levels_are_one_to_nine(fixmatch_pytorch):
    op, strength, _ = fixmatch_pytorch
    levels = np.arange(1, 10)
    for name in ENHANCERS:
        equally_often(strength[op == OP[name]].round(9), list(levels * 0.09 + 0.05))
    equally_often(strength[op == OP["solarize"]], sorted(256 - (levels * 256 / 10).astype(int)))
    both = sorted([*levels, *-levels])
    equally_often(strength[op == OP["rotate"]], [level * 3 for level in both])
    for name in ("shear_x", "shear_y"):
        equally_often(strength[op == OP[name]].round(9), [level * 0.03 for level in both])
    # some levels move by the same whole number of px, and level 1 and 2 keep the same 4 bits
    for name in ("translate_x", "translate_y"):
        moves, expected = (
            np.bincount(v.astype(int) + 9, minlength=19)
            for v in (strength[op == OP[name]], np.trunc(np.array(both) * 0.3 / 10 * 32))
        )
        used = expected > 0
        assert moves[~used].sum() == 0
        assert stats.chisquare(moves[used], expected[used] / 18 * moves.sum()).pvalue > ENOUGH
    bits = np.bincount(strength[op == OP["posterize"]].astype(int), minlength=8)[4:]
    assert stats.chisquare(bits, np.array([2, 2, 3, 2]) / 9 * bits.sum()).pvalue > ENOUGH


def test_layers_samples_levels_and_signs_are_independent(fixmatch_pytorch):
    op, strength, corners = fixmatch_pytorch
    independent(op[:, 0], op[:, 1])
    independent(op[:-1, 0], op[1:, 0])  # neighbouring samples
    independent(op[:-1, 1], op[1:, 0])
    level = ((strength - 0.05) / 0.09).round()
    both = np.isin(op, [OP[name] for name in ENHANCERS]).all(1)
    independent(level[both, 0], level[both, 1])
    turned = np.isin(op, [OP["rotate"], OP["shear_x"], OP["shear_y"]])
    pairs = turned.all(1)
    independent(np.sign(strength[pairs, 0]), np.sign(strength[pairs, 1]))
    rotated = op[:, 0] == OP["rotate"]
    independent(np.sign(strength[rotated, 0]), np.abs(strength[rotated, 0]))
    independent(op[:, 0], corners[:, 0])


def test_cutout_centres_are_uniform(fixmatch_pytorch):
    corners = fixmatch_pytorch[2]
    for axis in range(2):
        low = np.bincount(corners[:, axis], minlength=24)
        # centre in [0, 32), low = trunc(max(0, centre - 8)): 0 for 9 px of centres, then each px alike
        assert stats.chisquare(low, np.array([9] + [1] * 23) / 32 * ROWS).pvalue > ENOUGH
        assert (corners[:, axis + 2] == np.minimum(corners[:, axis] + 16, 32)).all()


def test_usb_strengths_are_continuous_and_never_gated():
    step = RandAugment(PRESETS["usb"])
    op, strength, corners = step.parameters(uniforms(0, "usb", 0, 400_000, step.width).numpy(), 32)
    assert op.shape[1] == 3
    equally_often(op.ravel(), list(range(len(OPS))))
    ranges = {"rotate": (-30, 30), "shear_x": (-0.3, 0.3), "translate_y": (-9.6, 9.6), "solarize": (0, 256)}
    for name, (low, high) in (ranges | {name: (0.05, 0.95) for name in ENHANCERS}).items():
        assert stats.kstest(strength[op == OP[name]], stats.uniform(low, high - low).cdf).pvalue > ENOUGH
    equally_often(strength[op == OP["posterize"]], [4, 5, 6, 7])
    independent(op[:, 0], op[:, 2])
    sides = corners[:, 2] - corners[:, 0]  # trunc(low + side), side < 16
    assert sides.max() == 15 and len(np.unique(sides)) == 16


@pytest.fixture(scope="module")
def both_augmented():
    """The same images with draws of ours and with draws of the reference."""
    x = images(3000, 16, seed=5)
    step, rng = RandAugment(PRESETS["fixmatch-pytorch"]), random.Random(0)
    mine = step(x.clone(), uniforms(0, "smoke", 0, len(x), step.width).numpy())
    return mine, from_pil([kekmodel_randaugment(image, rng) for image in to_pil(x)])


@pytest.mark.parametrize("statistic", ["mean", "std", "black"])
def test_images_have_the_statistics_of_the_reference(statistic, both_augmented):
    """A smoke test of everything together: other draws, same distribution of a statistic."""
    mine, reference = both_augmented
    measure = {
        "mean": lambda y: y.float().mean((1, 2, 3)),
        "std": lambda y: y.float().std((1, 2, 3)),
        "black": lambda y: y.eq(0).float().mean((1, 2, 3)),
    }[statistic]
    assert stats.ks_2samp(measure(mine).numpy(), measure(reference).numpy()).pvalue > 1e-3
