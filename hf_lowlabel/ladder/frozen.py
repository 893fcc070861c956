"""Candidate heads on frozen features, without training of the network, scored by cross-validation.

features of each encoder -> probe, propagation ... -> cross-validated predictions of each -> a blend weighted by them,
since few labels cannot tell the best
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..finetuning.linear import left_out_in_turn, softmax
from ..finetuning.pooling import tell_pooled
from .encoders import Features, Once
from .planning import in_time
from .rungs import BELIEFS, PARTS, PROBE, RUNGS, UNTRIED, WITH_NAMES, Rung, Tried, better

Key = tuple[Rung, str, bool]  # of a rung on the features of an encoder, with targets of its own or the votes of all
REPEATS = ((100, 3), (300, 2))  # up to so many labels, cross-validation is repeated so often; above once
SHARPNESS = 40.0  # of the weights of a blend at 40 labels; it grows with their root, as scores become certain


def climb(
    encoders: Sequence[Features],
    y: np.ndarray,
    *,
    seed: int = 0,
    seconds: float = float("inf"),
    rounds: int | None = None,
    beside: Tried | None = None,
) -> list[Tried]:
    """All frozen rungs, judged, and the blend of all; the answer first.

    The blend, targets sum_r w_r T_r with w_r propto exp(SHARPNESS sqrt(L / 40) score_r), comes before its parts unless
    a probe is clearly better: at 2 to 16 labels a class the rung of the best score alone is often luck. Where
    the names of the classes say something, they are one more source of the graph, and the blend is there with and
    without them; a class that has a name and no label is known to the rungs with names alone, so that these come first.
    With more than one encoder the targets are also the votes of all of them (V-PET), for a head on the best one; their
    blend comes before those of single encoders unless by one of these clearly more labels are right, or an encoder is
    clearly worse than another.

    Args:
        encoders: features of the same images by one or more encoders.
        y: classes of the labeled images, int [L].
        seed: decides which labels are left out together.
        seconds: that cross-validation may take, which is done once in any case.
        rounds: of cross-validation, where that is known; None: as many as usual, and as fit the time.
        beside: what the rungs are compared with, so that the same shares of the classes judge them; None: those that
            the first encoder shows.
    """
    any_one = encoders[0]
    even = any_one.pool.even if beside is None else beside.even
    group = None if any_one.copies is None else any_one.group
    tell_pooled(int(any_one.inside.sum()), len(y))
    named = WITH_NAMES if any_one.seeds is not None else ()
    rungs = (*RUNGS, BELIEFS, *named)
    label, logits = cross_validated(encoders, y, rungs, seed, seconds, rounds)
    none = np.zeros((0, any_one.num_classes))
    tried = []
    targets_of = wanted(encoders, y, rungs)
    for (rung, name, votes), targets in targets_of.items():
        if rung is BELIEFS:
            continue
        found = logits.get((rung, name, votes))
        z = np.concatenate(found) if found else none
        one = Tried(rung, name, votes, label, z, targets, group=group, even=even)
        one.judge(y)
        tried.append(one)
    if len(label):
        blends = [PARTS, (*PARTS, *named)] if named else [PARTS]
        every = [(e, parts, votes) for e in encoders for parts in blends for votes in (False, True)[: len(encoders)]]
        of_all = label, logits, targets_of, y, len(any_one.first)
        tried += [blended(e.name, parts, votes, tried, *of_all) for e, parts, votes in every]
    first = None if len(label) else named[1] if named else UNTRIED
    return in_order(tried, first, lacking=bool(named) and len(np.unique(y)) < any_one.num_classes)


def cross_validated(
    encoders: Sequence[Features], y: np.ndarray, rungs: Sequence[Rung], seed: int, seconds: float, rounds: int | None
) -> tuple[np.ndarray, dict[Key, list[np.ndarray]]]:
    """(which label was left out, int64 [M], as often as there was time; what each rung says of it, [M, K] in pieces).
    As for `climb`."""
    one = encoders[0]
    repeats = next((times for most, times in REPEATS if len(one.first) <= most), 1)
    upto = [left_out_in_turn(y, repeats=r, seed=seed, copies=one.copies) for r in range(repeats + 1)]
    parts = [upto[r][len(upto[r - 1]) :] for r in range(1, repeats + 1)]
    label, logits = [np.zeros(0, np.int64)], dict[Key, list[np.ndarray]]()
    for some in in_time(parts, seconds) if rounds is None else parts[:rounds]:
        for out in some:
            asked = one.asked(out)
            label.append(asked)
            for key, value in said(encoders, one.without(out), asked, rungs).items():
                logits.setdefault(key, []).append(value)
    return np.concatenate(label), logits


def in_order(tried: list[Tried], first: Rung | None, *, lacking: bool) -> list[Tried]:
    """The answer first, as `climb` says. first: the rung that it is of where no label can be left out. lacking: whether
    a class has a name and no label."""
    probe = max((one for one in tried if one.rung is PROBE), key=lambda one: one.score)
    together = voted([one for one in tried if one.blend])

    def rank(one: Tried) -> tuple:
        blind = lacking and (one.blend or not one.rung.names)
        alone = together is not None and not one.votes and not better(one, together)
        return one.rung is not first, blind, not one.blend or better(probe, one), alone, -one.score

    tried.sort(key=rank)
    if not lacking and better(probe, tried[0]):
        tried.sort(key=lambda one: one is not probe)
    return [one for one in tried if not one.votes or one.encoder == tried[0].encoder]


def voted(blends: Sequence[Tried]) -> Tried | None:
    """The best blend of votes; None with one encoder, or where one spoils the votes of the others."""
    votes = max((one for one in blends if one.votes), key=lambda one: one.score, default=None)
    alone = [one for one in sorted(blends, key=lambda one: -one.score) if not one.votes]
    of_each = {one.encoder: one for one in reversed(alone)}.values()
    return None if votes is None or any(better(alone[0], one) for one in of_each) else votes


def rounds_of(tried: Sequence[Tried]) -> int:
    """How often cross-validation was done."""
    return int(np.bincount(tried[0].label).max(initial=0))


def blended(
    name: str,
    parts: Sequence[Rung],
    votes: bool,
    tried: Sequence[Tried],
    label: np.ndarray,
    logits: Mapping[Key, list[np.ndarray]],
    targets: Mapping[Key, np.ndarray | None],
    y: np.ndarray,
    groups: int,
) -> Tried:
    """All rungs on the features of an encoder, weighted by their scores; what it says is linear in its parts. votes:
    whether the parts are the votes of all encoders.

    What it says of a label that is left out has weights that its group has no part in.
    """
    own = {one.rung: one for one in tried if one.encoder == name and one.votes == (votes and one.rung is not PROBE)}
    ones = [own[PROBE if part is BELIEFS else part] for part in parts]
    sharpness = SHARPNESS * (groups / 40) ** 0.5
    keys = [(part, name, votes) for part in parts]
    weights = np.round(softmax(sharpness * np.array([[one.score for one in ones]]))[0], 3)
    weight, at = ones[0].weight, ones[0].place[np.searchsorted(ones[0].asked, label)]
    by_others = np.array([one.score - weight * one.probability for one in ones]) / np.maximum(1 - weight, 1e-12)
    without = softmax(sharpness * by_others.T)[at]  # [m, R]
    z = sum(w[:, None] * np.concatenate(logits[key]) for w, key in zip(without.T, keys, strict=True))
    aim = sum(w * targets[key] for w, key in zip(weights, keys, strict=True))
    names = any(part.names for part in parts)
    words = "probe and propagations with class names, blended" if names else "probe and propagations, blended"
    rung = Rung(words, "propagation", {"blend": weights.tolist()}, names=names)
    one = Tried(rung, name, votes, label, z, aim, blend=True, group=ones[0].group, even=ones[0].even)
    one.judge(y)
    return one


def wanted(
    encoders: Sequence[Features], labels: np.ndarray, rungs: Sequence[Rung] = RUNGS
) -> dict[Key, np.ndarray | None]:
    """Targets of each head from these labels, None for the probe."""
    out: dict[Key, np.ndarray | None] = {}
    for encoder in encoders:
        known, once = labels[encoder.inside], Once(encoder.pool)
        believed = encoder.believed(known)
        for rung in rungs:
            own: np.ndarray | None = None
            if rung is BELIEFS:
                own = encoder.pool.between(believed, known)
            elif rung is not PROBE:
                own = encoder.targets(rung, labels, believed, once)
            out[rung, encoder.name, False] = own
    if len(encoders) > 1:
        for rung in rungs:
            if rung is not PROBE:
                votes = np.mean([out[rung, encoder.name, False] for encoder in encoders], 0)
                out |= {(rung, encoder.name, True): votes for encoder in encoders}
    return out


def said(
    encoders: Sequence[Features], labels: np.ndarray, out: np.ndarray, rungs: Sequence[Rung] = RUNGS
) -> dict[Key, np.ndarray]:
    """Logits [n, K] of images whose labels are left out. out: which of the labeled ones, int64 [n]."""
    by_name, found = {encoder.name: encoder for encoder in encoders}, {}
    for key, targets in wanted(encoders, labels, rungs).items():
        encoder = by_name[key[1]]
        of_probe = targets is None
        found[key] = encoder.probe.logits(labels, encoder.rows[out]) if of_probe else encoder.left_out(targets, out)
    return found
