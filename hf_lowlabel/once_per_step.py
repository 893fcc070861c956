"""Memories of a method that move once per optimizer step, however many micro-batches it has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import UserError
from .text import brief


class OncePerStep(nn.Module):
    """A module whose buffers move once per optimizer step, however many micro-batches the step has.

    A forward pass asks `so_far` for what the step has brought up to now, works out from it what the buffers become, may
    use that at once, and hands it to `later`; `advance` makes it so. The state after a step is then that of one batch
    of the same images. A step that is undone leaves nothing behind, and neither does a pass in eval mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self._step: float | None = None
        self._parts: list[tuple[Tensor, ...]] = []
        self._next: dict = {}

    @torch.compiler.disable
    def so_far(self, t: float, *values: Tensor) -> tuple[Tensor, ...]:
        """`values` [n, ...] behind those that earlier micro-batches of the step at progress t gave: [i n, ...] each."""
        values = tuple(v.detach() for v in values)
        if not self.training:
            return values
        if t != self._step:  # what is left of an earlier step belongs to one that was undone
            self._step, self._parts = t, []
        self._parts.append(values)
        return values if len(self._parts) == 1 else tuple(torch.cat(v) for v in zip(*self._parts, strict=True))

    @torch.compiler.disable
    def later(self, **values) -> None:
        """What `advance` will find, in place of what earlier micro-batches of the step left."""
        if self.training:
            self._next = values

    def take(self) -> dict:
        """What `later` was given last; the step is over."""
        values, self._next, self._parts = self._next, {}, []
        return values

    @torch.no_grad()
    def advance(self) -> None:
        """The end of a step: buffers take the values that `later` was given under their names."""
        values = self.take()
        for name, value in values.items():
            have, given = getattr(self, name, None), tuple(getattr(value, "shape", ()))
            if not isinstance(have, Tensor) or given != tuple(have.shape):
                there = f"a buffer of shape {tuple(have.shape)}" if isinstance(have, Tensor) else "no buffer"
                raise UserError(
                    f"{type(self).__name__} gave later {name}={brief(value)}, and its {name} is {there}. Give a tensor "
                    "of the shape that register_buffer was given."
                )
        for name, value in values.items():
            getattr(self, name).copy_(torch.as_tensor(value))

    def end_step(self) -> None:
        """To be called once after every optimizer step: this module and those in it take in what the step brought."""
        for module in self.modules():
            if isinstance(module, OncePerStep):
                module.advance()
