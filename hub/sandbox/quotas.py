"""Limits of people's homes, set in the file system that the homes lie on.

Quotas are of users where the file system knows those (XFS, ext4): the owner of a file may change
the project that it counts for, and so leave a project's quota. Btrfs counts subvolumes: a home is
one there, and a sandbox may make no other (`hub.sandbox.seccomp`).
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from labkit.base.problems import LabkitError

_TIMEOUT = 60  # seconds
_SUBVOLUME = 256  # the inode number of each subvolume's folder
_USER_QUOTA = frozenset({"usrquota", "uquota", "quota"})
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class QuotaError(LabkitError):
    """A limit cannot be set; the text says why."""


@dataclass(frozen=True)
class FileSystem:
    """What a folder lies on.

    Attributes
    ----------
    kind : str
        ``ext4``, ``xfs``, ``btrfs``, ``nfs4`` ...
    mount : Path
        Where it is mounted.
    options : frozenset of str
        Of the mount and of the file system itself.
    """

    kind: str
    mount: Path
    options: frozenset[str]


def file_system(folder: Path, table: str | None = None) -> FileSystem:
    """Return what a folder lies on.

    Parameters
    ----------
    folder : Path
        It need not exist.
    table : str, optional
        Text of ``/proc/self/mountinfo`` (proc(5)); default: this process'.

    Raises
    ------
    QuotaError
        The table has no line for it.
    """
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        folder = Path(os.path.realpath(folder))
    best: FileSystem | None = None
    for line in table.splitlines():
        front, _, back = line.partition(" - ")
        words, (kind, _, options) = front.split(" "), back.split(" ", 2)
        mount = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), words[4]))
        # A later line hides an earlier one of the same place.
        if (mount == folder or mount in folder.parents) and (
            best is None or len(mount.parts) >= len(best.mount.parts)
        ):
            best = FileSystem(kind, mount, frozenset([*words[5].split(","), *options.split(",")]))
    if best is None:
        raise QuotaError(f"it is not known what {folder} lies on")
    return best


def obstacle(home: Path, on: FileSystem) -> str:
    """Return why the file system enforces no limit for a home; empty: it does.

    Parameters
    ----------
    home : Path
        The home, or the folder of all homes.
    on : FileSystem
        What it lies on.
    """
    if on.kind == "btrfs":
        if not _done(["btrfs", "qgroup", "show", str(on.mount)]):
            return f"quotas are off: btrfs quota enable {on.mount}"
        if home != on.mount and home.is_dir() and home.stat().st_ino != _SUBVOLUME:
            return f"{home} is no subvolume; the homes that the portal makes here are"
        return ""
    if on.kind in ("ext4", "xfs"):
        has = on.options & _USER_QUOTA or any(one.startswith("usrjquota=") for one in on.options)
        return "" if has else f"{on.mount} is mounted without user quotas (option usrquota)"
    return f"its file system ({on.kind}) has no quotas that the portal can set"


def command(account: pwd.struct_passwd, size: int, on: FileSystem) -> list[str]:
    """Return what sets the limit of a home.

    Parameters
    ----------
    account : struct_passwd
        Whose home.
    size : int
        Bytes.
    on : FileSystem
        What it lies on: one without `obstacle`.
    """
    if on.kind == "btrfs":
        return ["btrfs", "qgroup", "limit", str(size), account.pw_dir]
    if on.kind == "xfs":
        limit = f"limit -u bsoft=0 bhard={size} {account.pw_uid}"
        return ["xfs_quota", "-x", "-c", limit, str(on.mount)]
    blocks = -(-size // 1024)
    return ["setquota", "-u", str(account.pw_uid), "0", str(blocks), "0", "0", str(on.mount)]


def limit(account: pwd.struct_passwd, size: int) -> None:
    """Limit what a person's home may hold.

    Parameters
    ----------
    account : struct_passwd
        Whose.
    size : int
        Bytes.

    Raises
    ------
    QuotaError
        Its file system cannot, or refuses.
    """
    home = Path(account.pw_dir)
    on = file_system(home)
    reason = obstacle(home, on)
    if reason:
        raise QuotaError(reason)
    words = command(account, size, on)
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QuotaError(f"{words[0]}: {error}") from error
    if done.returncode or (on.kind == "xfs" and done.stderr):  # xfs_quota ends with 0 always
        raise QuotaError(f"{words[0]}: {done.stderr.strip() or 'failed'}")


def _done(words: list[str]) -> bool:
    try:
        done = subprocess.run(
            words, capture_output=True, check=False, timeout=_TIMEOUT, env=_ENVIRONMENT
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
