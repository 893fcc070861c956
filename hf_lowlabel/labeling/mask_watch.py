"""Whether names in a folder are new or gone, at the cost of a look at the times of its folders."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..data.files.folders import walked

COARSE = 3.0  # seconds: two changes within them may leave one time on a folder


class Watch:
    """The names in a folder and in those below it, as they are when this is made; hidden ones are left out."""

    def __init__(self, root: Path):
        self.root = root
        self.known = {Path(folder): listed(Path(folder)) for folder, _, _ in walked(root)}

    def changed(self) -> bool:
        """Whether a name is new or gone since."""
        for folder, (stamp, names) in self.known.items():
            try:
                if stamp == folder.stat().st_mtime_ns:
                    continue
                now = listed(folder)
            except OSError:  # the folder is gone
                return True
            if now[1] != names:
                return True
            self.known[folder] = now
        return False

    def ours(self, file: Path) -> None:
        """A file that was written or removed here is no change."""
        if file.parent not in self.known and self.root in file.parent.parents:  # made for it
            self.known[file.parent] = 0, set()
            self.ours(file.parent)
        if file.parent in self.known:
            names = self.known[file.parent][1]
            names.add(file.name) if file.exists() else names.discard(file.name)


def listed(folder: Path) -> tuple[int, set[str]]:
    """When a folder was changed last, in ns, and the names in it; 0 where it was just now, so that it is read again."""
    before = folder.stat().st_mtime_ns
    names = {name for name in os.listdir(folder) if name[0] != "."}
    return (before if time.time() - before / 1e9 > COARSE else 0), names
