"""Initial head of finetuning, fitted to frozen features and the labels or priors.

A random head on good features throws them away before it has learned anything (LP-FT, Kumar et al. 2022). The head is
calibrated on labels that were left out, so that its confidences mean something to thresholds.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import Config
from ..errors import UserError
from ..evaluation.inference import seen_by_all
from ..evaluation.near_copies import copies_of_each
from ..finetuning.graph import HEAD_L2
from ..finetuning.linear import LeastSquares, left_out_logits, softmax
from ..finetuning.temperature import as_sure_as, temperature
from ..finetuning.uninformative import informative
from ..models.began import begins_with_probe
from .preparing import Prepared

log = logging.getLogger("hf_lowlabel")
SAMPLE = 5000  # images at most whose features are looked at
MOST_LABELS = 10_000  # above it a head learns all it needs by itself
SURE = 0.4  # of the way from chance to certainty: a head's mean confidence at the start at most, where there are labels
ABSENT_GAP = 3.0  # by how much the bias of a class without a label is below the lowest of the others


def head_of(config: Config, fresh: bool, priors: bool) -> str:
    """What a head starts from; fresh: it is a new one on pretrained weights."""
    asked = config.model.head_init
    if asked == "priors" and not priors:
        raise UserError("head_init is priors, and there are none. Give --prior FILE, or another --head-init.")
    if not fresh:
        return "random"
    return asked or ("priors" if priors else "probe")


def fit_head(ready: Prepared, priors: Tensor | None) -> str | None:
    """Give the network the head that the settings ask for.

    Args:
        ready: the run; its network is changed.
        priors: float [N, K] of the training images, or None.

    Returns:
        What it was fitted to, "probe" (the labels) or "priors"; None where it was not.
    """
    model = ready.network.model
    fresh = begins_with_probe(ready.config.flat()) and getattr(model.load_report, "head", "") == "fresh"
    how = head_of(ready.config, fresh, priors is not None)
    if how == "random" or not ready.task.climbs or ready.config.training.dry_run:
        return None
    task: Any = ready.task
    y, members = ready.labeled.targets, ready.labeled.members
    assert y is not None
    if len(members) > MOST_LABELS or how == "probe" and len(y.unique()) < 2:
        return None
    rows = torch.arange(len(ready.training))
    if how == "priors" and priors is not None:
        rows = rows[informative(priors)]
    some = rows[torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).long()]
    try:
        x, own = task.features(model, ready.training, some), task.features(model, ready.labeled.cache, members)
        found = np.concatenate([own, x])
        some = seen_by_all(ready.training, some)  # whose priors these are
        weight, bias = (
            priors_head(x, priors[some].double().numpy(), own, y.numpy())
            if how == "priors" and priors is not None
            else labels_head(found, y.numpy(), len(ready.names), copies_of_each(ready.labeled))
        )
        if len(y):  # else nothing but its confidence teaches
            weight, bias = no_surer(weight, bias, x)
        model.set_classifier(torch.from_numpy(weight), torch.from_numpy(bias))
    except UserError as error:  # two heads, or one of several layers: no one place for what was fitted
        log.warning("the head starts from random weights: %s", error)
        return None
    log.info("the head starts from %s", "the prior pseudo-labels" if how == "priors" else f"a probe of {len(y)} labels")
    return how


def no_surer(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head [K, D] and [K], divided by what makes it as sure as `SURE` of the images x [M, D] where it is surer.

    The gradients of the network below grow with the head's weights, and views that a sure head gets wrong undo what its
    features know. The class of each image stays.
    """
    chance = 1 / len(weight)
    logits, t = x @ weight.T + bias, 1.0
    while softmax(logits / t).max(1).mean() > chance + SURE * (1 - chance):
        t *= 1.05
    return (weight / t).astype(weight.dtype), (bias / t).astype(bias.dtype)


def labels_head(
    x: np.ndarray, y: np.ndarray, num_classes: int, copies: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A probe (weight, bias) whose logits are divided by a temperature under which labels left out are likeliest.

    Args:
        x: features [n + M, D], of the n labeled images first.
        y: int [n].
        num_classes: K.
        copies: what labeled images share with each other, int [n, 2], or None (`copies_of_each`).
    """
    probe, logits, rows = left_out_logits(x, y, num_classes, copies)
    t = temperature(logits, y[rows]) if len(rows) else 1.0
    weight, bias = probe.head(y, t)
    absent = np.setdiff1d(np.arange(num_classes), y)
    known = np.unique(y)
    bias[absent] = bias[known].min() - ABSENT_GAP  # finite, so that training can still raise it
    return weight, bias


def priors_head(x: np.ndarray, priors: np.ndarray, own: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A least-squares layer on the most probable class of each image, weighted by nothing: a wrong prior is outvoted.

    Its confidences are those under which the labels are likeliest; without a label they are the priors' own, as the
    layer says them of images that it was not fitted to.

    Args:
        x: features [M, D]. priors: [M, K] of the same images; those that say nothing take no part. own: features of the
            labeled ones. y: their classes.
    """
    known = informative(priors)
    x, priors = x[known], priors[known]
    fit = LeastSquares(x)
    hard = np.eye(priors.shape[1])[priors.argmax(1)]
    weight, bias = fit.fit(hard, HEAD_L2)
    t = temperature(own @ weight.T + bias, y) if len(y) else as_sure_as(fit.left_out(hard, HEAD_L2), priors)
    return (weight / t).astype(np.float32), (bias / t).astype(np.float32)
