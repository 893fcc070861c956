"""Images already labeled, by a manifest, labels or a finished run, which selection skips."""

from __future__ import annotations

import logging
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
    asks: bool,
) -> tuple[Split | None, list[tuple[str, str]]]:
    """The images that need no label any more, and those held out: of --split, of --labels, or of a finished run; and
    which of these labels were left out, and why. asks: whether the run's model is asked about the images.

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
    if labels:
        how = dict(new_classes=True, allow_missing=True, rules=label_rules(data), several=kind.several)
        made, found = import_labels(labels, source=source, **how)
        for note in found.notes:
            log.warning("%s", note)
        return made, found.left_out
    own = Path(run, "split.json") if run else None
    if own is None or not own.is_file():
        return None, []
    known, there = Split.load(own), {*source.ids}
    named = {*known.labeled, *known.validation, *known.test}
    if known.fingerprint == source.fingerprint or asks and named <= there:  # of others `resolve` says what differs
        return known, []
    if named & there:
        log.warning(
            "%s differs from the data of %s: what that run has labels of or tests on is not left out. Give --split or "
            "--labels to leave images out",
            source.name,
            run,
        )
    return None, []
