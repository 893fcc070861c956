"""Which images to label, and what the labels there are say of the others."""

from .prior_labels import priors
from .verbs import select

__all__ = ["priors", "select"]
