"""What the contrastive methods share.

InfoNCE (van den Oord et al. 2018; Xu et al. Eq. 1), for a query q, its positive key k+ and N negative keys:

    L = -log exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_n exp(q.k_n / tau))

and the queue of keys that supplies the negatives (He et al. 2020, arXiv 1911.05722, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import all_gather
from ..objective import OncePerStep


def unit(x: Tensor) -> Tensor:
    """x / |x|_2 along dim 1, in float32."""
    return F.normalize(x.float(), dim=1)


def full_precision(x: Tensor) -> torch.autocast:
    """Context in which products stay in float32: similarities are divided by a small temperature afterwards."""
    return torch.autocast(x.device.type, enabled=False)


def info_nce(q: Tensor, positive: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """InfoNCE, the mean over queries. q, positive: unit vectors [B, D]; negatives: unit vectors [N, D]."""
    with full_precision(q):
        logits = torch.cat([(q * positive).sum(1, keepdim=True), q @ negatives.T], dim=1) / tau  # [B, 1 + N]
        return (logits.logsumexp(1) - logits[:, 0]).mean()


class KeyQueue(OncePerStep):
    """The last `size` keys of all ranks, first in first out; every rank holds the same ones.

    Keys of a step wait for its end, so that no micro-batch changes what the next one of the same step sees. A key that
    is not finite leaves the old one in its place.
    """

    unguarded = ("keys",)  # safe from a bad step, and too large to copy in every step

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # [Q, D]
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def wait(self, keys: Tensor, t: float) -> None:
        """Hold this rank's keys [B, D] for the end of the step at progress t."""
        (new,) = self.so_far(t, keys)
        self.later(new=new)

    @torch.no_grad()
    def advance(self) -> None:
        """Overwrite the oldest keys with those of all ranks that wait."""
        waiting = self.take()
        if not waiting:
            return
        new = all_gather(waiting["new"])[-len(self.keys) :].to(self.keys.dtype)
        rows = (self.pointer + torch.arange(len(new), device=new.device)) % len(self.keys)
        self.keys[rows] = torch.where(new.isfinite().all(1, keepdim=True), new, self.keys[rows])
        self.pointer.copy_((self.pointer + len(new)) % len(self.keys))
