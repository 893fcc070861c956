"""Joint views: image, mask and every view of an image show the same place; rows do not depend on their neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_lowlabel.errors import UserError
from hf_lowlabel.objective import IGNORE_INDEX
from hf_lowlabel.views.counter_rng import uniforms
from hf_lowlabel.views.joint import JointView

PLAIN = dict(mean=(0.0,) * 3, std=(1.0,) * 3)


def coded(n: int, H: int, W: int) -> torch.Tensor:
    """Images whose every channel is linear in x and y, and whose mask is the column plus twice the row, modulo 200."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    out = torch.stack([x + 10, y + 10, x + y, (x + 2 * y) % 200]).clamp(max=255).to(torch.uint8)
    return out.expand(n, -1, -1, -1).contiguous()


def test_strong_views_are_unimatch_s():
    """Yang et al. 2023 and dataset/semi.py of its code: jitter 0.8, gray 0.2, blur 0.5 of the images."""
    jitter, gray, blur = JointView({"strong": "strong"}, size=(64, 80), **PLAIN).steps["strong"]
    assert jitter.amounts == (0.5, 0.5, 0.5, 0.25) and (jitter.p, gray.p, blur.p) == (0.8, 0.2, 0.5)
    assert blur.sigma == (0.1, 2.0) and JointView({"weak": "weak"}, size=(64, 80), **PLAIN).steps["weak"] == []


def test_colours_of_classmix_and_clmb_are_their_authors():
    """utils/transformsgpu.py of WilhelmT/ClassMix and of Shathe/SemiSeg-Contrastive, whose jitter halves the saturation
    and takes a third for the hue; blur 0.15 to 1.15 and 0.1 to 1.5 px."""
    jitter, blur = JointView({"v": "classmix"}, size=(64, 80), **PLAIN).steps["v"]
    assert (jitter.amounts, jitter.p, blur.p, blur.sigma) == ((0.25, 0.25, 0.25, 0.25), 0.8, 0.5, (0.15, 1.15))
    jitter, blur = JointView({"v": "clmb"}, size=(64, 80), **PLAIN).steps["v"]
    assert (jitter.amounts, jitter.p, blur.p, blur.sigma) == ((0.25, 0.25, 0.125, 0.25 / 3), 0.8, 0.2, (0.1, 1.5))


def test_colours_of_one_strong_view_do_not_reach_the_next():
    """UniMatch has two: the second is what it would be alone."""
    both, alone = (JointView(dict.fromkeys(keys, "strong"), size=(20, 20), **PLAIN) for keys in (("a", "b"), ("b",)))
    u, sizes = uniforms(0, "t", 0, 8, both.width), torch.tensor([[40, 50]] * 8)
    steps = alone.width - 4
    found = both(coded(8, 40, 50), sizes, u)
    assert torch.equal(found["b"], alone(coded(8, 40, 50), sizes, torch.cat([u[:, :4], u[:, 4 + steps :]], 1))["b"])
    assert not torch.equal(found["a"], found["b"])


def test_an_image_is_valid_for_as_many_pixels_as_it_has():
    """Whole in the window and not scaled, wherever it lies, down to fractions of a pixel."""
    view = JointView({"a": "weak"}, size=(12, 14), scale=(1, 1), **PLAIN)
    valid = view(coded(40, 9, 9), torch.tensor([[4, 6]] * 40), uniforms(0, "t", 0, 40, view.width))["valid"]
    assert valid.flatten(1).sum(1).tolist() == [24] * 40


def test_every_pixel_comes_from_where_the_geometry_says():
    """An independent loop over output pixels in float64; bilinear sampling of a linear image has a closed form."""
    n, H, W, size = 6, 40, 50, (33, 29)
    view = JointView({"a": "weak"}, size=size, scale=(0.5, 1.5), **PLAIN)
    u = uniforms(3, "t", 0, n, view.width)
    sizes = torch.tensor([[40, 50], [30, 50], [40, 21], [12, 9], [40, 50], [2, 2]])
    images = coded(n, H, W)
    out = view(images, sizes, u)
    factor, corner, flip = view.geometry(u.numpy(), sizes.numpy().astype(float))
    assert flip.any() and not flip.all()
    for i in range(n):
        h, w = sizes[i].tolist()
        for r in range(0, size[0], 3):
            for c in range(0, size[1], 3):
                column = size[1] - 1 - c if flip[i] else c
                y = (r + 0.5 + corner[i, 0]) / factor[i]
                x = (column + 0.5 + corner[i, 1]) / factor[i]
                inside = 0 <= y < h and 0 <= x < w
                assert out["valid"][i, r, c] == inside
                if not inside:
                    assert out["target"][i, r, c] == IGNORE_INDEX and (out["a"][i, :, r, c] == 0).all()
                    continue
                assert out["target"][i, r, c] == (int(x) + 2 * int(y)) % 200
                sx, sy = np.clip(x - 0.5, 0, w - 1), np.clip(y - 0.5, 0, h - 1)
                expected = np.array([sx + 10, sy + 10, sx + sy]) / 255
                assert np.allclose(out["a"][i, :, r, c], expected, atol=2e-5)


def test_turned_windows_show_the_place_that_a_turn_by_hand_does():
    """Image, mask and what is valid, at every pixel, by a rotation matrix in float64; others keep their draws."""
    size, sizes = (21, 30), torch.tensor([[40, 50], [30, 50]])
    view = JointView({"a": "weak"}, size=size, scale=(0.8, 1.2), rotation=70, **PLAIN)
    u, images = uniforms(5, "t", 0, 2, view.width), coded(2, 40, 50)
    out = view(images, sizes, u)
    factor, corner, flip = view.geometry(u.numpy(), sizes.numpy().astype(float))
    outside = 0
    for i in range(2):
        angle = np.radians(-70 + 140 * u[i, 4].item())
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for r, c in np.ndindex(*size):
            there = np.array([r + 0.5, (size[1] - c if flip[i] else c + 1) - 0.5]) - np.array(size) / 2
            y, x = (turn @ there + np.array(size) / 2 + corner[i]) / factor[i]
            inside = 0 <= y < sizes[i, 0] and 0 <= x < sizes[i, 1]
            assert out["valid"][i, r, c] == inside
            outside += not inside
            if inside:
                assert out["target"][i, r, c] == (int(x) + 2 * int(y)) % 200
                y, x = (np.clip(v - 0.5, 0, s - 1) for v, s in zip((y, x), sizes[i].tolist()))
                assert out["a"][i, :, r, c].numpy() * 255 == pytest.approx([x + 10, y + 10, x + y], abs=2e-3)
    assert outside > 0
    still, alone = (JointView({"a": "strong"}, size=size, rotation=r, **PLAIN) for r in (0, 70))
    assert still.width + 1 == alone.width


def test_identity():
    images = torch.randint(0, 255, (2, 4, 16, 20), dtype=torch.uint8)
    images[:, 3] = torch.randint(0, 5, (2, 16, 20))
    view = JointView({"a": "weak"}, size=(16, 20), scale=(1.0, 1.0), flip=False, **PLAIN)
    out = view(images, torch.tensor([[16, 20]] * 2), uniforms(0, "t", 0, 2, view.width))
    assert torch.allclose(out["a"], images[:, :3] / 255, atol=1e-5)
    assert torch.equal(out["target"], images[:, 3].long()) and out["valid"].all()


def test_ignored_pixels_and_borders_are_minus_100():
    images = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    images[0, 3, 2] = 255
    view = JointView({"a": "weak"}, size=(12, 12), scale=(1.0, 1.0), **PLAIN)
    out = view(images, torch.tensor([[8, 8]]), uniforms(0, "t", 0, 1, view.width))
    assert out["target"].dtype == torch.int64 and set(out["target"].unique().tolist()) == {IGNORE_INDEX, 0}
    assert (out["target"] >= 0).sum() == 56 and out["valid"].sum() == 64


def test_views_share_their_geometry_and_not_their_colours():
    images = torch.randint(0, 255, (4, 3, 70, 80), dtype=torch.uint8)
    view = JointView({"weak": "weak", "strong": "strong", "strong2": "strong"}, size=(64, 72), **PLAIN)
    u, sizes = uniforms(1, "t", 0, 4, view.width), torch.tensor([[70, 80]] * 4)
    out = view(images, sizes, u)
    assert "target" not in out
    assert not torch.equal(out["strong"], out["strong2"]) and not torch.equal(out["weak"], out["strong"])
    plain = JointView({"weak": "weak"}, size=(64, 72), **PLAIN)
    assert torch.equal(plain(images, sizes, u[:, : plain.width])["weak"], out["weak"])
    calm = u.clone()
    calm[:, 4:] = 0.999  # every chance missed
    out = view(images, sizes, calm)
    assert torch.equal(out["weak"], out["strong"]) and torch.equal(out["weak"], out["strong2"])


def test_rows_depend_on_their_own_image_and_draws_alone():
    images = torch.randint(0, 255, (5, 4, 70, 70), dtype=torch.uint8)
    sizes = torch.tensor([[70, 70], [50, 70], [70, 33], [64, 64], [70, 70]])
    view = JointView({"weak": "weak", "strong": "strong"}, size=(65, 64), mean=(0.4,) * 3, std=(0.2,) * 3)
    u = uniforms(1, "t", 0, 5, view.width)
    whole = view(images, sizes, u)
    for i in range(5):
        alone = view(images[i : i + 1], sizes[i : i + 1], u[i : i + 1])
        for key in whole:
            assert torch.equal(whole[key][i], alone[key][0]), key


def test_scale_and_place_are_uniform_and_flips_even():
    view = JointView({"a": "weak"}, size=(20, 30), scale=(0.5, 1.5), **PLAIN)
    u = uniforms(0, "t", 0, 20_000, view.width).numpy()
    factor, corner, flip = view.geometry(u, np.tile([40.0, 30.0], (20_000, 1)))
    assert abs(factor.mean() - 1) < 0.01 and 0.5 <= factor.min() < 0.501 and 1.499 < factor.max() < 1.5
    assert abs(flip.mean() - 0.5) < 0.02
    room = 40 * factor - 20
    assert (corner[:, 0] >= 0).all() and (corner[:, 0] <= room).all()  # fits
    assert abs((corner[:, 0] / room)[room > 1].mean() - 0.5) < 0.01
    small = 30 * factor < 30  # narrower than the window: lies within
    assert (corner[small, 1] <= 0).all() and (corner[small, 1] + 30 >= 30 * factor[small] - 1e-9).all()
    assert not JointView({"a": "weak"}, size=(20, 30), flip=False, **PLAIN).geometry(u, np.ones((len(u), 2)))[2].any()


def test_bad_input():
    images, sizes = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([[8, 8]] * 2)
    view = JointView({"a": "weak"}, size=(8, 8), **PLAIN)
    with pytest.raises(UserError, match="not uint8"):
        view(images.float(), sizes, uniforms(0, "t", 0, 2, view.width))
    with pytest.raises(UserError, match="must be .2, 4. and .2, 2."):
        view(images, sizes[:1], uniforms(0, "t", 0, 2, view.width))
    with pytest.raises(UserError, match="did you mean 'strong'"):
        JointView({"a": "stronk"}, size=(8, 8), **PLAIN)
    with pytest.raises(UserError, match="can have scale"):
        JointView({"a": "weak"}, size=(8, 8), scale=(0.0, 1.0), **PLAIN)


def test_colours_of_the_authors():
    """ClassMix, CLMB and CutMix jitter less than UniMatch; of them CutMix alone makes gray views, and none blurred."""
    from hf_lowlabel.views.color import Blur, Grayscale, Jitter

    kinds = {k: k for k in ("weak", "strong", "cutmix", "classmix", "clmb")}
    steps = JointView(kinds, size=(64, 64), mean=[0.5] * 3, std=[0.2] * 3).steps
    assert {k: [type(s) for s in v] for k, v in steps.items()} == {
        "weak": [],
        "strong": [Jitter, Grayscale, Blur],
        "cutmix": [Jitter, Grayscale],
        "classmix": [Jitter, Blur],
        "clmb": [Jitter, Blur],
    }
    with pytest.raises(UserError, match="did you mean 'classmix'"):
        JointView({"x": "clasmix"}, size=(64, 64), mean=[0.5] * 3, std=[0.2] * 3)
