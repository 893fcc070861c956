"""Whether the processes of a launch have the same buffers: a checkpoint holds those of the first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..distributed import all_gather, rank, world
from ..text import series, warn
from .callbacks import Callback, RunState


class SameBuffers(Callback):
    """Warns once, after a checkpoint, of buffers that processes have made of their own images alone."""

    def __init__(self) -> None:
        self.told = False

    def on_save(self, state: RunState) -> None:
        if world() == 1 or self.told:
            return
        found = saved_buffers(state.objective)
        differ = differing(found)
        self.told = bool(differ)
        if differ and rank() == 0:
            warn(
                f"{series(differ[:5])}{' ...' if differ[5:] else ''} of {type(state.objective).__name__} differ "
                "between processes, and the checkpoint holds those of the first: gather what they are made of by "
                "hf_lowlabel.distributed.all_gather, see help(hf_lowlabel.Objective)"
            )


def saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of a checkpoint, by name; not the statistics of normalisation layers, which copies of a network may
    collect for themselves."""
    saved = module.state_dict().keys()
    apart = tuple(f"{at}." for at, one in module.named_modules() if isinstance(one, _NormBase))
    return {k: v for k, v in module.named_buffers() if k in saved and not k.startswith(apart)}


@torch.no_grad()
def differing(buffers: dict[str, Tensor]) -> list[str]:
    """Names of those whose bytes have not the same sum on all processes; as many are on each."""
    if not buffers:
        return []
    sums = [value.contiguous().reshape(-1).view(torch.uint8).sum(dtype=torch.int64) for value in buffers.values()]
    everyone = all_gather(torch.stack(sums)[None])
    return [name for name, one in zip(buffers, (everyone != everyone[:1]).any(0).tolist(), strict=True) if one]
