"""Runs every objective in two processes that form a gloo group, each on half of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from pretraining_stand_in import PRETRAIN, batch_for, make

from hf_lowlabel.objective import PretrainObjective
from hf_lowlabel.training.sync_batchnorm import synchronise
from tests.processes import ranks

NAMES = PRETRAIN


def share(batch: dict, rank: int, world: int) -> dict:
    """The rows of a global batch that one rank sees."""

    def part(x):
        return [part(v) for v in x] if isinstance(x, list) else x.chunk(world)[rank]

    return {k: part(v) for k, v in batch.items()}


def steps(objective: PretrainObjective, rank: int = 0, world: int = 1, n: int = 8) -> dict[str, np.ndarray]:
    """Two optimizer steps on this rank's share, gradients averaged over ranks: first gradient and final state."""
    torch.manual_seed(rank)
    params = {k: p for k, p in objective.named_parameters() if p.requires_grad}
    optimizer, out = torch.optim.SGD(params.values(), lr=0.1), {}
    for step, t in enumerate((0.1, 0.5)):
        optimizer.zero_grad()
        objective(share(batch_for(objective, n, seed=step), rank, world), t)["loss"].backward()
        for name, p in params.items():
            if world > 1:
                dist.all_reduce(p.grad)
                p.grad /= world
            if step == 0:
                out[f"grad/{name}"] = p.grad.numpy().copy()
        optimizer.step()
        objective.after_step(t)
    out.update({f"state/{name}": x.detach().numpy().copy() for name, x in objective.state_dict().items()})
    return out


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    try:
        for name in NAMES:
            objective = synchronise(make(name), torch.device("cpu"))  # the heads' BatchNorm; the encoder has none
            np.savez(folder / f"{name}-{rank}.npz", **steps(objective, rank, 2))
    finally:
        dist.destroy_process_group()


def run(folder: Path) -> dict[str, list[dict[str, np.ndarray]]]:
    """name of the method -> what each rank found."""
    ranks(work, folder, folder=folder)
    return {name: [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in (0, 1)] for name in NAMES}
