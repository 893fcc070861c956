"""Runs of a few steps on the embedded digits at 8 px: seconds each."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from hf_lowlabel.data import digits
from hf_lowlabel.evaluation import overlays, plots

TINY = dict(
    dataset="digits",
    model="wrn_10_2",
    from_scratch=True,
    image_size=8,
    stored_size=8,
    color=False,
    logging_steps=2,
    eval_steps=100,
    save_steps=2,
    batch_size=12,
    max_steps=6,
)
FINETUNE = dict(TINY, num_labels=20, class_balanced=True, unlabeled_ratio=2)
PRETRAIN = dict(TINY, min_scale=0.3)
SEGMENT = dict(
    task="segmentation",
    model="cnn6_16",
    from_scratch=True,
    architecture="unet",
    architecture_args=dict(encoder_depth=3, decoder_channels=[16, 8, 8]),
    image_size=16,
    scale=[0.8, 1.2],
    num_labels=4,
    batch_size=4,
    max_steps=6,
    logging_steps=2,
    eval_steps=100,
    save_steps=2,
)


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    """Fourteen 24 px photos with masks of three classes (a lighter square and a darker one on a ground), four
    without."""
    root, rng = tmp_path_factory.mktemp("masked"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i in range(18):
        pixels, mask = rng.integers(90, 160, (24, 24 + i % 3, 3), dtype=np.uint8), np.zeros((24, 24 + i % 3), np.uint8)
        for k, value in ((1, 230), (2, 20)):
            y, x = rng.integers(0, 16, 2)
            pixels[y : y + 8, x : x + 8], mask[y : y + 8, x : x + 8] = value, k
        Image.fromarray(pixels).save(root / "images" / f"{i:02d}.png")
        if i < 14:
            Image.fromarray(mask).save(root / "masks" / f"{i:02d}.png")
    return root


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
        draw_nothing(monkeypatch.setattr)


def draw_nothing(setattr) -> None:
    for name in ("curves", "predictions", "confusion", "reliability"):
        setattr(plots, name, lambda *args, **kwargs: None)
    setattr(overlays, "examples", lambda *args, **kwargs: None)


def tensors(folder: Path, step: int) -> dict:
    """Everything a checkpoint holds, by name."""
    path = Path(folder) / "checkpoints" / f"step-{step:08d}"
    return {
        f"{part}/{k}": v
        for part in ("objective", "optimizer")
        for k, v in load_file(path / f"{part}.safetensors").items()
    }
