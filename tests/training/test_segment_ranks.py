"""Segmentation, every method: two processes do what one does."""
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from . import segment_ranks
from .segment_ranks import ALGORITHMS


@pytest.fixture(scope="module")
def launched(masked, tmp_path_factory):
    """{processes: folder with runs}."""
    root = tmp_path_factory.mktemp("ranks")
    segment_ranks.main(masked, root / "1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", segment_ranks.__file__, str(masked),
               str(root / "2")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return {n: root / str(n) for n in (1, 2)}


@pytest.mark.parametrize("method", ALGORITHMS)
def test_two_ranks_equal_one(method, launched):
    a, b = (load_file(folder / method / "model.safetensors") for folder in launched.values())
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    rows = [[json.loads(r) for r in (folder / method / "log.jsonl").read_text().splitlines()] for folder in launched.values()]
    losses = [[r["loss"] for r in run if "loss" in r] for run in rows]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    one, two = (json.loads((folder / method / "metrics.json").read_text()) for folder in launched.values())
    assert one["pixels"] == two["pixels"] and one["miou"] == pytest.approx(two["miou"], abs=2e-3)  # a pixel may turn over
    hashes = json.loads((launched[2] / f"{method}.json").read_text())
    assert len(hashes) == 2 and hashes[0] == hashes[1]  # the ranks stay one network
