"""Images already labeled, by a manifest, labels or a finished run, which selection skips."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split, manifest
from ..errors import UserError
from ..labeling.answer_kinds import Kind
from ..labeling.importing import import_labels
from ..tasks.data_classes import label_rules

log = logging.getLogger("hf_lowlabel")


def labels_so_far(
    split: str | Path | Split | None,
    labels: str | None,
    run: str | None,
    source: ImageDataset,
    kind: Kind,
    data: DataArguments,
) -> tuple[Split | None, list[tuple[str, str]]]:
    """The images that need no label any more, and those held out: of --split, or of a finished run and --labels; and
    which of these labels were left out, and why.

    Raises:
        UserError: both are given, or they cannot be read.
    """
    if split and labels:
        raise UserError("Give --split or --labels, not both.")
    if split:
        return Split.load(split), []
    if labels and kind.page == "mask":
        raise UserError(
            "Masks are read beside the images, where `hf-lowlabel split --task segmentation --from` puts them: images "
            "that have one are not chosen again. Leave out --labels."
        )
    own = of_run(run, source)
    if not labels:
        return own, []
    how = dict(new_classes=True, allow_missing=True, rules=label_rules(data), several=kind.several)
    made, found = import_labels(labels, source=source, **how)
    for note in found.notes:
        log.warning("%s", note)
    if own is None or own.class_names and made.class_names and {*own.class_names}.isdisjoint(made.class_names):
        return made, found.left_out  # another question about the same images
    return joined(own, made, source, {*found.skipped, *made.passed_over}), found.left_out


def of_run(run: str | None, source: ImageDataset) -> Split | None:
    """The manifest of a run, as one of `source`: also where images were added since, for those that it names."""
    file = Path(run, "split.json") if run else None
    if file is None or not file.is_file():
        return None
    known, there = Split.load(file), {*source.ids}
    named = {*known.labeled, *known.validation, *known.test}
    if known.fingerprint == source.fingerprint:
        return known
    same = known.fingerprint is None or known.dataset == source.name  # numbers of rows are ids in any table
    if same and named <= there:
        passed = [id for id in known.passed_over if id in there]
        return replace(known, fingerprint=source.fingerprint, passed_over=passed)
    if named & there:
        log.warning(
            "%s differs from the data of %s: what that run has labels of or tests on is not left out. Give --split or "
            "--labels to leave images out",
            source.name,
            run,
        )
    return None


def joined(own: Split, since: Split, source: ImageDataset, cleared: Collection[str]) -> Split:
    """What a run knows, and labels given since: they correct its own, but what either tests on stays apart. cleared:
    images that have got no label since."""
    held = {part: list(dict.fromkeys([*getattr(since, part), *getattr(own, part)])) for part in ("validation", "test")}
    held["validation"] = [id for id in held["validation"] if id not in {*held["test"]}]
    before = {id: label for id, label in own.labeled.items() if id not in cleared}
    labels, apart = {**before, **since.labeled}, {*held["validation"], *held["test"]}
    given = {id: label for id, label in labels.items() if id in apart and label is not None}
    passed = [*own.passed_over, *since.passed_over]
    return manifest(
        source,
        {id: label for id, label in labels.items() if id not in apart},
        **held,
        seed=since.seed,
        class_names=list(dict.fromkeys([*own.class_names, *since.class_names])),
        held_labels={**own.held_labels, **since.held_labels, **given},
        passed_over=[id for id in dict.fromkeys(passed) if id not in labels],
        reviewed=[id for id in dict.fromkeys([*own.reviewed, *since.reviewed]) if id in labels],
    )


def positions(source: ImageDataset, base: Split | None, *, painted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions int64 of the images that are not held out, of those that have a label (painted: a mask in the data
    too), and of those to choose from."""
    at = base.resolve(source) if base else None
    members, labeled = (at.train, at.labeled) if at else (np.arange(len(source)), np.zeros(0, np.int64))
    if painted:
        labeled = np.union1d(labeled, np.flatnonzero(source.has_target))
    free = np.setdiff1d(members, labeled)
    return members, labeled, free if base is None else base.without_passed_over(free, source.ids)
