"""Nearest neighbours among features, and the vote of those that have a label."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import best_device
from ..errors import UserError

BLOCK = 1 << 14  # rows handled at a time


@torch.no_grad()
def neighbor_votes(
    features: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    num_classes: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    batch: int = 1024,
) -> Tensor:
    """Weighted vote of the k most similar labeled features (Wu et al. 2018, section 3.4).

        p_c propto sum_{j in N_k(i)} exp(s_ij / T) 1[y_j = c],   s_ij = cosine similarity

    Args:
        features: float [N, D], of images that all have a label.
        labels: int64 [N] in 0..num_classes - 1.
        queries: float [Q, D]. None: every one of `features` in turn, which does not vote for itself.
        num_classes: None for the largest label and one.
        k: neighbours that vote; cut down to the number of images that can.
        temperature: T.
        batch: queries compared at a time.

    Returns:
        float32 [Q, num_classes]; rows sum to 1.
    """
    bank, alone = F.normalize(features.float(), dim=1), queries is None
    queries = bank if alone else F.normalize(queries.float(), dim=1)
    k, classes = min(k, len(bank) - alone), int(labels.max()) + 1 if num_classes is None else num_classes
    votes = bank.new_zeros(len(queries), classes)
    for start in range(0, len(queries), batch):
        s = queries[start : start + batch] @ bank.T  # [b, N]
        if alone:
            rows = torch.arange(len(s), device=s.device)
            s[rows, start + rows] = -torch.inf
        nearest, index = s.topk(k, dim=1)  # [b, k]
        votes[start : start + batch].scatter_add_(1, labels[index], (nearest / temperature).softmax(1))
    return votes


def neighbours(
    x: np.ndarray, k: int, queries: np.ndarray | None = None, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(index int64 [Q, k], squared distance float32 [Q, k]) of the k nearest other rows, nearest first.

    queries: rows of x that are asked (None: all). among: rows of x, ascending, that may be neighbours (None: all). An
    image is not its own neighbour, but its duplicate is.
    """
    asked = np.arange(len(x)) if queries is None else np.asarray(queries)
    among = np.arange(len(x)) if among is None else among
    k = min(k, len(among) - 1)
    index, distance = np.empty((len(asked), k), np.int64), np.empty((len(asked), k), np.float32)
    if not k:
        return index, distance
    bank = torch.as_tensor(np.ascontiguousarray(rows_of(x, among), dtype=np.float32), device=best_device())
    norm = squared_lengths(bank)
    step = max(1, (1 << 27) // len(bank))  # half a GiB of distances at a time
    for start in range(0, len(asked), step):
        rows = asked[start : start + step]
        query = torch.as_tensor(np.ascontiguousarray(rows_of(x, rows), dtype=np.float32), device=bank.device)
        d = torch.addmm(norm, query, bank.T, alpha=-2)  # [q, N], less |q|^2
        place = np.minimum(np.searchsorted(among, rows), len(among) - 1)
        own = np.flatnonzero(among[place] == rows)
        d[torch.as_tensor(own, device=bank.device), torch.as_tensor(place[own], device=bank.device)] = torch.inf
        found, at = d.topk(k, dim=1, largest=False)
        index[start : start + step] = among[at.cpu().numpy()]
        distance[start : start + step] = (found + (query * query).sum(1, keepdim=True)).clamp_min(0).cpu().numpy()
    return index, distance


def rows_of(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x[rows]; x itself, uncopied, where they are all of it in order."""
    return x if len(rows) == len(x) and (rows == np.arange(len(x))).all() else x[rows]


def check_numbers(features: np.ndarray) -> None:
    """Raises UserError for features [N, D] of which some are NaN or infinite."""
    parts = (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))
    if bad := sum(int((~np.isfinite(part).all(1)).sum()) for part in parts):
        raise UserError(
            f"The features of {bad} of {len(features)} images are NaN or infinite. Look at the network that gave them, "
            "or leave these images out."
        )


def squared_lengths(x: Tensor) -> Tensor:
    """|x_i|^2 of every row: [N, D] -> [N], in pieces, for a product of all would be as large as x."""
    return torch.cat([(part * part).sum(1) for part in x.split(BLOCK)])


def unit(x: np.ndarray, *, in_place: bool = False) -> np.ndarray:
    """Rows of length 1, float32; what self-supervised training compares features by. in_place: x may be lost for it."""
    x = np.asarray(x, dtype=np.float32) if in_place else np.array(x, dtype=np.float32)
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return x
