"""Formulas that two or more methods share. No state: what a method remembers is in memory.py.

The class axis is 1 everywhere; any spatial axes follow it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, drawn, rank, world
from ..errors import UserError
from ..objective import wide


def predict(model: nn.Module, *views: Tensor) -> tuple[Tensor, ...]:
    """Float32 logits [n, K, ...] of each view from ONE forward pass, so that BatchNorm sees one batch."""
    return model(torch.cat(views)).logits.float().split([len(v) for v in views])


def embed(model: nn.Module, projector: nn.Module, *views: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """(logits [n, K], unit embeddings [n, E]) of each view from one forward pass, both float32."""
    features, sizes = model.features(torch.cat(views)), [len(v) for v in views]
    z = F.normalize(projector(features).float(), dim=1)
    return tuple(zip(model.classify(features).float().split(sizes), z.split(sizes), strict=True))


def label_weak(
    f: Callable[..., tuple], model: nn.Module, concat_weak: bool, x_l: Tensor, x_w: Tensor, *x_s: Tensor
) -> tuple:
    """f(x_l, x_w, *x_s), where f is `predict` or `embed` and x_w are views that only label the others.

    Unless `concat_weak` they come first, of their own and without gradient: without BatchNorm the same at less cost.
    """
    if concat_weak:
        return f(x_l, x_w, *x_s)
    with torch.no_grad(), frozen_statistics(model):
        (weak,) = f(x_w)
    labeled, *strong = f(x_l, *x_s)
    return labeled, weak, *strong


def projection(dim_in: int, dim_out: int) -> nn.Sequential:
    """The two-layer head of the contrastive methods: Linear, ReLU, Linear."""
    return nn.Sequential(nn.Linear(dim_in, dim_in), nn.ReLU(inplace=True), nn.Linear(dim_in, dim_out))


def products(a: Tensor, b: Tensor) -> Tensor:
    """a b^T, [M, E] and [N, E] -> [M, N], in float32 under autocast too: temperatures magnify what bfloat16 drops."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def sinkhorn(q: Tensor, rounds: int) -> Tensor:
    """Rows and columns of a positive q [M, J] scaled in turn until rows sum to 1 and columns to M / J (Sinkhorn and
    Knopp
    1967; Cuturi 2013)."""
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True).clamp_min(1e-12) / q.shape[1]
        q = q / q.sum(1, keepdim=True).clamp_min(1e-12) / q.shape[0]
    return q * q.shape[0]


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p_c^(1/T) / sum_j p_j^(1/T) (MixMatch Eq. 7): one-hot as T -> 0."""
    return (wide(p).clamp_min(1e-30).log() / temperature).softmax(1)


def align(p: Tensor, now: Tensor, target: Tensor | float = 1.0) -> Tensor:
    """normalize(p * target / now) with class marginals [K]: distribution alignment (ReMixMatch, section 3.1)."""
    ratio = ((wide(target) if isinstance(target, Tensor) else target) + 1e-6) / (wide(now) + 1e-6)
    return F.normalize(wide(p) * ratio.view(-1, *[1] * (p.dim() - 2)), p=1, dim=1)


def entropy(logits: Tensor) -> Tensor:
    """- sum_c p_c log p_c, with 0 log 0 = 0: [M, K, ...] -> [M, ...]. A logit of -inf rules a class out."""
    log_p = wide(logits).log_softmax(1)
    return -(wide(logits).softmax(1) * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1)


def kl(p: Tensor, logits: Tensor) -> Tensor:
    """KL(p || softmax(logits)) = sum_c p_c (log p_c - log q_c), with 0 log 0 = 0: [M, K, ...] -> [M, ...].

    A logit of -inf rules a class out: nothing where p has it at 0 as well, infinity elsewhere.
    """
    log_q = wide(logits).log_softmax(1)
    return F.kl_div(log_q.masked_fill((p == 0) & log_q.isneginf(), 0.0), wide(p), reduction="none").sum(1)


def linear_rampup(t: float, length: float) -> float:
    """min(1, t / length): `length` is a share of training, 0 for no ramp."""
    return min(1.0, t / length) if length else 1.0


def sigmoid_rampup(t: float, length: float) -> float:
    """exp(-5 (1 - min(1, t / length))^2): from exp(-5) to 1 (Laine & Aila 2017, section 2.1)."""
    return math.exp(-5 * (1 - linear_rampup(t, length)) ** 2)


def beta(n: int, alpha: float, like: Tensor) -> Tensor:
    """n draws from Beta(alpha, alpha), on the device of `like`: [n]."""
    return torch._sample_dirichlet(torch.full((n, 2), alpha, device=like.device))[:, 0]


def mixup(x: Tensor, y: Tensor, alpha: float, sizes: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """lambda' x + (1 - lambda') x[shuffled] and the same for y, lambda ~ Beta(alpha, alpha) for every row.

    lambda' = max(lambda, 1 - lambda) keeps each row closer to its own image than to its partner (MixMatch Eq. 8-11).
    Partners come from the batch of all processes. sizes: rows of each part that x is the union of, such as one view
    (None: a single part); the same rows are mixed on any number of processes.
    """
    parts = list(sizes or [len(x)])
    share = union_rows(drawn(lambda n: beta(n, alpha, x), len(x), whole=True), parts)
    other = union_rows(drawn(lambda n: torch.randperm(n, device=x.device), len(x), whole=True), parts)
    share = torch.maximum(share, 1 - share)

    def mix(v: Tensor) -> Tensor:
        partner = union(all_gather(v, grad=v.requires_grad), parts)[other]
        return torch.lerp(partner, v, share.view(-1, *[1] * (v.dim() - 1)).to(v))

    return mix(x), mix(y)


def union(gathered: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows as all processes gave them, each its parts one after the other -> each part whole, as one process has it."""
    if world() == 1:
        return gathered
    ranks = gathered.view(world(), -1, *gathered.shape[1:])
    return torch.cat([part.flatten(0, 1) for part in ranks.split(list(sizes), 1)])


def union_rows(whole: Tensor, sizes: Sequence[int]) -> Tensor:
    """Of the union of whole parts, the rows of this process: the way back from `union`."""
    return torch.cat([part.chunk(world())[rank()] for part in whole.split([world() * n for n in sizes])])


def rotate(x: Tensor, quarters: Tensor) -> Tensor:
    """Each square image [B, C, S, S] turned by its own number of quarter turns, [B] in 0..3."""
    q = quarters.view(-1, 1, 1, 1)
    x = torch.where(q >= 2, x.flip(2, 3), x)
    return torch.where(q % 2 == 1, x.rot90(1, (2, 3)), x)


def check_average(ema_decay: float, role: str) -> None:
    """UserError for a method that keeps no average of the weights, but needs one. role: what it is there for."""
    if not ema_decay:
        raise UserError(f"ema_decay is 0, but the averaged network {role}. Use a number between 0 and 1, such as 0.99.")


def has_batchnorm(model: nn.Module) -> bool:
    """Whether what the network says of an image in training depends on the others of its batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm still normalises by the batch in here, but its running statistics stay as they are."""
    tracking = [m for m in model.modules() if getattr(m, "track_running_stats", False)]
    for m in tracking:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in tracking:
            m.track_running_stats = True


@contextlib.contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """No autocast and no TF32 in here: for differences too small for ten bits of mantissa."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        with torch.autocast(x.device.type, enabled=False):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
