"""State of methods between steps: averages, tables by image, queues; all buffers, equal on all ranks.

They move at the end of an optimizer step, by all its images at once (`OncePerStep`). Nothing here waits for the device
or loops over the pool, and a value that is not finite is never stored: modules with a large memory say so in
`unguarded`, which names the buffers ("" for all) that need no copy for the case of a bad step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import all_gather, all_mean
from ..once_per_step import OncePerStep


@torch.no_grad()
def follow(average: Tensor, value: Tensor, m: float) -> Tensor:
    """m average + (1 - m) value; the average as it was where the value is not finite."""
    return average.lerp(torch.where(value.isfinite().all(), value, average), 1 - m)


@torch.no_grad()
def write_(table: Tensor, index: Tensor, rows: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """table[index] <- rows where `keep`, in place; of several places with one index the last kept wins.

    table [N, ...], index int64 [M], rows [M, ...], keep bool [M]. Returns, in another order: the rows before [M, ...],
    after [M, ...], and int64 [M] which is 1 at one place of every distinct index and 0 at the others.
    """
    order = (2 * index + keep).argsort(stable=True)  # equal indices side by side, kept ones last
    index, rows, keep = index[order], rows[order].to(table.dtype), keep[order]
    last = torch.searchsorted(index, index, right=True) - 1
    old = table[index]
    keep = keep[last].view(-1, *[1] * (rows.dim() - 1))
    new = torch.where(keep, rows[last], old)
    table[index] = new  # equal indices write equal rows: any order gives the same table
    return old, new, (last == torch.arange(len(index), device=index.device)).long()


def left_out(held: Tensor) -> Tensor:
    """float32: 0 where `held`, -1e6 elsewhere. Added to scores it takes places out of a softmax; 0 log 0 stays 0."""
    return (held.float() - 1) * 1e6


def finite_rows(x: Tensor) -> Tensor:
    """bool [M]: which rows of [M, ...] hold neither NaN nor infinity."""
    return x.isfinite().flatten(1).all(1)


class RunningMean(OncePerStep):
    """The mean of the means [width] of the last `length` steps' rows, over all ranks.

    first: what steps before the first one are taken to have brought; None: only those that were count.
    """

    def __init__(self, length: int, width: int, first: float | None = None):
        super().__init__()
        self.register_buffer("rows", torch.full((length, width), first or 0.0))
        self.register_buffer("pushed", torch.tensor(0 if first is None else length))

    @property
    def mean(self) -> Tensor:
        """The mean [width] without the step under way."""
        return self.rows.sum(0) / self.pushed.clamp(1, len(self.rows))

    @torch.no_grad()
    def update(self, p: Tensor, t: float) -> Tensor:
        """The mean [width] with p [M, width, ...] of a batch at progress t, and with what its step brought before."""
        (p,) = self.so_far(t, p)
        mean = all_mean(p.mean((0, *range(2, p.dim()))))
        fine, rows = mean.isfinite().all(), self.rows.clone()
        at = (self.pushed % len(rows)).view(1)
        rows[at] = torch.where(fine, mean, rows[at])
        pushed = self.pushed + fine
        self.later(rows=rows, pushed=pushed)
        return rows.sum(0) / pushed.clamp(1, len(rows))


class Line(OncePerStep):
    """What is pushed at the end of a step. `push` takes the rows of one part."""

    def push(self, *rows: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} must define push(*rows)")

    def wait(self, t: float, *parts: tuple[Tensor, ...]) -> None:
        """Parts of a batch, such as (z, p) of unlabeled and (z, p) of labeled images, to be pushed in this order."""
        flat, width = self.so_far(t, *(v for part in parts for v in part)), len(parts[0])
        self.later(parts=[flat[i : i + width] for i in range(0, len(flat), width)])

    def advance(self) -> None:
        for part in self.take().get("parts", ()):
            self.push(*part)


class Queue(Line):
    """The last `length` rows of every table, first in first out: Queue(4096, z=128) holds `z` [4096, 128]."""

    unguarded = ("",)  # a bad step cannot harm them, and they are too large to copy in every step

    def __init__(self, length: int, **widths: int):
        super().__init__()
        self.length, self.names = length, tuple(widths)
        for name, width in widths.items():
            self.register_buffer(name, torch.zeros(length, width))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """bool [length]: which places hold a row."""
        return torch.arange(self.length, device=self.pushed.device) < self.pushed

    @torch.no_grad()
    def push(self, *rows: Tensor) -> None:
        """Rows [M, width] of this rank, in the order of the tables; those of all ranks go in."""
        new = {name: all_gather(v) for name, v in zip(self.names, rows, strict=True)}
        fine = torch.stack([finite_rows(v) for v in new.values()]).all(0)
        place = (self.pushed + fine.cumsum(0) - 1) % self.length  # rows that are not finite take no place
        for name, value in new.items():
            write_(getattr(self, name), place, value, fine)
        self.pushed += fine.sum()


class ClassQueue(Line):
    """The last `length` embeddings of every class: `z` [K, length, width], first in first out within a class."""

    unguarded = ("",)

    def __init__(self, num_classes: int, length: int, width: int):
        super().__init__()
        self.register_buffer("z", torch.zeros(num_classes, length, width))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """bool [K, length]: which places hold an embedding."""
        return self.places(self.pushed)

    def places(self, pushed: Tensor) -> Tensor:
        """bool [K, length]: which places hold an embedding after so many of each class, int64 [K]."""
        return torch.arange(self.z.shape[1], device=pushed.device) < pushed[:, None]

    def push(self, z: Tensor, label: Tensor) -> None:
        """Embeddings [M, width] of this rank with classes int64 [M]; those of all ranks go in, in order."""
        table, pushed = self.joined(z, label)
        self.z.copy_(table)
        self.pushed.copy_(pushed)

    @torch.no_grad()
    def joined(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(z [K, length, width], pushed [K]) as they would be with these in the queue."""
        z, label = all_gather(z), all_gather(label)
        fine, (num_classes, length, width) = finite_rows(z), self.z.shape
        mine = torch.zeros(len(z), num_classes, dtype=torch.int64, device=z.device)
        mine.scatter_(1, label[:, None], fine.long()[:, None])  # [M, K]
        before = (mine.cumsum(0) - mine).gather(1, label[:, None])[:, 0]  # earlier ones of its class
        place = label * length + (self.pushed[label] + before) % length
        table = self.z.clone()
        write_(table.view(num_classes * length, width), place, z, fine)
        return table, self.pushed + mine.sum(0)
