"""Where the apps of one portal live: folders, sockets, accounts, secrets."""

from __future__ import annotations

import itertools
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from hub.sandbox.accounts import system_account
from hub.sandbox.instance import Instance
from hub.state.paths import REPOSITORY, Paths
from labkit.base.walk import walk

SHIPPED = REPOSITORY / "services"
KEY = "gate_key"  # the secret's name


@dataclass(frozen=True)
class AppPaths:
    """The folders and files of the apps.

    Attributes
    ----------
    paths : Paths
        Where the portal keeps its state.
    """

    paths: Paths

    @property
    def own(self) -> Path:
        """The lab's own apps: a copy of each one's folder."""
        return self.paths.state / "services"

    @property
    def choices(self) -> Path:
        """Which apps are on, and for whom; written by ``labhub app``."""
        return self.paths.state / "services.yaml"

    @property
    def gate_file(self) -> Path:
        """What the gate is told."""
        return self.paths.state / "gate" / "apps.json"

    def socket_folder(self, name: str) -> Path:
        """Return the folder that only an app and the gate can enter."""
        return self.paths.state / "sockets" / name

    def socket(self, name: str) -> Path:
        """Return an app's socket."""
        return self.socket_folder(name) / "app.sock"

    def address(self, name: str) -> Path:
        """Return the file that says where an app listens that has no socket."""
        return self.paths.state / "sockets" / f"{name}.json"

    def data(self, name: str) -> Path:
        """Return an app's own folder for its data."""
        return self.paths.state / "appdata" / name

    # -- accounts ---------------------------------------------------------------------

    @property
    def gate_account(self) -> str:
        """The gate's Unix account: every portal on a machine has its own."""
        return Instance.of(self.paths).gate_account

    def account(self, name: str) -> str:
        """Return the name of an app's Unix account."""
        return Instance.of(self.paths).account(name)

    def gate_uid(self) -> int | None:
        """Return the number of the gate's account, None where there is none."""
        return Instance.of(self.paths).gate_uid()

    # -- making them ------------------------------------------------------------------

    def make(self) -> None:
        """Make what all apps share: folders and, as root, the gate's account."""
        root = os.geteuid() == 0
        for folder in (self.own, self.paths.state / "sockets", self.paths.state / "appdata"):
            _folder(folder, 0o711 if root else 0o700)
        gate = self.gate_file.parent
        _folder(gate, 0o750 if root else 0o700)
        if root:
            entry = system_account(self.gate_account, Path("/nonexistent"), "Labhub gate")
            os.chown(gate, 0, entry.pw_gid)

    def make_app(self, name: str) -> pwd.struct_passwd:
        """Make what one app needs; returns the account that it runs as.

        Raises
        ------
        AccountError
            The system refused to make the account.
        """
        self.make()
        data, sockets = self.data(name), self.socket_folder(name)
        if os.geteuid() != 0:
            _folder(data, 0o700)
            _folder(sockets, 0o700)
            return pwd.getpwuid(os.geteuid())
        entry = system_account(self.account(name), data, "Labhub app")
        _folder(data, 0o700, entry.pw_uid, entry.pw_gid)
        # A socket made here belongs to the gate's group, which may enter and connect.
        gate = pwd.getpwnam(self.gate_account)
        _folder(sockets, 0o2710, entry.pw_uid, gate.pw_gid)
        return entry


def make_readable(folder: Path) -> None:
    """Let the account of the lab's own app read its folder, which the portal alone writes."""
    for path in itertools.chain((folder,), (folder / entry.path for entry in walk(folder))):
        if path.is_symlink():
            continue
        status = path.stat()
        mode = 0o755 if path.is_dir() or status.st_mode & 0o100 else 0o644
        if status.st_mode & 0o7777 != mode:
            path.chmod(mode)
        if os.geteuid() == 0 and (status.st_uid or status.st_gid):
            os.chown(path, 0, 0)


def _folder(folder: Path, mode: int, uid: int = -1, gid: int = -1) -> None:
    if folder.is_symlink():
        raise NotADirectoryError(f"{folder} is a link")
    folder.mkdir(exist_ok=True)
    if uid >= 0:
        os.chown(folder, uid, gid)
    folder.chmod(mode)
