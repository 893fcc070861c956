"""Batched, per-sample augmentation as tensor operations on the training device."""

from .counter_rng import uniforms
from .table import VIEWS, View, build_view

__all__ = ["VIEWS", "View", "build_view", "uniforms"]
