import pytest
import torch
from segmentation_ranks import METHODS, evaluated, trained, work

from tests.processes import ranks


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranks(work, folder, folder=folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_end_where_one_does(two, name):
    """Boxes, classes, pairs, dropped channels, the pixels of CLMB and its memory included."""
    for key, value in trained(name).items():
        a, b = two[0][name][key], two[1][name][key]
        if ".num_batches_tracked" in key or ".running_" in key:  # of heads, which the trainer synchronises
            continue
        assert torch.equal(a, b), f"{key} differs between the ranks"
        torch.testing.assert_close(a, value, rtol=1e-4, atol=5e-6, msg=lambda m, key=key: f"{key}: {m}")
    if name == "clmb":
        assert two[0][name]["filled"].sum() > 6


def test_two_ranks_count_every_pixel_once(two):
    assert torch.equal(two[0]["evaluated"], evaluated()) and torch.equal(two[1]["evaluated"], evaluated())
