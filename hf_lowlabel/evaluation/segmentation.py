"""Metrics of segmentation, all from one confusion matrix over every pixel of a data set, and how images are predicted.

Letters: K classes, M_ab pixels of class a that were called b, T_k = sum_b M_kb, P_k = sum_a M_ak, I_k = M_kk.

    IoU_k = I_k / (T_k + P_k - I_k),   Dice_k = 2 I_k / (T_k + P_k),   pixel accuracy = sum_k I_k / sum_k T_k

A class that is neither in the truth nor predicted has no IoU: `miou` is the mean over the others, `miou_all` counts it
as 0. Pixels whose target is 255 or negative take no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import rank, world
from ..errors import UserError

MASK_IGNORE = 255


def confusion_of(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """M, int64 [K, K] on the device, of labels of any shape; the rows are the truth."""
    counted = (target >= 0) & (target != MASK_IGNORE)
    at = torch.where(counted, target.long() * classes + predicted.long(), classes * classes)
    return torch.bincount(at.flatten(), minlength=classes * classes + 1)[:-1].view(classes, classes)


def segmentation_metrics(confusion: np.ndarray, class_names: Sequence[str]) -> dict:
    """Everything, as a dict that `json.dumps` takes; what has no value is None.

    With two classes also `object_iou`, the IoU of class 1 over all pixels of the data set: ISIC results are published
    as that, as the mean of both classes, `miou`, or as `object_jaccard` (see `per_image_jaccard`).
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.shape != (len(class_names),) * 2 or not confusion.sum():
        raise UserError(
            f"found a confusion matrix of shape {confusion.shape} over {confusion.sum():.0f} pixels for "
            f"{len(class_names)} class names; expected one row for each class, and at least one pixel"
        )
    hit, truth, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = truth + called - hit

    def share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)

    iou, dice, recall = share(hit, union), share(2 * hit, truth + called), share(hit, truth)
    out = {
        "miou": float(np.nanmean(iou)),
        "miou_all": float(np.nan_to_num(iou).mean()),
        "dice": float(np.nanmean(dice)),
        "pixel_accuracy": float(hit.sum() / truth.sum()),
        "class_accuracy": float(np.nanmean(recall)),
        "class_names": list(class_names),
        "per_class": [_number(v) for v in iou],
        "per_class_dice": [_number(v) for v in dice],
        "per_class_share": [float(v) for v in truth / truth.sum()],
        "pixels": int(truth.sum()),
        "confusion": confusion.astype(np.int64).tolist(),
    }
    if len(class_names) == 2:
        out["object_iou"] = _number(iou[1])
    return out


def per_image_jaccard(confusion: Tensor) -> Tensor:
    """IoU of class 1 in one image, 1 where it is nowhere (its mean over images is the ISIC challenge's Jaccard)."""
    union = confusion[1].sum() + confusion[0, 1]
    return torch.where(union > 0, confusion[1, 1] / union.clamp(min=1), 1.0)


class Normalise:
    """uint8 [n, 3, H, W] -> float32, (x / 255 - mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        return (images.float() / 255 - mean) / std


def probabilities(
    model: nn.Module, x: Tensor, window: tuple[int, int] | None = None, stride: tuple[int, int] | None = None
) -> Tensor:
    """Class probabilities [n, K, H, W] float32 of images x [n, 3, H, W].

    window: (height, width) in px of a window that slides over the image by `stride` px (None: two thirds of it); where
    windows overlap, their probabilities are averaged. None: the whole image at once.
    """
    if window is None or (x.shape[-2] <= window[0] and x.shape[-1] <= window[1]):
        return model(x).logits.float().softmax(1)
    stride = stride or tuple(max(side * 2 // 3, 1) for side in window)
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


@torch.inference_mode()
def evaluate_segmentation(
    model: nn.Module,
    pool,
    class_names: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    indices: Tensor | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    batch_size: int = 8,
    each: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
) -> dict:
    """Metrics over images `indices` (None: all) of a pool with masks (data.padded_cache), each image at its size in the pool.

    Every process takes a share of the images, and all return the same numbers. each(position, image uint8 [3, h, w],
    target uint8 [h, w], probabilities [K, h, w]) is called on this process's images, for pictures.
    """
    classes, normalise = len(class_names), Normalise(mean, std)
    indices = torch.arange(len(pool)) if indices is None else indices
    order = sorted(indices.tolist(), key=lambda i: pool.sizes[i].tolist())  # images of one size stand together
    batches = list(_batches(order[rank() :: world()], pool.sizes, batch_size))
    device, modes = next(model.parameters()).device, [(m, m.training) for m in model.modules()]
    total = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    jaccard = torch.zeros(2, device=device)  # sum, images
    model.eval()
    for rows, packed in zip(batches, pool.stream(torch.tensor(rows) for rows in batches), strict=True):
        h, w = pool.sizes[rows[0]].tolist()
        images, targets = packed[:, :3, :h, :w], packed[:, 3, :h, :w]
        p = probabilities(model, normalise(images.to(device)), window, stride)
        for row, image, target, prediction in zip(rows, images, targets.to(device), p):
            m = confusion_of(prediction.argmax(0), target, classes)
            total += m
            if classes == 2:
                jaccard += torch.stack([per_image_jaccard(m), torch.ones((), device=device)])
            if each is not None:
                each(row, image, target, prediction)
    for module, training in modes:
        module.training = training
    if world() > 1:
        dist.all_reduce(total)
        dist.all_reduce(jaccard)
    out = {"images": len(indices), **segmentation_metrics(total.cpu().numpy(), class_names)}
    if classes == 2:
        out["object_jaccard"] = float(jaccard[0] / jaccard[1])
    return out


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
    stride: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(classes uint8 [H, W], their probability float32 [H, W]) of one image uint8 [H, W, 3], at the image's own size.

    long_side: px of the longer side at which the network sees it; probabilities are scaled back bilinearly.
    """
    device = next(model.parameters()).device
    x = Normalise(mean, std)(torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None])
    size = tuple(x.shape[-2:])
    if long_side is not None:
        scale = long_side / max(size)
        small = [max(int(side * scale), 1) for side in size]
        x = F.interpolate(x, size=small, mode="bilinear", align_corners=False, antialias=True)
    p = probabilities(model.eval(), x, window, stride)
    if tuple(p.shape[-2:]) != size:
        p = F.interpolate(p, size=size, mode="bilinear", align_corners=False)
    confidence, classes = p[0].max(0)
    return classes.byte().cpu().numpy(), confidence.cpu().numpy()


def _number(x: float) -> float | None:
    return None if math.isnan(x) else float(x)
