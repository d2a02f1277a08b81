"""What a user server may use: CPU, memory and processes, by cgroups (v1, hybrid and v2)."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from labkit.base import cgroups

CONTROLLERS = ("cpu", "memory", "pids")
_PERIOD = 100_000  # microseconds
_KILL_TIMEOUT = 5.0  # seconds


class CgroupError(OSError):
    """The host's cgroups cannot hold user servers; the text says why."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one user server may use.

    Attributes
    ----------
    cpu : float
        Cores.
    memory : int
        Bytes, files in /dev/shm included.
    processes : int
        Processes and threads at once.
    """

    cpu: float
    memory: int
    processes: int


class Cgroups(ABC):
    """The cgroups of one portal: a parent, and below it one group per user server.

    Parameters
    ----------
    parents : dict of str to Path
        The parent group in each hierarchy, by controller; ``""`` is a v2 hierarchy without
        controllers, as a hybrid host has beside the v1 ones.
    """

    def __init__(self, parents: dict[str, Path]) -> None:
        self.parents = parents

    def folders(self, key: str) -> list[Path]:
        """Return the group's folder in each hierarchy."""
        return list(dict.fromkeys(parent / key for parent in self.parents.values()))

    def create(self, key: str, limits: SandboxLimits) -> None:
        """Make the group and set its limits; an empty one of that name is used again.

        Raises
        ------
        CgroupError
            The kernel refused.
        """
        try:
            for folder in self.folders(key):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o755)  # whatever the umask: the server reads its own limits
            self._limit(key, limits)
        except OSError as error:
            raise CgroupError(f"cgroup {key}: {error}") from error

    @abstractmethod
    def _limit(self, key: str, limits: SandboxLimits) -> None: ...

    def oom_kills(self, key: str) -> int:
        """Return how many processes the kernel ended for want of memory."""
        return cgroups.oom_kills(self.parents["memory"] / key)

    @abstractmethod
    def views(self, key: str) -> list[tuple[Path, str]]:
        """Return what the server may read of its own limits: (folder, place in the sandbox)."""

    def join_files(self, key: str) -> list[str]:
        """Return the files into which a process writes ``0`` to join the group."""
        return [str(folder / "cgroup.procs") for folder in self.folders(key)]

    def pids(self, key: str) -> list[int]:
        """Return the processes of the group, none where there is no group."""
        return cgroups.processes(self.parents["pids"] / key)

    def keys(self) -> set[str]:
        """Return the groups that exist, in any hierarchy."""
        found: set[str] = set()
        for parent in set(self.parents.values()):
            if parent.is_dir():
                found.update(entry.name for entry in os.scandir(parent) if entry.is_dir())
        return found

    def kill(self, key: str) -> bool:
        """End every process of the group at once; True when none is left."""
        deadline = time.monotonic() + _KILL_TIMEOUT
        # Nobody forks from here on, so the loop ends.
        _write(self.parents["pids"] / key / "pids.max", 0, missing_ok=True)
        while pids := self.pids(key):
            for folder in self.folders(key):
                _write(folder / "cgroup.kill", 1, missing_ok=True)
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def remove(self, key: str) -> bool:
        """Remove an empty group; True when it is gone from every hierarchy."""
        deadline = time.monotonic() + _KILL_TIMEOUT
        left = self.folders(key)
        while True:
            left = [folder for folder in left if not _rmdir(folder)]
            if not left or time.monotonic() > deadline:
                return not left
            time.sleep(0.01)  # the kernel lets go of a group a moment after its last process

    def remove_parents(self) -> None:
        """Remove the portal's own group, where no user server is left."""
        for parent in set(self.parents.values()):
            _rmdir(parent)


class CgroupsV1(Cgroups):
    """Separate hierarchies per controller, with the v2 one beside them where it is mounted."""

    def _limit(self, key: str, limits: SandboxLimits) -> None:
        memory, cpu = self.parents["memory"] / key, self.parents["cpu"] / key
        # With swap accounting, memsw must never be below the limit: lift it first.
        _write(memory / "memory.memsw.limit_in_bytes", -1, missing_ok=True)
        _write(memory / "memory.limit_in_bytes", limits.memory)
        _write(memory / "memory.memsw.limit_in_bytes", limits.memory, missing_ok=True)
        _write(cpu / "cpu.cfs_period_us", _PERIOD)
        _write(cpu / "cpu.cfs_quota_us", max(1000, int(limits.cpu * _PERIOD)))
        _write(cpu / "cpu.shares", max(2, min(262_144, int(limits.cpu * 1024))))
        _write(self.parents["pids"] / key / "pids.max", limits.processes)

    def views(self, key: str) -> list[tuple[Path, str]]:
        """Return what the server may read of its own limits: (folder, place in the sandbox)."""
        return [(self.parents[c] / key, f"/sys/fs/cgroup/{c}") for c in CONTROLLERS]


class CgroupsV2(Cgroups):
    """The unified hierarchy."""

    def create(self, key: str, limits: SandboxLimits) -> None:
        """Make the group and set its limits; an empty one of that name is used again.

        Raises
        ------
        CgroupError
            The kernel refused.
        """
        parent = self.parents["pids"]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _delegate(parent.parent)
            _delegate(parent)
        except OSError as error:
            raise CgroupError(f"cgroup {parent}: {error}") from error
        super().create(key, limits)

    def _limit(self, key: str, limits: SandboxLimits) -> None:
        group = self.parents["pids"] / key
        _write(group / "memory.max", limits.memory)
        _write(group / "memory.swap.max", 0, missing_ok=True)
        _write(group / "cpu.max", f"{max(1000, int(limits.cpu * _PERIOD))} {_PERIOD}")
        _write(group / "cpu.weight", max(1, min(10_000, int(limits.cpu * 100))))
        _write(group / "pids.max", limits.processes)

    def views(self, key: str) -> list[tuple[Path, str]]:
        """Return what the server may read of its own limits: (folder, place in the sandbox)."""
        return [(self.parents["pids"] / key, "/sys/fs/cgroup")]


def detect(name: str, proc: Path = Path("/proc/self")) -> Cgroups:
    """Find where the portal's groups can live on this host.

    Parameters
    ----------
    name : str
        The portal's own group.
    proc : Path
        Where ``mounts`` and ``cgroup`` of this process are read.

    Raises
    ------
    CgroupError
        A controller is missing; the text names it.
    """
    v1, v2 = cgroups.mounts(proc)
    if all(controller in v1 for controller in CONTROLLERS):
        parents = {controller: v1[controller] / name for controller in CONTROLLERS}
        if v2:
            parents[""] = v2 / name
        return CgroupsV1(parents)
    if v2 is None:
        missing = ", ".join(c for c in CONTROLLERS if c not in v1)
        raise CgroupError(f"no cgroups for {missing}: neither v1 nor v2 is mounted")
    base = _delegated(v2, (proc / "cgroup").read_text())
    offered = (base / "cgroup.controllers").read_text().split()
    missing = ", ".join(c for c in CONTROLLERS if c not in offered)
    if missing:
        raise CgroupError(f"cgroup v2 at {base} does not offer: {missing}")
    return CgroupsV2(dict.fromkeys(CONTROLLERS, base / name))


def _delegated(root: Path, cgroup: str) -> Path:
    """Return the group that systemd has given to this process (Delegate=yes), else the root."""
    own = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "/")
    for group in (root / own.lstrip("/"), *(root / own.lstrip("/")).parents):
        if group == root or root not in group.parents:
            break
        for mark in ("user.delegate", "trusted.delegate"):
            try:
                if os.getxattr(group, mark) == b"1":
                    return group
            except OSError:
                continue
    return root


def _delegate(group: Path) -> None:
    """Hand the controllers on to the groups below.

    A group with controllers below it may hold no processes itself: those that it has (the
    portal's own) move to a leaf beside the user servers.
    """
    control = group / "cgroup.subtree_control"
    wanted = " ".join(f"+{c}" for c in CONTROLLERS if c not in control.read_text().split())
    if not wanted:
        return
    try:
        _write(control, wanted)
    except OSError:
        leaf = group / "portal"
        leaf.mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            try:
                _write(leaf / "cgroup.procs", pid)
            except ProcessLookupError:
                continue
        _write(control, wanted)


def _write(path: Path, value: int | str, *, missing_ok: bool = False) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
