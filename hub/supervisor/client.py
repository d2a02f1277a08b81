"""The one client of supervisord: what runs, start, stop, and taking up a new configuration."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.state.database import child_environment
from hub.state.paths import Paths
from hub.supervisor.programs import SECTION, STOP, dump, is_app
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError


@dataclass(frozen=True)
class Program:
    """One program, as the supervisor sees it.

    Attributes
    ----------
    name : str
        ``proxy``, ``gate``, ``hub``, ``culler`` or ``app-NAME``.
    state : str
        RUNNING, STARTING, BACKOFF, STOPPING, STOPPED, EXITED or FATAL.
    pid : int
        Process id; 0 where none runs.
    since : float
        Start or end, in seconds since 1970.
    stopped : float
        The last end, in seconds since 1970; 0 where it never ended.
    status : int
        Exit status of the last end.
    """

    name: str
    state: str
    pid: int
    since: float
    stopped: float
    status: int = 0

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "RUNNING"


class Supervisor:
    """The supervisor of one portal.

    Parameters
    ----------
    paths : Paths
        Where its configuration, socket and logs are.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.config = paths.run / "supervisord.conf"
        self.socket = paths.run / "supervisor.sock"

    def running(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self._call("getSupervisorVersion"))
        except OSError:
            return False

    def pid(self) -> int:
        """Return its process id."""
        return int(self._call("getPID"))

    def info(self) -> dict[str, Program]:
        """Return the programs by name; none where it does not run."""
        try:
            rows: list[dict[str, Any]] = self._call("getAllProcessInfo")
        except OSError:
            return {}
        return {
            row["name"]: Program(
                name=row["name"],
                state=row["statename"],
                pid=row["pid"],
                since=float(row["start"] if row["pid"] else row["stop"] or row["start"]),
                stopped=float(row["stop"]),
                status=int(row["exitstatus"]),
            )
            for row in rows
        }

    def write(self, text: str) -> None:
        """Write its configuration, where that is another; `take_up` or a start puts it in force."""
        if not self.config.exists() or self.config.read_text() != text:
            files.write_atomic(self.config, text, mode=0o600, sync=True)

    def follow_apps(self, programs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Take up changes of the apps, and leave the portal's own programs for `labhub up`.

        Parameters
        ----------
        programs : mapping of str to mapping of str to str
            The apps' programs: name -> its section of the configuration.

        Returns
        -------
        dict
            As `take_up`.

        Raises
        ------
        FileNotFoundError
            Its configuration is gone.
        """
        config = RawConfigParser()
        with self.config.open() as stream:
            config.read_file(stream)
        for section in config.sections():
            if section.startswith(SECTION) and is_app(section.removeprefix(SECTION)):
                config.remove_section(section)
        config.read_dict({f"{SECTION}{name}": keys for name, keys in programs.items()})
        self.write(dump(config))
        return self.take_up(is_app)

    def take_up(self, only: Callable[[str], bool]) -> dict[str, str]:
        """Take up what was written: start what is new, restart what is changed.

        Parameters
        ----------
        only : callable
            Says of a program's name whether it is one of those to take up.

        Returns
        -------
        dict
            What was done, by program; what is not named was left alone.
        """
        done: dict[str, str] = {}
        known = self.info()
        added, changed, removed = (
            [name for name in names if only(name)] for names in self._call("reloadConfig")[0]
        )
        for name in [*removed, *changed]:
            self.stop([name])
            self._call("removeProcessGroup", name)
        for name in [*changed, *added]:
            self._call("addProcessGroup", name)
            if not is_app(name):
                done[name] = "restarted" if name in changed else "started"
            elif name in changed and known[name].running:
                done[name] = "stopped; it starts anew when it is opened"
        return done

    def start(self, names: Iterable[str]) -> None:
        """Start programs; those that run are left alone.

        How one goes on its state says, also where it has ended before the supervisor answers.
        """
        for name in names:
            with _already("ALREADY_STARTED", "SPAWN_ERROR"):
                self._call("startProcess", name, False)

    def stop(self, names: Iterable[str]) -> None:
        """Stop programs and wait for their end."""
        for name in names:
            with _already("NOT_RUNNING"):
                self._call("stopProcess", name)

    def shutdown(self, order: Iterable[str] = ("culler", "hub", "proxy", "gate")) -> None:
        """Stop all programs, in this order, then the apps and the supervisor itself."""
        pid = self.pid()
        known = self.info()
        self.stop(name for name in order if name in known)
        self._call("shutdown")
        end = time.monotonic() + 2 * STOP
        while _alive(pid) and time.monotonic() < end:
            time.sleep(0.05)

    def launch(self) -> None:
        """Start the supervisor itself, and with it what was written.

        Raises
        ------
        ProblemsError
            It does not start, or does not answer.
        """
        # Beside this Python, not from PATH.
        program = Path(sys.executable).with_name("supervisord")
        done = subprocess.run(
            [program, "-c", self.config],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=child_environment(os.environ),
        )
        if done.returncode:
            text = f"does not start: {(done.stderr or done.stdout).strip()}"
            raise ProblemsError([Problem("supervisor", text, f"see {self.paths.log}")])
        end = time.monotonic() + 10
        while not self.running():
            if time.monotonic() > end:
                log = self.paths.log / "supervisor.log"
                raise ProblemsError([Problem("supervisor", "does not answer", f"see {log}")])
            time.sleep(0.05)

    def _call(self, method: str, *values: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        # supervisor's transport has no time-out of its own; a dead socket refuses at once.
        if not self.socket.exists():
            raise FileNotFoundError(self.socket)
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(server.supervisor, method)(*values)
        finally:
            transport.close()


@contextlib.contextmanager
def _already(*faults: str) -> Iterator[None]:
    """Let it pass that a program is in the wanted state already, or has been in it."""
    try:
        yield
    except xmlrpc.client.Fault as error:
        if not error.faultString.startswith(faults):
            raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
