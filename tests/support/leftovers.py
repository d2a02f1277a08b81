"""What killed test runs left on this machine: Unix accounts and portals' folders.

Each carries the process that made it, so that a later run takes away what no living one owns.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil

from hub.labfile.read import read
from hub.sandbox import remove_all, sandboxes_of
from hub.state.paths import Paths

FOLDERS = Path("/var/tmp")
FOLDER_PREFIX = "labhub-test-"
_OWNER = "test-owner"
_NAME = re.compile(r"lt[0-9a-f]{4}-")
_COMMENT = "labhub test of process "


def this_process() -> str:
    """Return what names this process, also after another has its number."""
    process = psutil.Process()
    return f"{process.pid} {process.create_time():.2f}"


def is_alive(owner: str) -> bool:
    """Return whether the process that `this_process` named still runs."""
    number, _, created = owner.partition(" ")
    with contextlib.suppress(psutil.NoSuchProcess, ValueError):
        return f"{psutil.Process(int(number)).create_time():.2f}" == created
    return False


def comment() -> str:
    """Return the comment of an account that this process makes."""
    return f"{_COMMENT}{this_process()}"


def claim(folder: Path) -> None:
    """Write into a folder whose it is."""
    (folder / _OWNER).write_text(this_process())


def ownerless_accounts(accounts: Iterable[pwd.struct_passwd]) -> list[str]:
    """Return the accounts of test runs that have ended; none that says nothing of its run."""
    return [
        account.pw_name
        for account in accounts
        if _NAME.match(account.pw_name)
        and account.pw_gecos.startswith(_COMMENT)
        and not is_alive(account.pw_gecos.removeprefix(_COMMENT))
    ]


def ownerless_folders(folders: Path = FOLDERS) -> list[Path]:
    """Return our portals of test runs that have ended; none that says nothing of its run."""
    ours = [
        folder
        for folder in sorted(folders.glob(f"{FOLDER_PREFIX}*"))
        if folder.lstat().st_uid == os.geteuid() and (folder / _OWNER).is_file()
    ]  # everybody may write beside them
    return [folder for folder in ours if not is_alive((folder / _OWNER).read_text())]


def remove_account(name: str) -> None:
    """End an account's processes, then remove it with its home."""
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


def reap(folders: Path = FOLDERS) -> None:
    """Remove what no living test run owns: processes, accounts, sandboxes, folders."""
    for name in ownerless_accounts(pwd.getpwall()):
        remove_account(name)
    for folder in ownerless_folders(folders):
        _end_processes(folder)
        with contextlib.suppress(Exception):  # half made, or of another version's lab file
            lab = read(folder / "state" / "lab.yaml")
            remove_all(sandboxes_of(lab, Paths(folder / "state", folder / "envs")))
        shutil.rmtree(folder, ignore_errors=True)


def _end_processes(folder: Path) -> None:
    """End what runs with the state of that portal: hub, proxy, supervisor, apps."""
    state = str(folder / "state")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LABHUB_STATE") == state:
                process.kill()
