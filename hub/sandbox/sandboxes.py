"""The sandboxes of one portal: each user server's cgroup, network and folder, as one thing."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hub.sandbox import bubblewrap, cgroups, seccomp
from hub.sandbox.cgroups import SandboxLimits
from hub.sandbox.instance import Instance
from hub.sandbox.network import Link, Network
from hub.sandbox.shared_folders import Folders
from hub.state import trash

log = logging.getLogger(__name__)

_STARTING = "starting"
_NO_FOLDERS = Folders()
_SERVER = 2  # its number in its own pid namespace: 1 is bwrap's


@dataclass(frozen=True)
class Shared:
    """What every sandbox sees, and what none may see.

    Attributes
    ----------
    read_only, read_write : sequence of Path
        Folders that are seen at the same place.
    hidden : sequence of Path
        The portal's state and the homes.
    mounts : sequence of (Path, str)
        Read-only: (folder, place in the sandbox).
    """

    read_only: Sequence[Path] = ()
    read_write: Sequence[Path] = ()
    hidden: Sequence[Path] = ()
    mounts: Sequence[tuple[Path, str]] = ()


@dataclass(frozen=True)
class Sandbox:
    """One sandbox, ready for its server.

    Attributes
    ----------
    key : str
        Its name, made of numbers.
    link : Link
        Its network.
    join_files : list of str
        A process writes ``0`` into each to come under the limits.
    arguments : list of str
        Bubblewrap's.
    as_user : list of str
        Goes in front of the server's command, inside.
    user_namespaces : bool
        Whether programs in it may make user namespaces.
    """

    key: str
    link: Link
    join_files: list[str]
    arguments: list[str]
    as_user: list[str]
    user_namespaces: bool = False

    @contextlib.contextmanager
    def prepared(self) -> Iterator[tuple[list[str], list[int]]]:
        """Give what goes in front of the server's command, and the files that it must inherit.

        Bubblewrap reads its arguments and the system call filter from them: ``ps`` stays readable.
        """
        arguments = os.memfd_create("bwrap")
        try:
            os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in self.arguments))
            os.lseek(arguments, 0, os.SEEK_SET)
            calls = seccomp.open_filter(user_namespaces=self.user_namespaces)
            try:
                outside = ["nsenter", f"--net={self.link.namespace}", "--", "bwrap"]
                inside = ["--args", str(arguments), "--seccomp", str(calls), "--", *self.as_user]
                yield [*outside, *inside], [arguments, calls]
            finally:
                os.close(calls)
        finally:
            os.close(arguments)


class Sandboxes:
    """Make, watch and remove the sandboxes. All calls block: call them in a thread.

    Parameters
    ----------
    instance : Instance
        Which portal.
    network : Network
        Its networks.
    groups : Cgroups
        Its cgroups.
    shared : Shared
        What the sandboxes see.
    """

    def __init__(
        self, instance: Instance, network: Network, groups: cgroups.Cgroups, shared: Shared
    ) -> None:
        self.instance = instance
        self.network = network
        self.groups = groups
        self.shared = shared
        self._locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    def create(
        self,
        key: str,
        account: pwd.struct_passwd,
        limits: SandboxLimits,
        *,
        user_namespaces: bool = False,
        folders: Folders = _NO_FOLDERS,
    ) -> Sandbox:
        """Make a sandbox; what an earlier one of that name left is removed first.

        Parameters
        ----------
        key : str
            Its name (`hub.sandbox.instance.sandbox_key`).
        account : struct_passwd
            Whose programs will run in it.
        limits : SandboxLimits
            What they may use.
        user_namespaces : bool
            Whether they may make user namespaces, in which a program is root of its own.
        folders : Folders
            What it sees beside `Shared`, as the person's groups say.

        Raises
        ------
        OSError
            CgroupError, NetworkError or SandboxError: the text says what is wrong.
        """
        with self._changing(key):
            self.destroy(key)
            try:
                sandbox = self._create(key, account, limits, folders)
            except BaseException:
                self.destroy(key)
                raise
        return replace(sandbox, user_namespaces=user_namespaces)

    def _create(
        self, key: str, account: pwd.struct_passwd, limits: SandboxLimits, folders: Folders
    ) -> Sandbox:
        folder = self.folder(key)
        tmp = folder / "tmp"
        folder.mkdir(mode=0o700, parents=True)
        (folder / _STARTING).touch()
        tmp.mkdir(mode=0o700)
        os.chown(tmp, account.pw_uid, account.pw_gid)
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text(self.network.resolv_conf())
        resolv_conf.chmod(0o644)
        self.groups.create(key, limits)
        self.network.ensure()
        link = self.network.connect(key)
        view = bubblewrap.View(
            account=account,
            tmp=tmp,
            resolv_conf=resolv_conf,
            shm=limits.memory // 4,
            read_only=[*self.shared.read_only, *folders.read_only],
            read_write=[*self.shared.read_write, *folders.read_write],
            hidden=self.shared.hidden,
            mounts=[*self.groups.views(key), *self.shared.mounts],
        )
        return Sandbox(
            key=key,
            link=link,
            join_files=self.groups.join_files(key),
            arguments=bubblewrap.arguments(view),
            as_user=bubblewrap.as_user(account, folders.groups),
        )

    def started(self, key: str) -> None:
        """Note that the hub knows of this sandbox: from now on a hub's crash is no end of it."""
        (self.folder(key) / _STARTING).unlink(missing_ok=True)

    def starting(self, key: str) -> bool:
        """Whether the hub that made this sandbox has not come to know it yet."""
        return (self.folder(key) / _STARTING).exists()

    def serving(self, key: str) -> bool:
        """Whether the server itself lives: what it has started may outlive it."""
        return self._server(key) is not None

    def _server(self, key: str) -> int | None:
        # It has the lowest numbers of the sandbox, so this ends early.
        pids = sorted(self.groups.pids(key))
        return next((pid for pid in pids if _pid_inside(pid) == _SERVER), None)

    def terminate(self, key: str) -> None:
        """Ask the server to end."""
        pid = self._server(key)
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # The number may have been given to another process in between.
            if self._server(key) == pid:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        except OSError:
            return
        finally:
            os.close(handle)

    def oom_kills(self, key: str) -> int:
        """Return how many of its processes were ended for want of memory."""
        return self.groups.oom_kills(key)

    def destroy(self, key: str) -> None:
        """End what runs in a sandbox and remove all that was made for it.

        Its files are out of the way at once and deleted in the background.

        Raises
        ------
        OSError
            NetworkError, or its folder cannot be moved.
        """
        with self._changing(key):
            if not self.groups.kill(key):
                log.error("Box %s: a process does not end; its files stay until it does", key)
                return
            self.network.disconnect(key)
            if not self.groups.remove(key):
                log.warning("Box %s: its cgroup is still busy and is removed later", key)
            trash.put_aside(self.folder(key), self.instance.trash)
            trash.empty(self.instance.trash)

    def _changing(self, key: str) -> threading.RLock:
        """Return the lock of a sandbox: a start that was given up may still be at work."""
        with self._lock:
            return self._locks.setdefault(key, threading.RLock())

    def known(self) -> set[str]:
        """Return every sandbox of which anything is left."""
        folders = {entry.name for entry in _entries(self.instance.folder)}
        return self.groups.keys() | self.network.keys() | folders

    def folder(self, key: str) -> Path:
        """Return where a sandbox's own files are."""
        return self.instance.folder / key


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _pid_inside(pid: int) -> int | None:
    """Return a process' number in its own pid namespace, None outside of one."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return int(numbers[1]) if len(numbers) > 1 else None
    return None
