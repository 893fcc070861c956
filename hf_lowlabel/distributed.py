"""Which process this is, on which device, and the collectives the papers need; on one process each is the identity."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError

LOST = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "remote process exited")


def initialized() -> bool:
    """Whether this process has joined the others of a launch."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among those it has joined: 0 before that, so that it goes with `world`."""
    return dist.get_rank() if initialized() else 0


def world() -> int:
    """How many processes have joined: 1 before that."""
    return dist.get_world_size() if initialized() else 1


def is_main_process() -> bool:
    """Whether this is the first process of a launch, also before they have joined: the one that writes and prints."""
    return (rank() if initialized() else int(os.environ.get("RANK", "0"))) == 0


def join_processes(device: str | None = None) -> None:
    """Join the other processes of a launch (torchrun, accelerate launch), where there are any.

    Args:
        device: "cpu" to leave GPUs alone; None for a GPU where there is one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not initialized():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


_CHOSEN: torch.device | None = None  # by the user of the verb that runs


def best_device() -> torch.device:
    """The device to compute on beside a network: that which was chosen last, else a GPU where there is one."""
    return _CHOSEN or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device(name: str | None) -> torch.device:
    """The device that a user asks for, from now on in `best_device` too.

    Args:
        name: such as "cpu", "cuda" or "cuda:1" (None: a GPU where there is one).

    Raises:
        UserError: where there is no such device.
    """
    global _CHOSEN
    if name is None:
        _CHOSEN = None
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= there):
        raise UserError(
            f"There is no device {name!r}: this machine has the CPU and {there} GPU{'s' * (there != 1)}. "
            "Use --device cpu, or leave --device out."
        )
    if device.type == "cuda" and device.index is not None and world() == 1:
        torch.cuda.set_device(device)  # Accelerate trains on the current one
    _CHOSEN = device
    return device


def interactive() -> bool:
    """Whether this process shows progress bars: the main one, at a terminal or in a notebook, whose stderr is none."""
    return is_main_process() and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class _Gather(torch.autograd.Function):
    """all_gather whose backward returns to each rank the sum over ranks of the gradients of its own rows.

    Written out, since torch's own has a new name by version: what 2.11 offers, 2.14 warns of as deprecated.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        out = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(out, x.contiguous())
        return torch.cat(out)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def all_gather(x: Tensor, grad: bool = False) -> Tensor:
    """The rows of all ranks.

    Args:
        x: [B, ...], with the same B on every rank.
        grad: let gradients flow back to the rank that made the rows (SimCLR needs it); else the result is detached.

    Returns:
        [world * B, ...] in the order of the ranks, on every rank.
    """
    if world() == 1:
        return x if grad else x.detach()
    return _Gather.apply(x) if grad else _Gather.apply(x.detach())


def all_rows(x: np.ndarray) -> np.ndarray:
    """The rows [n, ...] of all ranks, which may have different numbers of them, in the order of the ranks."""
    if world() == 1:
        return x
    rows = torch.as_tensor(x, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    counts = all_gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    everyone = all_gather(padded).view(len(counts), *padded.shape).cpu().numpy()
    return np.concatenate([everyone[rank, :n] for rank, n in enumerate(counts)])


def drawn(draw: Callable[[int], Tensor], n: int, whole: bool = False) -> Tensor:
    """Random numbers of the rows that this process has of a batch: those that one process would draw for the whole.

    Args:
        draw: k -> random numbers for k rows, [k, ...], from torch's generators. The first process draws for all.
        n: rows of this process, as many on every one.
        whole: those of all processes, in the order of the ranks.

    Returns:
        [n, ...], rows rank * n .. rank * n + n - 1 of the world * n drawn; [world * n, ...] if whole.
    """
    if world() == 1:
        return draw(n)
    rows = draw(world() * n).contiguous()
    dist.broadcast(rows, 0)
    return rows if whole else rows.chunk(world())[rank()]


def of_first(x: float) -> float:
    """A number of the first process, on all: what they decide by, such as the time."""
    if world() == 1:
        return x
    out = torch.tensor(x, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.broadcast(out, 0)
    return float(out)


def text_of_first(text: str) -> str:
    """A text of the first process, on all."""
    rows = np.frombuffer(text.encode(), np.uint8).copy() if rank() == 0 else np.zeros(0, np.uint8)
    return all_rows(rows).tobytes().decode()


def all_texts(texts: list[str]) -> list[str]:
    """The texts of all ranks, in the order of the ranks."""
    if world() == 1:
        return texts
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    everyone = all_rows(np.frombuffer(lines.encode(), np.uint8).copy())
    return [json.loads(line) for line in everyone.tobytes().decode().splitlines()]


def while_others_wait(work: Callable[[], None]) -> None:
    """`work` on the first process, in a thread, while all others wait for its end, however long it takes.

    A collective has a time limit, so that they hear of it every second. What `work` raises is lost.
    """
    thread = threading.Thread(target=work, daemon=True)
    if rank() == 0:
        thread.start()
    going = True
    while going:
        if rank() == 0:
            thread.join(1.0)
        going = bool(of_first(float(thread.is_alive())))


@torch.no_grad()
def all_mean(x: Tensor) -> Tensor:
    """The mean of `x` over ranks, detached, on its device; NCCL takes what is on a GPU alone."""
    if world() == 1:
        return x.detach()
    total = x.detach().clone()
    if dist.get_backend() == "nccl":
        total = total.cuda()
    dist.all_reduce(total)
    return (total / world()).to(x.device)


def lost(error: RuntimeError) -> bool:
    """Whether an error is that of a collective for which another process has gone; gloo and NCCL say it in words."""
    return world() > 1 and any(words in str(error) for words in LOST)


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()
