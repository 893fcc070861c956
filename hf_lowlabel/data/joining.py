"""Two data sets as one: the labels of the first, and the images of both."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from PIL import Image

from ..errors import UserError
from .dataset import ImageDataset, Reader


class JoinedReader:
    def __init__(self, first: Reader, count: int, second: Reader):
        self.first, self.count, self.second = first, count, second

    def __call__(self, i: int) -> Image.Image:
        return self.first(i) if i < self.count else self.second(i - self.count)

    def ends(self, i: int) -> bytes:
        return self.first.ends(i) if i < self.count else self.second.ends(i - self.count)


def join(labeled: ImageDataset, unlabeled: ImageDataset) -> ImageDataset:
    """One data set out of two: the targets come from the first, the second is raw images, whatever it may have.

    Ids become "labeled/<id>" and "unlabeled/<id>".
    """
    if not labeled.has_target.any():
        raise UserError(
            f"There is no {'mask' if labeled.masks else 'label'} in {labeled.name!r}, the first of the two data sets. "
            f"Swap them, or use {unlabeled.name!r} alone."
        )

    def both(one: str, other: str) -> str:
        return hashlib.sha256(f"{one}+{other}".encode()).hexdigest()

    licenses = sorted({part.license for part in (labeled, unlabeled) if part.license})
    return replace(
        labeled,
        name=f"{labeled.name}+{unlabeled.name}",
        config=None,
        split=f"{labeled.split}+{unlabeled.split}",
        revision=None,
        ids=[f"labeled/{id}" for id in labeled.ids] + [f"unlabeled/{id}" for id in unlabeled.ids],
        labels=np.concatenate([labeled.labels, np.full((len(unlabeled), *labeled.labels.shape[1:]), -1)]),
        fingerprint=both(labeled.fingerprint, unlabeled.fingerprint),
        images_print=both(labeled.images_print, unlabeled.images_print),
        license=" and ".join(licenses) or None,
        flip=labeled.flip and unlabeled.flip,
        file_of={
            f"{part}/{id}": f"{part}/{file}"
            for part, of in (("labeled", labeled), ("unlabeled", unlabeled))
            for id, file in of.file_of.items()
        },
        reader=JoinedReader(labeled.reader, len(labeled), unlabeled.reader),
    )
