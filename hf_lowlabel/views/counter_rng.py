"""Random draws that are a pure function of (seed, stream, row), made on the CPU and used on the device.

A row is one sample of one step. Whoever asks for it, in whichever piece and on whichever rank, gets the same numbers,
so a resume or another number of processes sees the same views, and no device is ever asked for a random number.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

PHILOX_BLOCK = 4  # numbers per counter of Philox 4x64
GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, as signed words


def uniforms(seed: int, stream: str, start: int, count: int, width: int) -> Tensor:
    """Rows `start .. start + count - 1` of an endless table of uniform numbers in [0, 1): float64 [count, width].

    Philox (Salmon et al. 2011) is a counter passed through a keyed bijection: the key is a hash of (seed, stream), and
    row r owns counters r * b .. r * b + b - 1 where b = ceil(width / 4). A stream is always asked for the same width.
    """
    if start < 0 or count < 0 or width < 0:
        raise UserError(f"Rows start at {start}, {count} of width {width}: none of the three may be negative.")
    blocks = -(-width // PHILOX_BLOCK)
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=start * blocks))
    table = generator.random((count, blocks * PHILOX_BLOCK))
    return torch.from_numpy(table)[:, :width]


def keys(seed: int, stream: str, start: int, count: int) -> Tensor:
    """From these, samples `start .. start + count - 1` of a stream draw on the device: int64 [count], see `keyed`."""
    return _mixed(_word(f"{int(seed)}/{stream}") + GOLDEN * torch.arange(start, start + count))


def keyed(key: Tensor, purpose: str, width: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [n, width] on the device of `key` [n].

    Row i is a function of key i and `purpose`. For draws whose number depends on the network or on pixels. SplitMix64
    (Steele et al. 2014), a start for each key.
    """
    counter = torch.arange(1, width + 1, device=key.device)
    return (_mixed(_mixed(key ^ _word(purpose))[:, None] + GOLDEN * counter) >> 40 & 0xFFFFFF) * 2.0**-24


def _word(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's bijection of int64, whose products wrap around; a shift to the right brings zeros."""
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * FIRST
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * SECOND
    return z ^ (z >> 31 & (1 << 33) - 1)


def integers(u: np.ndarray, low: int, high: int | np.ndarray) -> np.ndarray:
    """Uniform whole numbers in low .. high - 1, int64 of u's shape."""
    return (low + np.floor(u * (high - low))).astype(np.int64)


def between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    """Uniform numbers in [low, high)."""
    return low + (high - low) * u


def signs(u: np.ndarray) -> np.ndarray:
    """-1 or 1 with equal chance."""
    return np.where(u < 0.5, -1, 1)


def permutations(u: np.ndarray) -> np.ndarray:
    """Uniform permutations of 0 .. K - 1 from u [N, K], int64 [N, K]: the order that sorts the row."""
    return np.argsort(u, axis=1, kind="stable")


def on_device(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A CPU array as a tensor on the device, without waiting for it: the copy goes through pinned memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def per_sample(values: np.ndarray, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """One number per sample, shaped to multiply a batch of images: [n] -> [n, 1, 1, 1] on x's device."""
    return on_device(values, x.device, dtype)[:, None, None, None]


class Groups:
    """A batch kept sorted by what is to be done to it, so that every group is a slice and is worked on in place.

    Sorting copies whole images, which is several times cheaper than taking each group out and putting it back.
    """

    def __init__(self, x: Tensor):
        self.x = x  # [N, ...] in the present order
        self.origin = np.arange(len(x))  # position k of x holds sample origin[k]

    def by(self, key: np.ndarray) -> dict[int, slice]:
        """Sorts the batch by key [N], given in the original order of the samples; returns the slice of every value."""
        order = np.argsort(key[self.origin], kind="stable")
        self._take(order)
        values, starts = np.unique(key[self.origin], return_index=True)
        stops = [*starts[1:], len(key)]
        return {int(v): slice(int(a), int(b)) for v, a, b in zip(values, starts, stops)}

    def restored(self) -> Tensor:
        """The batch in its original order."""
        self._take(np.argsort(self.origin, kind="stable"))
        return self.x

    def _take(self, order: np.ndarray) -> None:
        if not np.array_equal(order, np.arange(len(order))):
            self.x = self.x.index_select(0, on_device(order, self.x.device))
            self.origin = self.origin[order]
