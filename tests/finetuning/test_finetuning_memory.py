import pytest
import torch

from hf_lowlabel.finetuning.memory import ClassQueue, Queue, RunningMean, follow, write_


def test_write_keeps_the_last_kept_row_of_every_index():
    g = torch.Generator().manual_seed(0)
    table, slow = torch.zeros(6, 2), torch.zeros(6, 2)
    for _ in range(50):
        index = torch.randint(6, (9,), generator=g)
        rows, keep = torch.randn(9, 2, generator=g), torch.rand(9, generator=g) < 0.5
        before = slow.clone()
        for i, row, k in zip(index, rows, keep, strict=True):
            if k:
                slow[i] = row
        old, new, once = write_(table, index, rows, keep)
        assert torch.equal(table, slow)
        assert int(once.sum()) == len(index.unique())
        changed = (slow - before).sum()  # counted once per distinct index
        torch.testing.assert_close(((new - old) * once[:, None]).sum(), changed, atol=1e-5, rtol=0)


def test_nan_is_never_followed():
    mean = torch.tensor([1.0, 2.0])
    assert follow(mean, torch.tensor([3.0, float("nan")]), 0.5).tolist() == [1.0, 2.0]
    assert follow(mean, torch.tensor([3.0, 4.0]), 0.5).tolist() == [2.0, 3.0] and mean.tolist() == [1.0, 2.0]


def test_running_mean_is_the_mean_of_the_last_batches():
    mean, seen = RunningMean(3, 2), []
    for step in range(7):
        batch = torch.full((4, 2), float(step)) + torch.tensor([0.0, 10.0])
        seen.append(batch.mean(0))
        torch.testing.assert_close(mean.update(batch, step / 9), torch.stack(seen[-3:]).mean(0))
        mean.advance()
    before = mean.rows.clone()
    mean.update(torch.full((4, 2), torch.nan), 1.0)
    mean.advance()
    assert torch.equal(mean.rows, before) and int(mean.pushed) == 7


def test_running_mean_counts_steps_not_micro_batches_and_may_start_full():
    mean, rows = RunningMean(3, 2, first=0.5), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    first = mean.update(rows[:2], 0.1)  # with the images seen so far
    torch.testing.assert_close(first, (torch.tensor([2.0, 3.0]) + 2 * 0.5) / 3)
    torch.testing.assert_close(mean.update(rows[2:], 0.1), (torch.tensor([4.0, 5.0]) + 2 * 0.5) / 3)
    mean.advance()
    assert mean.rows.tolist() == [[4.0, 5.0], [0.5, 0.5], [0.5, 0.5]]
    mean.update(rows, 0.2)  # undone: no end of a step
    torch.testing.assert_close(mean.update(rows[:1], 0.3), torch.tensor([5.5 / 3, 7.5 / 3]))
    mean.eval().update(rows, 0.3)
    mean.train().advance()
    assert mean.rows.tolist() == [[4.0, 5.0], [1.0, 2.0], [0.5, 0.5]]


@pytest.mark.parametrize("size", [3, 4, 11])
def test_queue_holds_the_newest_rows(size):
    queue, all_z, all_p = Queue(8, z=2, p=1), torch.zeros(0, 2), torch.zeros(0, 1)
    for step in range(6):
        z, p = torch.randn(size, 2), torch.full((size, 1), float(step))
        queue.push(z, p)
        all_z, all_p = torch.cat([all_z, z]), torch.cat([all_p, p])
        held = min(8, len(all_z))
        assert int(queue.filled.sum()) == held
        order = lambda t: sorted(map(tuple, t.tolist()))  # noqa: E731
        assert order(torch.cat([queue.z, queue.p], 1)[queue.filled]) == order(torch.cat([all_z, all_p], 1)[-held:])


def test_class_queue_against_lists():
    queue, lists = ClassQueue(3, 4, 2), [[], [], []]
    g = torch.Generator().manual_seed(3)
    for step in range(8):
        z, label = torch.randn(9, 2, generator=g), torch.randint(3, (9,), generator=g)
        z[step] = torch.nan
        queue.push(z, label)
        for v, c in zip(z, label, strict=True):
            if v.isfinite().all():
                lists[c].append(v.tolist())
        for c in range(3):
            held = lists[c][-4:]
            assert int(queue.filled[c].sum()) == len(held)
            assert sorted(queue.z[c][queue.filled[c]].tolist()) == sorted(held)


def test_rows_that_are_not_finite_take_no_place_in_a_queue():
    """Neither at the start, where a row of zeros would count as filled, nor among as many rows as there are places."""
    queue = Queue(4, z=2, p=1)
    z, p = torch.arange(12.0).view(6, 2), torch.arange(6.0)[:, None]
    z[0], p[3], z[5, 1] = torch.nan, torch.inf, -torch.inf
    queue.push(z, p)
    assert int(queue.pushed) == 3 and queue.p[queue.filled][:, 0].tolist() == [1, 2, 4]
    queue.push(torch.full((6, 2), torch.nan), torch.ones(6, 1))
    assert int(queue.pushed) == 3 and queue.z.isfinite().all()
    queue.push(torch.ones(2, 2), torch.tensor([[8.0], [9.0]]))
    assert queue.filled.all() and sorted(queue.p[:, 0].tolist()) == [2, 4, 8, 9]
