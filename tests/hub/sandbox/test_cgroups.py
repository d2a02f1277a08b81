"""Limits: what is written where, on hosts with cgroups v1, hybrid and v2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub.sandbox.cgroups import CgroupError, CgroupsV1, CgroupsV2, SandboxLimits, detect
from tests.conftest import needs_root

LIMITS = SandboxLimits(cpu=1.5, memory=256 << 20, processes=50)


def proc(tmp_path: Path, mounts: str, cgroup: str = "0::/\n") -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "mounts").write_text(mounts)
    (folder / "cgroup").write_text(cgroup)
    return folder


def unified(tmp_path: Path, *groups: str) -> Path:
    """A v2 hierarchy of plain files, as far as they are read and written here."""
    root = tmp_path / "cgroup"
    for group in ("", *groups):
        (root / group).mkdir(parents=True, exist_ok=True)
        (root / group / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (root / group / "cgroup.subtree_control").write_text("")
        (root / group / "cgroup.procs").write_text("")
    return root


def test_a_hybrid_host(tmp_path: Path) -> None:
    mounts = (
        "cgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /cg/memory cgroup rw,memory 0 0\n"
        "cgroup /cg/pids cgroup rw,pids 0 0\ncgroup2 /cg/unified cgroup2 rw 0 0\n"
    )
    groups = detect("labhub-x", proc(tmp_path, mounts))
    assert isinstance(groups, CgroupsV1)
    assert groups.folders("7") == [
        Path("/cg/cpu/labhub-x/7"),
        Path("/cg/memory/labhub-x/7"),
        Path("/cg/pids/labhub-x/7"),
        Path("/cg/unified/labhub-x/7"),
    ]


def test_a_host_without_a_controller_says_which(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="no cgroups for memory, pids"):
        detect("x", proc(tmp_path, "cgroup /cg/cpu cgroup rw,cpu 0 0\n"))


def test_v2_without_a_controller_says_which(tmp_path: Path) -> None:
    root = unified(tmp_path)
    (root / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(CgroupError, match="does not offer: memory"):
        detect("x", proc(tmp_path, f"cgroup2 {root} cgroup2 rw 0 0\n"))


def test_v2_limits(tmp_path: Path) -> None:
    root = unified(tmp_path, "labhub-x", "labhub-x/7")
    for name in ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max"):
        (root / "labhub-x" / "7" / name).write_text("max")
    groups = detect("labhub-x", proc(tmp_path, f"cgroup2 {root} cgroup2 rw 0 0\n"))
    assert isinstance(groups, CgroupsV2)
    groups.create("7", LIMITS)
    sandbox = root / "labhub-x" / "7"
    written = {name: (sandbox / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")}
    assert written["memory.max"].startswith(str(256 << 20))
    assert written["cpu.max"] == "150000 100000"
    assert written["pids.max"].startswith("50")
    for folder in (root, root / "labhub-x"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert groups.join_files("7") == [str(sandbox / "cgroup.procs")]
    assert groups.views("7") == [(sandbox, "/sys/fs/cgroup")]


def test_v2_below_the_unit_that_systemd_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = unified(tmp_path, "system.slice/labhub.service/portal")
    unit = root / "system.slice" / "labhub.service"
    (unit / "cgroup.controllers").write_text("cpu memory pids\n")

    def getxattr(path: Path, name: str) -> bytes:
        if path == unit and name == "user.delegate":
            return b"1"
        raise OSError

    monkeypatch.setattr("os.getxattr", getxattr)
    found = detect(
        "labhub-x",
        proc(
            tmp_path,
            f"cgroup2 {root} cgroup2 rw 0 0\n",
            "0::/system.slice/labhub.service/portal\n",
        ),
    )
    assert found.folders("7") == [unit / "labhub-x" / "7"]


@needs_root
def test_this_host_really_limits() -> None:
    groups = detect("labhub-test-cgroups")
    try:
        groups.create("7", LIMITS)
        assert groups.keys() == {"7"}
        join = (
            "import sys\n"
            "for path in sys.argv[1:]: open(path, 'w').write('0')\n"
            "print('in', flush=True); b = [bytearray(1 << 20) for _ in range(1000)]"
        )
        done = subprocess.run(
            [sys.executable, "-c", join, *groups.join_files("7")], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (-9, "in\n")
        assert groups.oom_kills("7") >= 1
    finally:
        assert groups.kill("7")
        assert groups.remove("7")
        groups.remove_parents()
    assert groups.keys() == set()


@needs_root
def test_a_server_may_read_its_limits_whatever_the_portals_umask() -> None:
    groups = detect("labhub-test-umask")
    before = os.umask(0o077)
    try:
        groups.create("7", LIMITS)
        assert {folder.stat().st_mode & 0o777 for folder in groups.folders("7")} == {0o755}
    finally:
        os.umask(before)
        assert groups.remove("7")
        groups.remove_parents()


@needs_root
def test_what_forks_while_it_is_killed_is_killed() -> None:
    groups = detect("labhub-test-cgroups")
    bomb = (
        "import os, sys, time\n"
        "for path in sys.argv[1:]: open(path, 'w').write('0')\n"
        "while True:\n"
        "    try: os.fork()\n"
        "    except OSError: time.sleep(0.01)\n"
    )
    try:
        groups.create("8", LIMITS)
        process = subprocess.Popen([sys.executable, "-c", bomb, *groups.join_files("8")])
        while len(groups.pids("8")) < 40:
            assert process.poll() is None
        assert groups.kill("8")
        assert groups.pids("8") == []
        process.wait(5)
    finally:
        groups.kill("8")
        groups.remove("8")
        groups.remove_parents()
