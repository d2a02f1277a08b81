"""What is read of cgroups: v1, hybrid and v2."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.base import cgroups
from labkit.base.cgroups import MemoryUse


def group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {"cgroup.procs": "", **files}.items():
        (folder / name).write_text(f"{value}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A process on a hybrid host: a v1 memory hierarchy beside v2, spaces in neither."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "mounts").write_text(
        f"proc /proc proc rw 0 0\n"
        f"cgroup {tmp_path}/v1/memory cgroup rw,memory 0 0\n"
        f"cgroup {tmp_path}/v1/cpu cgroup rw,cpu,cpuacct 0 0\n"
        f"cgroup2 {tmp_path}/v2 cgroup2 rw 0 0\n"
    )
    (folder / "cgroup").write_text("4:memory:/lab/ada\n1:cpu,cpuacct:/\n0::/lab.slice/ada\n")
    return folder


def test_the_mounts(proc: Path, tmp_path: Path) -> None:
    v1, v2 = cgroups.mounts(proc)
    assert v1["memory"] == tmp_path / "v1/memory" and v1["cpu"] == v1["cpuacct"]
    assert v2 == tmp_path / "v2"


def test_limits_of_both_versions_with_what_is_used_of_them(proc: Path, tmp_path: Path) -> None:
    stat = "total_cache 150\ntotal_shmem 50"
    v1 = {"memory.usage_in_bytes": 500, "memory.stat": stat}
    group(tmp_path / "v1/memory/lab/ada", {**v1, "memory.limit_in_bytes": 1000})
    group(tmp_path / "v1/memory/lab", {**v1, "memory.limit_in_bytes": 2**63 - 4096})
    v2 = {"memory.current": 300, "memory.stat": "file 0\nshmem 0"}
    group(tmp_path / "v2/lab.slice/ada", {**v2, "memory.max": "max"})
    group(tmp_path / "v2/lab.slice", {**v2, "memory.max": 900})
    assert set(cgroups.memory_limits(proc)) == {MemoryUse(1000, 400), MemoryUse(900, 300)}


def test_a_namespace_shows_its_own_root(proc: Path, tmp_path: Path) -> None:
    group(tmp_path / "v2", {"memory.max": 700, "memory.current": 100})
    assert list(cgroups.groups("memory", proc))[-1] == (tmp_path / "v2", True)
    assert MemoryUse(700, 100) in set(cgroups.memory_limits(proc))


def test_a_host_without_cgroups(tmp_path: Path) -> None:
    assert list(cgroups.groups("memory", tmp_path)) == []
    assert list(cgroups.memory_limits(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("memory.events", "low 0\noom 3\noom_kill 2"), ("memory.oom_control", "oom_kill 2")],
)
def test_kills(tmp_path: Path, name: str, text: str) -> None:
    assert cgroups.oom_kills(tmp_path) == 0
    (tmp_path / name).write_text(text)
    assert cgroups.oom_kills(tmp_path) == 2


def test_the_peak_and_the_processes(tmp_path: Path) -> None:
    assert (cgroups.memory_peak(tmp_path), cgroups.processes(tmp_path)) == (0, [])
    group(tmp_path, {"memory.peak": 77, "cgroup.procs": "12\n34"})
    assert (cgroups.memory_peak(tmp_path), cgroups.processes(tmp_path)) == (77, [12, 34])


@pytest.mark.parametrize(("text", "value"), [("max", None), ("", None), ("-1", -1), ("12", 12)])
def test_numbers(tmp_path: Path, text: str, value: int | None) -> None:
    (tmp_path / "x").write_text(f"{text}\n")
    assert cgroups.number(tmp_path / "x") == value
    assert cgroups.number(tmp_path / "none") is None
