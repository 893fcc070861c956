"""How a segmenter predicts images, in windows or whole, and its scores on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_mean, rank, world
from ..progress import counted
from .confusion import segmentation_metrics
from .inference import check_finite, evaluating
from .modules import SegmentationScores, confusion_of

LEAD = 0.5  # of the most probable class over the next, below which a pixel is uncertain


class Normalise:
    """uint8 [n, 3, H, W] -> float32, (x / 255 - mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        return (images.float() / 255 - mean) / std


def probabilities(model: nn.Module, x: Tensor, window: tuple[int, int] | None = None) -> Tensor:
    """Class probabilities of images; where windows overlap, they are averaged.

    Args:
        model: segmenter whose output has `logits` [n, K, h, w].
        x: normalised images, float32 [n, 3, H, W].
        window: (height, width) in px of a window that slides over the images by two thirds of itself (None: the whole
            image at once).

    Returns:
        float32 [n, K, H, W].
    """
    if window is None or (x.shape[-2] <= window[0] and x.shape[-1] <= window[1]):
        return model(x).logits.float().softmax(1)
    stride = [max(side * 2 // 3, 1) for side in window]
    total, count = None, x.new_zeros(1, 1, *x.shape[-2:])
    for top in starts(x.shape[-2], window[0], stride[0]):
        for left in starts(x.shape[-1], window[1], stride[1]):
            part = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            p = model(x[part]).logits.float().softmax(1)
            total = p.new_zeros(len(x), p.shape[1], *x.shape[-2:]) if total is None else total
            total[part] += p
            count[part] += 1
    return total / count


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin: every `stride` px, the last one flush with the end."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]


def evaluate_segmentation(
    model: nn.Module,
    pool,
    class_names: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    indices: Tensor | None = None,
    window: tuple[int, int] | None = None,
    batch_size: int = 8,
    each: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
) -> dict:
    """Scores over images of a cache with masks, each at its size there. Every process takes a share of the images.

    Args:
        model: segmenter whose output has `logits` [n, K, h, w].
        pool: images and masks (data.image_cache).
        class_names: the K names.
        mean: of the normalisation, for each channel.
        std: of the normalisation, for each channel.
        indices: images to score, int64 [n] (None: all).
        window: of `probabilities`.
        batch_size: images in a forward pass at most.
        each: called on this process's images, for pictures, with (position, image uint8 [3, h, w], target uint8 [h, w],
            probabilities [K, h, w]).

    Returns:
        The scores of `modules.SegmentationScores`, the same on every process.

    Raises:
        Diverged: the network answers with what is no number.
        UserError: no pixel has a class to compare with.
    """
    given = dict(mean=mean, std=std, indices=indices, window=window, batch_size=batch_size, each=each)
    return scores_of(model, pool, class_names, **given).compute()


@torch.inference_mode()
def scores_of(
    model: nn.Module,
    pool,
    class_names: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    indices: Tensor | None = None,
    window: tuple[int, int] | None = None,
    batch_size: int = 8,
    each: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
) -> SegmentationScores:
    """What `evaluate_segmentation` makes its scores of; there may be no pixel with a class."""
    normalise = Normalise(mean, std)
    indices = torch.arange(len(pool)) if indices is None else indices
    order = sorted(indices.tolist(), key=lambda i: pool.sizes[i].tolist())  # images of one size stand together
    batches = list(_batches(order[rank() :: world()], pool.sizes, batch_size))
    device = next(model.parameters()).device
    scores = SegmentationScores(class_names)
    scores.to(device)  # also where this process has no image
    bad = torch.zeros(1, device=device)  # images
    streamed = zip(batches, pool.stream(torch.tensor(rows) for rows in batches), strict=True)
    with evaluating(model):
        for rows, packed in counted(streamed, "evaluating", sum(map(len, batches)), lambda one: len(one[0])):
            h, w = pool.sizes[rows[0]].tolist()
            images, targets = packed[:, :3, :h, :w], packed[:, 3, :h, :w].to(device)
            p = probabilities(model, normalise(images.to(device)), window)
            bad += (~p.isfinite()).flatten(1).any(1).sum()
            scores.add_batch(predictions=p.argmax(1), references=targets)
            if each is not None:
                for row, image, target, prediction in zip(rows, images, targets, p):
                    each(row, image, target, prediction)
    check_finite(round(float(all_mean(bad)) * world()), len(indices))
    scores.all_reduce()
    return scores


class Confusions:
    """Collects the confusion matrix of each of n images out of `evaluate_segmentation(each=...)`."""

    def __init__(self, images: int, classes: int):
        self.found = np.zeros((images, classes, classes))

    def __call__(self, row: int, image: Tensor, target: Tensor, probabilities: Tensor) -> None:
        classes = self.found.shape[1]
        self.found[row] = confusion_of(probabilities.argmax(0), target, classes).cpu().numpy()

    def all(self) -> np.ndarray:
        """float64 [n, K, K], pixels; the rows are the truth. The same on every process, which had a share each."""
        return all_mean(torch.from_numpy(self.found)).numpy() * world()


class OwnSize:
    """Collects the confusion matrix at the images' own size, as `segment` makes their masks, out of
    `evaluate_segmentation(each=...)`. mask: position -> uint8 [H, W]."""

    def __init__(self, mask: Callable[[int], np.ndarray], classes: int):
        self.mask, self.found = mask, torch.zeros(classes, classes, dtype=torch.float64)

    def __call__(self, row: int, image: Tensor, target: Tensor, probabilities: Tensor) -> None:
        truth = torch.from_numpy(self.mask(row).copy()).to(probabilities.device)
        p = F.interpolate(probabilities[None], size=truth.shape, mode="bilinear", align_corners=False)[0]
        self.found += confusion_of(p.argmax(0), truth, len(self.found)).cpu()

    def scores(self, class_names: Sequence[str]) -> dict:
        """Mean IoU and that of each class; the same on every process, which had a share each."""
        found = segmentation_metrics((all_mean(self.found) * world()).numpy(), class_names)
        return {f"{key}_own_size": found[key] for key in ("miou", "per_class")}


def all_of(*takers: Callable[..., None] | None) -> Callable[..., None] | None:
    """`each` of `evaluate_segmentation` for several, where there is any."""
    some = [one for one in takers if one is not None]
    return (lambda *given: [one(*given) for one in some] and None) if some else None


@torch.inference_mode()
def unsure(
    model: nn.Module, pool, indices: Tensor, *, mean: Sequence[float], std: Sequence[float], by: str = "entropy"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How unsure a segmenter is of images of a cache, the share of each class, and the mean of the last feature map.

    Args:
        model: segmenter with `features` [n, D, h, w] and `classify`, which makes logits [n, K, H, W] of them.
        pool: images (data.image_cache).
        indices: which of them, int64 [n].
        mean: of the normalisation, for each channel.
        std: of the normalisation, for each channel.
        by: "entropy", the mean of the pixels, a share of log K; "margin", 1 less the mean lead of the most probable
            class; "uncertain-pixels", the share of pixels whose lead is below `LEAD`.

    Returns:
        float64 [n], [n, K] and [n, D].
    """
    normalise, device = Normalise(mean, std), next(model.parameters()).device
    order = sorted(indices.tolist(), key=lambda i: pool.sizes[i].tolist())  # images of one size stand together
    batches, found = list(_batches(order, pool.sizes, 8)), []
    model.eval()
    for rows, packed in zip(batches, pool.stream(torch.tensor(rows) for rows in batches), strict=True):
        h, w = pool.sizes[rows[0]].tolist()
        maps = model.features(normalise(packed[:, :3, :h, :w].to(device)))
        p = model.classify(maps, (h, w)).double().softmax(1)  # [n, K, H, W]
        if by == "entropy":
            each = -(p * p.clamp_min(1e-12).log()).sum(1) / np.log(p.shape[1])
        else:
            first, second = p.topk(2, 1).values.unbind(1)
            each = (first - second < LEAD).double() if by == "uncertain-pixels" else 1 - (first - second)
        found.append([v.double().cpu().numpy() for v in (each.mean((1, 2)), p.mean((2, 3)), maps.mean((2, 3)))])
    back = np.argsort(np.argsort(indices.numpy(), kind="stable"), kind="stable")
    at = np.argsort(np.array(order), kind="stable")[back]
    unsure, shares, features = (np.concatenate(values)[at] for values in zip(*found, strict=True))
    return unsure, shares, features


def _batches(rows: list[int], sizes: Tensor, batch_size: int):
    """Runs of images of one size, `batch_size` long at most."""
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) == batch_size or not torch.equal(sizes[row], sizes[batch[0]])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def segment(
    model: nn.Module,
    image: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    long_side: int | None = None,
    window: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The classes of the pixels of an image, or of several of one size, at their own size.

    Args:
        model: segmenter whose output has `logits` [n, K, h, w].
        image: uint8 [H, W, 3] or [n, H, W, 3].
        mean: of the normalisation, for each channel.
        std: of the normalisation, for each channel.
        long_side: px of the longer side at which the network sees it; probabilities are scaled back bilinearly.
        window: of `probabilities`.

    Returns:
        Classes uint8 [H, W] or [n, H, W] and their probability, float32 of the same shape.
    """
    size = image.shape[-3:-1]
    x = as_seen(image, mean=mean, std=std, long_side=long_side, device=next(model.parameters()).device)
    p = probabilities(model.eval(), x, window)
    if tuple(p.shape[-2:]) != size:
        p = F.interpolate(p, size=size, mode="bilinear", align_corners=False)
    confidence, classes = (v.reshape(image.shape[:-1]) for v in p.max(1))
    return classes.byte().cpu().numpy(), confidence.cpu().numpy()


def as_seen(
    image: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    long_side: int | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """uint8 [H, W, 3] or [n, H, W, 3] -> what a segmenter sees of it, float32 [1 or n, 3, h, w]: see `segment`."""
    pixels = torch.from_numpy(np.array(image)).to(device).reshape(-1, *image.shape[-3:])
    x = Normalise(mean, std)(pixels.permute(0, 3, 1, 2))
    if long_side is None:
        return x
    scale = long_side / max(x.shape[-2:])
    small = [max(int(side * scale), 1) for side in x.shape[-2:]]
    return F.interpolate(x, size=small, mode="bilinear", align_corners=False, antialias=True)
