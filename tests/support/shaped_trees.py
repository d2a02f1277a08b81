"""Trees of folders that an attacker shapes: deep, wide, closed, full of links."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

LEVELS = 3000
FILES = 20_000


def deep(
    folder: Path, levels: int = LEVELS, name: str = "d", *, uid: int = -1, gid: int = -1
) -> None:
    """Nest folders, far beyond Python's recursion and the length of a path."""
    here = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir(name, dir_fd=here)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        for one in (name, f"file{level}"):
            os.chown(one, uid, gid, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def wide(folder: Path, files: int = FILES, *, uid: int = -1, gid: int = -1) -> None:
    here = os.open(folder, os.O_RDONLY)
    for number in range(files):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.chown(f"f{number}", uid, gid, dir_fd=here)
    os.close(here)


def shape_as(
    account: pwd.struct_passwd, folder: Path, levels: int = LEVELS, files: int = FILES
) -> None:
    """Shape a folder of a person's, as that person."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            for name in ("deep", "wide"):
                Path(name).mkdir(exist_ok=True)
            deep(Path("deep"), levels)
            wide(Path("wide"), files)
            Path("closed").mkdir(mode=0)
            Path("link").symlink_to("/etc")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
