"""Puts a caller's models back on their device and into their modes after use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import nn

from ..evaluation.inference import evaluating

F = TypeVar("F", bound=Callable[..., Any])


def given_back(call: F) -> F:
    """`call`, whose argument `model` is put back on its device and into its modes where it is a module."""
    place = list(inspect.signature(call).parameters).index("model")

    @functools.wraps(call)
    def inner(*args: Any, **given: Any) -> Any:
        model = given["model"] if "model" in given else args[place] if place < len(args) else None
        if not isinstance(model, nn.Module):
            return call(*args, **given)
        device = next((p.device for p in model.parameters()), None)
        try:
            with evaluating(model):
                return call(*args, **given)
        finally:
            model.to(device)

    return cast(F, inner)
