"""User servers on this machine: each in its own sandbox as root, else its owner's alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Integer

from hub.labfile.schema import Settings
from hub.sandbox import AccountError, accounts_of, log_writer, quotas, reap, sandboxes_of
from hub.sandbox.cgroups import SandboxLimits
from hub.sandbox.inherited import renew
from hub.sandbox.instance import sandbox_key
from hub.sandbox.sandboxes import Sandboxes
from hub.sandbox.shared_folders import for_groups
from hub.spawners.base import LabSpawner
from hub.spawners.startup import StartError
from hub.state import scratch
from hub.state.paths import Paths
from labkit.base.ports import free_port
from labkit.base.units import format_size

PORT = 8888  # on the sandbox's own address: its 127.0.0.1:8888 stays free
_RUNTIME = "/tmp/jupyter-runtime"  # noqa: S108 - the sandbox's /tmp is its own
_KNOCK = 0.05  # seconds between two looks whether a server has ended
_UMASK = 0o077
_LAST_WORDS = 2.0  # seconds for the log of a server that has ended
_GUARD = 30.0  # seconds between two looks whether the firewall's rules are there


class LocalSpawner(LabSpawner, LocalProcessSpawner):
    """Start the user's server as a process of this machine.

    As root each server has a sandbox (`hub.sandbox.sandboxes`), by which a new hub finds it again:
    the hub may come and go. Without root the portal serves the person who
    started it, as a plain process on 127.0.0.1.
    """

    log_bytes = Integer(8 << 20, config=True, help="The most that a server's log may take.")

    sandbox: str = ""
    _ready: ClassVar[dict[Path, asyncio.Future[Sandboxes]]] = {}
    _guarded: ClassVar[float] = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._changing = asyncio.Lock()
        self._writer: subprocess.Popen[bytes] | None = None
        self._out_of_memory = False
        self._join_files: list[str] = []

    def get_env(self) -> dict[str, str]:
        """Return the server's variables: those of all servers, and what its sandbox has."""
        env = super().get_env()
        if os.geteuid() == 0:
            # The sandbox's own: a home that is full must not keep its owner out.
            env["JUPYTER_RUNTIME_DIR"] = _RUNTIME
            if self.settings.storage.scratch:
                env["LABHUB_SCRATCH"] = str(self.settings.storage.scratch.path / self.user.name)
        return env

    # -- starting ---------------------------------------------------------------------

    async def start(self) -> Any:
        """Start the server and wait until it answers."""
        where = await super().start()
        if self.sandbox:
            (await self.sandboxes()).started(self.sandbox)
        return where

    async def launch(self) -> tuple[str, int]:
        """Make the sandbox and start the server in it.

        Raises
        ------
        StartError
            The account is not one that may have a server.
        """
        async with self._changing:
            self._out_of_memory = False
            if os.geteuid() != 0:
                return await self._launch_plain()
            return await self._launch_boxed()

    async def _launch_boxed(self) -> tuple[str, int]:
        profile = self.profile
        if profile is None:
            raise StartError("No profile was chosen.", status_code=400)
        limits = SandboxLimits(cpu=profile.cpu, memory=profile.memory, processes=profile.processes)
        account = await asyncio.to_thread(self._account)
        await asyncio.to_thread(self._limit_home, account)
        self.say("Preparing its network and its limits")
        sandboxes = await self.sandboxes()
        key = sandbox_key(account.pw_uid, self.name)
        self.sandbox = key  # stop() finds it, even where this is cut short
        folders = for_groups(self.settings, [group.name for group in self.user.groups])
        scratch_folder = await asyncio.to_thread(self._scratch_folder, account)
        if scratch_folder:
            folders = replace(folders, read_write=(*folders.read_write, scratch_folder))
        sandbox = await asyncio.to_thread(
            partial(
                sandboxes.create,
                key,
                account,
                limits,
                user_namespaces=profile.user_namespaces,
                folders=folders,
            )
        )
        self.ip, self.port = sandbox.link.address, PORT
        self.hub_connect_url = sandboxes.network.hub_url
        self.services_url = sandboxes.network.services_url
        plain = list(self.cmd)
        self._join_files = sandbox.join_files
        try:
            with sandbox.prepared() as (front, descriptors):
                self.cmd = [*front, *plain]
                return await self._launch_logged({"cwd": "/", "pass_fds": descriptors})
        finally:
            self.cmd = plain

    async def _launch_plain(self) -> tuple[str, int]:
        owner = pwd.getpwuid(os.geteuid())
        if self.user.name != owner.pw_name:
            raise StartError(
                f"This portal runs without root and serves {owner.pw_name} alone."
                " For several people an administrator starts it as root.",
                status_code=403,
            )
        self.ip, self.port = "127.0.0.1", free_port()
        self.services_url = f"http://127.0.0.1:{self.settings.local.gate_port}"
        return await self._launch_logged({"cwd": owner.pw_dir})

    async def _launch_logged(self, popen: dict[str, Any]) -> tuple[str, int]:
        """Start the server with its output going to its log, by way of a process of its own."""
        self.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        reading, writing = os.pipe()
        try:
            self._writer = subprocess.Popen(
                # -I -S: a third of the memory
                [
                    *(sys.executable, "-I", "-S", log_writer.__file__),
                    *(str(self.log_file), str(self.log_bytes)),
                ],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={},
                cwd="/",
            )
            for file in self._join_files:
                Path(file).write_text(str(self._writer.pid))
            streams = {"stdin": subprocess.DEVNULL, "stdout": writing, "stderr": writing}
            self.popen_kwargs = {**streams, "umask": _UMASK, **popen}
            return await super().launch()  # type: ignore[no-any-return]
        finally:
            os.close(reading)
            os.close(writing)

    def make_preexec_fn(self, name: str) -> Any:  # noqa: ARG002
        """Return what a new process does first: come under the sandbox's limits.

        Without root there is no sandbox, and the server is of the session that started the portal.
        """
        return renew(self._join_files, _UMASK) if self._join_files else None

    def _account(self) -> pwd.struct_passwd:
        accounts = accounts_of(self.settings)
        try:
            if self.settings.authentication.effective_method == "pam":
                return accounts.check(self.user.name)
            return accounts.ensure(self.user.name)
        except AccountError as error:
            raise StartError(f"No server for {self.user.name}: {error}.", status_code=403) from None

    def _scratch_folder(self, account: pwd.struct_passwd) -> Path | None:
        """Make the person's scratch folder; None where the lab has none, or it cannot be made."""
        wanted = self.settings.storage.scratch
        if wanted is None:
            return None
        try:
            folder = scratch.make(wanted.path, account)
            scratch.clean(wanted.path, wanted.days)
        except OSError as error:
            self.log.warning("%s has no scratch folder: %s", account.pw_name, error)
            return None
        return folder

    def _limit_home(self, account: pwd.struct_passwd) -> None:
        size = self.settings.storage.home_quota
        if size is None:
            return
        try:
            quotas.limit(account, size)
        except quotas.QuotaError as error:  # `doctor` says so; nobody is kept out for it
            self.log.warning("The home of %s has no limit: %s", account.pw_name, error)

    async def sandboxes(self) -> Sandboxes:
        """Return the portal's sandboxes; the first call cleans what a crash has left."""
        ready = self._ready.get(self.paths.state)
        if ready is None:
            work = asyncio.to_thread(_prepare, self.settings, self.paths)
            ready = self._ready[self.paths.state] = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(ready)
        except OSError:
            self._ready.pop(self.paths.state, None)  # what was missing may be there next time
            raise

    # -- while it runs ----------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return what a new hub needs to find the server again."""
        state: dict[str, Any] = super().get_state()
        if self.sandbox:
            state["box"] = self.sandbox  # the name that running servers were stored under
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Find a server again that an earlier hub has started."""
        super().load_state(state)
        self.sandbox = state.get("box", "")

    def clear_state(self) -> None:
        """Forget the server."""
        super().clear_state()
        self.sandbox = ""

    async def poll(self) -> int | None:
        """Return None while the server lives in its sandbox, else its exit status.

        JupyterHub does not call `stop` for a server that ended by itself, so what was made
        for it goes here.
        """
        if os.geteuid() != 0:
            return await super().poll()
        sandboxes = await self.sandboxes()
        if not self.sandbox:
            return await super().poll()
        if self._lives(sandboxes):
            await self._guard(sandboxes)
            return None
        async with self._changing:
            if not self.sandbox:  # another poll was first
                return self._status()
            if self._lives(sandboxes):
                return None
            self._out_of_memory = await asyncio.to_thread(sandboxes.oom_kills, self.sandbox) > 0
            await asyncio.to_thread(self._finish_log)  # it ends with the sandbox
            await asyncio.to_thread(sandboxes.destroy, self.sandbox)
            self.clear_state()
            return self._status()

    def _finish_log(self) -> None:
        """Let the last words of a server that has ended reach its log."""
        if self._writer:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._writer.wait(_LAST_WORDS)

    def _lives(self, sandboxes: Sandboxes) -> bool:
        # Before the server's first breath there is bwrap alone, and when somebody has killed
        # bwrap there is the server alone.
        return (self.proc is not None and self.proc.poll() is None) or sandboxes.serving(
            self.sandbox
        )

    def ending(self, status: int) -> str:
        """Say in words how the server ended."""
        if self._out_of_memory and self.profile:
            memory = format_size(self.profile.memory)
            return f"it used more memory than its profile {self.profile.title!r} has ({memory})"
        return super().ending(status)  # type: ignore[no-any-return]

    def _status(self) -> int:
        """Return the exit status as subprocess tells it: a signal is a negative number."""
        if self._writer:
            self._writer.poll()
        status = self.proc.poll() if self.proc else None
        if status is None:
            return 0  # it was another hub's child
        return 128 - status if 128 < status < 192 else int(status)

    async def _guard(self, sandboxes: Sandboxes) -> None:
        """Put the firewall's rules back where an administrator has reloaded the firewall."""
        if time.monotonic() - LocalSpawner._guarded < _GUARD:
            return
        LocalSpawner._guarded = time.monotonic()
        if not await asyncio.to_thread(sandboxes.network.in_force):
            self.log.warning("The portal's firewall rules were gone; they are put back")
            await asyncio.to_thread(sandboxes.network.ensure)

    # -- stopping ---------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """End the server and remove all that was made for it."""
        if not self.sandbox:
            await super().stop(now)
            return
        sandboxes = await self.sandboxes()
        async with self._changing:
            key = self.sandbox
            if not now:
                await asyncio.to_thread(sandboxes.terminate, key)
                deadline = time.monotonic() + self.term_timeout
                while self._lives(sandboxes) and time.monotonic() < deadline:
                    await asyncio.sleep(_KNOCK)
            await asyncio.to_thread(sandboxes.destroy, key)
            self._status()
            self.clear_state()


def _prepare(settings: Settings, paths: Paths) -> Sandboxes:
    sandboxes = sandboxes_of(settings, paths)
    reap(sandboxes)
    with contextlib.suppress(OSError):
        accounts_of(settings).empty_trash()
    sandboxes.network.ensure()  # the lab file may have changed for those that run
    return sandboxes
