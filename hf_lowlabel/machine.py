"""What this process may use of the machine: cores and memory, within the limits of its container or its job."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of main memory that are free, of the machine and of what limits this process there."""
    import psutil  # comes with accelerate

    return min([psutil.virtual_memory().available, *_left_of_limits()])


def _left_of_limits() -> list[int]:
    """Bytes below the limit of each control group that this process is in (Linux, both versions)."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):  # not Linux
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:
            root, limit, usage, cache = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            root, limit, usage = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):  # in a container the path may be the host's, and its own group the root
            if (left := _left(folder / limit, folder / usage, folder / "memory.stat", cache)) is not None:
                found.append(left)
            if folder == root:
                break
    return found


def _left(limit: Path, usage: Path, stat: Path, cache: str) -> int | None:
    """None where there is no limit. Files that were read count as used until somebody needs their memory."""
    try:
        values = dict(line.split() for line in stat.read_text(encoding="utf-8").splitlines())
        used = int(usage.read_text(encoding="utf-8")) - int(values.get(cache, 0))
        return max(int(limit.read_text(encoding="utf-8")) - used, 0)  # "max" is no number
    except (OSError, ValueError):
        return None
