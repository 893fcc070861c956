"""Images already labeled, by a manifest, labels or a finished run, which selection skips."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from ..arguments import DataArguments
from ..data.dataset import ImageDataset
from ..data.splits.splits import Split
from ..errors import UserError
from ..labeling.answer_kinds import Kind
from ..labeling.importing import import_labels
from ..tasks.data_classes import label_rules

log = logging.getLogger("hf_lowlabel")


def labels_so_far(
    split: str | None,
    labels: str | None,
    run: str | None,
    source: ImageDataset,
    kind: Kind,
    data: DataArguments,
) -> tuple[Split | None, list[tuple[str, str]]]:
    """The images that need no label any more, and those held out: of --split, else of --labels and of a finished run;
    and which of these labels were left out, and why.

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
    known = of_run(run, source)
    if labels:
        how = dict(new_classes=True, allow_missing=True, rules=label_rules(data), several=kind.several)
        made, found = import_labels(labels, source=source, **how)
        for note in found.notes:
            log.warning("%s", note)
        return made if known is None else joined(made, known), found.left_out
    return known, []


def of_run(run: str | None, source: ImageDataset) -> Split | None:
    """What a run has labels of and holds out, where all of it is in these data, if others may have come since."""
    own = Path(run, "split.json") if run else None
    if own is None or not own.is_file():
        return None
    known, there = Split.load(own), {*source.ids}
    named = {*known.labeled, *known.validation, *known.test}
    if known.fingerprint == source.fingerprint:
        return known
    if named <= there:
        log.warning(
            "%s is not as it was for %s: the images of that run, which are all there by name, are taken for the same",
            source.name,
            run,
        )
        return replace(known, fingerprint=None)
    if named & there:
        log.warning(
            "%s differs from the data of %s: what that run has labels of or tests on is not left out. Give --split or "
            "--labels to leave images out",
            source.name,
            run,
        )
    return None


def joined(made: Split, known: Split) -> Split:
    """Labels that a person has given since a run, and what that run had: its images that are held out stay so."""
    if made.class_names and set(made.class_names).isdisjoint(known.class_names):
        return made  # another question about the same images: they may be asked again
    taken = {*made.labeled, *made.validation, *made.test}
    rest = {part: [id for id in getattr(known, part) if id not in taken] for part in ("labeled", "validation", "test")}
    held = {*rest["validation"], *rest["test"]}
    return replace(
        made,
        class_names=list(dict.fromkeys([*known.class_names, *made.class_names])),
        labeled={**{id: known.labeled[id] for id in rest["labeled"]}, **made.labeled},
        validation=[*made.validation, *rest["validation"]],
        test=[*made.test, *rest["test"]],
        held_labels={**{id: of for id, of in known.held_labels.items() if id in held}, **made.held_labels},
        passed_over=[id for id in dict.fromkeys([*known.passed_over, *made.passed_over]) if id not in made.labeled],
    )
