"""Pictures that are all but the same: what people's folders have of them, and what is not one."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.evaluation.near_copies import copies_tested, near_copies, small_copies


def picture(seed: int, size=(96, 64)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def cache(*images: Image.Image, filled: int = 0):
    """As of classes, or with `filled` of images at their own sizes, filled up, with a mask as fourth channel."""
    arrays = [np.asarray(image.convert("RGB")).transpose(2, 0, 1) for image in images]
    sizes = torch.tensor([a.shape[1:] for a in arrays])
    out = np.full((len(arrays), 4 if filled else 3, *sizes.amax(0).tolist()), filled, np.uint8)
    for one, a in zip(out, arrays):
        one[:3, : a.shape[1], : a.shape[2]] = a
    ids = [f"{i}.jpg" for i in range(len(images))]
    found = SimpleNamespace(take=lambda at: torch.from_numpy(out[at.numpy()]), ids=ids)
    if filled:
        found.sizes = sizes
    return found


EVERY = [*map(picture, range(6)), jpeg(picture(2)), Image.new("RGB", (96, 64)), Image.new("RGB", (96, 64))]


def test_a_file_saved_anew_and_blank_pictures():
    assert near_copies(small_copies(cache(*EVERY), torch.arange(9))) == [(2, 6), (7, 8)]
    assert near_copies(small_copies(cache(*EVERY), torch.tensor([2, 3]))) == []
    assert near_copies(small_copies(cache(*EVERY), torch.tensor([2]))) == []


def test_other_light_another_part_and_gray_ones_are_others():
    whole = picture(0)
    bright = Image.fromarray((np.asarray(whole) * 0.8).astype(np.uint8))
    part = whole.crop((8, 5, 96, 64)).resize(whole.size)
    assert near_copies(small_copies(cache(whole, bright, part, whole.convert("L")), torch.arange(4))) == []


@pytest.mark.parametrize("size", [(48, 32), (144, 96), (97, 63)])
def test_other_sizes_with_masks(size):
    """What fills an image up to the size of others, and its mask, are no part of it."""
    images = cache(picture(0), picture(1), picture(1, size), filled=200)
    assert near_copies(small_copies(images, torch.arange(3))) == [(1, 2)]


def test_test_images_that_are_known():
    labeled = SimpleNamespace(cache=cache(*EVERY), members=torch.tensor([3, 2]))
    test = SimpleNamespace(cache=cache(jpeg(picture(2)), picture(9), jpeg(picture(2))), members=torch.tensor([1, 2]))
    assert copies_tested(labeled, test) == [("2.jpg", "2.jpg")]
    assert copies_tested(labeled, None) == []
