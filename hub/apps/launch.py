"""Start one app and stay with it: ``python -m hub.apps.launch NAME``, for the supervisor.

As root the app runs in a sandbox, like a person's server: own account, network, view of the files
and limits. Without root it is a plain process of the portal's owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hub.apps import catalogue
from hub.apps.app_paths import KEY, AppPaths
from hub.apps.catalogue import App
from hub.apps.declaration import filled
from hub.labfile import read
from hub.labfile.schema import Settings
from hub.sandbox.accounts import AccountError
from hub.sandbox.bubblewrap import environment_folders
from hub.sandbox.cgroups import SandboxLimits
from hub.sandbox.configure import sandboxes_of
from hub.sandbox.inherited import renew
from hub.sandbox.instance import sandbox_key
from hub.sandbox.sandboxes import Sandboxes, Shared
from hub.state.create import read_secret
from hub.state.paths import REPOSITORY, Paths
from labkit.base import files
from labkit.base.ports import free_port
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_size
from services.gate import keys

_PORT = 8000  # in the app's own network
_TIMEOUT = 10.0  # seconds that an app may take to end
_KNOCK = 0.05
# Where a sandbox shows what is not at its own place there.
_FOLDER, _LIBRARY = "/labhub/app", "/labhub/lib"


class Start:
    """One app, about to be started.

    Parameters
    ----------
    app : App
        Which.
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """

    def __init__(self, app: App, settings: Settings, paths: Paths) -> None:
        self.app = app
        self.settings = settings
        self.paths = paths
        self.app_paths = AppPaths(paths)
        self.boxed = os.geteuid() == 0
        self.account: pwd.struct_passwd = self.app_paths.make_app(app.name)

    # -- what it is started with ------------------------------------------------------

    def values(self, host: str, port: int) -> dict[str, str]:
        """Return what the places in the declaration stand for."""
        name = self.app.name
        return {
            "socket": str(self.app_paths.socket(name)),
            "host": host,
            "port": str(port),
            "prefix": self.app.prefix,
            "folder": _FOLDER if self.boxed else str(self.app.folder),
            "data": str(self.app_paths.data(name)),
            "url": self.app.url(self.settings),
        }

    def command(self, values: dict[str, str]) -> list[str]:
        """Return the program and its arguments.

        Raises
        ------
        ProblemsError
            The environment has no such program.
        """
        service = self.app.service
        program, *arguments = filled(service.command, values)
        if "/" not in program:
            executable = self.paths.env_bin(service.environment, program)
            if executable.exists():
                program = str(executable)
            elif not (self.paths.envs / service.environment).exists():
                text = f"the environment {service.environment!r} is not built"
                raise ProblemsError([Problem(self.app.name, text, "call: labhub up")])
        return [program, *arguments]

    def environment(self, values: dict[str, str]) -> dict[str, str]:
        """Return its environment: nothing of the portal's own, but its one secret."""
        service = self.app.service
        key = read_secret(self.paths, KEY, self.settings.secrets.mounted)
        library = _LIBRARY if self.boxed else str(REPOSITORY)
        variables = dict(
            zip(service.variables, filled(list(service.variables.values()), values), strict=True)
        )
        program_folder = self.paths.envs / service.environment / "bin"
        own = {
            "PATH": f"{program_folder}:/usr/local/bin:/usr/bin:/bin",
            "HOME": values["data"],
            "USER": self.account.pw_name,
            "LOGNAME": self.account.pw_name,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": library,
            "LABHUB_ENVS": str(self.paths.envs),
            "LABHUB_LAB_NAME": self.settings.lab.name,
            "LABHUB_HOME_URL": f"{self.settings.url}/hub/home",
            "LABHUB_MEMORY_BYTES": str(service.memory),
            "LABHUB_APP_NAME": self.app.name,
            "LABHUB_APP_PREFIX": values["prefix"],
            "LABHUB_APP_URL": values["url"],
            "LABHUB_APP_FOLDER": values["folder"],
            "LABHUB_APP_DATA": values["data"],
            "LABHUB_APP_SECRET": keys.derived(key, keys.APP_SECRET, self.app.name),
        }
        if service.listen == "socket":
            own["LABHUB_APP_SOCKET"] = values["socket"]
        else:
            own |= {"LABHUB_APP_HOST": values["host"], "LABHUB_APP_PORT": values["port"]}
        return {**variables, **own}

    # -- in a sandbox ---------------------------------------------------------------------

    def sandboxes(self) -> Sandboxes:
        """Return the portal's sandboxes, with what this app sees."""
        sandboxes = sandboxes_of(self.settings, self.paths)
        app, shared = self.app, sandboxes.shared
        # The app that shows the documentation needs it, too.
        library = ("services", "labkit") if app.own else ("services", "labkit", "docs")
        mounts: list[tuple[Path, str]] = [
            (app.folder, _FOLDER),
            *((REPOSITORY / name, f"{_LIBRARY}/{name}") for name in library),
        ]
        plain = not app.service.shared_folders
        view = Shared(
            read_only=environment_folders(self.paths.envs) if plain else shared.read_only,
            read_write=[
                self.app_paths.socket_folder(app.name),
                *(() if plain else shared.read_write),
            ],
            hidden=shared.hidden,
            mounts=mounts,
        )
        return Sandboxes(sandboxes.instance, sandboxes.network, sandboxes.groups, view)

    def run(self) -> int:
        """Start it, wait for its end and clean up; returns the exit status."""
        self._clear_socket()
        return self._run_boxed() if self.boxed else self._run_plain()

    def _run_boxed(self) -> int:
        service, sandboxes = self.app.service, self.sandboxes()
        limits = SandboxLimits(cpu=service.cpu, memory=service.memory, processes=service.processes)
        key = sandbox_key(self.account.pw_uid, "")
        ending = _Ending(lambda: sandboxes.terminate(key))
        sandbox = sandboxes.create(key, self.account, limits)
        try:
            values = self.values("0.0.0.0", _PORT)  # noqa: S104 - in a network of its own
            self._tell_address(sandbox.link.address, _PORT)
            with sandbox.prepared() as (front, descriptors):
                process = subprocess.Popen(
                    [*front, *self.command(values)],
                    env=self.environment(values),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    # The socket is the app's and the gate's.
                    preexec_fn=renew(sandbox.join_files, umask=0o007),
                )
            sandboxes.started(key)
            status = ending.wait(process, lambda: sandboxes.serving(key))
            if sandboxes.oom_kills(key):
                memory = format_size(service.memory)
                print(
                    f"labhub: it used more memory than service.yaml allows ({memory})", flush=True
                )
            return status
        finally:
            # First: the address may soon be another sandbox's.
            self.app_paths.address(self.app.name).unlink(missing_ok=True)
            sandboxes.destroy(key)
            self._clear_socket()

    def _run_plain(self) -> int:
        port = free_port() if self.app.service.listen == "port" else 0
        values = self.values("127.0.0.1", port)
        self._tell_address("127.0.0.1", port)
        process = subprocess.Popen(
            self.command(values),
            env=self.environment(values),
            cwd=values["data"],
            stdin=subprocess.DEVNULL,
            umask=0o077,
            start_new_session=True,
        )
        ending = _Ending(lambda: _signal_group(process, signal.SIGTERM))
        try:
            return ending.wait(process, lambda: False)
        finally:
            self.app_paths.address(self.app.name).unlink(missing_ok=True)
            _signal_group(process, signal.SIGKILL)
            self._clear_socket()

    def _tell_address(self, host: str, port: int) -> None:
        """Tell the gate where it listens, in a file that the app itself cannot write."""
        if self.app.service.listen == "port":
            file = self.app_paths.address(self.app.name)
            files.write_atomic(
                file, json.dumps({"host": host, "port": port}), mode=0o640, sync=True
            )
            gate = self.app_paths.gate_uid()
            if self.boxed and gate is not None:
                os.chown(file, 0, pwd.getpwuid(gate).pw_gid)

    def _clear_socket(self) -> None:
        """Remove what an earlier run has left; nothing else is in the folder."""
        folder = self.app_paths.socket_folder(self.app.name)
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                entry.unlink()


class _Ending:
    """The wait for an app's end, whether it comes by itself or is asked for.

    Parameters
    ----------
    ask : callable
        Asks the app to end.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._asked = 0.0
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._asked = self._asked or time.monotonic()

    def wait(self, process: subprocess.Popen[bytes], lives: Callable[[], bool]) -> int:
        """Return the exit status; 0 where the end was asked for."""
        signalled = False
        while process.poll() is None or lives():
            if self._asked and not signalled:
                signalled = True
                self._ask()
            if self._asked and time.monotonic() - self._asked > _TIMEOUT:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KNOCK if signalled else 0.5)
            if process.poll() is not None and not signalled and lives():
                time.sleep(0.5)  # bubblewrap was killed, the app lives on: stay with it
        if self._asked:
            return 0
        status = process.poll() or 0
        return 128 - status if status < 0 else status


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main(name: str) -> int:
    """Start an app of the portal; returns its exit status when it has ended."""
    paths = Paths.from_environment()
    os.environ.pop("PYTHONPATH", None)
    try:
        settings = read.read(paths.lab_file)
        app = catalogue.find(name, settings, paths)
        print(f"labhub: {name} starts", flush=True)
        status = Start(app, settings, paths).run()
    except (ProblemsError, AccountError, OSError) as error:
        print(f"labhub: {name} cannot start:\n{error}", flush=True)
        return 1
    print(f"labhub: {name} ended with status {status}", flush=True)
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hub.apps.launch NAME")
    sys.exit(main(sys.argv[1]))
