"""Two processes train a method on halves of the batch; they must end where one process does."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from finetuning_stand_in import FINETUNE, TinyModel, build, make_batch

from hf_lowlabel.training.same_buffers import differing, saved_buffers
from hf_lowlabel.training.sync_batchnorm import synchronise

STEPS = 3
METHODS = {  # those whose memories are to be small, or whose thresholds are to be met
    "fixmatch": dict(tau=0.5),
    "flexmatch": dict(tau=0.5),
    "freematch": dict(m=0.5, lambda_f=0.1),
    "softmatch": dict(m=0.5),
    "adamatch": dict(m=0.5, tau=0.6),
    "temporal-ensembling": dict(ramp=0.1),
    "temporal-consistency": dict(ramp=0.1),
    "self-training": dict(share=0.5),
    "mean-teacher": {},
    "fixmatch-eman": dict(tau=0.5),
    "simmatch": dict(tau=0.5, width=7, memory=2),
    "comatch": dict(tau=0.5, edge=0.4, bank=16, memory=2, width=7),
    "less": dict(tau=0.5, clusters=9, width=7),
    "self-tuning": dict(queue=3, width=7),
    "s4l-exemplar": dict(instances=3, width=7),
    "sscl": dict(width=7, queue=10, memory=2),
    "remixmatch": dict(memory=2),
}
NORMALISED = "adamatch"  # sees the labeled images in two batches, which differ by BatchNorm alone


def cut(batch: dict, rank: int, world: int) -> dict:
    return {k: cut(v, rank, world) if isinstance(v, dict) else v.chunk(world)[rank] for k, v in batch.items()}


def trained(name: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """The state after STEPS steps of the mean gradient over ranks, as DistributedDataParallel takes it."""
    model = synchronise(TinyModel(norm=name in NORMALISED), torch.device("cpu")) if world > 1 else None
    objective = build(name, model=model or TinyModel(norm=name in NORMALISED), **METHODS.get(name, {}))
    torch.manual_seed(rank)
    params = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.1)
    for step in range(STEPS):
        loss = objective(cut(make_batch(objective, step, B=4, M=8), rank, world), 0.3)["loss"]
        optimizer.zero_grad()
        loss.backward()
        if world > 1:
            for p in params:
                dist.all_reduce(p.grad)
                p.grad /= world
        optimizer.step()
        objective.after_step(0.3)
    assert not differing(saved_buffers(objective)), name  # no run warns of these
    return {k: v for k, v in objective.state_dict().items() if torch.is_tensor(v)}


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.save({name: trained(name, rank, 2) for name in FINETUNE}, folder / f"{rank}.pt")
    dist.destroy_process_group()
