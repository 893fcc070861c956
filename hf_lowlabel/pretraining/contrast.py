"""What the contrastive methods share.

InfoNCE (van den Oord et al. 2018; Xu et al. Eq. 1), for a query q, its positive key k+ and N negative keys:

    L = -log exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_n exp(q.k_n / tau))

and the queue of keys that supplies the negatives (He et al. 2020, arXiv 1911.05722, section 3.2). Negatives are other
images: of a set smaller than the queue it holds several old keys of each image, which are none to a query of the same.
Of a large set hardly any key is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import all_gather
from ..once_per_step import OncePerStep


def unit(x: Tensor) -> Tensor:
    """x / |x|_2 along dim 1, in float32."""
    return F.normalize(x.float(), dim=1)


def full_precision(x: Tensor) -> torch.autocast:
    """Context in which products stay in float32: similarities are divided by a small temperature afterwards."""
    return torch.autocast(x.device.type, enabled=False)


def info_nce(q: Tensor, positive: Tensor, negatives: Tensor, tau: float, same: Tensor | None = None) -> Tensor:
    """InfoNCE, the mean over queries. q, positive: unit vectors [B, D]; negatives: unit vectors [N, D].

    same: bool [I, N], which keys are of the image of a query and so no negatives; queries are in the order of their I
    images, as many of each.
    """
    with full_precision(q):
        similar = q.unflatten(0, (1 if same is None else len(same), -1)) @ negatives.T  # [I, B / I, N]
        if same is not None:
            with torch.no_grad():  # in place: of dense queries there are gigabytes; their gradient is 0 in any case
                similar.masked_fill_(same[:, None], -torch.inf)
        logits = torch.cat([(q * positive).sum(1, keepdim=True), similar.flatten(0, 1)], dim=1) / tau  # [B, 1 + N]
        return (logits.logsumexp(1) - logits[:, 0]).mean()


class KeyQueue(OncePerStep):
    """The last `size` keys of all ranks, first in first out; every rank holds the same ones.

    Keys of a step wait for its end, so that no micro-batch changes what the next one of the same step sees. A key that
    is not finite leaves the old one in its place.
    """

    unguarded = ("keys", "images")  # safe from a bad step, and too large to copy in every step
    of_images = ("images",)
    images: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # [Q, D]
        self.register_buffer("images", torch.full((size,), -1))  # [Q], whose key it is; -1: nobody's
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def of(self, index: Tensor) -> Tensor:
        """bool [B, Q], which keys are of the images index [B]."""
        return index.to(self.images.device)[:, None].eq(self.images)

    def wait(self, keys: Tensor, index: Tensor, t: float) -> None:
        """Hold this rank's keys [B, D] of the images index [B] for the end of the step at progress t."""
        new, images = self.so_far(t, keys, index.to(keys.device))
        self.later(new=new, images=images)

    @torch.no_grad()
    def advance(self) -> None:
        """Overwrite the oldest keys with those of all ranks that wait."""
        waiting = self.take()
        if not waiting:
            return
        new, images = (all_gather(waiting[name])[-len(self.keys) :] for name in ("new", "images"))
        rows = (self.pointer + torch.arange(len(new), device=new.device)) % len(self.keys)
        fine = new.isfinite().all(1)
        self.keys[rows] = torch.where(fine[:, None], new.to(self.keys.dtype), self.keys[rows])
        self.images[rows] = torch.where(fine, images, self.images[rows])
        self.pointer.copy_((self.pointer + len(new)) % len(self.keys))
