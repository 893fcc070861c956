"""The same picture twice, found before anything is computed: with two labels, or learned from and tested on."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..errors import UserError
from ..tasks.parts import Examples

log = logging.getLogger("hf_lowlabel")
CHUNK, FEW = 64, 8  # images that are read at once; so many times that without processes of their own


def pictures(images: Examples) -> list[str]:
    """A hash of the decoded pixels of each, "" of a blank one, which is nobody's copy; masks, and what images are
    filled up with to one size, take no part."""
    sizes, out, parts = images.cache.sizes, [], images.members.split(CHUNK)
    read = images.cache.stream(parts) if len(parts) > FEW else map(images.cache.take, parts)
    for part, found in zip(parts, read, strict=True):
        pixels = found[:, :3].cpu().numpy()
        whole = [pixels.shape[2:]] * len(part) if sizes is None else sizes[part].tolist()
        for image, (h, w) in zip(pixels, whole, strict=True):
            shown = image[:, :h, :w]
            blank = (shown == shown[:, :1, :1]).all()
            out.append("" if blank else hashlib.sha256(f"{h} {w}".encode() + shown.tobytes()).hexdigest())
    return out


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two targets, of a class or of several, say different things; a negative entry says nothing."""
    return bool(((a != b) & (a >= 0) & (b >= 0)).any())


def words_of(target: Tensor, names: Sequence[str]) -> str:
    """A target, of a class or of several, by name."""
    known = [int(target)] if target.dim() == 0 else (target > 0).nonzero()[:, 0].tolist()
    return " and ".join(repr(names[k]) for k in known) or "none of the classes"


def of_one_mind(labeled: Examples, seen: list[str], names: Sequence[str], skip: bool) -> np.ndarray:
    """Rows of the labeled images, int64 [n], without those whose copies have another label.

    Args:
        seen: their pictures.
        names: of the classes.
        skip: leave them out, instead of an error. Masks drawn twice differ at their edges, and are never compared.

    Raises:
        UserError: the same picture has two labels.
    """
    if labeled.targets is None:
        return np.arange(len(seen))
    same: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(seen):
        if picture:
            same[picture].append(row)
    twice: set[int] = set()
    for rows in same.values():
        for other in rows[1:]:
            if differ(labeled.targets[rows[0]], labeled.targets[other]):
                first, second = (labeled.cache.ids[int(labeled.members[row])] for row in (rows[0], other))
                words = [words_of(labeled.targets[row], names) for row in (rows[0], other)]
                if not skip:
                    raise UserError(
                        f"{first!r} and {second!r} are the same picture, labeled {words[0]} and {words[1]}. Correct "
                        "one of the labels, leave one of the images out, or give --skip-conflicts."
                    )
                twice |= set(rows)
    if twice:
        log.warning(
            "%d labeled images are copies of each other with other labels, such as %s: they count as unlabeled",
            len(twice),
            labeled.cache.ids[int(labeled.members[min(twice)])],
        )
    return np.array([row for row in range(len(seen)) if row not in twice], dtype=np.int64)


def apart(seen: list[str], held: Mapping[str, Examples]) -> dict[str, np.ndarray]:
    """Part -> positions in the data set, int64 [n], of its images that are no copies of labeled ones; only of parts
    that have such.

    Args:
        seen: pictures of the labeled images.
        held: "validation", "test" -> images that are not trained on.
    """
    known, out = set(seen) - {""}, {}
    for part, images in held.items():
        copied = np.array([picture in known for picture in pictures(images)])
        if not copied.any():
            continue
        if copied.all():
            log.warning(
                "every %s image is a copy of a labeled one: scores on them say nothing of new images. Hold out others",
                part,
            )
            continue
        members = images.members.numpy()
        log.warning(
            "%d %s images are copies of labeled images, such as %s: they are left out of the %s",
            copied.sum(),
            part,
            images.cache.ids[int(members[copied.argmax()])],
            part,
        )
        out[part] = images.cache.indices[members[~copied]]
    return out
