"""Segmentation, every method: a resumed run is bit-identical to one that was never stopped."""

import json
import random
import shutil

import pytest
import torch

from hf_lowlabel import finetune

from .conftest import SEGMENT, tensors
from .launched_runs import ALGORITHMS, settings
from .test_resume import watch


@pytest.mark.parametrize("method", ALGORITHMS)
def test_resumed_run_is_bit_identical(method, masked, tmp_path, monkeypatch):
    straight, resumed = {}, {}
    with monkeypatch.context() as m:
        watch(m, straight)
        finetune(**settings(method, masked), output_dir=str(tmp_path / "straight"))
    kept = random.Random(method).choice([2, 4])
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    for path in (tmp_path / "killed" / "checkpoints").iterdir():
        if path.name > f"step-{kept:08d}":
            shutil.rmtree(path)
    with monkeypatch.context() as m:
        watch(m, resumed)
        finetune(**settings(method, masked), output_dir=str(tmp_path / "killed"), resume=True)
    assert resumed == {step: straight[step] for step in range(kept, SEGMENT["max_steps"])}
    expected, found = tensors(tmp_path / "straight", 6), tensors(tmp_path / "killed", 6)
    assert expected.keys() == found.keys() and any(k.startswith("optimizer/") for k in expected)
    assert not [k for k in expected if not torch.equal(expected[k], found[k])]
    a, b = (json.loads((tmp_path / k / "metrics.json").read_text()) for k in ("straight", "killed"))
    assert a == b
