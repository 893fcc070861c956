"""Which images to label, and what the labels there are say of the others."""

from .verbs import priors, select

__all__ = ["priors", "select"]
