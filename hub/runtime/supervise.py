"""The supervisor: keeps proxy, hub and culler running, each on its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator
from configparser import RawConfigParser
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hub.apps import catalogue
from hub.apps.app_paths import KEY, SHIPPED
from hub.apps.catalogue import App
from hub.apps.supervisor_config import gate_config, is_app, prepare, program_name
from hub.environments.build import STAMP
from hub.labfile.schema import Settings
from hub.runtime.run import command
from hub.state.paths import REPOSITORY, Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError

STATIC = REPOSITORY / "hub" / "static"
_SOCKET_LENGTH = 107  # Linux allows no longer path of a socket
# An app that ends is started again by who asks for it next: one that cannot run costs nothing.
_ON_DEMAND = {"autostart": "false", "autorestart": "false", "startsecs": "0"}
_ALWAYS = {"autostart": "true", "autorestart": "true", "startsecs": "10", "startretries": "20"}
_PLAIN = re.compile(r"[\w./+@:,~=-]+(?: [\w./+@:,~=-]+)*")
_STOP = 30  # seconds for a program to end


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


def programs(settings: Settings) -> tuple[str, ...]:
    """Return the programs that a lab file asks for, in the order of their start."""
    culling = settings.culling.idle is not None or settings.culling.max_age is not None
    always = ("proxy", "gate", "hub")  # the hub waits for the gate
    return (*always, "culler") if culling else always


def render(settings: Settings, paths: Paths) -> str:
    """Return the supervisor's configuration; no secret is in it.

    Raises
    ------
    ProblemsError
        A path has characters that the supervisor's configuration cannot hold.
    """
    for path in (paths.state, paths.envs, REPOSITORY, Path(sys.executable)):
        if not _PLAIN.fullmatch(str(path)):
            text = "a path of the portal may have letters, digits, single spaces and . / _ - + @ ~"
            raise ProblemsError([Problem(str(path), text, "choose another folder")])
    socket = paths.run / "supervisor.sock"
    if len(os.fsencode(socket)) > _SOCKET_LENGTH - 10:  # the supervisor adds its pid
        text = f"is too long a path for a socket ({_SOCKET_LENGTH - 10} characters)"
        raise ProblemsError([Problem(str(socket), text, "set LABHUB_STATE to a shorter folder")])
    config = RawConfigParser()
    config["unix_http_server"] = {"file": str(socket), "chmod": "0700"}
    config["supervisord"] = {
        "logfile": str(paths.log / "supervisor.log"),
        "logfile_maxbytes": "5MB",
        "logfile_backups": "3",
        "pidfile": str(paths.run / "supervisord.pid"),
        "childlogdir": str(paths.log),
        "identifier": "labhub",
        "umask": "077",
        "minfds": "4096",
    }
    factory = "supervisor.rpcinterface:make_main_rpcinterface"
    config["rpcinterface:supervisor"] = {"supervisor.rpcinterface_factory": factory}
    for priority, name in enumerate(programs(settings), 1):
        words = [sys.executable, "-P", "-m", "hub.runtime.run", name]
        variables = {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "LABHUB_STATE": str(paths.state),
            "LABHUB_ENVS": str(paths.envs),
            # What it was started from: where this changes, `up` restarts it.
            "LABHUB_CONFIG_DIGEST": _digest(name, settings, paths),
        }
        config[f"program:{name}"] = {
            **_program(name, words, variables, paths),
            "priority": str(priority),
            "autorestart": "true",
            "startsecs": "2",
            "startretries": "60",
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "5",
        }
    for app in catalogue.read(settings, paths)[0]:
        name = program_name(app.name)
        words = [sys.executable, "-P", "-m", "hub.apps.launch", app.name]
        variables = {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "LABHUB_STATE": str(paths.state),
            "LABHUB_ENVS": str(paths.envs),
            "LABHUB_CONFIG_DIGEST": _app_digest(app, settings, paths),
        }
        config[f"program:{name}"] = {
            **_program(name, words, variables, paths),
            "priority": "500",
            **(_ALWAYS if app.service.always else _ON_DEMAND),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "2",
        }
    out = StringIO()
    out.write("; Written by `labhub up` from the lab file: changes made here are lost.\n")
    config.write(out)
    return out.getvalue()


def _program(
    name: str, words: list[str], variables: dict[str, str], paths: Paths
) -> dict[str, str]:
    """Return what all programs have in common."""
    return {
        "command": shlex.join(words),
        "directory": "/",
        "environment": ",".join(f'{key}="{value}"' for key, value in variables.items()),
        "stopwaitsecs": str(_STOP),
        "redirect_stderr": "true",
        "stdout_logfile": str(paths.log / f"{name}.log"),
    }


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

    def up(self, settings: Settings) -> dict[str, str]:
        """Start what is not running, restart what was started from something else.

        Returns
        -------
        dict
            ``started`` or ``restarted``, by program; what is not named was left alone.
        """
        prepare(settings, self.paths)
        text = render(settings, self.paths)
        if not self.config.exists() or self.config.read_text() != text:
            files.write_atomic(self.config, text, mode=0o600, sync=True)
        if not self.running():
            self._start()
            return dict.fromkeys(programs(settings), "started")
        done = self._take_up(lambda _: True)
        for name, program in self.info().items():
            if is_app(name) and program.state in ("STOPPED", "EXITED"):
                continue  # it is stopped
            if program.state in ("STOPPED", "EXITED", "FATAL", "BACKOFF"):
                self.stop([name])  # a new try, with the count of failures at nought
                self.start([name])
                done.setdefault(name, "started")
        return done

    def follow(self, settings: Settings, only: Callable[[str], bool]) -> dict[str, str]:
        """Take up changes of some programs, and leave the others for `up`.

        Parameters
        ----------
        settings : Settings
            The lab file.
        only : callable
            Says of a program's name whether it is one of them.

        Returns
        -------
        dict
            As `up`.
        """
        files.write_atomic(self.config, render(settings, self.paths), mode=0o600, sync=True)
        return self._take_up(only)

    def _take_up(self, only: Callable[[str], bool]) -> dict[str, str]:
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
        """Start programs; those that run are left alone."""
        for name in names:
            with _already("ALREADY_STARTED"):
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
        end = time.monotonic() + 2 * _STOP
        while _alive(pid) and time.monotonic() < end:
            time.sleep(0.05)

    def _start(self) -> None:
        # Beside this Python, not from PATH.
        program = Path(sys.executable).with_name("supervisord")
        done = subprocess.run(
            [program, "-c", self.config],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd="/",
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
def _already(fault: str) -> Iterator[None]:
    """Let it pass that a program is in the wanted state already."""
    try:
        yield
    except xmlrpc.client.Fault as error:
        if not error.faultString.startswith(fault):
            raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _digest(name: str, settings: Settings, paths: Paths) -> str:
    """Return one digest over all that a program is made from, secrets by their age alone."""
    parts = [settings.model_dump_json(), *command(name, settings, paths)]
    if name == "proxy":
        parts = parts[2:]  # nor which Node a shell's PATH has first
        parts += _content([paths.envs / "proxy" / STAMP])
        parts += _ages([paths.secrets / "proxy_token"])
        if settings.tls:
            parts += _ages([settings.tls.certificate, settings.tls.key])
    elif name == "gate":
        code = (p for n in ("services/gate", "labkit/relay") for p in (REPOSITORY / n).rglob("*"))
        parts = parts[1:] + _content(sorted(p for p in code if p.suffix != ".pyc"))
        parts += _content([paths.envs / "hub" / STAMP, STATIC / "labhub.css"])
        parts += _ages([paths.secrets / KEY])
        # Its apps it takes up by itself, the portal's addresses only at its start.
        parts.append(str(gate_config([], settings, paths)))
    elif name == "culler":
        parts = parts[1:]
        parts += _content([paths.envs / "hub" / STAMP])
        parts += _ages([paths.secrets / "culler_token"])
    else:
        parts += _content([paths.envs / "hub" / STAMP])
        parts += _content(sorted((paths.state / "config.d").glob("*.py")))
        code = (p for p in (REPOSITORY / "hub").rglob("*") if p.is_file())
        parts += _content(sorted(p for p in code if p.suffix != ".pyc"))
        names = ("cookie_secret", "proxy_token", "crypt_key", "culler_token", "control_token", KEY)
        parts += _ages([paths.secrets / name for name in names])
        parts += _ages([paths.secrets / "oauth_client_secret"])
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _app_digest(app: App, settings: Settings, paths: Paths) -> str:
    """Return one digest over all that an app is made from."""
    parts = [app.service.model_dump_json(), app.url(settings), settings.storage.model_dump_json()]
    parts += _content([paths.envs / app.service.environment / STAMP])
    parts += _ages([paths.secrets / KEY])
    code = (p for p in app.folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    parts += _ages(sorted(code))
    if app.imports:
        given = ("labkit", "services/member_apps") if app.kind else ("labkit",)
        code = (p for name in given for p in (REPOSITORY / name).rglob("*.*"))
        parts += _ages(sorted(p for p in code if p.suffix in (".py", ".R")))
        parts += _ages([SHIPPED / "appkit" / "identity.py"])  # what several apps share
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _content(files: Iterable[Path]) -> list[str]:
    return [
        f"{file}={hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in files
        if file.is_file()
    ]


def _ages(files: Iterable[Path]) -> list[str]:
    return [f"{file}={file.stat().st_mtime_ns}" for file in files if file.is_file()]
