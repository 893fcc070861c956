"""Where masks and what the other masks teach disagree most: each labeled image is judged without its own mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import nn

from .cross_validation import guesses_of_masks
from .data_classes import Examples

BORDER = 0.02  # of the shorter side: wrong pixels up to so near to the border of a region are no region of their own
LEAST = 0.002  # of the pixels of an image that a region has


class Disagreement(NamedTuple):
    """image: position among the labeled ones. wrong: share of its labeled pixels. box: the region that disagrees most,
    (left, top, width, height) as shares of the image. region: its share of the image. given, like: its most frequent
    class in the mask, and in the answer. weight: by which images are ordered.
    """

    image: int
    wrong: float
    box: tuple[float, float, float, float]
    region: float
    given: int
    like: int
    weight: float


def disagreements(model: nn.Module, labeled: Examples, names: Sequence[str]) -> list[Disagreement]:
    """The images with masks by how much they disagree, the most first; those without a region are left out.

    The pixel probe on the frozen maps of the encoder is fitted to the masks of the other images (`tasks.left_out`). A
    region is connected and more than a line along a border; its weight is the sum of p_answer - p_mask over its pixels,
    as a share of the image.
    """
    from scipy import ndimage

    out = []
    for image, p, target in guesses_of_masks(model, labeled, len(names)):
        known = target < len(names)
        answer, given = p.argmax(0), np.where(known, target, 0)
        wrong = known & (answer != given)
        rounds = max(1, round(BORDER * min(target.shape) / 2))
        parts, count = ndimage.label(ndimage.binary_opening(wrong, iterations=rounds))
        if not count:
            continue
        lead = np.take_along_axis(p, answer[None], 0)[0] - np.take_along_axis(p, given[None], 0)[0]
        weights = ndimage.sum_labels(lead, parts, np.arange(1, count + 1)) / target.size
        best = int(weights.argmax())
        region = parts == best + 1
        if region.mean() < LEAST:
            continue
        rows, columns = ndimage.find_objects(parts)[best]
        (height, width), (top, left) = target.shape, (rows.start, columns.start)
        box = (left / width, top / height, (columns.stop - left) / width, (rows.stop - top) / height)
        was, like = (int(np.bincount(of[region]).argmax()) for of in (given, answer))
        share = float(wrong.sum() / max(known.sum(), 1))
        out.append(Disagreement(image, share, box, float(region.mean()), was, like, float(weights[best])))
    return sorted(out, key=lambda one: -one.weight)
