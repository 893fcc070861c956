"""Code saved with weights, for processes without this package: transformers reads it by trust_remote_code=True,
and finds it by the `auto_map` of config.json."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from . import cifar, plain, wrapped

NETWORKS = ("cifar.py", "plain.py", "wrapped.py")  # they register with timm what it lacks


def brings_code(architecture: str | None) -> bool:
    """Whether timm lacks the architecture, so that a saved model of it brings its code."""
    return any(architecture in module.default_cfgs for module in (cifar, plain, wrapped))


def copy_files(folder: Path, files: Sequence[str]) -> None:
    """Put files of this package beside saved weights. files: names in `hf_lowlabel/models`."""
    for name in files:
        shutil.copyfile(Path(__file__).parent / name, folder / name)
