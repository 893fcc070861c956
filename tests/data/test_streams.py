from __future__ import annotations

import itertools

import datasets
import numpy as np
import pytest
import torch

from hf_lowlabel.data.given_images import given_images
from hf_lowlabel.data.opening import load_source
from hf_lowlabel.data.sources.streaming import ShardedStream, Shards
from hf_lowlabel.errors import MissingSplit, UserError

SHARDS, ROWS = 5, 6


@pytest.fixture
def shards(tmp_path, make):
    for s in range(SHARDS):
        ids = [f"{s}-{i}" for i in range(ROWS)]
        make.table(tmp_path / f"train-{s:05d}-of-{SHARDS:05d}.parquet", [0] * ROWS, seed=100 * s, id=ids)
    return tmp_path


def stream(path, shards=None, **options) -> ShardedStream:
    return ShardedStream(shards or Shards(path), **{"size": 8, "window": 4, "workers": 2, **options})


def ids(found: ShardedStream, count: int) -> list[str]:
    return [id for id, _ in itertools.islice(found.rows(), count)]


def epoch_ids(found: ShardedStream, epoch: int) -> list[str]:
    return [id for id, _ in found.epoch(epoch)]


EVERY = sorted(f"{s}-{i}" for s in range(SHARDS) for i in range(ROWS))


def test_two_ranks_read_their_own_shards_and_together_all(shards):
    ranks = [stream(shards, rank=r, world=2) for r in range(2)]
    for epoch in range(3):
        one, two = (epoch_ids(rank, epoch) for rank in ranks)
        assert not {id[0] for id in one} & {id[0] for id in two}
        assert sorted(one + two) == EVERY
    assert {id[0] for id in epoch_ids(ranks[0], 0)} == {id[0] for id in epoch_ids(ranks[0], 1)}


def test_more_ranks_than_shards_share_the_rows(shards):
    with pytest.warns(UserWarning, match="5 shards for 7 ranks"):
        ranks = [stream(shards, rank=r, world=7) for r in range(7)]
    for epoch in (0, 1):
        parts = [epoch_ids(rank, epoch) for rank in ranks]
        assert sorted(itertools.chain(*parts)) == EVERY


def test_the_order_is_a_function_of_seed_and_epoch(shards):
    first = [epoch_ids(stream(shards, seed=1), epoch) for epoch in range(3)]
    assert first == [epoch_ids(stream(shards, seed=1), epoch) for epoch in range(3)]
    assert first[0] != first[1] and first[0] != epoch_ids(stream(shards, seed=2), 0)
    assert ids(stream(shards, seed=1), 60) == first[0] + first[1]
    in_file_order = [id for s in dict.fromkeys(id[0] for id in first[0]) for id in EVERY if id[0] == s]
    assert first[0] != in_file_order


def test_rows_of_a_single_file_come_in_another_order_each_epoch(tmp_path, make):
    make.table(tmp_path / "train-00000-of-00001.parquet", [0] * 8, id=[str(i) for i in range(8)])
    first, second = (epoch_ids(stream(tmp_path, window=8), epoch) for epoch in range(2))
    assert first != second and sorted(first) == sorted(second)


@pytest.mark.parametrize("position", [0, 1, 7, 29, 30, 31, 75])
def test_resume_by_position(shards, position):
    whole = ids(stream(shards, seed=3), position + 20)
    assert ids(stream(shards, seed=3, position=position), 20) == whole[position:]


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (3, 4)])
def test_batches_are_the_rows_decoded(shards, workers, prefetch):
    source = load_source(shards)
    at = {id: i for i, id in enumerate(source.ids)}
    found = stream(shards, seed=5, position=3, workers=workers)
    want = [source.decode(at[id], 8) for id in ids(found, 4 * 7)]
    sizes = (torch.zeros(7) for _ in itertools.count())
    got = list(itertools.islice(found.stream(sizes, prefetch=prefetch), 4))
    assert [batch.shape for batch in got] == [(7, 3, 8, 8)] * 4
    assert torch.equal(torch.cat(got), torch.stack(want))
    assert found.position == 3 + 4 * 7
    following = next(stream(shards, seed=5, position=found.position).stream([torch.zeros(2)]))
    expected = [source.decode(at[id], 8) for id in ids(stream(shards, seed=5, position=31), 2)]
    assert torch.equal(following, torch.stack(expected))


def test_a_bad_image_is_listed_and_its_place_taken(tmp_path, make):
    images = [{"bytes": make.encoded(make.picture(i)), "path": None} for i in range(6)]
    images[2] = {"bytes": b"no image", "path": None}
    images[5] = None
    make.table(tmp_path / "t.parquet", [0] * 6, image=images)
    found = stream(tmp_path / "t.parquet", max_bad=0.5)
    order = ids(found, 6)
    assert sorted(order) == [f"0:{i}" for i in range(6)]  # <shard>:<row> where there is no id column
    batch = next(found.stream([torch.zeros(6)]))
    assert sorted(id for id, _ in found.skipped) == ["0:2", "0:5"]
    for i, id in enumerate(order):
        follow = [*range(i, 6), *range(6)]
        stand_in = next(j for j in follow if order[j] not in ("0:2", "0:5"))
        if stand_in < i:
            stand_in = next(j for j in range(6) if order[j] not in ("0:2", "0:5"))
        assert torch.equal(batch[i], found.decode((order[stand_in], images[int(order[stand_in][2:])])))


def test_too_many_bad_images_stop_the_stream(tmp_path, make):
    images = [{"bytes": make.encoded(make.picture(i)) if i % 2 else b"no image", "path": None} for i in range(30)]
    make.table(tmp_path / "t.parquet", [0] * 30, image=images)
    with pytest.raises(UserError, match="images cannot be used .*at most 1.0 %"):
        list(stream(tmp_path / "t.parquet").stream(torch.zeros(6, 5).unbind()))
    make.table(tmp_path / "none.parquet", [0] * 4, image=[{"bytes": b"x", "path": None}] * 4)
    with pytest.raises(UserError, match="A whole batch of 3 images"):
        next(stream(tmp_path / "none.parquet").stream([torch.zeros(3)]))


def test_columns_and_splits_are_checked(shards):
    with pytest.raises(UserError, match="did you mean 'image'"):
        Shards(shards, image_column="imag")
    with pytest.raises(UserError, match="unknown split"):
        Shards(shards, split="test")


@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_only_parquet_and_the_hub_have_shards(tmp_path, make, monkeypatch, dataset):
    make.files(tmp_path / "folder", ["a/0.png"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"'{dataset}' has no shards, as parquet files"):
        Shards(dataset)


def test_a_sample_is_spread_over_the_shards(shards):
    found, whole = Shards(shards).sample(10), load_source(shards)
    assert found.ids == [f"{s}:{i}" for s in range(SHARDS) for i in range(2)]
    at = {id: i for i, id in enumerate(whole.ids)}
    for i, id in enumerate(found.ids):
        assert torch.equal(found.decode(i, 8), whole.decode(at[id.replace(":", "-")], 8))
    assert (found.labels == -1).all() and found.fingerprint == Shards(shards).sample(10).fingerprint
    (shards / f"train-00001-of-{SHARDS:05d}.parquet").unlink()
    assert found.fingerprint != Shards(shards).sample(10).fingerprint


# ---- in memory ------------------------------------------------------------------------------------------------------
def in_memory(make, count: int = 9) -> datasets.Dataset:
    rows = {"image": [make.picture(i) for i in range(count)], "id": [str(i) for i in range(count)]}
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
    return datasets.Dataset.from_dict(rows, features=features)


def generated(make) -> datasets.IterableDataset:
    rows = in_memory(make)
    return datasets.IterableDataset.from_generator(lambda: iter(rows), features=rows.features)


ITERABLES = {
    "shards": lambda make: in_memory(make).to_iterable_dataset(num_shards=3),
    "torch": lambda make: in_memory(make).to_iterable_dataset().with_format("torch"),
    "chosen": lambda make: in_memory(make, 12).select(range(9)).to_iterable_dataset().shuffle(seed=1, buffer_size=4),
    "splits": lambda make: datasets.IterableDatasetDict({"train": in_memory(make).to_iterable_dataset()}),
    "generated": generated,
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_an_iterable_dataset_is_read_as_it_comes(make, kind):
    shards = Shards(ITERABLES[kind](make))
    assert shards.name == "memory" and shards.count == (3 if kind == "shards" else 1)
    found = stream(None, shards)
    assert sorted(epoch_ids(found, 0)) == sorted(epoch_ids(found, 1)) == [str(i) for i in range(9)]
    assert all(isinstance(image, dict) for _, image in found.epoch(0))  # encoded, as a window holds a thousand
    order = ids(found, 4)
    batch = next(found.stream([torch.zeros(4)]))
    plain = load_source(in_memory(make))
    assert torch.equal(batch, torch.stack([plain.decode(int(id), 8) for id in order]))
    assert shards.sample(9).fingerprint == Shards(ITERABLES[kind](make)).sample(9).fingerprint


def test_decoded_rows_are_taken_and_said(make):
    rows = in_memory(make)
    shards = Shards(rows.to_iterable_dataset().decode(num_threads=1))
    with pytest.warns(UserWarning, match="hold decoded images, thousands of which are kept"):
        sample = shards.sample(9)
    for _ in range(2):  # the image is closed after use
        assert torch.equal(sample.decode(3, 8), load_source(rows).decode(3, 8))
    assert next(stream(None, shards).stream([torch.zeros(4)])).shape == (4, 3, 8, 8)


def test_an_iterable_of_paths(make, tmp_path):
    make.files(tmp_path, ["a.png", "b.png"])
    rows = datasets.Dataset.from_dict({"path": [str(tmp_path / name) for name in ("a.png", "b.png")]})
    sample = Shards(rows.to_iterable_dataset()).sample(2)
    assert np.array_equal(np.asarray(sample.image(1)), np.asarray(make.picture(1)))


def test_what_is_no_stream_is_said(make, tmp_path):
    rows = in_memory(make)
    for given, words in (
        (rows, "not read shard by shard, and this is a Dataset. Leave out sharded, or give"),
        ([make.picture(0)], "this is a list. Leave out"),
        (datasets.IterableDataset.from_generator(lambda: iter(rows)), "'memory' does not say which columns it has"),
    ):
        with pytest.raises(UserError, match=words):
            Shards(given)
    with pytest.raises(UserError, match="no config and no revision"):
        Shards(rows.to_iterable_dataset(), config="small")
    with pytest.raises(MissingSplit, match="no split 'test' in an IterableDataset"):
        Shards(rows.to_iterable_dataset(), split="test")
    for read in (load_source, given_images):
        with pytest.raises(UserError, match="An IterableDataset is read as it comes, which only pretrain does"):
            read(rows.to_iterable_dataset())
