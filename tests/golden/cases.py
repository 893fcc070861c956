"""This library on the fixed tensors, one case for each of the golden numbers."""

from __future__ import annotations

import numpy as np
import torch
from fixed import (
    classifier,
    classifier_batch,
    features,
    losses,
    pretrainer,
    pretrainer_batch,
    segmenter,
    segmenter_batch,
    spread,
    wave,
)
from values import CHOSEN, GOLDEN, HARD

from hf_lowlabel.finetuning.pixels import hard_cross_entropy
from hf_lowlabel.methods import METHODS, find, verb_of
from hf_lowlabel.selection.strategies import typiclust, usl


def ours(case: str) -> list[float]:
    """The losses of a case, step by step. A name with an ending is that of another setting: "comatch-imagenet"."""
    golden = GOLDEN[case]
    name = case if case in METHODS else case.rpartition("-")[0]
    if verb_of(name) == "pretrain":
        return losses(pretrainer(name, **golden.arguments), pretrainer_batch)
    if find(name).tasks == ("segmentation",):
        return losses(segmenter(name, **golden.arguments), segmenter_batch)
    objective = classifier(name, **golden.arguments)
    if name == "self-tuning":  # groups that are full from the start
        objective.groups.z.copy_(torch.nn.functional.normalize(wave(*objective.groups.z.shape, at=77), dim=2))
        objective.groups.pushed.fill_(objective.groups.z.shape[1])
    return losses(objective, lambda o, step: classifier_batch(o, step, *golden.images))


def difference(case: str) -> float:
    """The largest relative difference of a case."""
    pairs = zip(ours(case), GOLDEN[case].values, strict=True)
    return max(abs(mine - theirs) / abs(theirs) for mine, theirs in pairs if theirs is not None)


def chosen(case: str) -> list[int]:
    """What a strategy chooses of the fixed features, sorted."""
    x, budget = features(), CHOSEN[case][1]
    found = usl(x, budget, seed=0, k=9) if case == "usl" else typiclust(x, budget, seed=0, most=4)
    return sorted(np.asarray(found).tolist())


def hard(least: int) -> float:
    """Cross-entropy of the hard pixels of two fixed label maps."""
    target = (spread((2, 8, 8), 32) * 4).long()
    target[0, :2] = -100
    return float(hard_cross_entropy(3 * wave(2, 4, 8, 8, at=31), target, 0.7, least))


def hard_difference() -> float:
    return max(abs(hard(least) - theirs) / theirs for least, theirs in HARD[1].items())
