"""Image sizes without reading all headers, which takes many seconds for a hundred thousand files: a streaming run
needs the size of an image only once it is decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..dataset import ImageDataset
from ..pixels.images import BadImage, check_size
from .decoding import LOOK, Decoder, cores, in_threads, resized


@dataclass
class UnmeasuredDecoder(Decoder):
    """Whole images without masks whose headers nobody has read, in the upper left corner of a frame.

    The size of an image is known once it is decoded, and before that where `size_at` is asked. An image in the place of
    a bad one has the size that the bad one's header tells, or, if it tells none, the next header that does.

    sizes: 0 of those that are not known. frame: (height, width) in px of the largest that are known; a batch with a
    larger image has a larger one, which changes views by rounding alone. long_side: px to which the longer side is
    scaled.
    """

    source: ImageDataset
    indices: np.ndarray
    sizes: np.ndarray
    frame: tuple[int, int]
    long_side: int | None = None
    lenient: bool = True
    masks, chunk = False, 1

    def read(self, at: int, place: int) -> Tensor:
        image = self.source.rgb(int(self.indices[at]))
        if at == place:
            self.sizes[place] = resized(*image.size, self.long_side)[::-1]
        height, width = self.size_at(place)
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def size_at(self, place: int) -> tuple[int, int]:
        """(height, width) in px of what is shown at `place`. Raises BadImage."""
        last = min(LOOK, len(self)) - 1
        for following in range(last + 1):
            if self.sizes[place, 0]:
                break
            try:
                width, height = self.source.size(self.indices[(place + following) % len(self)])
                check_size(width, height)
                self.sizes[place] = resized(width, height, self.long_side)[::-1]
            except BadImage:
                if following == last:
                    raise
        height, width = self.sizes[place].tolist()
        return height, width

    def as_batch(self, positions: list[int], images: Iterable[Tensor]) -> tuple[Tensor, np.ndarray]:
        images = list(images)  # which tells their sizes
        sizes = self.sizes[positions]
        out = torch.zeros(len(images), 3, *np.maximum(self.frame, sizes.max(0)).tolist(), dtype=torch.uint8)
        for row, image in zip(out, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return out, sizes


class Sizes:
    """`UnmeasuredDecoder.sizes` by position, as the tensor that other caches have: a header is read where one is
    missing."""

    device = torch.device("cpu")

    def __init__(self, decoder: UnmeasuredDecoder):
        self.decoder = decoder

    def __getitem__(self, at: Any) -> Tensor:
        places = np.atleast_1d(np.arange(len(self.decoder))[np.asarray(at)])
        for _ in in_threads(self.decoder.size_at, places[self.decoder.sizes[places, 0] == 0].tolist(), cores(), 64):
            pass
        return torch.from_numpy(self.decoder.sizes[np.asarray(at)])
