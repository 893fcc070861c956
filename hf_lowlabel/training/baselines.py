"""What the weights that a run starts from are worth on the same images, for the table of its card."""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.probes import linear_probe
from ..records import Row
from .inference import features_of

log = logging.getLogger("hf_lowlabel")
MOST_LABELS = 10_000  # above it the probe would take longer than it is worth


def frozen_row(
    model, weights: str, view, pool, labeled: torch.Tensor, labels: np.ndarray, test_pool, test_labels
) -> Row | None:
    """Test accuracy of logistic regression on frozen features of the labeled images (positions `labeled` of `pool`).

    weights: what the network starts from, in words. Every process calls it, since all compute features. None where
    there is nothing to learn from.
    """
    if len(labeled) > MOST_LABELS or len(np.unique(labels)) < 2:
        return None
    try:
        x, tx = features_of(model, pool, view, labeled), features_of(model, test_pool, view)
    except UserError as error:  # a network with two heads has no one place to read features at
        log.info("no linear probe of the starting weights: %s", error)
        return None
    score = linear_probe(x, np.asarray(labels), tx, test_labels)
    return Row(f"linear probe on {weights}, same labels", {"accuracy": score})
