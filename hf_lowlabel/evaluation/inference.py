"""Logits and features of every image of a pool, over all processes, each image once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..distributed import all_gather, all_rows, rank, world
from ..errors import Diverged
from ..progress import counted


@torch.inference_mode()
def run_over(
    pool, view, function: Callable[[Tensor], Tensor], indices: Tensor | None = None, batch_size: int = 256
) -> Tensor:
    """`function(views)` of images `indices` of the pool (None: all), in that order, float32 on the CPU: [n, ...].

    Each process computes an equal share; the last share is filled up with repeats, which are cut off after gathering.
    """
    indices = torch.arange(len(pool)) if indices is None else indices
    n, w = len(indices), world()
    share = -(-n // w)
    padded = torch.cat([indices, indices[:1].expand(share * w - n)])
    mine = padded[rank() * share : (rank() + 1) * share]
    chunks = [mine[i : i + batch_size] for i in range(0, share, batch_size)]
    nothing = torch.zeros(max(map(len, chunks)), view.width, dtype=torch.float64)
    out = []
    for images in counted(pool.stream(iter(chunks)), "images seen", share, len):
        out.append(function(view(images, nothing[: len(images)])).float())
    return all_gather(torch.cat(out))[:n].cpu()


def seen_by_all(pool, indices: Tensor) -> Tensor:
    """Positions of the images that the processes were shown for `indices`, each its share: of bad ones, others."""
    each = torch.from_numpy(all_rows(pool.shown(indices).numpy()[None]))  # [processes, n]
    return each.gather(0, (each != indices).long().argmax(0, keepdim=True))[0]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode in here, for BatchNorm and dropout; afterwards every module is in the mode it was in."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode


def logits_of(model: nn.Module, pool, view, indices: Tensor | None = None, batch_size: int = 256) -> Tensor:
    """[n, K] float32 on the CPU. Raises Diverged where they are not finite."""
    with evaluating(model):
        found = run_over(pool, view, lambda x: model(x).logits, indices, batch_size)
    check_finite(int((~found.isfinite()).any(1).sum()), len(found))
    return found


@torch.inference_mode()
def logits_of_features(model: nn.Module, features: Tensor) -> Tensor:
    """`logits_of` images whose features [n, D] are known: the last layer alone."""
    with evaluating(model):
        found = model.classify(features.to(model.device)).float().cpu()
    check_finite(int((~found.isfinite()).any(1).sum()), len(found))
    return found


def check_finite(bad: int, images: int) -> None:
    """Raises Diverged where a network's answers are no numbers for `bad` of some images."""
    if bad:
        raise Diverged(
            f"The network answers NaN or infinity for {bad} of {images} images: its training diverged, or its numbers "
            "are too large for its precision. Train it again with a lower --learning-rate, --max-grad-norm 1 or "
            "--precision fp32."
        )


def features_of(encoder: nn.Module, pool, view, indices: Tensor | None = None, batch_size: int = 256) -> Tensor:
    """[n, D] float32 on the CPU: pooled features of a backbone or of a classifier's body."""
    with evaluating(encoder):
        pooled = encoder.pooled if hasattr(encoder, "pooled") else encoder.features
        return run_over(pool, view, pooled, indices, batch_size)


def predict_images(model: nn.Module, decoded: Iterator[Tensor], view) -> Iterator[Tensor]:
    """Logits [n, K], float32, for each uint8 batch [n, 3, S, S]."""
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        for images in decoded:
            u = torch.zeros(len(images), view.width, dtype=torch.float64)
            yield model(view(images.to(device), u)).logits.float().cpu()
