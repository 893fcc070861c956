"""BatchNorm whose statistics are those of all processes, on every device: torch's own on a GPU, this one on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from ..errors import one_image


@contextlib.contextmanager
def several_images(batch_size: int, parts: int) -> Iterator[None]:
    """UserError, in place of torch's words, where a BatchNorm layer is given one image alone whose map is one pixel.

    Whether it is depends on network, size of the images and views that a method passes by themselves.
    """
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise one_image(batch_size, parts) from error


class _Sum(torch.autograd.Function):
    """Sum over ranks; so is its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def synced_batch_norm(module: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm of x [B, C, ...] by the mean and variance of the batches of all ranks together."""
    dtype, x = x.dtype, x.float()  # under autocast too: sums of many bfloat16 numbers are none
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = torch.tensor(float(x.numel() // x.shape[1]), dtype=x.dtype) * dist.get_world_size()
    mean = _Sum.apply(x.sum(dims)) / count  # [C]
    centred = x - mean.view(shape)
    var = _Sum.apply(centred.square().sum(dims)) / count  # [C]
    if module.track_running_stats:
        with torch.no_grad():
            module.num_batches_tracked.add_(1)
            m = module.momentum if module.momentum is not None else 1.0 / float(module.num_batches_tracked)
            module.running_mean.lerp_(mean.detach(), m)
            module.running_var.lerp_(var.detach() * count / (count - 1), m)
    y = centred * torch.rsqrt(var + module.eps).view(shape)
    return (y * module.weight.view(shape) + module.bias.view(shape) if module.affine else y).to(dtype)


def _train_forward(module: nn.Module, x: Tensor) -> Tensor:
    if module.training or module.running_mean is None:
        y = synced_batch_norm(module, x)
    else:
        y = F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, False, 0.0, module.eps)
    return module.act(module.drop(y)) if isinstance(module, BatchNormAct2d) else y


_SYNCED: dict[type, type] = {}


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Every BatchNorm below `module` made synchronised, parameters and their names kept. Returns the module."""
    if device.type != "cpu":
        return convert_sync_batchnorm(module)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            kind = type(m)
            if kind not in _SYNCED:
                _SYNCED[kind] = type(f"Synced{kind.__name__}", (kind,), {"forward": _train_forward})
            m.__class__ = _SYNCED[kind]
    return module
