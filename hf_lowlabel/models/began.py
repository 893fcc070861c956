"""What is known of the weights that a run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn


def was_trained(model: Any) -> bool:
    """Whether a network in memory shows that its weights were trained.

    Normalisation layers begin with one weight and one bias for all channels, and every step of training moves these
    apart; their statistics would not do, which a forward pass moves too. Without such layers nothing shows it.
    """
    if not isinstance(model, nn.Module):
        return False
    of_norms = (p for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False))
    return any(p.dim() == 1 and bool((p != p[0]).any()) for p in of_norms)


def pretrained(said: Mapping[str, Any]) -> bool:
    """Whether a run of these settings begins with weights that were trained: named ones, or those of a network in
    memory that shows it."""
    named = isinstance(said["model"], (str, Path)) or bool(said["init_from"])
    return (named or was_trained(said["model"])) and not said["from_scratch"]


def begins_with_probe(said: Mapping[str, Any]) -> bool:
    """Whether a new head is fitted to the features; to those of a network that shows no training only if it is asked
    for."""
    asked = said["head_init"]
    return asked != "random" and (pretrained(said) or asked is not None and not said["from_scratch"])
