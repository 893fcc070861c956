"""Runs verbs without distributed work on the first process of a launch (torchrun, accelerate launch).

The others wait, and end with its exit code. They hear of it through the store of the launch, whatever the work takes:
the first one joins no group of processes, so that it works as it would by itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

LAUNCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a launcher sets
OWN = (*LAUNCH, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
POLL = 0.1  # seconds between looks at the store
LINGER = 2.0  # seconds by which the others end later where the first has failed
LAST = 10.0  # seconds in which the others hear of the end: the first process may be the one that keeps the store


def launched() -> bool:
    """Whether this is one of several processes of a launch."""
    return all(os.environ.get(name) for name in LAUNCH) and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    return not launched() or os.environ["RANK"] == "0"


def by_the_first(work: Callable[[], int]) -> int:
    """The exit code of `work`, which the first process of a launch does alone; it is that of the others too."""
    import torch.distributed as dist

    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, *_ = next(dist.rendezvous("env://"))
    if rank:
        return _wait(store, rank)
    code = 1  # of whatever is raised
    try:
        with _by_itself():
            code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        with contextlib.suppress(RuntimeError):  # no other process is left
            store.set("code", str(code))
            until = time.monotonic() + LAST
            others = [f"heard/{other}" for other in range(1, count)]
            while not store.check(others) and time.monotonic() < until:
                time.sleep(POLL)
    return code


def _wait(store, rank: int) -> int:
    """What the first process ended with; 1 where it is gone without a word."""
    while True:
        try:
            while not store.check(["code"]):
                time.sleep(POLL)
            code = int(store.get("code"))
            store.set(f"heard/{rank}", "")
            if code:  # a launcher names the one that failed first, and ends the others
                time.sleep(LINGER)
            return code
        except KeyboardInterrupt:  # the first process has it too, and says what comes of it
            continue
        except RuntimeError:
            return 1


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """An environment in which nobody looks for other processes."""
    own = {name: os.environ.pop(name) for name in OWN if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(own)
