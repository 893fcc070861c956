"""Why an image was chosen: how many others it stands for, and which are nearest to it."""

from __future__ import annotations

import numpy as np

from ..data.dataset import ImageDataset
from ..evaluation.neighbors import neighbours
from ..labeling.answer_kinds import Kind
from ..labeling.contact_sheet import thumbnail
from .clustering import backend, nearest
from .feature_file import Features

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


def report_of(
    source: ImageDataset,
    found: Features,
    rows: np.ndarray,
    free: np.ndarray,
    first: np.ndarray,
    why: list[dict],
    kind: Kind,
) -> dict:
    """Facts about a choice: copies among the images, near-copies of chosen ones, classes covered if they are known."""
    copies = np.flatnonzero(first != free)
    name = [source.ids[i] for i in found.indices]
    near = {
        name[row]: [n["id"] for n in reason["neighbours"] if n["same"]] for row, reason in zip(rows, why, strict=True)
    }
    out = {
        "unreadable": [list(s) for s in found.skipped],
        "kmeans": backend(),
        "copies": len(copies),
        "copies_shown": [[name[free[i]], name[first[i]]] for i in copies[:20]],
        "near_copies": {id: others for id, others in near.items() if others},
    }
    labels = source.labels[found.indices[rows]]
    if kind.covers and (labels >= 0).all():
        out["classes_covered"] = len(np.unique(labels))
        out["classes"] = len(source.class_names)
    return out
