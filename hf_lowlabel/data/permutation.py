"""Order of the images: a pure function of (seed, stream, position)."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from ..errors import UserError


def philox_key(seed: int, stream: str) -> int:
    """128 bits that differ for every (seed, stream)."""
    return int.from_bytes(hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()[:16], "little")


@lru_cache(maxsize=4)  # consecutive steps lie in the same epoch or two, of labeled and unlabeled images
def permutations(seed: int, stream: str, epoch: int, epochs: int, n: int) -> np.ndarray:
    """int32 [epochs, n] (int64 from 2^31 images on): the permutations of epoch, epoch + 1, ...

    Each is the argsort of n raw 64-bit words of a Philox counter; epoch e owns its own stretch of the counter. Raw
    words, because numpy keeps bit generators stable over its versions but not the methods of Generator.
    """
    blocks = -(-n // 4)  # the counter gives 4 words a step
    bits = np.random.Philox(key=philox_key(seed, stream), counter=epoch * blocks)
    words = bits.random_raw(epochs * blocks * 4).reshape(epochs, blocks * 4)[:, :n]
    out = np.argsort(words, axis=1, kind="stable").astype(np.int32 if n < 2**31 else np.int64)
    out.flags.writeable = False
    return out


def epoch_permutation(seed: int, stream: str, start: int, count: int, n: int) -> np.ndarray:
    """int64 [count]: positions start..start+count of the endless sequence of epochs over 0..n-1.

    Each epoch is an independent permutation; `stream` names what is drawn ("labeled", "unlabeled"), so that two draws
    with one seed are independent. Nothing is remembered between calls: a resume or another number of ranks needs no
    replay.
    """
    if n < 1:
        raise UserError(f"There are no images for {stream!r}. Check the split.")
    if start < 0 or count < 0:
        raise ValueError(f"epoch_permutation(start={start}, count={count}): neither may be negative")
    if count == 0:
        return np.empty(0, np.int64)
    first, last = start // n, (start + count - 1) // n
    if last - first > 1:
        rows = permutations(seed, stream, first, last - first + 1, n).reshape(-1)
        return rows[start - first * n :][:count].astype(np.int64)
    parts = []  # one epoch at a time, so that the neighbouring steps find it in the cache; cut before they are joined
    for epoch in range(first, last + 1):
        parts.append(permutations(seed, stream, epoch, 1, n)[0][max(start - epoch * n, 0) : start + count - epoch * n])
    return np.concatenate(parts).astype(np.int64)
