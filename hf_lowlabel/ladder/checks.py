"""What is wrong with labels, found before anything is computed from them."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict

import torch

from ..errors import UserError
from ..tasks.parts import Examples
from ..training.preparing import Prepared

log = logging.getLogger("hf_lowlabel")


def without_copies(ready: Prepared) -> None:
    """Test images that are copies of labeled ones are left out of the test.

    Raises:
        UserError: the same picture has two labels, or no other test image is left.
    """
    names = ready.names
    seen: dict[str, list[int]] = defaultdict(list)
    for number, picture in enumerate(pictures(ready.labeled)):
        seen[picture].append(number)
    targets, ids = ready.labeled.targets, ready.training.ids
    assert targets is not None
    for same in seen.values():
        first = same[0]
        for other in same[1:]:
            if targets[first] != targets[other]:
                a, b = (ids[int(ready.labeled.members[i])] for i in (first, other))
                raise UserError(
                    f"{a!r} and {b!r} are the same picture, labeled {names[int(targets[first])]!r} and "
                    f"{names[int(targets[other])]!r}. Correct one of the labels, or leave one of the images out."
                )
    if "test" not in ready.held:
        return
    test = ready.held["test"]
    copied = [picture in seen for picture in pictures(test)]
    keep = [number for number, copy in enumerate(copied) if not copy]
    if not any(copied):
        return
    if not keep:
        raise UserError("Every test image is a copy of a labeled one. Hold out others.")
    log.warning(
        "%d test images are copies of labeled images, such as %s: they are left out of the test",
        len(test.members) - len(keep),
        test.cache.ids[int(test.members[copied.index(True)])],
    )
    rows = torch.as_tensor(keep)
    assert test.targets is not None
    ready.held["test"] = Examples(test.cache, test.members[rows], test.targets[rows])


def pictures(images: Examples) -> list[str]:
    """A hash of the decoded pixels of each."""
    out = []
    for chunk in images.members.split(256):
        out += [hashlib.sha256(p.cpu().numpy().tobytes()).hexdigest() for p in images.cache.take(chunk)]
    return out
