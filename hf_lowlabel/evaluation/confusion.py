"""Formulas of segmentation, all from one confusion matrix over every pixel of a data set.

Letters: K classes, M_ab pixels of class a that were called b, T_k = sum_b M_kb, P_k = sum_a M_ak, I_k = M_kk.

    IoU_k = I_k / (T_k + P_k - I_k),   Dice_k = 2 I_k / (T_k + P_k),   pixel accuracy = sum_k I_k / sum_k T_k

A class that is neither in the truth nor predicted has no IoU: `miou` is the mean over the others, `miou_all` counts it
as 0. Pixels whose target is 255 or negative take no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .classification import number

MASK_IGNORE = 255
NO_PIXEL = "No pixel has a class to compare with. Evaluate on masks that are not wholly 255 (ignored)."


def confusion_of(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """M, int64 [K, K] on the device, of labels of any shape; the rows are the truth.

    Raises:
        UserError: the two differ in shape, or a pixel that takes part has a class that is none of the K.
    """
    if predicted.shape != target.shape:
        raise UserError(
            f"The predicted classes have the shape {tuple(predicted.shape)} and the true ones {tuple(target.shape)}. "
            "Give one predicted class for each pixel."
        )
    for kind, found in (("predicted", predicted), ("true", target)):
        if found.is_floating_point() and not (found.frac() == 0).all():
            raise UserError(f"The {kind} classes of pixels are no whole numbers. Give integers: the argmax of scores.")
    truth, called = target.to(torch.int64, copy=True), predicted.long()
    ignored = target == MASK_IGNORE if target.dtype == torch.uint8 else (truth < 0) | (truth == MASK_IGNORE)
    low, high = called.aminmax() if called.numel() else (0, 0)
    if low < 0 or high >= classes:  # what is called where nothing is true does not matter
        check_classes("predicted", called[~ignored], classes)
        called = called.masked_fill(ignored, 0)
    slots = (classes + 1) * classes  # a row more for targets that are no class, and one slot for ignored pixels
    at = truth.clamp_(max=classes).mul_(classes).add_(called).masked_fill_(ignored, slots)
    counts = torch.bincount(at.flatten(), minlength=slots + 1)[:slots].view(classes + 1, classes)
    if counts[-1].any():
        check_classes("true", target[~ignored].long(), classes)
    return counts[:-1]


def check_classes(kind: str, found: Tensor, classes: int) -> None:
    """Raises UserError where one of the classes `found` [n] is none of the K."""
    if found.numel() and (found.min() < 0 or found.max() >= classes):
        raise UserError(
            f"The {kind} classes of pixels are from {found.min()} to {found.max()}, but {classes} class names need "
            f"integers from 0 to {classes - 1} (and {MASK_IGNORE} or less than 0 where no class is true). Check the "
            "masks and the class names."
        )


def errors_over_images(confusions: np.ndarray, draws: int = 200) -> dict[str, float]:
    """KEY_error: the standard error of scores over images, by drawing the images again (bootstrap).

    Args:
        confusions: [n, K, K], of each image. draws: how often.

    Returns:
        Of the mean IoU, the mean Dice, the pixel accuracy and, of two classes, the IoU of the object; {} for fewer than
        4 images.
    """
    n, random, found = len(confusions), np.random.default_rng(0), []
    counts = np.stack(counts_of(confusions), 1).astype(np.float64)  # [n, 3, K], of which the scores are made
    for _ in range(draws if n >= 4 else 0):
        times = np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)
        hit, truth, called = np.tensordot(times, counts, 1)
        if truth.sum():  # else a draw without any pixel to compare with
            found.append(overall(hit, truth, called))
    keys = ("miou", "dice", "pixel_accuracy", "object_iou")
    values = {key: [one[key] for one in found if one.get(key) is not None] for key in keys}
    return {f"{key}_error": float(np.std(v)) for key, v in values.items() if v}


def shown_miou(confusion: np.ndarray) -> float:
    """Mean IoU of the classes that the truth shows; confusion: pixel counts [K, K].

    Raises:
        UserError: there is no pixel.
    """
    hit, truth, called = counts_of(confusion)
    shown = truth > 0
    if not shown.any():
        raise UserError(NO_PIXEL)
    return float(np.mean(_share(hit, truth + called - hit)[shown]))


def segmentation_metrics(confusion: np.ndarray, class_names: Sequence[str]) -> dict:
    """Every score, as a dict that `json.dumps` takes; what has no value is None.

    Args:
        confusion: pixel counts [K, K]; the rows are the truth.
        class_names: the K names.

    Returns:
        The scores by name. With two classes also `object_iou`, the IoU of class 1 over all pixels of the data set: ISIC
        results are published as that, as the mean of both classes, `miou`, or as `object_jaccard` (see
        `per_image_jaccard`).

    Raises:
        UserError: where the counts do not fit the names, or there is no pixel.
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.shape != (len(class_names),) * 2:
        raise UserError(
            f"The confusion matrix has the shape {confusion.shape}, but there are {len(class_names)} class names. Give "
            "one row and one column for each class."
        )
    if not confusion.sum():
        raise UserError(NO_PIXEL)
    hit, truth, called = counts_of(confusion)
    return {
        **overall(hit, truth, called),
        "class_names": list(class_names),
        "per_class": [number(v) for v in _share(hit, truth + called - hit)],
        "per_class_dice": [number(v) for v in _share(2 * hit, truth + called)],
        "per_class_share": [float(v) for v in truth / truth.sum()],
        "pixels": int(truth.sum()),
        "confusion": confusion.astype(np.int64).tolist(),
    }


def counts_of(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """I, T and P, each [..., K], of confusion matrices [..., K, K]."""
    return np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-1), confusions.sum(-2)


def overall(hit: np.ndarray, truth: np.ndarray, called: np.ndarray) -> dict[str, float | None]:
    """The scores of all classes together from I, T and P, each [K], with a true pixel among them."""
    iou, dice, recall = _share(hit, truth + called - hit), _share(2 * hit, truth + called), _share(hit, truth)
    out: dict[str, float | None] = {
        "miou": float(np.nanmean(iou)),
        "miou_all": float(np.nan_to_num(iou).mean()),
        "dice": float(np.nanmean(dice)),
        "pixel_accuracy": float(hit.sum() / truth.sum()),
        "class_accuracy": float(np.nanmean(recall)),
    }
    return out | {"object_iou": number(iou[1])} if len(iou) == 2 else out


def per_image_jaccard(confusion: Tensor) -> Tensor:
    """IoU of class 1 in one image, 1 where it is nowhere (its mean over images is the ISIC challenge's Jaccard)."""
    union = confusion[1].sum() + confusion[0, 1]
    return torch.where(union > 0, confusion[1, 1] / union.clamp(min=1), 1.0)


def _share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
