"""Fixed tensors, draws and networks for the golden numbers: all of it from one formula, none from a generator.

Nothing is trained: the weights stay, the averaged network has others, and what a method remembers moves from step to
step. So the numbers of one implementation can be told those of another one tensor by tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import finetuning_stand_in as fine
import pretraining_stand_in as pre
import segmenter_stand_in as seg
import torch
from torch import Tensor, nn

from hf_lowlabel.methods import find
from hf_lowlabel.objective import EMA, Objective, build_objective
from hf_lowlabel.views.counter_rng import keys

STEPS = 3


def wave(*shape: int, at: int = 0) -> Tensor:
    """float32 in (-1, 1): sin(7 i^2 / 10 + 3 i + at), worked out in float64."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (0.7 * i.square() % 6.283185307179586 + 3 * i + at).sin().float().view(shape)


def spread(shape, at: int) -> Tensor:
    """float32 in (0, 1)."""
    return (wave(*shape, at=at) + 1).mul(0.499).add(0.001)


@contextlib.contextmanager
def fixed_draws() -> Iterator[None]:
    """torch's random functions give waves, another one for every call."""
    calls = iter(range(1, 10_000))

    def rand(*shape, **k):
        return spread(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape, next(calls))

    def dirichlet(alpha: Tensor) -> Tensor:
        share = spread(alpha.shape[:1], next(calls))
        return torch.stack([share, 1 - share], 1).to(alpha)

    replaced = dict(
        rand=rand,
        rand_like=lambda x: spread(x.shape, next(calls)).to(x),
        randn_like=lambda x: 2 * wave(*x.shape, at=next(calls)).to(x),
        randperm=lambda n, **k: spread((n,), next(calls)).argsort(),
        randint=lambda high, shape, **k: (spread(shape, next(calls)) * high).long(),
        _sample_dirichlet=dirichlet,
    )
    gaussian = mock.patch("hf_lowlabel.finetuning.vat.gaussian_like", lambda x, copies=1: replaced["randn_like"](x))
    with gaussian, contextlib.ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(mock.patch.object(torch, name, function))
        yield


@torch.no_grad()
def fill(module: nn.Module, scale: float = 0.6, at: int = 0) -> None:
    """Every weight a wave, the wider the layer the smaller."""
    for k, p in enumerate(module.parameters()):
        fan = p[0].numel() if p.dim() > 1 else 4
        p.copy_(scale * 2 * wave(*p.shape, at=at + k) / fan**0.5)


def settle(objective: Objective) -> Objective:
    """Waves for all weights; averaged networks differ from those they follow; buffers that are random become waves."""
    fill(objective)
    for k, module in enumerate(m for m in objective.modules() if isinstance(m, EMA)):
        fill(module, 0.5, 40 + 20 * k)
    for name, buffer in objective.named_buffers():
        if name.endswith("queue.keys"):
            buffer.copy_(nn.functional.normalize(wave(*buffer.shape, at=len(name)), dim=1))
    if isinstance(head := getattr(objective, "model", None), fine.TinyModel):
        with torch.no_grad():
            head.head.weight.mul_(2)  # some predictions confident, some not
    return objective.train()


def classifier(name: str, **arguments) -> Objective:
    priors = (3 * wave(fine.POOL, fine.K, at=5)).softmax(1)
    priors[::3] = 0  # images without a pseudo-label
    facts = dict(num_classes=fine.K, num_images=fine.POOL, num_labeled=fine.LABELED, priors=priors)
    return settle(build_objective(name, fine.TinyModel(), arguments, **facts))


def classifier_batch(objective: Objective, step: int, B: int = 4, M: int = 7) -> dict:
    """Images of a step; a view is the image and a smaller wave of its own."""

    def part(kinds, n: int, size: int, at: int) -> dict:
        index = (7 * torch.arange(n) + 5 * step) % size
        base = 3 * wave(size, 3, fine.S, fine.S, at=at)[index]
        views = {k: base + wave(*base.shape, at=at + 10 * step + i + 1) for i, k in enumerate(kinds)}
        return {"index": index, **views}

    labeled = part(objective.labeled_views, B, fine.LABELED, 100)
    unlabeled = part(objective.unlabeled_views, M, fine.POOL, 300)
    return {"labeled": {**labeled, "target": labeled["index"] % fine.K}, "unlabeled": unlabeled}


def segmenter(name: str, **arguments) -> Objective:
    objective = settle(build_objective(name, seg.TinySegmenter(), arguments, num_classes=seg.K))
    with torch.no_grad():
        objective.model.head.weight.mul_(3)
    return objective


def segmenter_batch(objective: Objective, step: int, n: int = 2, m: int = 4) -> dict:
    views = ("weak", "weak2", "strong", "strong2")
    x = lambda count, at: 2 * wave(count, 3, seg.SIDE, seg.SIDE, at=at + 9 * step)  # noqa: E731
    target = (spread((n, seg.SIDE, seg.SIDE), 3 + step) * seg.K).long()
    target[:, 0] = -100
    return {
        "labeled": {
            "image": x(n, 500),
            "strong": x(n, 501),
            "target": target,
            "index": torch.arange(n),
            "key": keys(step, "labeled", 0, n),
        },
        "unlabeled": {
            **{k: x(m, 600 + i) for i, k in enumerate(views)},
            "valid": spread((m, seg.SIDE, seg.SIDE), 8 + step) > 0.2,
            "index": torch.arange(m),
            "key": keys(step, "unlabeled", 0, m),
        },
    }


def pretrainer(name: str, **arguments) -> Objective:
    return settle(find(name)(pre.TinyEncoder(), **{**pre.SMALL[name], **arguments}))


def pretrainer_batch(objective: Objective, step: int, n: int = 4, size: int = 8) -> dict:
    views = len(objective.views)
    corner = 4 * spread((views, n, 2), 11 + step)
    box = torch.cat([corner, corner + 8 + 8 * spread((views, n, 2), 12 + step)], 2)
    base = wave(n, 3, size, size, at=700 + 9 * step)
    return {
        "views": [base + wave(n, 3, size, size, at=800 + 9 * step + v) for v in range(views)],
        "index": n * step + torch.arange(n),
        "boxes": list(box),
        "flips": list(spread((views, n), 13 + step) > 0.5),
    }


def losses(objective: Objective, batch) -> list[float]:
    """The loss of each step, t = 0, 1/6, 2/6; memories move in between, weights and averages of them do not."""
    found = []
    for step in range(STEPS):
        with fixed_draws():
            found.append(float(objective(batch(objective, step), step / (2 * STEPS))["loss"].detach()))
        Objective.after_step(objective, step / (2 * STEPS))
    return found


def features(n: int = 60, width: int = 6, groups: int = 4):
    """Unit features float32 [n, width] in well separated groups of different sizes."""
    at = (torch.arange(n).float().sqrt() * groups / n**0.5).long().clamp(max=groups - 1)
    x = 2 * torch.eye(width)[at] + 0.5 * wave(n, width, at=21)
    return nn.functional.normalize(x, dim=1).numpy()
