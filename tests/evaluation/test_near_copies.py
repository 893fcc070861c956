"""Pictures that are all but the same: what people's folders have of them, and what is not one."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.evaluation.near_copies import (
    SAME,
    copies_of_each,
    copies_tested,
    near_copies,
    pictures_by,
    small_copies,
    told_apart,
)


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


def shots(count: int, frames: int = 5, savings: int = 4) -> np.ndarray:
    """Small copies of `frames` next to each other of each of some pictures, each saved so often."""
    random = np.random.default_rng(0)
    out = [
        random.normal(128, 60, 768)[None, None] + step[:, None] + random.normal(0, 0.2, (frames, savings, 768))
        for step in (np.linspace(0, 2, frames)[:, None] * random.choice([-1, 1], (count, 1, 768)))
    ]
    return np.concatenate([one.reshape(-1, 768) for one in out]).astype(np.float32)


def test_more_copies_than_are_compared_at_once():
    small = shots(5)
    number = pictures_by(near_copies(small), len(small))
    assert (number == np.repeat(np.arange(5), 20)).all()


def test_a_film_is_one_picture_though_its_ends_differ():
    small = shots(2, frames=60, savings=5) + np.repeat(np.tile(np.arange(60), 2), 5)[:, None].astype(np.float32)
    number = pictures_by(near_copies(small), len(small))
    assert (number == np.repeat([0, 1], 300)).all()


def test_very_many_that_are_equal_make_as_many_pairs():
    pairs = near_copies(np.zeros((500, 768), np.float32))
    assert pairs == [(0, k) for k in range(1, 500)]


def images_of(small: np.ndarray, monkeypatch, ids=None, file_of=None):
    monkeypatch.setattr(
        "hf_lowlabel.evaluation.near_copies.small_copies", lambda cache, members: cache.small[members.numpy()]
    )
    ids = ids or [str(i) for i in range(len(small))]
    return SimpleNamespace(
        cache=SimpleNamespace(small=small, ids=ids, file_of=file_of or {}), members=torch.arange(len(small))
    )


def test_each_test_image_is_compared_with_labeled_ones(monkeypatch):
    """However many of the test images are alike."""
    small = shots(5)
    alone = np.zeros(len(small), bool)
    alone[::20] = True
    found = copies_tested(images_of(small[alone], monkeypatch), images_of(small[~alone], monkeypatch))
    assert {test for _, test in found} == {str(i) for i in range(95)}
    assert {labeled for labeled, _ in found} == {str(i) for i in range(5)}
    blank = np.full((2, 768), 77, np.float32)
    assert copies_tested(images_of(blank[:1], monkeypatch), images_of(blank, monkeypatch)) == [("0", "0"), ("0", "1")]
    assert copies_tested(images_of(blank, monkeypatch), images_of(blank[:0], monkeypatch)) == []


def test_pages_of_a_file_are_one_group_of_pictures(monkeypatch):
    small = np.random.default_rng(0).normal(128, 60, (6, 768)).astype(np.float32)
    small[4] = small[1] + 1  # a page that is all but the same as another
    ids = ["b.tif#1", "a.tif#1", "a.tif#3", "b.tif#2", "a.tif#12", "c.tif"]
    group, picture = copies_of_each(images_of(small, monkeypatch, ids, of_files(ids))).T
    assert group[0] == group[3] and group[1] == group[2] == group[4] and len(set(group)) == 3
    assert picture[1] == picture[4] and len(set(picture)) == 5
    assert copies_of_each(images_of(small[:4], monkeypatch, ids[:4])) is None  # called so, and no pages
    assert copies_of_each(images_of(small[:4], monkeypatch, ids[:4], {"a.tif#1": "a.tif", "c.tif#2": "c.tif"})) is None


def of_files(ids: list[str]) -> dict[str, str]:
    return {id: id.split("#")[0] for id in ids}


def test_an_empty_page_ties_no_files_together(monkeypatch):
    small = np.random.default_rng(0).normal(128, 60, (4, 768)).astype(np.float32)
    small[::2] = 0
    ids = ["a.tif#1", "a.tif#2", "b.tif#1", "b.tif#2"]
    group, _ = copies_of_each(images_of(small, monkeypatch, ids, of_files(ids))).T
    assert group.tolist() == [0, 0, 1, 1]


def test_a_film_is_one_group_whose_frames_that_differ_are_judged(monkeypatch):
    small = shots(2, frames=60, savings=5) + np.repeat(np.tile(np.arange(60), 2), 5)[:, None].astype(np.float32)
    group, picture = copies_of_each(images_of(small, monkeypatch)).T
    assert (group == np.repeat([0, 1], 300)).all() and 4 <= len(set(picture)) <= 60
    for number in np.unique(picture):
        first, *others = small[picture == number]
        contrast = min(one.reshape(3, -1).std(1).mean() for one in (first, *others))
        assert all(np.sqrt(np.square(one - first).mean()) <= 0.11 * contrast for one in others)


@pytest.mark.parametrize("classes", [1, 2])
def test_frames_that_are_compared_many_at_a_time_are_told_apart_as_one_by_one(classes):
    """Those of a long film that drifts, of films that are cut, all blank and all different ones."""
    rng = np.random.default_rng(0)
    drift = 100 + np.cumsum(rng.normal(0, 2, (150, 768)), 0)
    small = np.concatenate([drift, np.zeros((20, 768)), rng.uniform(0, 255, (80, 768)), drift[::3] + 0.1])
    small, targets = small.astype(np.float32), rng.integers(0, classes, len(small))
    contrast = small.reshape(300, 3, -1).std(2).mean(1)
    away = np.sqrt([np.square(small - one).mean(1) for one in small])
    same = (away <= SAME * np.minimum(contrast[:, None], contrast)) & (targets[:, None] == targets)
    for groups in (np.zeros(300, int), np.arange(300) % 3, np.arange(300)):
        expected, count = np.full(300, -1), 0
        for i in np.argsort(groups, kind="stable"):
            if expected[i] < 0:
                expected[same[i] & (groups == groups[i]) & (expected < 0)], count = count, count + 1
        found = told_apart(small, groups, targets if classes > 1 else None)
        assert found.tolist() == expected.tolist() and (count < 300) == (groups.max() < 299)


def test_of_one_file_alone_each_page_is_judged_by_the_others(monkeypatch, caplog):
    small = np.random.default_rng(0).normal(128, 60, (3, 768)).astype(np.float32)
    ids = ["a.tif#1", "a.tif#2", "a.tif#3"]
    group, _ = copies_of_each(images_of(small, monkeypatch, ids, of_files(ids))).T
    assert len(set(group)) == 3
    assert "all 3 labeled images are pages of one file" in caplog.text


def test_copies_of_another_class_are_judged_too(monkeypatch):
    small = np.repeat(np.random.default_rng(0).normal(128, 60, (2, 768)).astype(np.float32), 2, axis=0)
    images = images_of(small, monkeypatch)
    images.targets = torch.tensor([0, 1, 1, 1])
    group, picture = copies_of_each(images).T
    assert group.tolist() == [0, 0, 1, 1] and len(set(picture)) == 3


def test_contradictory_copies_alone_are_no_film(monkeypatch, caplog):
    images = images_of(
        np.repeat(np.random.default_rng(0).normal(128, 60, (1, 768)).astype(np.float32), 2, 0), monkeypatch
    )
    images.targets = torch.tensor([0, 1])
    group, picture = copies_of_each(images).T
    assert group.tolist() == [0, 0] and picture.tolist() == [0, 1] and "film" not in caplog.text
