"""Two processes on the same global batch do what one does, for both verbs and every method of segmentation.

Rounding differs (sums over ranks), and a network of BatchNorms this small multiplies it by about two a step at lr
0.01: the learning rates here are low enough for 1e-5 after ten steps.
"""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ..pictures import OF_CLASSES, OF_MASKS, draw_nothing
from ..processes import ranks
from . import launched_runs, own_ranks, script_ranks, slow_ranks
from .conftest import FINETUNE
from .launched_runs import ALGORITHMS, COMPARED, LABELS


@pytest.fixture(scope="module")
def two(masked, tmp_path_factory):
    """(folder with the runs of two processes, what they printed)."""
    folder = tmp_path_factory.mktemp("two")
    return folder, "".join(ranks(launched_runs.main, masked, folder, folder=folder, pictures=True))


@pytest.fixture(scope="module")
def one(masked, tmp_path_factory):
    """Folder with the same runs of this process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr, *OF_CLASSES, *OF_MASKS)
        launched_runs.classification(folder)
        launched_runs.segmentation(masked, folder)
    return folder


def compare(a, b) -> list[list[float]]:
    """Weights of two run folders are the same; returns the losses of both."""
    x, y = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert x.keys() == y.keys()
    for name in x:
        torch.testing.assert_close(x[name], y[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    rows = [[json.loads(r) for r in (folder / "log.jsonl").read_text().splitlines()] for folder in (a, b)]
    return [[r["loss"] for r in run if "loss" in r] for run in rows]


@pytest.mark.parametrize("verb", COMPARED)
def test_two_ranks_equal_one(verb, one, two):
    losses = compare(one / verb, two[0] / verb)
    assert len(losses[0]) == len(losses[1]) == 5
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # it is the mean over ranks that is logged
    facts = [json.loads((folder / verb / "run.json").read_text()) for folder in (one, two[0])]
    assert [f["hardware"]["processes"] for f in facts] == [1, 2]
    assert "2 processes on cpu" in two[1] and "1 process" not in two[1]


@pytest.mark.parametrize("labels", LABELS)
def test_no_budget_gives_an_empty_epoch_on_two_ranks(labels, two):
    """Labels below, equal to and above the batch of 12 (one rank: test_streams.py)."""
    assert (two[0] / f"{labels}-labels" / "model.safetensors").is_file()


def test_the_first_of_two_ranks_draws(two):
    for run, pictures in (
        ("finetune", {"curves", "predictions", "confusion", "reliability"}),
        ("pretrain", {"curves"}),
        ("with-pictures", {"curves", "predictions", "confusion"}),
    ):
        assert {p.stem for p in (two[0] / run).glob("*.png")} == pictures


@pytest.mark.parametrize("method", ALGORITHMS)
def test_two_ranks_equal_one_in_segmentation(method, one, two):
    losses = compare(one / method, two[0] / method)
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    a, b = (json.loads((folder / method / "metrics.json").read_text()) for folder in (one, two[0]))
    assert a["pixels"] == b["pixels"] and a["miou"] == pytest.approx(b["miou"], abs=2e-3)  # a pixel may turn over
    hashes = json.loads((two[0] / f"{method}.json").read_text())
    assert len(hashes) == 2 and hashes[0] == hashes[1]  # the ranks stay one network


def test_a_script_that_every_process_runs(tmp_path):
    """All open the weights that the first has saved last; one push, whose answer or error all have; and images that a
    process sees by itself end all of them."""
    for i in range(24):
        for name in ("all", "fewer"):
            path = tmp_path / name / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == "all" or i != 7:
                Image.new("RGB", (16, 16), (10 * i, 90 * (i % 2), 0)).save(path)
    settings = dict(FINETUNE, dataset=str(tmp_path / "all"), num_labels=8, model="test_resnet", image_size=16)
    settings |= dict(method="supervised", batch_size=4, max_steps=2, stored_size=16, color=True)
    ranks(script_ranks.main, settings, tmp_path, folder=tmp_path)
    first, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == other and first["pushed"] and first["accuracy"] == first["trained"]
    assert len(list(tmp_path.glob("upload-0-*"))) == 5 and not list(tmp_path.glob("upload-1-*"))
    assert not (tmp_path / "other").exists()


def test_two_ranks_equal_one_with_parameters_that_a_step_does_not_use(tmp_path, monkeypatch):
    draw_nothing(monkeypatch.setattr, *OF_CLASSES)
    own_ranks.main(tmp_path / "one")
    said = ranks(own_ranks.main, tmp_path / "two", folder=tmp_path)
    losses = compare(tmp_path / "one", tmp_path / "two")
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    one, two = (
        load_file(tmp_path / run / "checkpoints" / "step-00000004" / "objective.safetensors") for run in ("one", "two")
    )
    assert one["odd.weight"].allclose(two["odd.weight"], atol=1e-5)
    assert one["never.weight"].equal(two["never.weight"]) and "find_unused" not in "".join(said)
    assert one["bank"].allclose(two["bank"], atol=1e-5) and one["bank"].any()
    first, other = said  # a memory of the first process's images alone is told, once
    assert (
        first.count("differ between processes") == 1
        and "alone of Spare differ" in first
        and "differ between" not in other
    )


def test_slow_steps_leave_time_to_save(tmp_path):
    """A launcher kills 30 s after its SIGTERM: ten steps of 4 s, after which the others were asked, were too many."""
    ranks(slow_ranks.main, dict(FINETUNE, max_steps=40, eval_steps=40, save_steps=40), tmp_path, folder=tmp_path)
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert int(saved.name.removeprefix("step-")) == slow_ranks.ASKED


def test_batchnorm_over_ranks_under_autocast(monkeypatch):
    """bfloat16 in and out, statistics in float32: those of torch on the same batch."""
    from hf_lowlabel.training import sync_batchnorm

    monkeypatch.setattr(sync_batchnorm.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(sync_batchnorm.dist, "all_reduce", lambda x: None)
    ours, torchs = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = (torch.randn(8, 3, 9, 9) * 3 + 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = sync_batchnorm.synced_batch_norm(ours, x), torchs(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
