"""Names of images as Label Studio stores uploads: eight hexadecimal digits, and what its server leaves of the name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from urllib.parse import unquote

UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")


def stored(name: str) -> str:
    """A file name as Django stores it, in NFC form: blanks become underscores, other signs are dropped."""
    return unicodedata.normalize("NFC", re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_")))


class Uploads:
    """The images that names of uploads mean. ids: of all images, or their file names."""

    def __init__(self, ids: Iterable[str]):
        self.ids = set(ids)

    @cached_property
    def by_stored(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for id in sorted(self.ids):
            base = id.rpartition("/")[2]
            for name in {stored(unicodedata.normalize(form, base)) for form in ("NFC", "NFD")}:  # a Mac has the latter
                found[name].append(id)
        return found

    def candidates(self, name: str) -> list[str]:
        """The images whose upload may be called so; none where it is no name of an upload."""
        base = name.rpartition("/")[2]
        prefix = UPLOAD.match(base)
        if name in self.ids or prefix is None:
            return []
        return self.by_stored.get(unicodedata.normalize("NFC", unquote(base[prefix.end() :])), [])

    def original(self, name: str) -> str:
        """The image that the name of an upload means, `name` where there is no single one."""
        found = self.candidates(name)
        return found[0] if len(found) == 1 else name

    def why_not(self, name: str) -> str:
        """What to add to an error that there is no image of this name."""
        found = self.candidates(name)
        return f" (Label Studio stores {' and '.join(map(repr, found[:3]))} under one name)" if len(found) > 1 else ""
