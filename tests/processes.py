"""Processes for tests, forked from one that has all imports behind it: they cost every fresh process seconds.

What depends on a fresh interpreter (its environment, its locale, what is importable) has to start one itself.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from .pictures import OF_CLASSES, OF_MASKS, draw_nothing
from .quick import few_draws, fewer_pixels, no_flush

PRELOAD = """hf_lowlabel.api hf_lowlabel.cli.train hf_lowlabel.training.run hf_lowlabel.training.pretrain
hf_lowlabel.hub.push hf_lowlabel.ladder.auto transformers timm segmentation_models_pytorch sklearn.linear_model
scipy.optimize pytest"""
multiprocessing.set_forkserver_preload(PRELOAD.split())
FORKED = multiprocessing.get_context("forkserver")


def _called(
    function: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str], error: Path, pictures: bool
) -> None:
    gc.freeze()
    os.environ.update(environment)
    file = os.open(error, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    no_flush(setattr)
    few_draws(setattr)
    fewer_pixels(setattr)
    if not pictures:
        draw_nothing(setattr, *OF_CLASSES, *OF_MASKS)
    function(*args)


def begun(
    function: Callable[..., Any],
    *args: Any,
    stderr: Path,
    environment: dict[str, str] | None = None,
    pictures: bool = False,
) -> ForkServerProcess:
    """A process that calls a function of a module, on one thread, and draws nothing but for `pictures`."""
    process = FORKED.Process(target=_called, args=(function, args, environment or {}, stderr, pictures))
    process.start()
    return process


def ranks(
    function: Callable[..., Any], *args: Any, folder: Path, n: int = 2, pictures: bool = False, again: int = 2
) -> list[str]:
    """Call a function of a module in n processes that find each other as those of torchrun do; what each wrote to
    stderr. again: how often at another port where that one was taken meanwhile."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    files = [folder / f"stderr-{rank}" for rank in range(n)]
    each = [
        begun(
            function,
            *args,
            stderr=file,
            environment=world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            pictures=pictures,
        )
        for rank, file in enumerate(files)
    ]
    try:
        for process in each:
            process.join(300)
            if process.exitcode != 0:
                break
        said = [file.read_text() for file in files if file.exists()]
        done = all(process.exitcode == 0 for process in each)
        taken = any("address already in use" in text.lower() for text in said)
        assert done or (again and taken), "\n".join(said)[-3000:]
    finally:
        for process in each:
            process.kill()
    if done:
        return said
    for file in files:
        file.unlink(missing_ok=True)
    return ranks(function, *args, folder=folder, n=n, pictures=pictures, again=again - 1)
