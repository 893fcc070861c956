"""Loading and saving without the bars and reports of transformers, where we have a report of our own, and without what
is said again."""

from __future__ import annotations

import contextlib
import logging as plain_logging
from collections.abc import Iterator

from transformers.utils import logging


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers draws no progress bar inside; afterwards it does as before."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nor does it report which tensors fitted."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(level)


_HELD: list[str] = []  # loggers inside `unsaid`


def is_unsaid(name: str) -> bool:
    """Whether the level of a logger is held by `unsaid`."""
    return name in _HELD


@contextlib.contextmanager
def unsaid(name: str, least: int = plain_logging.WARNING) -> Iterator[None]:
    """A logger says only what is at `least` of this level inside."""
    log = plain_logging.getLogger(name)
    level = log.level
    log.setLevel(max(level, least))  # inside another
    _HELD.append(name)
    try:
        yield
    finally:
        _HELD.remove(name)
        log.setLevel(level)
