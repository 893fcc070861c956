"""Which process this is, before and after the processes of a launch have joined."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from hf_lowlabel import UserError, distributed


@pytest.mark.parametrize("given, main", [(None, True), ("0", True), ("3", False)])
def test_the_main_process_is_known_before_the_others_join(monkeypatch, given, main):
    monkeypatch.delenv("RANK", raising=False)
    if given is not None:
        monkeypatch.setenv("RANK", given)
    assert distributed.is_main_process() == main
    assert (distributed.rank(), distributed.world()) == (0, 1)  # nothing is shared out yet


def test_after_joining_the_group_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "3")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert distributed.is_main_process() and distributed.rank() == 0
        distributed.join_processes("cpu")  # has joined: nothing to do
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("backend, moved", [("gloo", False), ("nccl", True)])
def test_a_mean_of_what_is_in_main_memory_goes_where_the_backend_can_reach_it(backend, moved, monkeypatch):
    """NCCL takes tensors on a GPU alone: here what is sent to one is told by its type."""
    sent = []
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: backend)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda x: x.double())
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda x: sent.append(x.dtype) or x.mul_(2).add_(2))
    x = torch.tensor([1.0, 3.0])
    assert distributed.all_mean(x).tolist() == [2.0, 4.0] and x.tolist() == [1.0, 3.0]
    assert sent == [torch.float64 if moved else torch.float32]


def test_who_leaves_a_gpu_alone_leaves_it_alone_with_all(monkeypatch):
    """--device cpu is of neighbours and clusters too, until somebody asks for another device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.choose_device("cpu") == distributed.best_device() == torch.device("cpu")
    assert distributed.choose_device(None) == distributed.best_device() == torch.device("cuda")


def test_a_gpu_that_is_named_is_the_one_that_is_trained_on(monkeypatch):
    """Accelerate takes the current one, whichever that is."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cuda:1", "cuda", None, "cpu"):
        distributed.choose_device(name)
    assert current == [torch.device("cuda:1")]
    with pytest.raises(UserError, match="no device 'cuda:2': this machine has the CPU and 2 GPUs"):
        distributed.choose_device("cuda:2")
    distributed.choose_device(None)


def test_what_is_decided_by_the_time_is_the_first_process_s(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(distributed.dist, "broadcast", lambda x, source: x.fill_(7.25 + source))
    assert distributed.of_first(3.0) == 7.25
