"""Optimizers and learning-rate schedules of the papers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import TrainingArguments
from ..models.timm_checkpoint import layer_rates
from ..objective import Objective
from .lars import Lars

DROPS = {
    "steps": (0.3, 0.6, 0.8),
    "steps-rotnet": (0.3, 0.6, 0.8),
    "steps-late": (0.7, 0.8, 0.9),
    "steps-moam": (0.5, 0.75, 0.95),
    "steps-even": tuple(i / 6 for i in range(1, 6)),
    "steps-tuning": (2 / 9, 4 / 9, 6 / 9, 8 / 9),
    "steps-eman": (0.6, 0.8),
    "steps-thirds": (1 / 3, 2 / 3),
    "steps-quarters": (1 / 4, 2 / 4, 3 / 4),
}
FACTORS = {"steps-rotnet": 0.2}  # of each drop, where it is not 0.1


def learning_rate(schedule: str, t: float, warmup: float = 0.0) -> float:
    """Multiplier of the base learning rate at progress t in [0, 1]; it rises linearly over the first `warmup` share.

    cosine    (1 + cos(pi t)) / 2                     BYOL, SimSiam, MoCo v2
    fixmatch  cos(7 pi t / 16)                        Sohn et al. 2020, section 2.4: ends at 0.2
    adamatch  cos(arccos(1/4) t)                      AdaMatch in its authors' code: ends at 0.25
    steps     0.1 ^ (drops passed), at shares of the whole run, warmup included
              steps 0.3, 0.6, 0.8: S4L, section 4.2, epochs 30, 60 and 80 of 100 of its second step
              steps-rotnet the same with 0.2 for 0.1: Gidaris et al. 2018, epochs 60, 120, 160 of 200, by a factor of 5
              steps-late 0.7, 0.8, 0.9 and steps-moam 0.5, 0.75, 0.95: S4L, sections 4.1 and 5
              steps-even 1/6, 2/6 ... 5/6: FixMatch on ImageNet, epochs 500, 1000 ... of 3000 in its authors' code
              steps-tuning 2/9, 4/9, 6/9, 8/9: Self-Tuning, steps 6000, 12000 ... of 27000 in its authors' code
              steps-eman 0.6, 0.8: EMAN, epochs 60 and 80 of 100 in its authors' code
              steps-thirds 1/3, 2/3 and steps-quarters 1/4, 2/4, 3/4: S4L, section 5, steps 2 and 3 of MOAM
    poly      (1 - t)^0.9                             DeepLab; ClassMix, CLMB and UniMatch in their authors' code
    linear    1 - t;      constant  1
    """
    if t < warmup:
        return t / warmup
    if schedule in DROPS:
        return FACTORS.get(schedule, 0.1) ** sum(t >= drop for drop in DROPS[schedule])
    t = (t - warmup) / (1 - warmup) if warmup < 1 else 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    if schedule == "fixmatch":
        return math.cos(7 * math.pi * t / 16)
    if schedule == "adamatch":
        return math.cos(math.acos(0.25) * t)
    if schedule == "poly":
        return (1 - t) ** 0.9
    if schedule == "linear":
        return 1 - t
    if schedule == "constant":
        return 1.0
    raise ValueError(f"unknown schedule {schedule!r}")


def takes_no_decay(p: nn.Parameter) -> bool:
    """Biases and normalisation weights: no weight decay and no LARS adaptation."""
    return p.ndim <= 1


def slow_down(model: nn.Module, decay: float) -> None:
    """Mark the parameters of a classifier's network or a segmenter's encoder with their share of the learning rate."""
    net: Any = getattr(model, "timm_model", None)
    if net is None:
        encoder: Any = model.get_submodule("network.encoder")
        net = getattr(encoder, "model", encoder)
    rates = layer_rates(net, decay)
    for name, parameter in net.named_parameters():
        parameter.rate = rates.get(name, 1.0)


def build_optimizer(objective: Objective, args: TrainingArguments, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer with a group for every role (body, head, fixed) and layer's rate with and without weight decay.

    Each group carries `base_lr`, its own peak learning rate, and `fixed`: whether the schedule leaves it alone. A fused
    step is up to 3 times as fast (recipes/benchmarks), and right only while weights, gradients and state share their
    layout in memory: autograd sees to that, and `restore_optimizer`.
    """
    groups = []
    for role, params in objective.param_groups().items():
        shares = sorted({getattr(p, "rate", 1.0) for p in params}, reverse=True)
        for decays, share in itertools.product((True, False), shares):
            chosen = [p for p in params if takes_no_decay(p) != decays and getattr(p, "rate", 1.0) == share]
            if chosen:
                rate = learning_rate * (args.head_lr if role == "head" else share)
                group = {
                    "params": chosen,
                    "lr": rate,
                    "base_lr": rate,
                    "fixed": role == "fixed",
                    "weight_decay": args.weight_decay if decays else 0.0,
                    "base_decay": args.weight_decay if decays else 0.0,
                }
                if args.optimizer == "lars":
                    group["adapts"] = decays  # also where the decay is 0, to which timm ties it
                groups.append(group)
    if args.optimizer in ("sgd", "momentum"):
        return FusedSGD(groups, lr=learning_rate, momentum=0.9, nesterov=args.optimizer == "sgd", fused=True)
    if args.optimizer == "lars":
        return Lars(groups, lr=learning_rate, momentum=0.9)
    adam = torch.optim.AdamW if args.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, lr=learning_rate, fused=True)


class FusedSGD(torch.optim.SGD):
    """torch's, whose fused step wants the momentum of all its parameters or of none: that of one whose first gradient
    comes later than the others' begins at 0, which is what a first step makes of it anyway."""

    def step(self, closure=None):
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            fresh = [p for p in moved if self.state.get(p, {}).get("momentum_buffer") is None]
            if len(fresh) < len(moved):
                for p in fresh:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super().step(closure)


def set_learning_rate(optimizer: torch.optim.Optimizer, multiplier: float, decay: float = 1.0) -> None:
    """`multiplier` of every group's peak learning rate, `decay` of its weight decay."""
    for group in optimizer.param_groups:
        group["weight_decay"] = group["base_decay"] * decay
        group["lr"] = group["base_lr"] * (1.0 if group["fixed"] else multiplier)


def clip(grads: list[Tensor], largest: float, norm: Tensor, each: bool) -> None:
    """Scale gradients, in place, to a norm of at most `largest`: of each tensor, or of all together (`norm`)."""
    if each:
        torch._foreach_mul_(grads, [(largest / (n + 1e-6)).clamp(max=1.0) for n in torch._foreach_norm(grads)])
    else:
        torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))


def longer(args: TrainingArguments, step: int, before: int, steps: int) -> str:
    """What becomes of the schedule of a run of `before` steps that resumes from `step`, to `steps`."""
    was, now = (learning_rate(args.lr_scheduler_type, step / n, args.warmup_ratio) for n in (before, steps))
    return (
        f"the run resumes from step {step}, to {steps} instead of {before}: from here its schedule "
        f"({args.lr_scheduler_type}) is that of {steps} steps, and the learning rate {now:.3g} of its peak instead of "
        f"{was:.3g}"
    )
