"""What a one-node Kubernetes needs of the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CNI = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")
_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "openssl": "openssl",
    "unshare": "util-linux",
    "mount": "mount",
}
#: What hub.environments builds for the tests: the parts of a node, and a pod's first process.
BUILT = ("node", "pause")


def which(name: str) -> str | None:
    """Return where a program is, also where only root's PATH has it."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM]))


def missing(programs: Path | None = None) -> str:
    """Return what stands against a cluster on this machine; empty where nothing does.

    Parameters
    ----------
    programs : Path, optional
        Folder of the programs ``node`` and ``pause``; without it they are not looked for.
    """
    if os.geteuid() != 0:
        return "needs root (namespaces, cgroups)"
    lacking = sorted({package for name, package in _PACKAGES.items() if which(name) is None})
    if not (CNI / "ptp").is_file():
        lacking.append("containernetworking-plugins")
    if lacking:
        return f"needs {', '.join(lacking)}: on Debian, apt install {' '.join(lacking)}"
    if programs and not all((programs / name).is_file() for name in BUILT):
        return "needs the environment kubernetes (labhub test makes it)"
    return _kernel()


def _kernel() -> str:
    try:
        filesystems = Path("/proc/filesystems").read_text().split()
    except OSError:
        filesystems = []
    if "overlay" not in filesystems:
        return "needs overlay file systems, which this kernel has not"
    for group in controllers():
        if not os.access(group, os.W_OK) or os.statvfs(group).f_flag & os.ST_RDONLY:
            return f"needs control groups that can be made; {group} is read-only"
    if not Path("/dev/kmsg").exists():
        return "needs /dev/kmsg, which this machine does not show"
    return ""


def controllers() -> list[Path]:
    """Return the folders in which control groups are made: several in version 1, one in 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted(path for path in CGROUPS.glob("*") if (path / "cgroup.procs").exists())
