"""Small, fixed data: blobs of features, and a folder of pictures with a backbone of random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_lowlabel.models import create_backbone


def blobs(classes: int = 4, each: int = 30, width: int = 8, spread: float = 0.15, seed: int = 0):
    """(features of unit length [N, D], labels [N]), shuffled."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((width, width)))[0][:classes]
    y = rng.permutation(np.repeat(np.arange(classes), each))
    x = centres[y] + spread * rng.standard_normal((len(y), width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    """A folder with a small network of random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    create_backbone("wrn_10_2", pretrained=False, image_size=16).save_pretrained(folder)
    return str(folder)


def paint(folder, count: int = 24, seed: int = 0) -> list[str]:
    """Pictures of three colours with noise, named without regard to them; returns the ids, which are file names."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(count):
        pixels = np.clip(
            np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])[i % 3] + rng.integers(-39, 40, (16, 16, 3)), 0, 255
        )
        names.append(f"photo {i:02d}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(folder / names[-1])
    return names


@pytest.fixture
def photos(tmp_path):
    paint(tmp_path / "photos")
    return tmp_path / "photos"
