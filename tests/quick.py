"""What costs tiny runs seconds and changes nothing that tests ask: left out in tests and their processes."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any


def no_flush(setattr: Callable[[Any, str, Any], None]) -> None:
    """No test cuts the power; those of what is flushed, and when, put their own in its place."""
    setattr(os, "fsync", lambda fd: None)


def fewer_pixels(setattr: Callable[[Any, str, Any], None], most: float = 1500) -> None:
    """Probes and neighbours of pixels look at `most` of all masks. What samples them is itself tested as it is."""
    from hf_lowlabel.tasks import cross_validation, pixels

    sampled = getattr(pixels.sampled, "whole", pixels.sampled)

    def few(features, divisor, labeled, asked):
        return sampled(features, divisor, labeled, min(asked, most))

    few.whole = sampled
    for module in (pixels, cross_validation):
        setattr(module, "sampled", few)


def few_draws(setattr: Callable[[Any, str, Any], None]) -> None:
    """Each part of the labels is drawn twice for a learning curve, not eight times."""
    from hf_lowlabel.ladder import estimates

    setattr(estimates, "DRAWS", 2)


def few_shapes(setattr: Callable[[Any, str, Any], None]) -> None:
    """A tenth of the embedded images with masks, of which a run looks at all."""
    from hf_lowlabel.data.sources import shapes

    setattr(shapes, "SIZES", {"train": 80, "validation": 10, "test": 20})


def few_digits(setattr: Callable[[Any, str, Any], None], most: int) -> None:
    """The first `most` of the embedded digits."""
    from hf_lowlabel.data.sources import digits

    whole = digits.digits

    def few(split="train"):
        source = whole(split)
        return replace(source, ids=source.ids[:most], labels=source.labels[:most], fingerprint="f" * 64)

    setattr(digits, "digits", few)
