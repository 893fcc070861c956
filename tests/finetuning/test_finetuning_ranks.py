import pytest
import torch
from finetuning_ranks import trained, work
from finetuning_stand_in import FINETUNE

from tests.processes import ranks


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranks(work, folder, folder=folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", FINETUNE)
def test_two_ranks_end_where_one_does(two, name):
    one = trained(name)
    for key, value in one.items():
        a, b = two[0][name][key], two[1][name][key]
        assert torch.equal(a, b), f"{key} differs between the ranks"
        torch.testing.assert_close(a, value, rtol=1e-4, atol=2e-6, msg=lambda m: f"{key}: {m}")
