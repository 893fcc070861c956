"""Runs of a few steps on the embedded digits at 8 px: seconds each."""
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_lowlabel.data import digits

TINY = dict(dataset="digits", model="wrn_10_2", from_scratch=True, image_size=8, pool_size=8, color=False, log_every=2, eval_every=100,
            save_every=2, batch_size=12, max_steps=6)
FINETUNE = dict(TINY, num_labels=20, class_balanced=True, unlabeled_ratio=2)
PRETRAIN = dict(TINY, min_scale=0.3)


@pytest.fixture
def tiny():
    """Settings by verb."""
    return {"finetune": dict(FINETUNE), "pretrain": dict(PRETRAIN)}


@pytest.fixture(autouse=True)
def visible_log():
    """Let caplog see the library's lines."""
    log = logging.getLogger("hf_lowlabel")
    before, log.propagate = log.propagate, True
    yield
    log.propagate = before


@pytest.fixture
def few_images(monkeypatch):
    """The first 160 digits only."""
    whole = digits.digits

    def few(split="train"):
        source = whole(split)
        return replace(source, ids=source.ids[:160], labels=source.labels[:160], fingerprint="f" * 64)

    monkeypatch.setattr(digits, "digits", few)


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Pictures cost most of a tiny run; tests that look at them are marked `pictures`."""
    if "pictures" not in request.keywords:
        for name in ("curves", "predictions", "confusion", "reliability"):
            monkeypatch.setattr(f"hf_lowlabel.evaluation.plots.{name}", lambda *args, **kwargs: None)


def tensors(folder: Path, step: int) -> dict:
    """Everything a checkpoint holds, by name."""
    path = Path(folder) / "checkpoints" / f"step-{step:08d}"
    return {f"{part}/{k}": v for part in ("objective", "optimizer") for k, v in load_file(path / f"{part}.safetensors").items()}
