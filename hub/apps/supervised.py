"""The apps as programs of the portal's supervisor, on the hub's own machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass

from hub.apps import catalogue, gate_file, supervisor_config
from hub.apps.app_paths import AppPaths, make_readable
from hub.apps.catalogue import App
from hub.apps.runtime import LOG_BYTES, AppAddress, AppRuntime, AppRuntimeError, AppStatus, State
from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from hub.supervisor.client import Program, Supervisor
from hub.supervisor.programs import app_name, program_name
from labkit.base import files
from services.gate import config as gate

_LOCK_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class SupervisedApps(AppRuntime):
    """The apps of one portal.

    Attributes
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    addresses : PortalAddresses
        What the gate is told of hub and portal.
    """

    settings: Settings
    paths: Paths
    addresses: PortalAddresses

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self.paths)

    # -- what is declared -------------------------------------------------------------

    def prepare(self) -> None:
        """Make accounts and folders of all apps, and tell the gate."""
        app_paths = AppPaths(self.paths)
        app_paths.make()
        declared, _ = catalogue.read(self.settings, self.paths)
        for app in declared:
            app_paths.make_app(app.name)
            if app.own:
                make_readable(app.folder)  # a restored backup is closed
        portal = gate_file.portal(self.settings, self.paths, self.addresses)
        apps = gate_file.apps(declared, self.settings, self.address)
        gate_file.write(gate.Config(portal, apps), self.paths)

    def follow(self) -> bool:
        """Make accounts, gate and supervisor follow what is declared."""
        # The command line and the hub may both be at it.
        lock = self.paths.state / "apps.lock"
        with files.locked(lock, _LOCK_TIMEOUT, "the portal's list of apps"):
            self.prepare()
            if not self._supervisor.running():
                return False
            self._supervisor.follow_apps(self.supervised())
            return True

    def supervised(self) -> dict[str, dict[str, str]]:
        """Return the apps as the supervisor's programs."""
        return supervisor_config.programs(self.settings, self.paths)

    # -- one app ----------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start an app."""
        with _refusals(name, "started"):
            self._supervisor.start([program_name(name)])

    def stop(self, name: str) -> None:
        """Stop an app and wait for its end."""
        with _refusals(name, "stopped"):
            self._supervisor.stop([program_name(name)])

    def statuses(self) -> dict[str, AppStatus]:
        """Return how the apps are, as the supervisor says."""
        programs = self._supervisor.info()
        named = ((app_name(name), program) for name, program in programs.items())
        return {name: _status(program) for name, program in named if name}

    def address(self, app: App) -> AppAddress:
        """Return an app's socket, or the file that names its port."""
        app_paths = AppPaths(self.paths)
        on_socket = app.service.listen == "socket"
        root = os.geteuid() == 0
        return AppAddress(
            socket=str(app_paths.socket(app.name)) if on_socket else "",
            address_file="" if on_socket else str(app_paths.address(app.name)),
            uid=pwd.getpwnam(app_paths.account(app.name)).pw_uid if root else os.geteuid(),
        )

    def log(self, name: str, lines: int, most: int = LOG_BYTES) -> str:
        """Return the end of an app's log."""
        return files.tail(self.paths.log / f"{program_name(name)}.log", lines, most=most)

    def delete_log(self, name: str) -> None:
        """Delete an app's log and what was rotated."""
        for file in self.paths.log.glob(f"{program_name(name)}.log*"):
            file.unlink(missing_ok=True)


def _status(program: Program) -> AppStatus:
    state: State = "stopped"
    if program.running:
        state = "running"
    elif program.state in ("STARTING", "BACKOFF"):
        state = "starting"
    elif program.state == "FATAL" or (program.state == "EXITED" and program.status):
        state = "failed"
    return AppStatus(state, program.pid or None, program.since if program.pid else None)


@contextlib.contextmanager
def _refusals(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, xmlrpc.client.Error) as error:
        reason = "it does not answer"
        if isinstance(error, xmlrpc.client.Fault):
            reason = f"it says {error.faultString}"
        text = f"the app {name} cannot be {what} by the portal's supervisor: {reason}"
        raise AppRuntimeError(f"{text}; see labhub status") from error
