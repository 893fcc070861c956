"""Crops show what their boxes say, resize like Pillow, and never mirror where they must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from views_reference import from_pil, images, to_pil

from hf_lowlabel.errors import UserError
from hf_lowlabel.views import uniforms
from hf_lowlabel.views.crops import CentreCrop, ResizedCrop, ShiftCrop

PIL_FILTER = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def draws(crop, n: int, stream: str = "crop") -> np.ndarray:
    return uniforms(0, stream, 0, n, crop.width).numpy()


@pytest.mark.parametrize("interpolation", PIL_FILTER)
@pytest.mark.parametrize("S, size", [(32, 32), (33, 24), (96, 32), (8, 16), (50, 64), (71, 31), (256, 224)])
def test_resized_crop_is_pillows_within_one_level(S, size, interpolation):
    n = 6 if S > 200 else 80
    x, crop = images(n, S, seed=S), ResizedCrop(size, interpolation=interpolation)
    u = draws(crop, n)
    box, flip = crop.geometry(u, S)
    expected = []
    for image, corners, mirror in zip(to_pil(x), box, flip):
        image = image.crop(tuple(int(v) for v in corners))
        for wh in ((size, image.height), (size, size)):  # columns first: Pillow 13 sometimes takes the rows first
            image = image.resize(wh, PIL_FILTER[interpolation])
        expected.append(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image)
    difference = (crop(x, u) - from_pil(expected).float()).abs()
    assert difference.max() <= 1 and difference.mean() < 0.3 and flip.any() and not flip.all()


def test_resized_crop_gives_whole_levels_and_keeps_a_constant():
    x, crop = torch.full((40, 3, 20, 20), 255, dtype=torch.uint8), ResizedCrop(13)
    x[20:] = 77
    out = crop(x, draws(crop, 40))
    assert torch.equal(out, x[..., :13, :13].float())


def test_boxes_follow_torchvisions_rule():
    crop, S = ResizedCrop(32, scale=(0.08, 1.0)), 200
    box, flip = crop.geometry(draws(crop, 100_000), S)
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    assert (box[:, :2] >= 0).all() and (box[:, 2:] <= S).all() and (box == box.round()).all()
    assert abs(flip.mean() - 0.5) < 0.01
    ratio, share = width / height, width * height / S**2
    assert ratio.min() > 0.73 and ratio.max() < 1.36 and share.min() > 0.075
    # small boxes always fit, so that below half the image the area is uniform and the log ratio too
    small = share < 0.5
    assert stats.kstest(share[small & (share > 0.1)], stats.uniform(0.1, 0.4).cdf).statistic < 0.01
    assert stats.kstest(np.log(ratio[small]), stats.uniform(np.log(3 / 4), 2 * np.log(4 / 3)).cdf).statistic < 0.02
    room = S - width
    place = (box[:, 0] + 0.5) / (room + 1)
    assert stats.kstest(place[room > 60], "uniform").statistic < 0.02


def test_boxes_match_torchvisions_draws_in_distribution():
    from torchvision.transforms import v2

    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(32)
    found = [theirs.make_params([torch.empty(3, 64, 64)]) for _ in range(3000)]
    crop = ResizedCrop(32)
    box, _ = crop.geometry(draws(crop, 3000), 64)
    for mine, name in ((box[:, 2] - box[:, 0], "width"), (box[:, 3] - box[:, 1], "height"), (box[:, 1], "top")):
        assert stats.ks_2samp(mine, [params[name] for params in found]).pvalue > 1e-3


def test_smallest_area_and_the_fallback():
    crop = ResizedCrop(8, scale=(0.5, 1.0))
    box, _ = crop.geometry(draws(crop, 5000), 8)
    share = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / 64
    assert share.min() > 0.4  # sides are rounded to whole px
    tall = ResizedCrop(8, scale=(0.99, 1.0), ratio=(3.0, 4.0))  # never fits
    box, _ = tall.geometry(draws(tall, 50), 16)
    assert (box == [0, 0, 16, 16]).all()


@pytest.mark.parametrize("S, size", [(32, 32), (33, 33), (8, 8), (40, 32), (9, 4)])
def test_shift_crop_is_a_window_of_the_reflected_image(S, size):
    x, crop = images(50, S), ShiftCrop(size)
    u = draws(crop, 50)
    box, flip = crop.geometry(u, S)
    pad = round(S / 8) if S == size else 0
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    for out, source, (x0, y0, x1, y1), mirror in zip(crop(x, u).numpy(), padded, box.astype(int) + pad, flip):
        window = source[:, y0:y1, x0:x1]
        assert window.shape == (3, size, size)
        assert np.array_equal(out, window[..., ::-1] if mirror else window)


def test_shifts_are_uniform():
    crop = ShiftCrop(32)
    box, flip = crop.geometry(draws(crop, 100_000), 32)
    for axis in range(2):
        assert stats.chisquare(np.bincount(box[:, axis].astype(int) + 4, minlength=9)).pvalue > 1e-4
    assert stats.chi2_contingency(np.histogram2d(box[:, 0], flip, bins=(9, 2))[0]).pvalue > 1e-4
    assert abs(flip.mean() - 0.5) < 0.01


@pytest.mark.parametrize("make", [ShiftCrop, ResizedCrop])
@pytest.mark.parametrize("S, size", [(64, 32), (64, 64)])
def test_boxes_are_where_the_pixels_come_from(make, S, size):
    """An image whose red is its column and whose green is its row shows where every output pixel was cut from."""
    ramp = torch.arange(S, dtype=torch.uint8) * 3
    x = torch.stack([ramp.expand(S, S), ramp[:, None].expand(S, S), torch.zeros(S, S, dtype=torch.uint8)])
    n = 200
    crop = make(size)
    u = draws(crop, n)
    box, flip = crop.geometry(u, S)
    out = crop(x.expand(n, -1, -1, -1), u).float().numpy() / 3
    centre = (np.arange(size) + 0.5) / size
    column = box[:, :1] + centre * (box[:, 2:3] - box[:, :1]) - 0.5  # [n, size], px of the pool image
    column = np.where(flip[:, None], column[:, ::-1], column)
    row = box[:, 1:2] + centre * (box[:, 3:] - box[:, 1:2]) - 0.5
    # inside the image and 2 px from the border of the box, where the filter is not cut off
    inner = np.abs(centre - 0.5) * (box[:, 2:3] - box[:, :1]) < (box[:, 2:3] - box[:, :1]) / 2 - 2
    for found, expected, ok in ((out[:, 0], column[:, None, :], inner[:, None, :]), (out[:, 1], row[:, :, None], None)):
        if ok is None:
            ok = (np.abs(centre - 0.5) * (box[:, 3:] - box[:, 1:2]) < (box[:, 3:] - box[:, 1:2]) / 2 - 2)[:, :, None]
        ok = ok & (expected >= 0) & (expected <= S - 1)
        error = np.where(ok, np.abs(found - expected), 0)
        assert ok.mean() > 0.4 and error.max() < 0.75


def test_centre_crop_is_the_middle():
    x = images(3, 40)
    crop = CentreCrop(32)
    assert torch.equal(crop(x, np.empty((3, 0))), x[..., 4:36, 4:36])
    assert crop.geometry(np.empty((3, 0)), 40)[0].tolist() == [[4, 4, 36, 36]] * 3
    assert crop(x, np.empty((3, 0))).data_ptr() != x.data_ptr()


@pytest.mark.parametrize("make", [ShiftCrop, ResizedCrop])
def test_flips_can_be_switched_off(make):
    crop, free = make(16, flip=False), make(16)
    u = draws(crop, 300)
    assert not crop.geometry(u, 16)[1].any() and free.geometry(u, 16)[1].any()
    mirrored = free.geometry(u, 16)[1]
    x = images(300, 16)
    assert torch.equal(crop(x, u)[mirrored].flip(-1), free(x, u)[mirrored])


def test_a_pool_smaller_than_the_view_is_refused():
    for crop in (ShiftCrop(32), CentreCrop(32)):
        with pytest.raises(UserError, match="stored at 16 px"):
            crop(images(2, 16), draws(crop, 2))
