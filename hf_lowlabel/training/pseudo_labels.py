"""Pseudo-labels by trained classifiers for every training image, as the file for `--prior`.

q_u = mean over models m of  p_m(x_u)                                  (S4L section 4.2: one model)
    or mean over m of  one-hot(argmax p_m(x_u))                        votes: V-PET (Zhang et al. 2025)
p_m = softmax of the logits averaged over five crops and four rotations where `crops` is set   (S4L section 5, step 2;
the paper says that predictions are averaged, its authors' pseudo_labeling/labeling_utils.py averages logits)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..distributed import barrier, rank
from ..errors import UserError
from ..evaluation.classification import softmax
from ..evaluation.inference import logits_of
from ..tasks.caching import square_cache
from ..tasks.classification import Classification, eval_view
from ..text import series
from ..views.table import View
from .class_counts import check_known
from .priors import save_priors


class CornerCrop:
    """A window of size x size px at a corner (or the centre) of the cache image, turned by quarters of 90 degrees."""

    width = 0

    def __init__(self, size: int, across: float, down: float, quarters: int):
        self.size, self.across, self.down, self.quarters = size, across, down, quarters

    def __call__(self, images: Tensor, u: np.ndarray) -> Tensor:
        room = images.shape[-1] - self.size
        x, y = round(room * self.across), round(room * self.down)
        return images[..., y : y + self.size, x : x + self.size].rot90(self.quarters, (2, 3)).contiguous()


def pseudo_labels(
    models: Sequence[str | Path],
    source: ImageDataset,
    split: Split,
    output: str | Path,
    *,
    votes: bool = False,
    crops: bool = False,
    device: str | None = None,
) -> np.ndarray:
    """float32 [training images, K], also written to `output`; labeled images keep their labels.

    models: run folders of classifiers with the split's classes. Every process of a launch calls it. Raises UserError
    for a model of other classes, and for a labeled image that has no label.
    """
    task, at, names = Classification(), split.resolve(source), list(split.class_names)
    check_known(source, at)
    total, ids, known = 0.0, [], np.zeros(0, int)
    for folder in models:
        model = task.load(folder, device=device)
        if task.names_of(model) != names:
            raise UserError(
                f"The model in {folder} has the classes {series(task.names_of(model)[:8])}, and the split has "
                f"{series(names[:8])}. Give models that were trained on this split."
            )
        view = eval_view(model)
        cache = square_cache(
            DataArguments(),
            source,
            at.train,
            preprocessing=model.preprocessing,
            device=next(model.parameters()).device,
            what="training",
        )
        p = softmax(np.mean([logits_of(model, cache, v).numpy() for v in (twenty(view) if crops else [view])], axis=0))
        total = total + (np.eye(len(names))[p.argmax(1)] if votes else p) / len(models)
        ids, known = cache.ids, cache.indices
    row = {int(i): r for r, i in enumerate(known)}
    for i, k in zip(at.labeled.tolist(), at.labels, strict=True):
        if i in row:  # else it cannot be read
            total[row[i]] = np.eye(len(names))[k]
    if rank() == 0:
        save_priors(
            output, total, ids, names, {"models": [Path(m).name for m in models], "votes": votes, "crops": crops}
        )
    barrier()
    return total.astype(np.float32)


def twenty(view: View) -> list[View]:
    """Five crops (corners and centre) times four rotations."""
    size = view.crop.size
    places = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]
    return [
        View(CornerCrop(size, x, y, q), [], view.mean.flatten().tolist(), view.std.flatten().tolist(), torch.float32)
        for x, y in places
        for q in range(4)
    ]
