"""Batched, per-sample augmentation as tensor operations on the training device."""

from hf_lowlabel.views.counter_rng import uniforms
from hf_lowlabel.views.table import VIEWS, View, build_view

__all__ = ["VIEWS", "View", "build_view", "uniforms"]
