"""Scores of frozen features [N, D]: nearest neighbours and spread."""

from __future__ import annotations

from torch import Tensor

from ..errors import UserError
from ..objective import feature_std  # noqa: F401  one of the probes, shared with the objectives
from .neighbors import neighbor_votes


def knn_accuracy(features: Tensor, labels: Tensor, *, k: int = 20, batch: int = 1024) -> float:
    """Share of images whose class wins the vote of their nearest labeled features (`neighbors.neighbor_votes`), among
    which an image itself has no vote.

    Args:
        features: float [N, D].
        labels: int [N]; images with label -1 take no part.
        k: neighbours that vote, at most all that can.
        batch: images asked at a time.

    Raises:
        UserError: fewer than two labeled features.
    """
    labels = labels.to(features.device)
    bank, votes = features[labels >= 0], labels[labels >= 0]
    if len(votes) < 2:
        raise UserError(
            f"There are {len(votes)} labeled features, too few for the nearest-neighbour check. Give labels to some "
            "images, or leave the check out."
        )
    found = neighbor_votes(bank, votes, k=k, batch=batch).argmax(1)
    return float((found == votes).sum()) / len(votes)
