"""Images that cannot be read any more while training streams: what is known of an image is never said of another."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from hf_lowlabel import FinetuneObjective, finetune, pretrain
from hf_lowlabel.arguments import Config
from hf_lowlabel.data.caches import decoding
from hf_lowlabel.data.caches.decoding import SquareDecoder
from hf_lowlabel.data.caches.image_cache import StreamingCache, build_cache
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.pixels.images import BadImage
from hf_lowlabel.errors import TooManyBad, UserError
from hf_lowlabel.evaluation.inference import features_of, seen_by_all
from hf_lowlabel.training.batches import ViewStream
from hf_lowlabel.training.callbacks import Callback
from hf_lowlabel.training.preparing import caches_of
from hf_lowlabel.views.table import build_view
from hf_lowlabel.views.transforms import Separate

GRAY = 20  # by which the pixels of each image are larger than those of the one before


@pytest.fixture
def photos(tmp_path):
    """Ten images, each of one gray, the odd ones of the class b."""
    folder = tmp_path / "photos"
    for i in range(10):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), GRAY * i, np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


def spoil(file: Path) -> bytes:
    whole = file.read_bytes()
    file.write_bytes(whole[:60])
    return whole


def cache_of(photos: Path, **more) -> StreamingCache:
    """In the order of the grays."""
    source = load_source(photos)
    order = np.argsort([id[-5] for id in source.ids])
    return build_cache(source, order, size=16, streaming=True, max_bad=0.5, **more)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_image_stands_in_for_a_labeled_one(photos, workers):
    source = load_source(photos)
    vital = np.array([source.ids.index("a/4.png"), source.ids.index("b/7.png")])
    cache = cache_of(photos, workers=workers, vital=vital)
    for name in ("a/2.png", "b/7.png"):
        spoil(photos / name)
    assert [int(x[0, 0, 0]) // GRAY for x in next(iter(cache.stream([torch.tensor([1, 2, 4])])))] == [1, 3, 4]
    with pytest.raises(UserError, match=r"^A labeled image cannot be read any more \('b/7.png'.*--resume") as error:
        list(cache.stream([torch.tensor([1, 7])]))
    assert "\n" not in str(error.value)  # no trace of a worker
    with pytest.raises(UserError, match="labeled image"):
        cache.take(torch.tensor([6, 7]))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_image_stands_in_for_one_of_a_test(photos, workers):
    """All of them were read at the start."""
    cache = cache_of(photos, workers=workers)
    spoil(photos / "a/2.png")
    with pytest.raises(BadImage, match="^image 'a/2.png' cannot be used: .*$") as error:
        list(cache.stream([torch.tensor([2])]))
    assert "\n" not in str(error.value)


def test_what_no_other_may_replace_is_tried_twice(photos, monkeypatch):
    cache, failed, read = cache_of(photos, workers=0), [], SquareDecoder.read

    def busy(self, at: int, place: int):
        if at not in failed:
            failed.append(at)
            raise BadImage("the disk is busy")
        return read(self, at, place)

    monkeypatch.setattr(SquareDecoder, "read", busy)
    assert int(cache.take(torch.tensor([3]))[0, 0, 0, 0]) == 3 * GRAY and failed == [3] and not cache.skipped


def test_what_is_known_by_position_is_of_the_image_that_is_seen(photos):
    """Priors, and what a method has remembered of an image."""
    cache = cache_of(photos, workers=0, vital=np.zeros(0, int))
    whole = spoil(photos / "a/2.png")
    view = Separate({"image": build_view("eval", size=16, mean=[0.0] * 3, std=[1.0] * 3)})
    stream = ViewStream(cache, torch.arange(10), 5, view, name="unlabeled", seed=3)
    steps = stream(0)

    def epoch() -> tuple[list[int], list[int]]:
        both = [next(steps), next(steps)]
        pixels = torch.cat([batch["image"][:, 0, 0, 0] for batch in both]) * 255 / GRAY
        return pixels.round().int().tolist(), torch.cat([batch["index"] for batch in both]).tolist()

    seen, said = epoch()
    assert seen == said and sorted(said) == [0, 1, 3, 3, 4, 5, 6, 7, 8, 9]
    assert seen_by_all(cache, torch.tensor([1, 2, 3])).tolist() == [1, 3, 3]
    (photos / "a/2.png").write_bytes(whole)
    seen, said = epoch()
    assert seen == said and sorted(said) == list(range(10))


class Seen(FinetuneObjective):
    """Notes which images were taught as which class."""

    pairs: set[tuple[int, int]] = set()

    def forward(self, batch: dict, t: float) -> dict:
        known = batch["labeled"]
        mean, std = (torch.tensor(self.model.preprocessing[k][0]) for k in ("mean", "std"))
        gray = (known["image"].mean((1, 2, 3)) * std + mean) * 255 / GRAY
        Seen.pairs |= set(zip(gray.round().int().tolist(), known["target"].tolist(), strict=True))
        return {"loss": cross_entropy(self.model(known["image"]).logits, known["target"])}


def test_what_streams_goes_on_counting_over_all_that_take_part(photos, monkeypatch):
    """Two of ten are a tenth of all twenty."""
    monkeypatch.setattr(decoding, "LOOK", 5)
    config = Config.from_flat("finetune", dict(dataset=str(photos), max_bad=0.1))
    cache = cache_of(photos, workers=0, vital=np.array([], np.int64))
    task, at = Mock(caches=lambda *_: (cache, None)), Mock(train=np.arange(10))
    training, _ = caches_of(task, None, config, None, at, 20)
    for name in ("a/2.png", "b/7.png"):
        spoil(photos / name)
    assert len(training.take(torch.arange(10))) == 10
    spoil(photos / "a/4.png")
    with pytest.raises(TooManyBad, match="3 of 20 images cannot be used .*at most 10.0 % of them"):
        training.take(torch.arange(10))


class Spoils(Callback):
    """Once, after a step."""

    def __init__(self, file: Path, step: int):
        self.file, self.step = file, step

    def on_step_end(self, state, *values) -> None:
        if state.step == self.step:
            self.whole = spoil(self.file)


def test_a_run_stops_at_a_lost_label_and_goes_on_once_it_is_there(photos, tmp_path):
    settings = dict(
        dataset=photos,
        model="test_resnet",
        from_scratch=True,
        method=Seen,
        image_size=16,
        batch_size=4,
        max_steps=12,
        save_steps=2,
        eval_steps=12,
        streaming=True,
        workers=0,
        max_bad=0.5,
        output_dir=tmp_path / "run",
    )
    spoils, Seen.pairs = Spoils(photos / "b/5.png", 3), set()
    with pytest.raises(UserError, match="A labeled image cannot be read any more .'b/5.png'"):
        finetune(**settings, callbacks=[spoils])
    spoils.file.write_bytes(spoils.whole)
    run = finetune(**settings, resume=True)
    assert run.progress.step == 12 and (tmp_path / "run" / "model.safetensors").is_file()
    assert {target for _, target in Seen.pairs} == {0, 1}
    assert all(gray % 2 == target for gray, target in Seen.pairs)


def test_neighbours_are_judged_by_the_labels_of_what_was_seen(photos, tmp_path, monkeypatch):
    """Of a bad image the label of the one in its place."""
    asked = []

    def noted(encoder, cache, *rest):
        if not asked:
            spoil(photos / "a/8.png")  # the last of its class
        asked.append(features_of(encoder, cache, *rest))
        return asked[-1]

    known = []
    monkeypatch.setattr("hf_lowlabel.training.pretrain.features_of", noted)
    monkeypatch.setattr("hf_lowlabel.training.pretrain.knn_accuracy", lambda x, y: known.append(y.tolist()) or 0.5)
    pretrain(
        dataset=photos,
        model="test_resnet",
        from_scratch=True,
        method="simclr",
        image_size=16,
        batch_size=4,
        max_steps=2,
        streaming=True,
        workers=0,
        max_bad=0.5,
        output_dir=tmp_path / "run",
    )
    assert known[0] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
