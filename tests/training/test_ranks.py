"""Two processes on the same global batch do what one does.

Rounding differs (sums over ranks), and a network of BatchNorms this small multiplies it by about two a step at lr 0.01: the
learning rates here are low enough for 1e-5 after 20 steps.
"""
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from .conftest import FINETUNE, PRETRAIN


def flags(settings: dict) -> list[str]:
    out = []
    for key, value in settings.items():
        flag = key.replace("_", "-")
        out.append(f"--{flag}" if value is True else f"--no-{flag}" if value is False else f"--{flag}={value}")
    return out


def launch(processes: int, verb: str, settings: dict, folder) -> str:
    """Run the command line under torchrun; returns what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "hf_lowlabel.cli",
               verb, *flags(settings), "--output-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize("verb, settings", [
    ("finetune", dict(FINETUNE, method="fixmatch", max_steps=20, lr=1e-3)),
    ("pretrain", dict(PRETRAIN, method="byol", model="cnn6_16", image_size=16, pool_size=16, max_steps=20, batch_size=48, optimizer="sgd", lr=5e-4,
                      method_args="hidden=64")),
])
def test_two_ranks_equal_one(verb, settings, tmp_path):
    settings = dict(settings, log_every=1, save_every=20)
    one, two = launch(1, verb, settings, tmp_path / "one"), launch(2, verb, settings, tmp_path / "two")
    assert "1 process on cpu" in one and "2 processes on cpu" in two
    a, b = load_file(tmp_path / "one" / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    rows = [[json.loads(r) for r in (tmp_path / k / "log.jsonl").read_text().splitlines()] for k in ("one", "two")]
    losses = [[r["loss"] for r in run if "loss" in r] for run in rows]
    assert len(losses[0]) == len(losses[1]) == 20
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # a rank alone has another loss: it is the mean that is logged


@pytest.mark.parametrize("labels", [10, 12, 13])
def test_no_budget_gives_an_empty_epoch_on_two_ranks(labels, tmp_path):
    """Labels below, equal to and above the batch of 12 (one rank: test_batches.py)."""
    launch(2, "finetune", dict(FINETUNE, num_labels=labels, class_balanced=False, max_steps=3), tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


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
