"""Splits of images with masks: published lists of ids, and drawing some by seed.

The manifest is that of classification (splits.py); a labeled image has a mask and no class, so its class there is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import UserError, unknown
from .permutation import epoch_permutation
from .segmentation import SegmentationSource
from .splits import Split


def read_ids(path: str | Path) -> list[str]:
    """The first word of each line of a published list, in its order."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"found no list of ids at {str(path)!r}; expected a text file with one image a line; fix the path"
        )
    ids = [line.split()[0] for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not ids:
        raise UserError(f"found an empty list of ids in {path.name}; expected one image a line")
    if len(set(ids)) != len(ids):
        raise UserError(f"found ids twice in {path.name}; expected each once; fix the list")
    return ids


def match_ids(names: Sequence[str], source: SegmentationSource) -> list[str]:
    """The source's ids for published names, which may be paths: "JPEGImages/2007_000032.jpg",
    "leftImg8bit/train/weimar/weimar_000085_000019_leftImg8bit.png". Matched whole, else by the bare file name."""
    known, bare = set(source.ids), {}
    for id in source.ids:
        bare.setdefault(key(id), []).append(id)
    out = []
    for name in names:
        if name in known:
            out.append(name)
            continue
        candidates = bare.get(key(name), [])
        if len(candidates) > 1:
            raise UserError(
                f"found {len(candidates)} images called {key(name)!r} in {source.name!r}; expected one; "
                f"fix: write whole ids in the list, such as {candidates[0]!r}"
            )
        if not candidates:
            raise unknown(f"image of the list in {source.name!r}", key(name), source.ids)
        out.append(candidates[0])
    return out


def key(name: str) -> str:
    return PurePosixPath(name).stem.removesuffix("_leftImg8bit")


def split_from_lists(
    source: SegmentationSource,
    labeled: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
) -> Split:
    """The manifest of published lists: the images on `labeled` have their masks used, all others are unlabeled."""
    parts = [match_ids(read_ids(path), source) if path is not None else [] for path in (labeled, validation, test)]
    return mask_split(source, *parts)


def make_mask_split(
    source: SegmentationSource,
    num_labels: int | None = None,
    *,
    seed: int = 0,
    validation: int = 0,
    test_fraction: float = 0.0,
) -> Split:
    """Draw `num_labels` labeled images (None: every mask there is) after setting test and validation aside.

    The draw is that of CutMix-Seg (French et al. 2019), so that its ISIC subsets are found again by its seed, 12345:
    the first entries of numpy's RandomState(seed).permutation over the sorted ids. A larger budget contains a smaller.
    """
    if not 0 <= test_fraction < 1:
        raise UserError(f"found a test fraction of {test_fraction}; expected 0 <= fraction < 1")
    if num_labels is not None and num_labels < 1:
        raise UserError(f"found a budget of {num_labels} labels; expected at least 1")
    usable = np.array(sorted(np.flatnonzero(source.has_mask), key=lambda i: source.ids[i]), dtype=np.int64)
    held = [round(test_fraction * len(usable)), validation]
    wanted = max(len(usable) - sum(held), 0) if num_labels is None else num_labels
    if not wanted or sum(held) + wanted > len(usable):
        raise UserError(
            f"found {len(usable)} images with masks in {source.name!r}; expected at least "
            f"{sum(held) + max(wanted, 1)}: {held[0]} for test, {held[1]} for validation and "
            f"{max(wanted, 1)} labeled; fix: fewer labels, or a smaller test or validation set"
        )
    test, validation_ids = [], []
    for part, count, stream in ((test, held[0], "split/test"), (validation_ids, held[1], "split/validation")):
        chosen = usable[epoch_permutation(seed, stream, 0, count, len(usable))] if count else usable[:0]
        part += [source.ids[i] for i in np.sort(chosen)]
        usable = usable[~np.isin(usable, chosen)]
    drawn = usable[np.random.RandomState(seed).permutation(len(usable))[:wanted]]
    return mask_split(source, [source.ids[i] for i in np.sort(drawn)], validation_ids, test, seed)


def mask_split(
    source: SegmentationSource,
    labeled: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    seed: int | None = None,
) -> Split:
    position = {id: i for i, id in enumerate(source.ids)}
    for id in (*labeled, *validation, *test):
        if not source.has_mask[position[id]]:
            raise UserError(
                f"found image {id!r} without a mask among the labeled ones; expected a mask for each "
                f"labeled, validation and test image of {source.name!r}; fix: add it, or take the image "
                "off the list"
            )
    return Split(
        dataset=source.name,
        config=source.config,
        revision=source.revision,
        fingerprint=source.fingerprint,
        seed=seed,
        class_names=list(source.class_names),
        labeled=dict.fromkeys(labeled),
        validation=list(validation),
        test=list(test),
    )
