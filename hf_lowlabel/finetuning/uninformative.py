"""Rows of prior pseudo-labels that say nothing.

A row of zeros, or one that gives the same share to every class, says nothing about its image: no label reached it, or
nobody was asked. Wherever priors are used such an image counts as one without a prior. Its most probable class, the
first of equals, is no label, no vote and no answer that could be right; what has no prior keeps what the network or the
other images say, undiluted. `priors` writes such rows (a cluster that no label names, an image that no label reaches),
and so does who saves what a method says that knows some classes alone (`over_all_classes`).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)
SAME = 1e-6  # shares that differ by less are the same


def informative(priors: Rows) -> Rows:
    """Which rows of priors [N, K] say something, bool [N]: one class has more than the mean. No other row matters."""
    most = priors.amax(1) if isinstance(priors, Tensor) else priors.max(1)
    return most > priors.sum(1) / max(priors.shape[1], 2) + SAME


def without_uninformative(priors: Rows) -> Rows:
    """Priors [N, K] with zeros in the rows that say nothing."""
    return priors * informative(priors)[:, None]


def over_all_classes(beliefs: np.ndarray) -> np.ndarray:
    """Beliefs [N, K] about all images as priors: a row that is even over those classes alone that any row names, as
    label spreading says of an image that no label reaches, becomes even over all."""
    named = (beliefs > 0).any(0)
    return np.where(~informative(beliefs[:, named])[:, None], beliefs.dtype.type(1 / beliefs.shape[1]), beliefs)
