"""The collectives the papers need; on one process each is the identity."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError


def initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if initialized() else 0


def world() -> int:
    return dist.get_world_size() if initialized() else 1


def best_device(name: str | None = None) -> torch.device:
    """The device called `name`; None: a GPU where there is one. UserError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= there):
        raise UserError(
            f"found the device {name!r} and {there} GPU{'s' * (there != 1)} here; expected 'cpu'{', or cuda' * bool(there)}; "
            "fix: --device cpu, or leave it out"
        )
    return device


def interactive() -> bool:
    """Whether this process shows progress bars: the main one, at a terminal or in a notebook (whose stderr is no terminal)."""
    return rank() == 0 and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class _Gather(torch.autograd.Function):
    """all_gather whose backward returns to each rank the sum over ranks of the gradients of its own rows."""

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
    """[B, ...] on each rank -> [world * B, ...] in rank order on every rank; every rank brings the same B.

    grad: let gradients flow back to the rank that made the rows (SimCLR needs it); otherwise the result is detached.
    """
    if world() == 1:
        return x if grad else x.detach()
    return _Gather.apply(x) if grad else _Gather.apply(x.detach())


@torch.no_grad()
def all_mean(x: Tensor) -> Tensor:
    """The mean of `x` over ranks, detached."""
    if world() == 1:
        return x.detach()
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world()


def barrier() -> None:
    if world() > 1:
        dist.barrier()
