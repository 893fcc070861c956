"""What a process may use of a machine, within the limits of a container or a job."""

import os

import psutil
import pytest

from hf_lowlabel import machine
from hf_lowlabel.data.caches import decoding
from hf_lowlabel.records import collect_hardware

FREE = 10**10
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def group(folder, names, limit, used, cache=0):
    folder.mkdir(parents=True, exist_ok=True)
    limit_file, usage_file, key = names
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{key} {cache}\n")


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": FREE}))
    return tmp_path


def test_memory_is_what_the_container_or_the_job_leaves(system):
    assert machine.free_memory() == FREE  # no control groups, as on a Mac
    (system / "own").write_text("0::/job/step\n")
    group(system / "cgroup" / "job" / "step", V2, "max", 700, 100)
    assert machine.free_memory() == FREE
    group(system / "cgroup" / "job", V2, 5000, 900, 200)  # the limit of the job holds in its steps
    assert machine.free_memory() == 4300
    group(system / "cgroup", V2, 100, 900)
    assert machine.free_memory() == 0


def test_memory_of_the_first_version_whose_paths_may_be_those_of_the_host(system):
    (system / "own").write_text("12:cpuset:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n")
    group(system / "cgroup" / "memory", V1, 9223372036854771712, 900)
    assert machine.free_memory() == FREE
    group(system / "cgroup" / "memory", V1, 8000, 3000, 1000)
    assert machine.free_memory() == 6000


def test_cores_are_those_that_a_process_may_run_on(system, monkeypatch):
    """Not all of the machine, of which a job has a few."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert machine.cores() == decoding.cores() == collect_hardware()["cores"] == 3


@pytest.mark.parametrize("first", [False, True])
def test_cores_are_no_more_than_the_time_that_a_container_has(system, monkeypatch, first):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*range(64)}, raising=False)
    (system / "own").write_text("3:cpu,cpuacct:/docker/abc\n" if first else "0::/docker/abc\n")
    root = system / "cgroup" / "cpu" if first else system / "cgroup"

    def limit(folder, quota):
        folder.mkdir(parents=True, exist_ok=True)
        if first:
            (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
        else:
            (folder / "cpu.max").write_text(f"{'max' if quota < 0 else quota} 100000\n")

    assert machine.cores() == 64
    limit(root / "docker" / "abc", -1)
    assert machine.cores() == 64
    limit(root / "docker" / "abc", 350000)
    assert machine.cores() == decoding.cores() == 4
    limit(root, 50000)
    assert machine.cores() == collect_hardware()["cores"] == 1
