"""Two processes train segmentation methods on halves of the batch, and evaluate halves of a pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from segmenter_stand_in import K, TinySegmenter, make_batch

from hf_lowlabel.data.caches.image_cache import ResidentCache
from hf_lowlabel.evaluation.segmentation import evaluate_segmentation
from hf_lowlabel.finetuning.classmix import ClassMix
from hf_lowlabel.finetuning.clmb import CLMB
from hf_lowlabel.finetuning.cutmix import CutMixSeg
from hf_lowlabel.finetuning.fixmatch import FixMatch
from hf_lowlabel.finetuning.mean_teacher import MeanTeacher
from hf_lowlabel.finetuning.supervised import Supervised
from hf_lowlabel.finetuning.unimatch import UniMatch
from hf_lowlabel.finetuning.unimatch_v2 import UniMatchV2
from hf_lowlabel.finetuning.weights import Fixed

STEPS = 3
METHODS = {
    "supervised": (Supervised, {}),
    "fixmatch": (FixMatch, dict(tau=0.5)),
    "mean-teacher": (MeanTeacher, {}),
    "cutmix": (CutMixSeg, dict(tau=0.5)),
    "classmix": (ClassMix, dict(tau=0.5)),
    "unimatch": (UniMatch, dict(tau=0.5)),
    "unimatch-v2": (UniMatchV2, dict(tau=0.5)),
    "clmb": (CLMB, dict(num_classes=K, width=8, memory=6, fresh=3, samples=9, tau=0.3, ramp=0.2)),
}


def cut(batch: dict, rank: int, world: int) -> dict:
    return {k: cut(v, rank, world) if isinstance(v, dict) else v.chunk(world)[rank] for k, v in batch.items()}


def trained(name: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """The state after STEPS steps of the mean gradient over ranks, and the share r of CutMix and ClassMix."""
    cls, kwargs = METHODS[name]
    kwargs = {**kwargs, **({"rule": Fixed(tau=kwargs["tau"])} if name == "fixmatch" else {})}
    kwargs.pop("tau" if name == "fixmatch" else "", None)
    torch.manual_seed(1)  # of heads
    objective = cls(TinySegmenter(), **kwargs).train()
    torch.manual_seed(rank)  # what a rank draws from torch's generator may differ
    params = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.1)
    for step in range(STEPS):
        batch = make_batch(step, labeled=4, unlabeled=8)
        batch["labeled"]["target"][0, 2:] = -100  # the ranks' labeled pixels differ in number
        out = objective(cut(batch, rank, world), 0.5)
        optimizer.zero_grad()
        out["loss"].backward()
        if world > 1:
            for p in params:
                dist.all_reduce(p.grad)
                p.grad /= world
        optimizer.step()
        objective.after_step(0.5)
    state = {k: v for k, v in objective.state_dict().items() if torch.is_tensor(v)}
    return {**state, **({"r": out["mask_ratio"]} if name in ("cutmix", "classmix") else {})}


def evaluated() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 4, 8, 8), dtype=torch.uint8, generator=g)
    images[:, 3] %= K
    pool = ResidentCache(images, list("abcde"), np.arange(5), sizes=np.array([[8, 8]] * 5))
    out = evaluate_segmentation(TinySegmenter(), pool, list("wxyz"), mean=(0.5,) * 3, std=(0.2,) * 3)
    return torch.tensor(out["confusion"])


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    states = {name: trained(name, rank, 2) for name in METHODS}
    torch.save({**states, "evaluated": evaluated()}, folder / f"{rank}.pt")
    dist.destroy_process_group()
