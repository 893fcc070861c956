"""A view as a whole: normalised, a function of its own image and draws alone, and made without waiting for a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from views_reference import images

from hf_lowlabel.errors import UserError
from hf_lowlabel.methods import find
from hf_lowlabel.views import VIEWS, build_view, uniforms
from hf_lowlabel.views.color import Blur, Grayscale, HsvJitter, Jitter
from hf_lowlabel.views.crops import TRIES, ResizedCrop
from hf_lowlabel.views.randaugment import RandAugment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def view_of(kind: str, size: int, **options):
    return build_view(kind, size=size, mean=MEAN, std=STD, **options)


def draws(view, n: int) -> torch.Tensor:
    return uniforms(0, "view", 0, n, view.width)


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("S, size, n", [(32, 32, 97), (31, 19, 61), (96, 80, 13), (8, 8, 40)])
def test_a_batch_may_be_cut_anywhere(kind, S, size, n):
    x, view = images(n, S), view_of(kind, size)
    u = draws(view, n)
    whole = view(x, u)
    side = round(96 / 224 * size) if kind == "dino-local" else size
    assert whole.shape == (n, 3, side, side) and whole.dtype == torch.float32 and whole.isfinite().all()
    for cuts in ([1, n - 1], [n // 2, n - n // 2], [7] * (n // 7) + [n % 7]):
        parts = [view(a, b) for a, b in zip(x.split(cuts), u.split(cuts))]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert torch.equal(view(x[order], u[order]), whole[order])


@pytest.mark.parametrize("kind", ["strong", "byol1", "byol2", "exemplar"])
def test_a_large_image_by_itself_and_any_number_of_threads(kind, request):
    x, view = images(3, 256), view_of(kind, 224)
    u, threads = draws(view, 3), torch.get_num_threads()
    whole = view(x, u)
    assert torch.equal(view(x[2:], u[2:])[0], whole[2])
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(3 - min(threads, 2))
    assert torch.equal(view(x, u), whole)


@pytest.mark.parametrize("kind", VIEWS)
def test_the_pool_is_never_written_to(kind):
    x = images(40, 32)
    view = view_of(kind, 32)
    view(x, draws(view, 40))
    assert torch.equal(x, images(40, 32))


def test_plain_is_the_normalised_middle():
    x = images(5, 40)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (MEAN, STD))
    expected = (x[..., 4:36, 4:36].double() / 255 - mean) / std
    view = view_of("eval", 32)
    torch.testing.assert_close(view(x, draws(view, 5)).double(), expected, rtol=0, atol=1e-6)
    half = build_view("eval", size=32, mean=MEAN, std=STD, dtype=torch.bfloat16)
    assert half(x, draws(view, 5)).dtype == torch.bfloat16


def test_strong_is_weak_and_then_randaugment():
    x, weak, strong = images(64, 32), view_of("weak", 32), view_of("strong", 32)
    u = draws(strong, 64)
    shifted, _ = weak.crop(x, u[:, :3].numpy()), weak.width
    augmented = strong.steps[0](shifted, u[:, 3:].numpy())
    plain = view_of("eval", 32)
    assert torch.equal(strong(x, u), plain(augmented, draws(plain, 64)))


@pytest.mark.parametrize("kind", VIEWS)
def test_flip_false_switches_every_flip_off(kind):
    view = view_of(kind, 24, flip=False)
    assert not view.geometry(draws(view, 500), 24)[1].any()
    if kind != "eval":
        assert view_of(kind, 24).geometry(draws(view, 500), 24)[1].float().mean().sub(0.5).abs() < 0.1


@pytest.mark.parametrize("kind", ["byol1", "pixpro2", "weak"])
def test_boxes_are_px_of_the_pool_image(kind):
    """A white image with one black column: it appears in the view where the box says, or not at all."""
    view, S, size, n = view_of(kind, 64, flip=True), 64, 64, 60
    x = torch.full((n, 3, S, S), 255, dtype=torch.uint8)
    x[..., 30:34] = 0
    u = draws(view, n)
    box, flip = view.geometry(u, S)
    assert box.dtype == torch.float32 and flip.dtype == torch.bool
    crop = view.crop(x, u[:, : view.crop.width].numpy()).float()[:, 0].mean(1)  # [n, size]
    at = (32 - box[:, 0]) / (box[:, 2] - box[:, 0]) * size
    at = torch.where(flip, size - at, at)
    seen = (at > 4) & (at < size - 4)
    weight = 255 - crop.clamp(0, 255)
    found = (weight * (torch.arange(size) + 0.5)).sum(1) / weight.sum(1).clamp(min=1)
    assert seen.sum() > 20 and (found - at)[seen].abs().max() < 1


def test_small_views_are_not_blurred_and_weaker_simclr_below_64_px():
    steps = {size: {type(step): step for step in view_of("simclr", size).steps} for size in (32, 64)}
    assert Blur in steps[64] and Blur not in steps[32]
    assert steps[64][Jitter].amounts == (0.8, 0.8, 0.8, 0.2) and steps[32][Jitter].amounts == (0.4, 0.4, 0.4, 0.1)
    assert {type(step): step for step in view_of("byol1", 32).steps}[Jitter].amounts == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize("size", [32, 64])
def test_comatch_has_the_second_strong_view_of_its_authors(size):
    """RandomResizedCrop(scale=(0.2, 1)), ColorJitter(0.4, 0.4, 0.4, 0.1) at 0.8, RandomGrayscale(0.2), no blur."""
    view = view_of(find("comatch").unlabeled_views["strong2"], size)
    jitter, gray = view.steps
    assert (type(jitter), jitter.amounts, jitter.p) == (Jitter, (0.4, 0.4, 0.4, 0.1), 0.8)
    assert (type(gray), gray.p) == (Grayscale, 0.2) and view.crop.scale == (0.2, 1.0)


@pytest.mark.parametrize("kind", VIEWS)
def test_gray_data_stays_gray_without_color(kind):
    view = view_of(kind, 32, color=False)
    assert not any(isinstance(step, (Grayscale, HsvJitter)) for step in view.steps)
    x = images(60, 32)[:, :1].expand(-1, 3, -1, -1).contiguous()
    plain = build_view(kind, size=32, mean=(0, 0, 0), std=(1, 1, 1), color=False)(x, draws(view, 60))
    spread = (plain - plain[:, :1]).abs().max()
    assert spread < 1e-5
    assert any(isinstance(step, RandAugment) for step in view.steps) == (kind == "strong")


@pytest.mark.parametrize("preset", ["fixmatch-pytorch", "usb"])
@pytest.mark.parametrize("kind", VIEWS)
def test_colours_stay_without_color(kind, preset):
    """Of a plane image brightness alone changes: its channels keep their order and their shares, with RandAugment too.

    Cutout's gray and what lies outside of a moved image are no pixels of it.
    """
    x = torch.tensor([120, 60, 30], dtype=torch.uint8)[:, None, None].expand(400, 3, 24, 24).contiguous()
    plain = dict(size=24, mean=(0, 0, 0), std=(1, 1, 1), preset=preset, randaugment=True)
    apart = {}
    for color in (False, True):
        view = build_view(kind, color=color, **plain)
        view.steps = [step for step in view.steps if not isinstance(step, Jitter)]  # whose contrast mixes in gray
        for step in view.steps:
            step.cutout = False
        pixels = view(x, draws(view, 400)) * 255
        shares = pixels / pixels.amax(1, keepdim=True).clamp(min=1)
        of_image = (pixels.amax(1) >= 1) & ((pixels - 127).abs().amax(1) > 1.5)
        apart[color] = ((shares[:, 1] > shares[:, 0] + 0.02) | (shares[:, 2] > shares[:, 1] + 0.02)) & of_image
    assert not apart[False].any()
    assert apart[True].any() == (VIEWS[kind].crop == "resized" or kind == "strong")


def test_smallest_scale():
    view = view_of("byol1", 8, min_scale=0.5)
    box, _ = view.geometry(draws(view, 2000), 8)
    assert ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).min() >= 25


def test_local_crops():
    """Caron et al. 2021, section 3.1: 96 px of 5 to 40 % of the image beside 224 px, half of them blurred."""
    view = view_of("dino-local", 224, min_scale=0.5)
    box, _ = view.geometry(draws(view, 4000), 224)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / 224**2
    assert view.crop.size == 96 and 0.045 < area.min() < 0.06 and 0.39 < area.max() < 0.41
    assert [type(step).__name__ for step in view.steps] == ["Jitter", "Grayscale", "Blur"] and view.steps[2].p == 0.5
    for size, patch, side in ((224, 14, 98), (256, 16, 112), (32, 1, 14), (32, 16, 16)):
        assert view_of("dino-local", size, multiple=patch).crop.size == side


def test_randaugment_before_the_colours_of_a_resized_crop():
    view, plain = view_of("byol2", 32, randaugment=True), view_of("byol2", 32)
    assert [type(step).__name__ for step in view.steps] == ["RandAugment", "Jitter", "Grayscale", "Solarize"]
    x, u = images(50, 32), draws(view, 50)
    cut = view.crop.width
    cropped = view.crop(x, u[:, :cut].numpy())
    assert torch.equal(cropped, cropped.round()) and cropped.min() >= 0 and cropped.max() <= 255
    augmented = view.steps[0](cropped.to(torch.uint8), u[:, cut : cut + view.steps[0].width].numpy())
    assert not view.steps[0].cutout and not torch.equal(augmented, cropped.to(torch.uint8))
    whole = view(x, u)
    assert torch.equal(torch.cat([view(x[:9], u[:9]), view(x[9:], u[9:])]), whole)
    assert view.width == plain.width + view.steps[0].width and view_of("weak", 32, randaugment=True).steps == []


def test_presets_differ_and_kinds_of_a_pair_differ():
    x = images(32, 32)
    fixmatch_pytorch, usb = view_of("strong", 32), view_of("strong", 32, preset="usb")
    assert fixmatch_pytorch.width != usb.width and usb(x, draws(usb, 32)).isfinite().all()
    first, second = view_of("byol1", 64), view_of("byol2", 64)
    assert [type(s).__name__ for s in first.steps] == ["Jitter", "Grayscale", "Blur"]
    assert [type(s).__name__ for s in second.steps] == ["Jitter", "Grayscale", "Blur", "Solarize"]


class Calls(TorchDispatchMode):
    """Counts operations, and refuses those that would make the host wait for a device."""

    waits = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "bincount", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        assert func.overloadpacket.__name__ not in self.waits, func
        assert not any(isinstance(a, torch.Tensor) and a.dtype == torch.bool for a in _indices(func, args)), func
        return func(*args, **(kwargs or {}))


def _indices(func, args):
    return args[1] if func.overloadpacket.__name__ in ("index", "index_put_") else ()


@pytest.mark.parametrize("kind", VIEWS)
def test_no_waiting_and_no_loop_over_images(kind):
    view, counts = view_of(kind, 64), []
    for times in (1, 1, 2, 3):
        x, u = images(64, 64).repeat(times, 1, 1, 1), draws(view, 64).repeat(times, 1)
        with Calls() as calls:
            view._fill(torch.empty(64 * times, 3, view.crop.size, view.crop.size), x, u.numpy())
        counts.append(calls.count)
    counts = counts[1:]  # the first call also copies the constants of the normalisation
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", VIEWS)
def test_on_cuda_without_a_synchronisation_and_like_the_cpu(kind):
    x, view = images(64, 72), view_of(kind, 64)
    u = draws(view, 64)
    resident = x.cuda()
    view(resident, u)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = view(resident, u)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (out.cpu() - view(x, u)).abs() * 0.225 * 255  # levels
    assert difference.max() < (0.01 if kind in ("weak", "strong", "eval") else 2.5) and difference.mean() < 0.05
    assert torch.equal(torch.cat([view(resident[:7], u[:7]), view(resident[7:], u[7:])]), out)


def test_bad_input_is_refused():
    view = view_of("weak", 32)
    with pytest.raises(UserError, match="did you mean 'weak'"):
        view_of("week", 32)
    with pytest.raises(UserError, match="did you mean 'fixmatch-pytorch'"):
        view_of("strong", 32, preset="fixmatch-torch")
    with pytest.raises(UserError, match="min_scale"):
        view_of("byol1", 32, min_scale=0.0)
    for x, u in (
        (torch.zeros(2, 3, 32, 32), draws(view, 2)),
        (images(2, 32)[:, :1], draws(view, 2)),
        (images(2, 32)[:, :, :9], draws(view, 2)),
        (images(2, 32), draws(view, 3)),
        (images(2, 32), draws(view, 2)[:, :2]),
        (images(2, 32), draws(view, 2).float()),
    ):
        with pytest.raises(UserError, match="must be"):
            view(x, u)
    assert view(images(2, 32)[:0], draws(view, 0)).shape == (0, 3, 32, 32)


def test_draws_of_a_view_are_all_used():
    """Changing any one draw changes some view, so that no two decisions share a number and none is idle."""
    x = images(80, 64, seed=9)
    rng = np.random.default_rng(0)
    for kind in ("strong", "byol2"):
        view = view_of(kind, 64)
        u = draws(view, 80)
        base = view(x, u)
        for column in range(view.width):
            changed = u.clone()
            changed[:, column] = torch.from_numpy(rng.random(80))
            if kind == "strong" and column == view.width - 1:
                continue  # the side of fixmatch-pytorch's cutout is fixed
            if isinstance(view.crop, ResizedCrop) and column % TRIES > 1 and column < 2 * TRIES:
                continue  # the third and later tries of a box are rarely needed
            assert not torch.equal(view(x, changed), base), (kind, column)
