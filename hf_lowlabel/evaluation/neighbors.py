"""The vote of the nearest labeled features, which the k-NN accuracy and the k-NN classifier share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
