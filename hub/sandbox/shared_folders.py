"""Folders that people share: made so that what one writes the others can use.

Servers write with umask 077. A default access control list of the folder takes the umask's place,
and the setgid bit gives new files the folder's group; that group is given to the servers of those
who may see the folder, and to no account.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import stat
import struct
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.labfile.schema import Settings
from hub.labfile.storage import SharedFolder
from labkit.base.problems import Problem, ProblemsError

_ACL = "system.posix_acl_default"  # linux/posix_acl_xattr.h: a version, then (tag, rights, id)
_NOBODY = 0xFFFFFFFF
_OWNER, _GROUP, _MASK, _OTHERS = 0x01, 0x04, 0x10, 0x20
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, _NOBODY)
    for tag, rights in ((_OWNER, 7), (_GROUP, 7), (_MASK, 7), (_OTHERS, 0))
)
_MODE = 0o2770
_LONGEST = 32  # characters of a Unix group's name
_TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Folders:
    """What one person's server sees of the shared folders.

    Attributes
    ----------
    read_only, read_write : tuple of Path
        Seen at the same place.
    groups : tuple of int
        Numbers of the Unix groups that its processes have for them.
    """

    read_only: tuple[Path, ...] = ()
    read_write: tuple[Path, ...] = ()
    groups: tuple[int, ...] = ()


def group_name(groups: Collection[str]) -> str:
    """Return the Unix group of a folder that these groups of the lab share.

    No two sets of groups have the same; see docs/explanation/isolation.md, "Names and locks".
    """
    names = sorted(set(groups))
    name = f"labhub-g-{names[0]}"
    if len(names) == 1 and len(name) <= _LONGEST:
        return name
    return f"labhub-gx-{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:16]}"


def for_groups(settings: Settings, groups: Collection[str]) -> Folders:
    """Return what a member of these groups sees.

    Parameters
    ----------
    settings : Settings
        The lab file.
    groups : collection of str
        The person's groups in the hub.
    """
    folders = settings.folders_for(groups)
    numbers = set()
    for folder in folders:
        if folder.groups:
            with contextlib.suppress(KeyError):
                numbers.add(grp.getgrnam(group_name(folder.groups)).gr_gid)
    return Folders(
        tuple(folder.path for folder in folders if folder.mode == "ro"),
        tuple(folder.path for folder in folders if folder.mode == "rw"),
        tuple(sorted(numbers)),
    )


def make(settings: Settings, *, on_this_machine: bool) -> None:
    """Make the shared folders that are not there yet, with their Unix groups.

    A folder that is there and holds something stays as it is; `problems` tells of it.

    Parameters
    ----------
    settings : Settings
        The lab file.
    on_this_machine : bool
        Whether user servers run on the hub's own machine, as accounts of it.

    Raises
    ------
    ProblemsError
        One cannot be made.
    """
    if os.geteuid() != 0 or not on_this_machine:
        return
    for folder in settings.shared_folders:
        try:
            _make(folder, settings)
        except (OSError, subprocess.SubprocessError) as error:
            text = f"{folder.path} cannot be made: {getattr(error, 'strerror', None) or error}"
            hint = "make its parent folder, or mount its disk"
            raise ProblemsError([Problem("storage.shared", text, hint)]) from None


def _make(folder: SharedFolder, settings: Settings) -> None:
    name = group_name(folder.groups) if folder.groups else settings.authentication.unix_group
    if folder.mode == "ro" and not folder.groups:
        return  # somebody else's, who fills it
    if folder.path.parent == settings.storage.group_folders:
        folder.path.parent.mkdir(mode=0o755, exist_ok=True)
    elif folder.mode == "ro" and not folder.path.exists():
        return
    group = _unix_group(name)
    is_new = False
    with contextlib.suppress(FileExistsError):
        folder.path.mkdir(mode=0o700)
        is_new = True
    descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if folder.mode == "rw" and (is_new or (folder.groups and not os.listdir(descriptor))):  # noqa: PTH208
            os.fchown(descriptor, 0, group)
            os.fchmod(descriptor, _MODE)
            try:
                os.setxattr(descriptor, _ACL, DEFAULT_ACL)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise  # else its file system knows none: `problems` says so
    finally:
        os.close(descriptor)


def _unix_group(name: str) -> int:
    command = ["groupadd", "--force", "--system", name]
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT, env=path)
    return grp.getgrnam(name).gr_gid


def problems(settings: Settings, *, on_this_machine: bool) -> Iterator[Problem]:
    """Yield what keeps people from using each other's files, or lets others in.

    Parameters
    ----------
    settings : Settings
        The lab file.
    on_this_machine : bool
        Whether user servers run on the hub's own machine, as accounts of it.
    """
    for folder in settings.shared_folders:
        if not folder.path.is_dir():
            if folder.mode == "ro":
                text = f"{folder.path} is no folder"
                yield Problem("storage.shared", text, "make it, or mount its disk")
            continue
        if on_this_machine and os.geteuid() == 0:
            yield from _problems(folder, settings)


def _problems(folder: SharedFolder, settings: Settings) -> Iterator[Problem]:
    path, status = folder.path, folder.path.stat()
    unix_group = settings.authentication.unix_group
    name = group_name(folder.groups) if folder.groups else unix_group
    if folder.groups and status.st_mode & stat.S_IRWXO and folder.mode == "rw":
        # No other server is shown it; who logs in to the machine sees it.
        text = f"{path} is open to all accounts of this machine"
        yield Problem("storage.shared", text, f"chmod o= {path}", warning=True)
    if folder.mode == "ro":
        return
    try:
        group = grp.getgrnam(name).gr_gid
    except KeyError:
        group = -1
    inherited = status.st_mode & stat.S_ISGID and status.st_mode & 0o070 == 0o070
    if not inherited or (folder.groups and status.st_gid != group) or not _has_acl(path):
        text = f"{path}: what one person writes in it others cannot use"
        hint = (
            f"labhub up; then chgrp -R {name} {path}; chmod -R g+rwX {path};"
            f" find {path} -type d -exec chmod g+s {{}} +; setfacl -R -d -m g::rwx,o::- {path}"
        )
        yield Problem("storage.shared", text, hint, warning=True)


def _has_acl(path: Path) -> bool:
    try:
        acl = os.getxattr(path, _ACL)
    except OSError:
        return False
    entries = struct.iter_unpack("<HHI", acl[4:])
    return {tag: rights for tag, rights, _ in entries if tag in (_GROUP, _MASK)}.get(_GROUP) == 7
