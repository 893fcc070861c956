"""Which process this is, before and after the processes of a launch have joined."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from hf_lowlabel import distributed


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
