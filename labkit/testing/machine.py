"""What a test cluster needs of the machine: programs, ports, a clean environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

from labkit.base.problems import LabkitError
from labkit.slurm.commands import FOLDERS

_DAEMONS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge"}
_CLIENTS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
_PACKAGES = {**_DAEMONS, **dict.fromkeys(_CLIENTS, "slurm-client")}
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", *FOLDERS)


class ClusterError(LabkitError):
    """The test cluster does not do what it was asked for; the text says why."""


def missing_programs() -> str:
    """Return which of SLURM's programs this machine lacks and how to get them; "" for none."""
    missing = [name for name in _PACKAGES if _which(name) is None]
    if not missing:
        return ""
    packages = sorted({_PACKAGES[name] for name in missing})
    return f"missing: {', '.join(missing)}; on Debian and Ubuntu: apt install {' '.join(packages)}"


def programs() -> dict[str, str]:
    """Return where SLURM's programs are."""
    if missing := missing_programs():
        raise ClusterError(f"SLURM is not, or not wholly, installed: {missing}")
    return {name: _which(name) or name for name in _PACKAGES}


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM]))


def clean_environment() -> dict[str, str]:
    """Return this process' environment without what a SLURM job or its commands put there."""
    dropped = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_", "SALLOC_")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


def answers(path: Path) -> bool:
    """Return whether something listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def ends(folder: Path, lines: int) -> str:
    """Return the last lines of each log in a folder."""
    texts = []
    for path in sorted(folder.glob("*")):
        if path.suffix == ".out" and path.with_suffix(".log").exists():
            continue  # the same once more
        with contextlib.suppress(OSError):
            end = path.read_text(errors="replace").splitlines()[-lines:]
            texts.append("\n".join([f"--- {path.name}", *end]))
    return "\n".join(texts)
