"""Images with masks from every layout, split lists, and caches of images of different sizes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.data.caches.decoding import resized
from hf_lowlabel.data.caches.padded_cache import build_padded_cache
from hf_lowlabel.data.caches.unmeasured import UnmeasuredDecoder
from hf_lowlabel.data.joining import join
from hf_lowlabel.data.masks.mask_folders import CITYSCAPES_CLASSES, CITYSCAPES_TABLE
from hf_lowlabel.data.opening import load_segmentation, load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.data.sources.shapes import CLASSES, draw
from hf_lowlabel.data.splits.drawing import make_split
from hf_lowlabel.data.splits.split_lists import read_ids, split_from_lists
from hf_lowlabel.data.splits.splits import Split
from hf_lowlabel.errors import UserError

RNG = np.random.default_rng(0)
ABC = ["a", "b", "c"]


def save(path: Path, values: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def rgb(h: int = 20, w: int = 30) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3))


def mask(h: int = 20, w: int = 30, top: int = 3) -> np.ndarray:
    values = RNG.integers(0, top, (h, w))
    values[0, :top] = np.arange(top)
    return values


def folder(root: Path, count: int = 6, masks: int = 3, top: int = 3) -> dict[str, np.ndarray]:
    """images/i.jpg, masks for the first few; returns the masks by id."""
    out = {}
    for i in range(count):
        save(root / f"images/{i}.jpg", rgb(20 + i, 30))
        if i < masks:
            out[f"{i}.jpg"] = mask(20 + i, 30, top)
            save(root / f"masks/{i}.png", out[f"{i}.jpg"])
    return out


def test_folder_with_masks_for_some_images(tmp_path):
    masks = folder(tmp_path / "mine")
    source = load_segmentation(tmp_path / "mine", classes=["a", "b", "c"])
    assert source.ids == [f"{i}.jpg" for i in range(6)] and source.has_target.tolist() == [True] * 3 + [False] * 3
    assert source.name == "mine" and source.class_names == ["a", "b", "c"]
    for i in range(3):
        assert (source.mask(i) == masks[source.ids[i]]).all()
        assert source.rgb(i).size == (30, 20 + i)
    with pytest.raises(UserError, match="no mask of image '4.jpg'"):
        source.mask(4)
    assert load_segmentation(tmp_path / "mine").class_names == ["class 0", "class 1", "class 2"]
    again = load_segmentation(tmp_path / "mine", classes=["a", "b", "c"])
    assert again.fingerprint == source.fingerprint
    (tmp_path / "mine/masks/2.png").unlink()
    assert load_segmentation(tmp_path / "mine", classes=["a", "b", "c"]).fingerprint != source.fingerprint
    alone = source.without_targets()
    assert alone.ids == source.ids and (alone.labels == -1).all()


def test_names_of_masks(tmp_path):
    save(tmp_path / "images/x/1.png", rgb())
    save(tmp_path / "images/2.png", rgb())
    save(tmp_path / "masks/x/1_segmentation.png", mask())
    assert load_segmentation(tmp_path, classes=ABC).has_target.tolist() == [False, True]
    save(tmp_path / "masks/3.png", mask())
    with pytest.raises(UserError, match="1 masks in .* are without an image, such as '3.png'"):
        load_segmentation(tmp_path, classes=ABC)
    (tmp_path / "masks/3.png").rename(tmp_path / "masks/x/1.png")
    with pytest.raises(UserError, match="two masks of image 'x/1.png'"):
        load_segmentation(tmp_path, classes=ABC)


def test_splits_of_folders(tmp_path):
    folder(tmp_path / "a/train")
    folder(tmp_path / "a/test", 2, 2)
    assert len(load_segmentation(tmp_path / "a", classes=ABC)) == 6
    assert len(load_segmentation(tmp_path / "a", split="test", classes=ABC)) == 2
    with pytest.raises(UserError, match="split of 'a' 'validation'"):
        load_segmentation(tmp_path / "a", split="validation", classes=ABC)
    for part in ("train", "val"):
        save(tmp_path / f"b/images/{part}/1.png", rgb())
        save(tmp_path / f"b/masks/{part}/1.png", mask())
    assert load_segmentation(tmp_path / "b", split="validation", classes=ABC).has_target.all()
    folder(tmp_path / "c")
    with pytest.raises(UserError, match="test/images/.*test_fraction"):
        load_segmentation(tmp_path / "c", split="test", classes=ABC)
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="neither images/ nor"):
        load_segmentation(tmp_path / "d")


def test_voc_layout(tmp_path):
    root = tmp_path / "VOC2012"
    ids = [f"2007_{i:06d}" for i in range(5)]
    for i, id in enumerate(ids):
        save(root / f"JPEGImages/{id}.jpg", rgb())
        if i < 3:
            values = mask(top=21)
            values[1, :5] = 255
            save(root / f"SegmentationClass/{id}.png", values, "P")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(ids[:4]) + "\n")
    (lists / "val.txt").write_text(ids[4] + "\n")
    source = load_segmentation(root)
    assert source.ids == ids[:4] and source.has_target.sum() == 3 and len(source.class_names) == 21
    assert source.class_names[15] == "person" and source.class_names[20] == "tvmonitor"
    assert (source.mask(0)[1, :5] == 255).all()
    assert load_segmentation(root, split="validation").ids == [ids[4]]
    assert len(load_segmentation(root, split="all")) == 5
    with pytest.raises(UserError, match="'trainaug'.*known: all, train, val"):
        load_segmentation(root, split="trainaug")
    (lists / "train.txt").write_text("2007_000099\n")
    with pytest.raises(UserError, match="1 ids in the list 'train' are without an image"):
        load_segmentation(root)


def cityscapes(root: Path) -> None:
    for split, city, count in (("train", "bochum", 2), ("train", "weimar", 1), ("val", "ulm", 1), ("test", "bonn", 1)):
        for i in range(count):
            name = f"{city}_{i:06d}_000019"
            save(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", rgb())
            values = np.full((20, 30), 7)
            values[:10] = 26
            values[0] = 3  # out of roi
            save(root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", values)


def test_cityscapes_layout_and_published_lists(tmp_path):
    cityscapes(tmp_path / "cityscapes")
    source = load_segmentation(tmp_path / "cityscapes")
    assert source.ids == ["bochum_000000_000019", "bochum_000001_000019", "weimar_000000_000019"]
    assert source.has_target.all() and source.class_names == CITYSCAPES_CLASSES
    values = source.mask(0)
    assert (values[0] == 255).all() and (values[5] == 13).all() and (values[15] == 0).all()
    assert source.class_names[13] == "car" and sum(v != 255 for v in CITYSCAPES_TABLE) == 19
    assert not load_segmentation(tmp_path / "cityscapes", split="test").has_target.any()

    file = tmp_path / "100.txt"
    file.write_text("leftImg8bit/train/weimar/weimar_000000_000019_leftImg8bit.png gtFine/train/weimar/x.png\n")
    split = split_from_lists(source, file)
    assert split.labeled == {"weimar_000000_000019": None} and split.fingerprint == source.fingerprint
    split.save(tmp_path / "split.json")
    at = Split.load(tmp_path / "split.json").resolve(source)
    assert at.labeled.tolist() == [2] and at.labels.tolist() == [-1] and at.train.tolist() == [0, 1, 2]
    file.write_text("leftImg8bit/train/weimar/weimar_000099_000019_leftImg8bit.png\n")
    with pytest.raises(UserError, match="did you mean 'weimar_000000_000019'"):
        split_from_lists(source, file)
    file.write_text("a\na\n")
    with pytest.raises(UserError, match="ids twice in 100.txt"):
        read_ids(file)


def test_parquet_with_missing_masks(tmp_path):
    datasets = pytest.importorskip("datasets")
    masks = folder(tmp_path / "mine", 5, 3)
    rows = {
        "image": [str(tmp_path / f"mine/images/{i}.jpg") for i in range(5)],
        "mask": [str(tmp_path / f"mine/masks/{i}.png") if i < 3 else None for i in range(5)],
    }
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    source = load_segmentation(tmp_path / "train.parquet", classes=ABC)
    assert source.has_target.tolist() == [True] * 3 + [False] * 2
    assert (source.mask(2) == masks["2.jpg"]).all() and source.rgb(4).size == (30, 24)
    table.rename_column("mask", "other").to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(UserError, match="no mask column among image, other"):
        load_segmentation(tmp_path / "train.parquet", classes=ABC)
    assert load_segmentation(tmp_path / "train.parquet", mask_column="other", classes=ABC).has_target.sum() == 3
    with pytest.raises(UserError, match="did you mean 'other'"):
        load_segmentation(tmp_path / "train.parquet", mask_column="othr")


def test_drawn_labels_are_those_of_cutmix_seg(tmp_path):
    source = load_segmentation("shapes")
    split = make_split(source, 10, seed=12345)
    names = sorted(source.ids)
    expected = {names[i] for i in np.random.RandomState(12345).permutation(len(names))[:10]}
    assert set(split.labeled) == expected
    assert expected < set(make_split(source, 20, seed=12345).labeled)
    assert set(make_split(source, 10, seed=1).labeled) != expected
    held = make_split(source, 10, seed=0, validation=5, test_fraction=0.1)
    parts = [set(held.labeled), set(held.validation), set(held.test)]
    assert [len(p) for p in parts] == [10, 5, round(0.1 * len(source))]
    assert len(set.union(*parts)) == sum(map(len, parts))
    folder(tmp_path / "mine")
    few = load_segmentation(tmp_path / "mine", classes=ABC)
    assert set(make_split(few).labeled) == {"0.jpg", "1.jpg", "2.jpg"}
    with pytest.raises(UserError, match="2 images with a mask.*3 less 0 for test and 1 for validation.*budget is 4"):
        make_split(few, 4, validation=1)
    (tmp_path / "ids.txt").write_text("4.jpg\n")
    with pytest.raises(UserError, match="'4.jpg' is without a mask"):
        split_from_lists(few, tmp_path / "ids.txt")


def test_joined_images_never_need_masks(tmp_path):
    folder(tmp_path / "mine", 3, 3)
    for i in range(2):
        save(tmp_path / f"more/{i}.png", rgb(8, 8))
    both = join(load_segmentation(tmp_path / "mine", classes=ABC), load_source(tmp_path / "more"))
    assert (
        both.ids[2:4] == ["labeled/2.jpg", "unlabeled/0.png"] and both.has_target.tolist() == [True] * 3 + [False] * 2
    )
    assert both.rgb(4).size == (8, 8) and both.mask(1).shape == (21, 30)
    assert len(build_padded_cache(both, np.arange(5), masks=False)) == 5
    with pytest.raises(UserError, match="no mask of image 'unlabeled/0.png'"):
        build_padded_cache(both, np.array([3]), masks=True)


def test_padded_cache_holds_images_and_masks_of_any_size(tmp_path):
    masks = folder(tmp_path / "mine", 4, 4)
    source = load_segmentation(tmp_path / "mine", classes=ABC)
    told = []
    cache = build_padded_cache(source, np.arange(4), masks=True, progress=lambda *done: told.append(done))
    assert told[0] == told[-1] == (4, 4) and len(told) > 1  # of the headers, and of the images
    assert cache.images.shape == (4, 4, 23, 30) and cache.sizes.tolist() == [[20 + i, 30] for i in range(4)]
    for i in range(4):
        h = 20 + i
        assert (cache.images[i, :3, :h].permute(1, 2, 0).numpy() == np.asarray(source.rgb(i))).all()
        assert (cache.images[i, 3, :h].numpy() == masks[source.ids[i]]).all()
        assert (cache.images[i, 3, h:] == 255).all() and (cache.images[i, :3, h:] == 0).all()
    streamed = build_padded_cache(source, np.arange(4), masks=True, streaming=True, workers=0)
    at = torch.tensor([3, 0])
    assert torch.equal(cache.take(at), streamed.take(at)) and torch.equal(cache.sizes, streamed.sizes)
    assert torch.equal(next(iter(streamed.stream([at]))), cache.take(at))
    small = build_padded_cache(source, np.arange(4), masks=True, long_side=15)
    assert small.sizes[0].tolist() == [10, 15]
    shrunk = Image.fromarray(masks["0.jpg"].astype(np.uint8)).resize(
        (15, 10), Image.Resampling.NEAREST
    )  # between 0 and 2 lies no 1
    assert (small.images[0, 3, :10].numpy() == np.asarray(shrunk)).all() and (small.images[0, 3, 10:] == 255).all()
    assert resized(30, 20, 15) == (15, 10) and resized(7, 5, None) == (7, 5) and resized(10, 3, 40) == (40, 12)
    assert resized(100, 33, 50) == (50, 16) and resized(33, 100, 50) == (16, 50)  # floored, as transformers does


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_image_and_mask_are_upright_each_by_its_own_tag(tmp_path, suffix):
    values, classes = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8)
    values[:16, :24], values[16:, 24:], classes[:16, :24] = (250, 40, 40), (40, 40, 250), 1
    exif = Image.Exif()
    exif[0x0112] = 6
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(values).transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"images/1.{suffix}", exif=exif)
    mask = Image.fromarray(classes).transpose(Image.Transpose.ROTATE_90)
    mask.save(tmp_path / f"masks/1.{'tif' if suffix == 'tif' else 'png'}", exif=exif)
    source = load_segmentation(tmp_path, classes=["a", "b"])
    assert source.size(0) == source.image(0).size == source.rgb(0).size == (48, 32)
    cache = build_padded_cache(source, np.arange(1), masks=True)
    assert cache.sizes.tolist() == [[32, 48]] and (cache.images[0, 3].numpy() == classes).all()
    assert np.abs(cache.images[0, :3].permute(1, 2, 0).numpy().astype(int) - values).mean() < 12


def test_bad_masks_and_images(tmp_path, caplog):
    folder(tmp_path / "a")
    save(tmp_path / "a/masks/1.png", mask(9, 9))
    with pytest.raises(UserError, match="mask of 9 x 9 px for image '1.jpg' of 30 x 21 px"):
        build_padded_cache(load_segmentation(tmp_path / "a", classes=ABC), np.arange(3), masks=True)
    save(tmp_path / "a/masks/1.png", mask(21, 30, 5))
    with pytest.raises(UserError, match="mask of image '1.jpg' has the value 3"):
        build_padded_cache(load_segmentation(tmp_path / "a", classes=ABC), np.arange(3), masks=True)
    (tmp_path / "a/masks/1.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="mask of image '1.jpg' cannot be read"):
        build_padded_cache(load_segmentation(tmp_path / "a", classes=ABC), np.arange(3), masks=True)

    folder(tmp_path / "b", 6, 6)
    for i in range(6):
        save(tmp_path / f"b/masks/{i}.png", 255 * (mask(20 + i) > 1))
    with pytest.raises(UserError, match="nothing but 0 and 255.*--mask-format binary"):
        build_padded_cache(load_segmentation(tmp_path / "b", classes=["a", "b"]), np.arange(6), masks=True)
    with pytest.raises(UserError, match="no mask value but 0 and 255.*--mask-format binary"):
        load_segmentation(tmp_path / "b")
    binary = load_segmentation(tmp_path / "b", mask_format="binary")
    assert binary.class_names == ["background", "object"]
    assert set(build_padded_cache(binary, np.arange(6), masks=True).images[0, 3, :20].unique().tolist()) == {0, 1}

    folder(tmp_path / "c", 6, 6)
    save(tmp_path / "c/masks/2.png", np.full((22, 30), 255))
    with caplog.at_level(logging.WARNING):
        build_padded_cache(load_segmentation(tmp_path / "c", classes=ABC), np.arange(6), masks=True)
    assert "'2.jpg' has no pixel of any class" in caplog.text
    (tmp_path / "c/images/5.jpg").write_bytes(b"nothing")
    source = load_segmentation(tmp_path / "c", classes=ABC)
    with pytest.raises(UserError, match="1 of 6 images cannot be used"):
        build_padded_cache(source, np.arange(6), masks=False)
    cache = build_padded_cache(source, np.arange(6), masks=False, max_bad=0.2)
    assert cache.ids == [f"{i}.jpg" for i in range(5)] and cache.skipped[0][0] == "5.jpg" and len(cache.images) == 5


def test_streaming_goes_on_past_an_image_that_turns_out_bad(tmp_path, monkeypatch):
    """Cut off files have whole headers: the next image stands in, at the size that the bad one's views are drawn
    for."""
    folder(tmp_path, 8, 8)
    source = load_segmentation(tmp_path, classes=ABC)
    for name in ("3.jpg", "4.jpg"):
        file = tmp_path / "images" / name
        file.write_bytes(file.read_bytes()[:-150])
    cache = build_padded_cache(source, np.arange(8), masks=False, max_bad=0.3, streaming=True, workers=0)
    assert [id for id, _ in cache.skipped] == ["3.jpg", "4.jpg"] and len(cache) == 6
    resident = build_padded_cache(source, np.arange(8), masks=False, max_bad=0.3)
    assert resident.ids == cache.ids and len(resident.images) == 6
    assert resident.sizes.tolist() == cache.sizes.tolist() == [[20 + i, 30] for i in (0, 1, 2, 5, 6, 7)]
    with pytest.raises(UserError, match="2 of 8 images cannot be used .'3.jpg'.*at most 20.0 %"):
        build_padded_cache(source, np.arange(8), masks=False, max_bad=0.2, streaming=True, workers=0)
    with pytest.raises(UserError, match="1 of 2 images cannot be used .'3.jpg'"):
        build_padded_cache(source, np.array([0, 3]), masks=True, max_bad=0.0, streaming=True, workers=0)

    monkeypatch.setattr("hf_lowlabel.data.caches.decoding.LOOK", 3)  # rows 0, 3 and 7: 4.jpg is met later
    at = torch.tensor([2, 3, 4])
    for workers in (0, 2):
        cache = build_padded_cache(source, np.arange(8), masks=False, max_bad=0.4, streaming=True, workers=workers)
        assert cache.ids[3] == "4.jpg" and cache.sizes[3].tolist() == [24, 30]
        images = next(iter(cache.stream([at])))
        resized_next = source.rgb(5).resize((30, 24), Image.Resampling.BILINEAR)
        assert (images[1, :, :24].permute(1, 2, 0).numpy() == np.asarray(resized_next)).all()
        assert (images[2, :, :25].permute(1, 2, 0).numpy() == np.asarray(source.rgb(5))).all()
        assert [id for id, _ in cache.skipped] == ["3.jpg", "4.jpg"]
    few = build_padded_cache(source, np.arange(8), masks=True, max_bad=0.4, streaming=True, workers=0)
    with pytest.raises(BadImage, match="'4.jpg'"):
        few.take(at)


@pytest.mark.parametrize("long_side", [None, 16])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pool_streams_without_all_headers(tmp_path, monkeypatch, workers, long_side):
    """The same pixels and sizes as where every header is read; bad ones are met later, named, and counted."""
    folder(tmp_path, 10, 2)
    source = load_segmentation(tmp_path, classes=ABC)
    monkeypatch.setattr("hf_lowlabel.data.caches.decoding.LOOK", 3)  # rows 0, 4 and 9
    given = dict(masks=False, long_side=long_side, max_bad=0.7, streaming=True, workers=workers)
    whole = build_padded_cache(source, np.arange(10), **given)
    read = []
    sized = type(source).size
    monkeypatch.setattr(type(source), "size", lambda self, i: read.append(int(i)) or sized(self, i))
    cache = build_padded_cache(source, np.arange(10), **given, measured=False)
    assert read == [0, 4, 9]
    batches = [torch.tensor(rows) for rows in ([7, 2, 2], [9, 0, 3])]
    for rows, images in zip(batches, cache.stream(iter(batches)), strict=True):
        sizes = cache.sizes[rows]
        assert read == [0, 4, 9] and sizes.tolist() == whole.sizes[rows].tolist()
        assert torch.equal(whole.take(rows), images)  # in the same frame, since the largest is among those looked at
    assert cache.sizes[8].tolist() == whole.sizes[8].tolist() and cache.sizes[torch.arange(10)].equal(whole.sizes)
    sizes = np.zeros((10, 2), np.int64)
    smaller = UnmeasuredDecoder(source, np.arange(10), sizes, (4, 4), long_side).__getitems__([7, 2])
    assert list(smaller.images.shape[2:]) == whole.sizes[7].tolist() == smaller.sizes[0].tolist()
    for name, content in (("5.jpg", b"no image"), ("6.jpg", (tmp_path / "images/6.jpg").read_bytes()[:-150])):
        (tmp_path / "images" / name).write_bytes(content)
    cache = build_padded_cache(source, np.arange(10), **given, measured=False)
    assert not cache.skipped and len(cache) == 10
    (images,) = cache.stream([torch.tensor([5, 6, 8])])
    assert [id for id, _ in cache.skipped] == ["5.jpg", "6.jpg"]
    assert cache.sizes[torch.tensor([5, 6])].tolist() == whole.sizes[[6, 6]].tolist()  # by the first header there is
    assert torch.equal(images[0], images[1])
    strict = build_padded_cache(source, np.arange(10), **{**given, "max_bad": 0.0}, measured=False)
    with pytest.raises(UserError, match="images cannot be used .'5.jpg'"):
        strict.take(torch.tensor([5]))


def test_what_may_fit_into_memory_is_measured(tmp_path):
    folder(tmp_path, 6, 2)
    source = load_segmentation(tmp_path, classes=ABC)
    one = 3 * 25 * 30
    for budget, kind in ((6 * one, "ResidentCache"), (6 * one - 1, "StreamingCache")):
        for measured in (True, False):
            cache = build_padded_cache(source, range(6), masks=False, memory_budget=budget, measured=measured)
            assert type(cache).__name__ == kind


def test_shapes_are_the_same_everywhere_and_know_their_classes():
    source = load_segmentation("shapes", split="test")
    assert source.class_names == CLASSES and source.has_target.all()
    assert source.fingerprint == load_segmentation("shapes", split="test").fingerprint
    pixels, values = draw("test", 3)
    assert (np.asarray(source.rgb(3)) == pixels).all() and (source.mask(3) == values).all()
    assert not (draw("train", 3)[0] == pixels).all()
    shares = np.bincount(np.concatenate([draw("train", i)[1].ravel() for i in range(60)]), minlength=5) / (60 * 64**2)
    assert 0.65 < shares[0] < 0.9 and (shares[1:] > 0.02).all()
    with pytest.raises(UserError, match="split of 'shapes' 'tests'"):
        load_segmentation("shapes", split="tests")
