"""Runs without their pictures, which cost most of a tiny run."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

OF_CLASSES = ("plots.curves", "plots.confusion", "plots.reliability", "sheets.predictions", "sheets.captioned")
OF_MASKS = ("plots.curves", "plots.confusion", "overlays.examples")


def draw_nothing(
    setattr: Callable[[Any, str, Any], None], *names: str, instead: Callable[..., Any] = lambda *args, **kwargs: None
) -> None:
    """names: functions of hf_lowlabel.evaluation that draw. setattr: Python's own, or that of a monkeypatch."""
    for name in names:
        module, _, function = name.partition(".")
        setattr(import_module(f"hf_lowlabel.evaluation.{module}"), function, instead)
