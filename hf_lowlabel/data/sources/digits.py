"""scikit-learn's 1,797 scans of handwritten digits, 8x8: real images that need no download."""

from __future__ import annotations

import hashlib

import numpy as np

from ...errors import MissingSplit
from ..dataset import ArrayReader, ImageDataset, Origin, make_dataset


def digits(split: str = "train") -> ImageDataset:
    """The whole set as one split (cut a test set out of it with `make_split(..., test_fraction=0.2)`).

    Values 0..16 become 0..255 (v * 255 / 16, rounded). A mirrored digit is another digit or none: flip is False.
    """
    from sklearn.datasets import load_digits

    if split != "train":
        raise MissingSplit(
            f"'digits' has no split {split!r}, only 'train'. Cut a test set out of it with test_fraction."
        )
    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8]
    labels = data.target.astype(np.int64)
    ids = [f"{i:04d}" for i in range(len(labels))]
    names = [str(n) for n in data.target_names]
    content = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    reader = ArrayReader(images)
    return make_dataset(Origin("digits", split, license="cc-by-4.0"), ids, labels, names, content, reader, flip=False)
