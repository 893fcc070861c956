"""Batches are a function of (seed, step): any number of ranks, any start, any chunk, and never an empty epoch."""

import itertools

import numpy as np
import pytest
import torch

from hf_lowlabel import api
from hf_lowlabel.arguments import TrainingArguments
from hf_lowlabel.data.caches.image_cache import ResidentCache
from hf_lowlabel.errors import UserError
from hf_lowlabel.pretraining.pixpro import cell_centres
from hf_lowlabel.tasks.caching import labeled_positions
from hf_lowlabel.training import setup
from hf_lowlabel.training.batches import ViewStream, finetune_batches, micro_batches, pretrain_batches
from hf_lowlabel.views.joint import JointView
from hf_lowlabel.views.table import build_view
from hf_lowlabel.views.transforms import Joint, Separate

from .conftest import FINETUNE

SIDE = 12


@pytest.fixture(scope="module")
def pool():
    images = torch.randint(0, 256, (23, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ResidentCache(images, [str(i) for i in range(23)])


def stream(pool, per_step=6, members=None, **kwargs) -> ViewStream:
    views = {
        k: build_view(v, size=SIDE, mean=[0.5] * 3, std=[0.25] * 3)
        for k, v in {"weak": "weak", "strong": "strong"}.items()
    }
    members = torch.arange(len(pool)) if members is None else members
    return ViewStream(pool, members, per_step, Separate(views), name="unlabeled", seed=3, **kwargs)


def take(s: ViewStream, start: int, count: int) -> list[dict]:
    return list(itertools.islice(s(start), count))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_start_and_chunk_do_not_matter(pool, chunk):
    straight = take(stream(pool), 0, 12)
    for start in (0, 1, 5, 7):
        later = take(stream(pool, chunk=chunk), start, 12 - start)
        assert all(same(a, b) for a, b in zip(straight[start:], later, strict=True))


def test_small_batches_are_made_for_several_steps_in_one_call(monkeypatch, tmp_path):
    calls, render = [], ViewStream.render

    def noted(self, chunk, images):
        calls.append((self.name, self.chunk, len(images)))
        return render(self, chunk, images)

    monkeypatch.setattr(ViewStream, "render", noted)
    api.finetune(**FINETUNE, method="fixmatch", output_dir=str(tmp_path))  # 6 steps at 8 px
    assert calls == [("labeled", 16, 16 * 12), ("unlabeled", 16, 16 * 24)]
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    args = TrainingArguments()
    ahead = [
        setup.steps_ahead(args, n, px, d)
        for n, px, d in ((56, 32, cpu), (448, 32, cpu), (448, 32, gpu), (56, 224, gpu))
    ]
    assert ahead == [9, 1, 9, 1] and setup.steps_ahead(TrainingArguments(dry_run=True), 56, 32, cpu) == 1


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_global_batch(pool, world):
    whole = take(stream(pool), 0, 9)
    parts = [take(stream(pool, rank=r, world=world), 0, 9) for r in range(world)]
    for step, batch in enumerate(whole):
        for key in batch:
            assert torch.equal(batch[key], torch.cat([p[step][key] for p in parts]))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("parts", [2, 3])
def test_ranks_share_every_micro_batch(pool, parts, chunk):
    """In the order of one process: what is compared within a micro-batch is the same on any number of them."""
    views = ["weak", "strong"]

    def micro(make, rank=0, world=1):
        given = dict(per_step=12, rank=rank, world=world, parts=parts, chunk=chunk)
        return [micro_batches(batch, parts) for batch in itertools.islice(make(given), 4)]

    def finetuning(given):
        return finetune_batches(stream(pool, **given), stream(pool, targets=torch.arange(23), **given), 1)

    def pretraining(given):
        return pretrain_batches(stream(pool, **given), views, 1)

    def flat(batch) -> list:
        if isinstance(batch, (dict, list)):
            return [x for v in (batch.values() if isinstance(batch, dict) else batch) for x in flat(v)]
        return [batch]

    for make in (finetuning, pretraining):
        whole, shares = micro(make), [micro(make, rank, 2) for rank in range(2)]
        for step, part in itertools.product(range(4), range(parts)):
            of_ranks = zip(*(flat(share[step][part]) for share in shares), strict=True)
            for one, both in zip(flat(whole[step][part]), of_ranks, strict=True):
                assert torch.equal(one, torch.cat(both))


def test_every_image_once_an_epoch(pool):
    seen = torch.cat([b["index"] for b in take(stream(pool, per_step=1), 0, 46)])
    assert sorted(seen[:23].tolist()) == sorted(seen[23:].tolist()) == list(range(23))
    assert seen[:23].tolist() != seen[23:].tolist()


def test_views_of_one_image_differ_between_steps(pool):
    members = torch.tensor([4])
    a, b = take(stream(pool, per_step=1, members=members), 0, 2)
    assert not torch.equal(a["strong"], b["strong"])


def test_every_view_and_stream_has_draws_of_its_own(pool):
    """Two views of a kind show different parts of an image, and labeled images other parts than unlabeled ones."""
    views = {k: build_view("weak", size=8, mean=[0.5] * 3, std=[0.25] * 3) for k in ("0-weak", "1-weak")}
    one, other = (
        take(ViewStream(pool, torch.tensor([0]), 6, Separate(views), name=name, seed=3), 0, 1)[0]
        for name in ("labeled", "unlabeled")
    )
    shown = [one["0-weak"], one["1-weak"], other["0-weak"], other["1-weak"]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(shown, 2))
    packed = torch.cat([pool.images, pool.images[:, :1]], 1)
    canvas = ResidentCache(packed, pool.ids, pool.indices, sizes=np.full((23, 2), SIDE))
    joint = Joint(JointView({"image": "weak"}, size=(8, 8), mean=[0.5] * 3, std=[0.25] * 3))
    a, b = (
        take(ViewStream(canvas, torch.tensor([0]), 6, joint, name=name, seed=3), 0, 1)[0]
        for name in ("labeled", "unlabeled")
    )
    assert not torch.equal(a["image"], b["image"]) and not set(a["key"].tolist()) & set(b["key"].tolist())


@pytest.mark.parametrize("world", [1, 2])
def test_images_of_many_sizes_keep_their_own(world):
    """Pixels of 200 fill each image, its mask has its number; the canvas beside it is never valid, whoever draws it."""
    sizes = torch.tensor([[4, 16], [16, 4], [9, 9], [16, 16], [5, 12]])
    images = torch.zeros(5, 4, 16, 16, dtype=torch.uint8)
    for i, (h, w) in enumerate(sizes.tolist()):
        images[i, :3, :h, :w], images[i, 3, :h, :w] = 200, i
    pool = ResidentCache(images, list("abcde"), sizes=sizes.numpy())
    view = Joint(JointView({"image": "weak"}, size=(12, 12), mean=[0.0] * 3, std=[1.0] * 3))

    def batches(rank, world):
        s = ViewStream(pool, torch.arange(5), 4, view, name="labeled", seed=1, rank=rank, world=world)
        return list(itertools.islice(s(0), 5))

    parts = [batches(rank, world) for rank in range(world)]
    for step, whole in enumerate(batches(0, 1)):
        batch = {k: torch.cat([p[step][k] for p in parts]) for k in whole}
        assert same(batch, whole) and len(set(batch["key"].tolist())) == 4
        valid = batch["valid"]
        assert valid.any() and torch.equal(batch["target"] >= 0, valid)
        torch.testing.assert_close(batch["image"], (valid[:, None] * (200 / 255)).expand(-1, 3, -1, -1).float())
        assert torch.equal(batch["target"][valid], batch["index"][:, None, None].expand(-1, 12, 12)[valid])


@pytest.mark.parametrize("labels", range(1, 8))
@pytest.mark.parametrize("world", [1, 2])
def test_any_number_of_labels_fills_every_batch(pool, labels, world):
    targets = torch.arange(labels) % 3
    for rank in range(world):
        s = stream(pool, per_step=6, members=torch.arange(labels), targets=targets, rank=rank, world=world)
        for batch in itertools.islice(finetune_batches(s, stream(pool, rank=rank, world=world), 0), 5):
            assert len(batch["labeled"]["weak"]) == 6 // world
            assert torch.equal(batch["labeled"]["target"], targets[batch["labeled"]["index"]])
            assert len(batch["unlabeled"]["strong"]) == 6 // world


def test_batch_that_ranks_cannot_share_is_an_error(pool):
    with pytest.raises(UserError, match="A batch of 6 unlabeled images cannot be shared by 4"):
        stream(pool, per_step=6, world=4)
    with pytest.raises(UserError, match="by 2 processes, in 2 parts of the same size on each. Give a multiple of 4"):
        stream(pool, per_step=6, world=2, parts=2)


def test_micro_batches_cut_everything_equally():
    batch = {
        "labeled": {"image": torch.arange(4), "target": torch.arange(4)},
        "views": [torch.arange(8), torch.arange(8) + 10],
    }
    a, b = micro_batches(batch, 2)
    assert a["labeled"]["image"].tolist() == [0, 1] and b["labeled"]["target"].tolist() == [2, 3]
    assert a["views"][1].tolist() == [10, 11, 12, 13] and b["views"][0].tolist() == [4, 5, 6, 7]
    with pytest.raises(UserError, match="cannot be cut into 3"):
        micro_batches(batch, 3)


def test_labeled_images_are_found_in_a_pool_in_any_order():
    """A pool may hold a part of its source, in any order; a labeled image it lacks has no place."""
    pool = ResidentCache(
        torch.zeros(5, 3, 4, 4, dtype=torch.uint8), ["7.png", "0.png", "5.png", "8.png", "3.png"], [7, 0, 5, 8, 3]
    )
    assert labeled_positions(pool, np.array([3, 7, 0])).tolist() == [4, 0, 1]
    assert labeled_positions(pool, np.array([0, 1, 6])).tolist() == [1]


def test_pixpro_is_told_where_its_views_came_from():
    """Images whose red is x and green is y: the cells' centres, computed from boxes and flips, say what is seen
    there."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = torch.stack([x * 4, y * 4, x * 0]).to(torch.uint8).expand(6, 3, 64, 64)
    views = {
        f"{i}-{k}": build_view(k, size=32, mean=(0, 0, 0), std=(1, 1, 1), min_scale=0.3)
        for i, k in enumerate(("pixpro1", "pixpro2"))
    }
    for view in views.values():
        view.steps = []  # geometry alone
        view.width = view.crop.width
    cache, transform = ResidentCache(images, list("abcdef")), Separate(views, geometry=True)
    stream = ViewStream(cache, torch.arange(6), 6, transform, name="unlabeled", seed=0)
    batch = next(pretrain_batches(stream, list(views), 0))
    assert len({bool(f) for flips in batch["flips"] for f in flips}) == 2  # both kinds are among them
    for seen, box, flip in zip(batch["views"], batch["boxes"], batch["flips"], strict=True):
        cells = (
            torch.nn.functional.adaptive_avg_pool2d(seen * 255 / 4, 4).flatten(2)[:, :2].transpose(1, 2)
        )  # [B, 16, 2] = x, y
        centres, _ = cell_centres(box, flip, 4, 4)
        torch.testing.assert_close(cells + 0.5, centres, atol=0.6, rtol=0)  # levels are whole, windows have edges
