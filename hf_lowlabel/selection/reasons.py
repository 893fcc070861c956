"""Why an image was chosen: how many others it stands for, and which are nearest to it."""

from __future__ import annotations

import numpy as np

from ..data.dataset import ImageDataset
from ..evaluation.neighbors import neighbours
from ..labeling.contact_sheet import thumbnail
from .clustering import nearest

NEIGHBOURS = 6  # on the contact sheet
SAME = 0.1  # of the distance between chosen images: nearer ones are all but the same


def reasons(x: np.ndarray, chosen: np.ndarray, source: ImageDataset, indices: np.ndarray) -> list[dict]:
    """What the contact sheet says of each chosen image.

    Args:
        x: features, float32 [N, D].
        chosen: rows of the chosen images, int64 [budget].
        source: the images.
        indices: the position in it of each row, int64 [N].

    Returns:
        For each chosen image "stands_for", how many images it is the nearest chosen one of, and "neighbours", the
        nearest images, "same" where all but the same: nearer than a tenth of the median distance between a chosen
        image and the next chosen one. (Distances to any neighbour are small in bursts of the same photo.)
    """
    index, distance = neighbours(x, NEIGHBOURS, chosen)
    index, distance = index[:, :NEIGHBOURS], np.sqrt(distance)
    whose, away = nearest(x, x[chosen])
    stands_for = np.bincount(whose, minlength=len(chosen))
    apart = neighbours(x[chosen], 1)[1][:, 0] if len(chosen) > 1 else away
    limit = SAME * float(np.sqrt(np.median(apart)))
    out = []
    for row in range(len(chosen)):
        shown = [
            {
                "id": source.ids[indices[j]],
                "distance": round(float(d), 4),
                "thumb": thumbnail(source, int(indices[j])),
                "same": bool(d <= limit),
            }
            for j, d in zip(index[row], distance[row], strict=True)
        ]
        out.append({"stands_for": int(stands_for[row]), "neighbours": shown})
    return out
