"""Available cores and memory of this process, within the limits of its container or job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may run on, by its affinity and by the share of time that its container has."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = (_share(folder, first) for folder, first in _groups("cpu"))
    return max(min([own, *(math.ceil(share) for share in shares if share is not None)]), 1)


def free_memory() -> int:
    """Bytes of main memory that are free, of the machine and of what limits this process there."""
    import psutil  # comes with accelerate

    return min([psutil.virtual_memory().available, *_left_of_limits()])


def _left_of_limits() -> list[int]:
    """Bytes below the limit of each control group that this process is in."""
    found = []
    for folder, first in _groups("memory"):
        if first:
            limit, usage, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            limit, usage, cache = "memory.max", "memory.current", "inactive_file"
        if (left := _left(folder / limit, folder / usage, folder / "memory.stat", cache)) is not None:
            found.append(left)
    return found


def _groups(kind: str) -> Iterator[tuple[Path, bool]]:
    """(folder of each control group that this process is in, whether it is of the first version) (Linux)."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):  # not Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and kind not in kinds.split(","):
            continue
        root = CGROUPS / kind if kinds else CGROUPS
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):  # in a container the path may be the host's, and its own group the root
            yield folder, bool(kinds)
            if folder == root:
                break


def _share(folder: Path, first: bool) -> float | None:
    """Cores whose time a control group may use; None where there is no limit ("max", -1)."""
    try:
        if first:
            files = (folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
            quota, period = (int(file.read_text(encoding="utf-8")) for file in files)
        else:
            quota, period = map(int, (folder / "cpu.max").read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _left(limit: Path, usage: Path, stat: Path, cache: str) -> int | None:
    """None where there is no limit. Files that were read count as used until somebody needs their memory."""
    try:
        values = dict(line.split() for line in stat.read_text(encoding="utf-8").splitlines())
        used = int(usage.read_text(encoding="utf-8")) - int(values.get(cache, 0))
        return max(int(limit.read_text(encoding="utf-8")) - used, 0)  # "max" is no number
    except (OSError, ValueError):
        return None
