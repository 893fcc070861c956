"""How far long work on images is: a bar at a terminal, else a line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm

from .distributed import interactive, is_main_process
from .text import clock

log = logging.getLogger("hf_lowlabel")
EVERY = 20.0  # seconds between two lines; nothing is said of work that ends before


class Progress:
    """What is done of `total` images, in the words of `what`, such as "reading"; late: a bar, too, comes only after
    some seconds, as of work that is quick most often."""

    def __init__(self, what: str, total: int, late: bool = False):
        self.what, self.total, self.done, self.begin = what, total, 0, time.monotonic()
        self.told = self.begin
        delay = EVERY if late else 0
        self.bar = tqdm(total=total, desc=what, unit="img", disable=not interactive(), leave=False, delay=delay)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def add(self, count: int = 1) -> None:
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and is_main_process() and now - self.told >= EVERY and self.done < self.total:
            self.told = now
            log.info("%s: %d of %d images (%s)", self.what, self.done, self.total, clock(now - self.begin))


def counted(
    items: Iterable[Any], what: str, total: int, images: Callable[[Any], int] = lambda one: 1, late: bool = True
) -> Iterator[Any]:
    """The items; what was asked for before the next one is done. images: in an item."""
    with Progress(what, total, late) as progress:
        for one in items:
            yield one
            progress.add(images(one))
