"""Rows of prior pseudo-labels that say nothing.

A row of zeros, or one that gives the same share to every class that any image has, says nothing about its image: no
label reached it, or nobody was asked. Wherever priors are used such an image counts as one without a prior. Its most
probable class, the first of equals, is no label, no vote and no answer that could be right; what has no prior keeps
what the network or the other images say, undiluted. `priors` writes such rows (a cluster that no label names, an image
that no label reaches), and so do votes that are even.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)
SAME = 1e-6  # shares that differ by less are the same


def informative(priors: Rows) -> Rows:
    """Which rows of priors [N, K] say something, bool [N]: one class has more than the mean of all that any row has."""
    most = priors.amax(1) if isinstance(priors, Tensor) else priors.max(1)
    known = int((priors > 0).any(0).sum())  # where labels spread, a class without a label has nothing anywhere
    return most > priors.sum(1) / max(known, 2) + SAME


def without_uninformative(priors: Rows) -> Rows:
    """Priors [N, K] with zeros in the rows that say nothing."""
    return priors * informative(priors)[:, None]
