from __future__ import annotations

import io
import logging
import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.data.caches.decoding import SquareDecoder, in_threads
from hf_lowlabel.data.caches.image_cache import ResidentCache, StreamingCache, build_cache
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.permutation import epoch_permutation
from hf_lowlabel.data.pixels.images import BadImage, decode
from hf_lowlabel.errors import UserError


@pytest.fixture
def folder(tmp_path, make):
    return load_source(make.files(tmp_path, [f"{i:03d}.png" for i in range(150)]))


@pytest.fixture
def damaged(tmp_path, make):
    """10 images; 2 is truncated, 5 is text, 7 has one pixel."""
    make.files(tmp_path, [f"{i}.png" for i in range(10)])
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:100])
    (tmp_path / "5.png").write_text("no image")
    (tmp_path / "7.png").write_bytes(make.encoded(make.picture(0, 1, 1)))
    return load_source(tmp_path)


def expected(source, i: int, size: int = 16) -> torch.Tensor:
    return decode(Image.open(io.BytesIO((source.reader.root / source.reader.paths[i]).read_bytes())), size, "bilinear")


def batches(cache, count=4, size=7):
    return [torch.from_numpy(epoch_permutation(0, "unlabeled", k * size, size, len(cache))) for k in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_resident_cache_holds_each_image_once(folder, workers):
    indices = np.arange(150)[::-1][:140]
    cache = build_cache(folder, indices, size=16, workers=workers)
    assert isinstance(cache, ResidentCache) and cache.images.dtype == torch.uint8
    assert cache.nbytes == 140 * 3 * 16 * 16 == cache.images.untyped_storage().nbytes()
    assert (
        np.array_equal(cache.indices, indices) and cache.ids == [folder.ids[i] for i in indices] and not cache.skipped
    )
    got = cache.take(torch.tensor([0, 139, 65, 65]))
    assert torch.equal(got, torch.stack([expected(folder, int(indices[i])) for i in (0, 139, 65, 65)]))


def test_the_budget_decides(folder):
    need = 150 * 3 * 16 * 16
    assert isinstance(build_cache(folder, range(150), size=16, memory_budget=need), ResidentCache)
    assert isinstance(build_cache(folder, range(150), size=16, memory_budget=need - 1), StreamingCache)
    assert isinstance(build_cache(folder, range(150), size=16, memory_budget=0, streaming=False), ResidentCache)
    assert isinstance(build_cache(folder, range(150), size=16, streaming=True), StreamingCache)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_equals_resident(folder, workers):
    resident = build_cache(folder, range(150), size=16)
    streaming = build_cache(folder, range(150), size=16, streaming=True, workers=workers)
    assert len(streaming) == 150 and streaming.nbytes == 0
    wanted = batches(resident)
    got = list(streaming.stream(iter(wanted)))
    assert len(got) == 4
    for ours, theirs, indices in zip(got, resident.stream(wanted), wanted):
        assert torch.equal(ours, theirs) and torch.equal(streaming.take(indices), theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_from_a_table(tmp_path, make, workers):
    source = load_source(make.table(tmp_path / "t.parquet", [0, 1] * 10))
    resident = build_cache(source, range(20), size=8)
    streaming = build_cache(source, range(20), size=8, streaming=True, workers=workers)
    wanted = batches(resident)
    assert all(torch.equal(a, b) for a, b in zip(streaming.stream(wanted), resident.stream(wanted), strict=True))


def test_an_endless_stream_is_read_only_a_little_ahead(folder):
    cache = build_cache(folder, range(150), size=16, streaming=True, workers=2)
    asked = []

    def endless():
        while True:
            asked.append(len(asked))
            yield torch.tensor([1, 2])

    stream = cache.stream(endless(), prefetch=2)
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(asked) <= 3 + 2 * 2 + 1


@pytest.mark.parametrize("streaming", [False, True])
def test_bad_images_are_left_out_and_listed(damaged, streaming):
    cache = build_cache(damaged, range(10), size=16, streaming=streaming, max_bad=0.3, workers=2)
    assert [id for id, _ in cache.skipped] == ["2.png", "5.png", "7.png"]
    assert "not an image" in cache.skipped[1][1] and "1 x 1 px" in cache.skipped[2][1]
    assert cache.ids == [f"{i}.png" for i in (0, 1, 3, 4, 6, 8, 9)] and cache.indices.tolist() == [0, 1, 3, 4, 6, 8, 9]
    want = torch.stack([expected(damaged, i) for i in (0, 1, 3, 4, 6, 8, 9)])
    assert torch.equal(cache.take(torch.arange(7)), want)
    assert torch.equal(torch.cat(list(cache.stream(torch.arange(7).split(3)))), want)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_streams_after_a_look_at_some(damaged, workers, monkeypatch, caplog):
    """Vital images are read at the start; a bad one met later gives its place to the next, the same one every time."""
    monkeypatch.setattr("hf_lowlabel.data.caches.decoding.LOOK", 3)  # 0, 4 and 9
    calls: list = []
    monkeypatch.setattr(logging.getLogger("hf_lowlabel"), "propagate", True)  # the root logger is what caplog hears
    cache = build_cache(
        damaged,
        range(10),
        size=16,
        streaming=True,
        workers=workers,
        max_bad=0.7,
        vital=np.array([5, 6]),
        progress=lambda *at: calls.append(at),
    )
    assert calls[-1] == (5, 5) and [id for id, _ in cache.skipped] == ["5.png"]
    want = torch.stack([expected(damaged, i) for i in (0, 1, 3, 3, 4, 6, 8, 8, 9)])
    assert torch.equal(torch.cat(list(cache.stream(torch.arange(9).split(3)))), want)
    assert torch.equal(cache.take(torch.arange(9)), want)
    assert [id for id, _ in cache.skipped] == ["5.png", "2.png", "7.png"]
    told = {id(record) for record in caplog.records if "the next one takes its place" in record.getMessage()}
    assert len(told) == 2  # records, not lines: two loggers may have handed one to caplog
    strict = build_cache(damaged, range(10), size=16, streaming=True, workers=workers, max_bad=0.3, vital=[6])
    with pytest.raises(UserError, match="1 of 3 images cannot be used"):
        list(strict.stream(torch.arange(9).split(3)))


def test_a_bad_image_among_the_first_is_not_yet_too_much(damaged):
    """One of three is above one per cent; judged is it as one of a thousand."""
    cache = StreamingCache(SquareDecoder(damaged, np.arange(10), 16, lenient=True))
    cache.take(torch.arange(3))
    assert [id for id, _ in cache.skipped] == ["2.png"]


def test_workers_outlive_a_signal_to_the_process_group(damaged):
    cache = StreamingCache(SquareDecoder(damaged, np.array([0, 1, 3, 4, 6, 8, 9]), 16), workers=1)
    batches = cache.stream(iter(torch.arange(6).split(1)), prefetch=1)
    first = next(batches)
    workers = multiprocessing.active_children()
    assert workers and os.getpgrp() not in {os.getpgid(worker.pid) for worker in workers}
    assert len([first, *batches]) == 6


def test_a_cache_whose_images_all_turn_out_bad_gives_no_pixels(damaged):
    cache = StreamingCache(SquareDecoder(damaged, np.array([2, 5, 7]), 16, lenient=True), max_bad=1.0)
    with pytest.raises(BadImage):
        cache.take(torch.arange(3))


@pytest.mark.parametrize("streaming", [False, True])
def test_too_many_bad_images_are_an_error(damaged, streaming):
    with pytest.raises(UserError, match=r"3 of 10 images cannot be used \('2.png': .*at most 29.0 %"):
        build_cache(damaged, range(10), size=16, streaming=streaming, max_bad=0.29)
    with pytest.raises(UserError, match="2 of 2 images"):
        build_cache(damaged, [5, 7], size=16, streaming=streaming, max_bad=1.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_that_nothing_may_stand_in_for_is_an_error(damaged, workers):
    strict = StreamingCache(SquareDecoder(damaged, np.arange(10), 16), workers=workers)
    with pytest.raises(UserError, match="'5.png' cannot be used: not an image"):
        list(strict.stream([torch.tensor([4, 5])]))


@pytest.mark.parametrize("mib, most", [(1, 8), (100, 2), (1000, 1)])
def test_what_waits_is_bounded_by_its_bytes(mib, most):
    """As many images of 12 megapixels as there are cores would fill a memory, where small ones do not."""
    begun, taken, waiting = [], [], []

    def work(item: int) -> int:
        begun.append(item)
        return item

    for result in in_threads(work, range(30), 4, 8, lambda item, result: mib * 2**20):
        taken.append(result)
        waiting.append(len(begun) - len(taken))
    assert taken == list(range(30)) and max(waiting) <= most
    grown = in_threads(work, range(30), 4, 8, lambda item, result: 2**20 if item < 5 else mib * 2**20)
    assert list(grown) == list(range(30))


def test_progress_is_reported_from_this_thread(folder):
    calls, threads = [], set()

    def progress(done, total):
        calls.append((done, total))
        threads.add(threading.get_ident())

    build_cache(folder, range(150), size=8, workers=3, progress=progress)
    assert calls == [(64, 150), (128, 150), (150, 150)] and threads == {threading.get_ident()}


def test_mistakes_are_found_before_anything_is_decoded(folder):
    with pytest.raises(UserError, match="There is no image"):
        build_cache(folder, [], size=16)
    with pytest.raises(UserError, match="unknown interpolation 'bicubik'"):
        build_cache(folder, range(10), size=16, interpolation="bicubik")
    with pytest.raises(UserError, match="not 'yes'"):
        build_cache(folder, range(10), size=16, streaming="yes")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("streaming", [False, True])
def test_on_a_gpu(folder, streaming):
    cpu = build_cache(folder, range(150), size=16)
    gpu = build_cache(folder, range(150), size=16, device="cuda", streaming=streaming, workers=2)
    wanted = batches(cpu)
    for ours, theirs in zip(gpu.stream(wanted), cpu.stream(wanted), strict=True):
        assert ours.is_cuda and torch.equal(ours.cpu(), theirs)
