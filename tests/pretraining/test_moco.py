"""MoCo v2 against He et al. Eq. 1-2, and its queue of keys."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining_stand_in import array, batch_for, make, train, unit

from hf_lowlabel.arguments import ModelArguments
from hf_lowlabel.pretraining.contrast import KeyQueue, info_nce
from hf_lowlabel.training import setup


def info_nce_in_numpy(q: np.ndarray, k: np.ndarray, negatives: np.ndarray, tau: float) -> float:
    losses = []
    for i in range(len(q)):
        positive = np.exp(q[i] @ k[i] / tau)
        losses.append(-np.log(positive / (positive + sum(np.exp(q[i] @ n / tau) for n in negatives))))
    return float(np.mean(losses))


@pytest.mark.parametrize("tau", [0.2, 0.07])
def test_loss_is_equation_1(tau):
    objective = make("moco", norm=True, tau=tau)
    train(objective)
    batch = batch_for(objective, seed=5)
    twin = copy.deepcopy(objective)
    q = unit(array(twin.projector(twin.encoder.pooled(batch["views"][0]))))
    k = unit(array(twin.teacher_projector(twin.teacher_encoder.module.pooled(batch["views"][1]))))
    expected = info_nce_in_numpy(q, k, array(objective.queue.keys), tau)
    assert objective(batch, 0.9)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_queue_takes_the_slow_encoder_s_keys_of_the_second_view():
    objective = make("moco", norm=True)
    train(objective)
    batch, at, twin = batch_for(objective, seed=5), int(objective.queue.pointer), copy.deepcopy(objective)
    expected = unit(array(twin.teacher_projector(twin.teacher_encoder.module.pooled(batch["views"][1]))))
    objective(batch, 0.9)
    objective.after_step(0.9)
    np.testing.assert_allclose(array(objective.queue.keys[at : at + 4]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["moco", "densecl"])
def test_old_keys_of_an_image_are_no_negatives_to_it(name):
    """They may be any: neither the loss nor its gradient changes. To queries of other images they count."""
    objective, found = make(name), []
    batch = batch_for(objective) | {"index": torch.tensor([5, 5, 5, 5])}
    for image in (5, 6):
        for seed in (0, 1):
            old = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)), dim=1)
            for queue in (objective.queue, getattr(objective, "dense_queue", objective.queue)):
                queue.keys[:4], queue.images[:4] = old, image
            objective.zero_grad()
            loss = objective(batch, 0.0)["loss"]
            loss.backward()
            found.append((loss.item(), objective.encoder.conv.weight.grad.clone()))
    (own, grad), (again, same_grad), (other, other_grad), (another, _) = found
    assert own == again and torch.equal(grad, same_grad) and grad.isfinite().all()
    assert own < min(other, another) and other != another and not torch.allclose(grad, other_grad)


def test_info_nce_leaves_out_the_keys_of_the_image_of_a_query():
    g = torch.Generator().manual_seed(0)
    q, k, n = (F.normalize(torch.randn(s, 4, dtype=torch.float64, generator=g), dim=1) for s in (4, 4, 5))
    same = torch.tensor([[1, 0, 0, 0, 1], [0] * 5]).bool()  # two queries of each of two images
    expected = [
        info_nce_in_numpy(*(array(v[2 * i : 2 * i + 2]) for v in (q, k)), array(n[~same[i]]), 0.2) for i in (0, 1)
    ]
    assert info_nce(q, k, n, 0.2, same).item() == pytest.approx(np.mean(expected))
    assert torch.autograd.gradcheck(lambda q: info_nce(q, k, n, 0.2, same), q.requires_grad_())


def test_info_nce_gradient():
    g = torch.Generator().manual_seed(0)
    q, k, n = (F.normalize(torch.randn(*s, dtype=torch.float64, generator=g), dim=1) for s in ((3, 4), (3, 4), (5, 4)))
    assert torch.autograd.gradcheck(lambda q: info_nce(q, k, n, 0.2), q.requires_grad_())


def test_the_queue_holds_the_newest_keys_in_the_order_they_came():
    queue = KeyQueue(5, 2)
    keys = torch.arange(14.0).view(7, 2)
    started = queue.keys.clone()
    queue.wait(keys[:3], torch.arange(3), 0.0)
    assert torch.equal(queue.keys, started)  # nothing before the step ends
    queue.advance()
    assert torch.equal(queue.keys[:3], keys[:3]) and torch.equal(queue.keys[3:], started[3:]) and queue.pointer == 3
    queue.wait(keys[3:], torch.arange(3, 7), 0.1)
    queue.advance()
    assert torch.equal(queue.keys, keys[[5, 6, 2, 3, 4]]) and queue.pointer == 2
    assert queue.images.tolist() == [5, 6, 2, 3, 4]


def test_more_keys_than_places_leave_the_last_ones():
    queue = KeyQueue(3, 2)
    queue.wait(torch.arange(10.0).view(5, 2), torch.arange(5), 0.0)
    queue.advance()
    assert torch.equal(queue.keys, torch.arange(4.0, 10.0).view(3, 2)) and queue.images.tolist() == [2, 3, 4]


def test_micro_batches_wait_for_the_end_of_their_step_and_an_undone_step_leaves_nothing():
    queue = KeyQueue(4, 2)
    queue.wait(torch.full((1, 2), 9.0), torch.tensor([0]), 0.1)  # this step is undone: no advance
    queue.wait(torch.full((1, 2), 1.0), torch.tensor([1]), 0.2)
    queue.wait(torch.full((1, 2), 2.0), torch.tensor([2]), 0.2)
    queue.advance()
    assert queue.keys[:2, 0].tolist() == [1.0, 2.0] and queue.pointer == 2 and not (queue.keys == 9).any()
    queue.advance()
    assert queue.pointer == 2


def test_a_key_that_is_not_finite_never_enters():
    queue = KeyQueue(4, 2)
    started = queue.keys.clone()
    queue.wait(torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [float("inf"), 0.0]]), torch.arange(3), 0.0)
    queue.advance()
    assert queue.keys[0].tolist() == [1.0, 2.0] and torch.equal(queue.keys[1:], started[1:])
    assert queue.images.tolist() == [0, -1, -1, -1]


def test_queue_and_pointer_are_state_and_take_no_gradient():
    objective = make("moco")
    assert {"queue.keys", "queue.images", "queue.pointer"} <= objective.state_dict().keys()
    torch.testing.assert_close(objective.queue.keys.norm(dim=1), torch.ones(32))
    train(objective, ts=(0.0,))
    assert objective.queue.pointer == 4 and not objective.queue.keys.requires_grad


def test_accumulated_micro_batches_meet_the_same_negatives():
    """The gradient of a batch is the mean of its halves': the second half does not see the keys of the first."""
    objective = make("moco")
    batch = batch_for(objective)
    objective(batch, 0.0)["loss"].backward()
    whole = objective.encoder.conv.weight.grad.clone()
    objective.zero_grad()
    for part in (slice(0, 2), slice(2, 4)):
        half = {"views": [x[part] for x in batch["views"]], "index": batch["index"][part]}
        (objective(half, 0.0)["loss"] / 2).backward()
    torch.testing.assert_close(objective.encoder.conv.weight.grad, whole)


def test_averaged_statistics_close_the_leak_through_batch_norm():
    """With "ema" a key does not depend on the other images of its batch."""
    x = batch_for(make("moco"))["views"][1]
    for buffers, independent in (("own", False), ("ema", True)):
        encoder = make("moco", norm=True, teacher_buffers=buffers).teacher_encoder.module
        whole, half = copy.deepcopy(encoder).pooled(x), copy.deepcopy(encoder).pooled(x[:2])
        assert torch.allclose(whole[:2], half, atol=1e-5) == independent


@pytest.mark.parametrize("name", ["moco", "densecl"])
def test_keys_of_another_run_are_of_none_of_these_images(name, monkeypatch):
    """Its images have other numbers; a checkpoint from before queues knew their images fits too."""
    other, objective = make(name, seed=1), make(name)
    train(other)
    state = other.state_dict()
    for gone in ((), ("queue.images", "dense_queue.images")):
        monkeypatch.setattr(setup, "load_objective", lambda path: {k: v for k, v in state.items() if k not in gone})
        setup.start_from(objective, ModelArguments(init_from="checkpoint"))
        assert torch.equal(objective.queue.keys, other.queue.keys) and (objective.queue.images == -1).all()
