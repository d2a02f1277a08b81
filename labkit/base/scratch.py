"""A folder on the machine's own disk, for a person whose home may lie on shared storage.

SQLite's locks can hang for ever on NFS and EFS; what uses them belongs here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Kinds of file systems whose locks are kept by another machine.
_SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "lustre", "beegfs", "gpfs", "ceph", "glusterfs", "afs"}
)


def is_shared(path: Path) -> bool:
    """Return whether a folder lies on storage that several machines share.

    In a server that is a cluster's job (``LABHUB_ENDS_AT``) the home always does, whatever the
    node says of its file system.

    Parameters
    ----------
    path : Path
        The folder.
    """
    if os.environ.get("LABHUB_ENDS_AT"):
        return True
    kind = _kind(path)
    return kind in _SHARED or (kind.startswith("fuse.") and kind != "fuse.fuse-overlayfs")


def folder() -> Path:
    """Return a folder of this machine's own that its owner alone can enter.

    Raises
    ------
    OSError
        There is none, or somebody else has made it.
    """
    # Not TMPDIR: a job's own would be gone with the job, and sockets need short paths.
    path = Path(f"/tmp/labhub-{os.geteuid()}")  # noqa: S108 - its owner is looked at
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    private = not stat.S_IMODE(status.st_mode) & 0o077
    if not (stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and private):
        raise PermissionError(13, "somebody else has made it, or others may enter it", str(path))
    return path


def ipython_history(home: Path) -> str:
    """Return where IPython keeps its history; empty: where it does by itself.

    Parameters
    ----------
    home : Path
        The person's home.
    """
    if not is_shared(home):
        return ""
    try:
        return str(folder() / "ipython-history.sqlite")
    except OSError:
        return ":memory:"


def _kind(path: Path) -> str:
    """Return the kind of the file system that a folder is on; empty: the system does not say."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        wanted = os.path.realpath(path)
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        words = line.split()
        place = words[4].replace("\\040", " ")
        inside = wanted == place or wanted.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, words[words.index("-") + 1]
    return kind
