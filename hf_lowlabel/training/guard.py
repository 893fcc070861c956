"""A loss that is NaN or infinite never reaches weights, teacher, BatchNorm statistics or queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import Diverged
from ..objective import Objective

MANY = 0.1  # share of steps that were not finite from which a finished run is doubtful
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def state_of(objective: Objective) -> tuple[list[Tensor], list[Tensor]]:
    """(what a forward pass may write, what an optimizer step and `after_step` may write).

    A module may name buffers in `unguarded` that a bad step cannot harm: constants, and tables whose writes skip rows
    that are not finite.
    """
    forward = []
    for module in objective.modules():
        skipped = getattr(module, "unguarded", ())
        forward += [
            b for name, b in module._buffers.items() if b is not None and not name.startswith(tuple(skipped) or ("\0",))
        ]
    return forward, [p.detach() for p in objective.parameters()]


class NonFiniteGuard:
    """Undoes a step whose gradient or loss is not finite; counts such steps on the device.

    On a CPU the host knows at once, and the optimizer does not run. On a GPU asking would stall the stream: the step
    runs, and the old values come back by selecting bits, old * (1 - ok) + new * ok on integers, which no NaN survives.
    The host asks there too before a step in which the optimizer makes state, of which there are no old values.
    """

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer, device: torch.device):
        self.objective, self.optimizer = objective, optimizer
        self.on_host = device.type == "cpu"
        self.in_row = torch.zeros(
            (), dtype=torch.int64, device=device
        )  # bad steps up to now without a good one between
        self.longest = torch.zeros((), dtype=torch.int64, device=device)  # the longest such run
        self.total = torch.zeros((), dtype=torch.int64, device=device)
        self.buffers, self.weights = state_of(objective)
        self.statistics = [
            x
            for module in objective.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            for x in (module.running_mean, module.running_var)
            if x is not None
        ]
        self.knows = True  # whether the host knew, at the latest step, that it was good
        self.live: list[Tensor] = []
        self.old: list[Tensor] = []

    def before_forward(self) -> None:
        """Remember what the step may overwrite."""
        live = list(self.buffers)
        if not self.on_host:
            live += self.weights
            live += [v for s in self.optimizer.state.values() for v in s.values() if torch.is_tensor(v) and v.is_cuda]
        live = [_bits(x) for x in live]
        if len(live) != len(self.live):
            self.old = [torch.empty_like(x) for x in live]
        self.live = live
        if live:
            torch._foreach_copy_(self.old, self.live)

    def statistics_are_finite(self) -> Tensor:
        """bool scalar: those of BatchNorm after the forward pass; a branch without a loss may have spoiled them."""
        if not self.statistics:
            return torch.ones((), dtype=torch.bool, device=self.in_row.device)
        return torch.isfinite(torch.stack(torch._foreach_norm(self.statistics)).sum())

    def lets_through(self, ok: Tensor) -> bool:
        """Count the step, and say whether the optimizer and `after_step` run; where they do not, the forward pass is
        undone.

        Where they do although nobody knows yet whether the step is good, `undo_if_bad` has to follow.
        """
        bad = (~ok).long()
        self.in_row.add_(bad).mul_(bad)
        torch.maximum(self.longest, self.in_row, out=self.longest)
        self.total.add_(bad)
        self.knows = self.on_host or self.makes_state()
        if not self.knows or bool(ok):
            return True
        if self.live:
            torch._foreach_copy_(self.live, self.old)
        return False

    def makes_state(self) -> bool:
        """Whether the optimizer meets the first gradient of a weight: in its first step, and where one comes later."""
        params = (p for group in self.optimizer.param_groups for p in group["params"])
        return any(p.grad is not None and not self.optimizer.state.get(p) for p in params)

    def undo_if_bad(self, ok: Tensor) -> None:
        """Bring the old values back where a step turns out bad, without asking the device."""
        if self.knows:
            return
        for dtype in {x.dtype for x in self.live}:
            live = [x for x in self.live if x.dtype == dtype]
            old = [o for x, o in zip(self.live, self.old, strict=True) if x.dtype == dtype]
            keep, undo = ok.to(dtype), (~ok).to(dtype)
            torch._foreach_mul_(live, keep)
            torch._foreach_mul_(old, undo)
            torch._foreach_add_(live, old)

    def state_dict(self) -> dict[str, int]:
        return {"in_row": int(self.in_row), "total": int(self.total)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.in_row.fill_(state["in_row"])
        self.total.fill_(state["total"])


def diverged(bad: int, step: int, none_good: bool, saved: Sequence[Path]) -> Diverged:
    """The error after so many bad steps in a row up to a step; saved: checkpoints, the newest first."""
    what = f"in all {step} steps" if none_good else f"{bad} steps in a row up to step {step}"
    start = f"; --init-from {saved[0]} lets it start from this run's weights" if saved else ""
    own = " Check what the loss is made of where the method is your own." if none_good else ""
    return Diverged(
        f"The loss or its gradient was NaN or infinite {what}; no such step changed the model. Start a new run with a "
        f"lower --learning-rate, --max-grad-norm 1 or --precision fp32{start}.{own}"
    )


def skipped_words(guard: NonFiniteGuard, step: int) -> str | None:
    """A sentence for a run that came to its end although many of its steps, or its last ones, did not count."""
    bad, last = int(guard.total), int(guard.in_row)
    if bad < max(2, MANY * step) and last < 2:
        return None
    ends = f", the last {last} among them" if last > 1 else ""
    return (
        f"In {bad} of {step} steps{ends} the loss or its gradient was NaN or infinite, and such a step changes "
        f"nothing: the model has trained in the other {step - bad} alone, and may be of no use. Train again with a "
        "lower --learning-rate or a larger --batch-size, --max-grad-norm 1 or --precision fp32."
    )


def _bits(x: Tensor) -> Tensor:
    """The same memory as integers."""
    return x.view(_BITS[x.element_size()])


def finite(loss: Tensor, params: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(bool scalar: loss and every gradient are finite on this rank, norm of the gradient), both on the device."""
    grads = [p.grad for p in params if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))) if grads else loss.detach().new_zeros(())
    return torch.isfinite(norm) & torch.isfinite(loss.detach()), norm
