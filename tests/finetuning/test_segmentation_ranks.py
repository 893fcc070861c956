import socket
import warnings

import pytest
import torch
from segmentation_ranks import DRAWING, SAME, evaluated, trained, work


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    warnings.simplefilter("ignore")
    torch.multiprocessing.spawn(work, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", SAME)
def test_two_ranks_end_where_one_does(two, name):
    for key, value in trained(name).items():
        a, b = two[0][name][key], two[1][name][key]
        assert torch.equal(a, b), f"{key} differs between the ranks"
        torch.testing.assert_close(a, value, rtol=1e-4, atol=2e-6, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", DRAWING)
def test_networks_and_memories_are_the_same_on_every_rank(two, name):
    for key, value in two[0][name].items():
        own = ".num_batches_tracked" in key or ".running_" in key  # of heads, which the trainer synchronises
        assert own or torch.equal(value, two[1][name][key]), key
    if name == "clmb":
        assert two[0][name]["filled"].sum() > 6


def test_two_ranks_count_every_pixel_once(two):
    assert torch.equal(two[0]["evaluated"], evaluated()) and torch.equal(two[1]["evaluated"], evaluated())
