"""A real portal for tests: hub and proxy as processes, on free ports, in a folder of its own."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from ruamel.yaml import YAML

from hub.labfile.read import read
from hub.sandbox import remove_all, sandboxes_of
from hub.state.paths import Paths
from labkit.base.ports import free_ports
from labkit.relay import bounded_server
from tests.support import leftovers
from tests.support.http_client import LocalhostTransport, client
from tests.support.start_report import start_report

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parents[1]
UNIX_GROUP = "labhub"
PASSWORD = "correct horse battery"  # of the test people


def built_envs() -> Path:
    """Where the environments are: LABHUB_ENVS, as `labhub test` sets it."""
    return Path(os.environ.get("LABHUB_ENVS", "/var/lib/labhub/envs"))


class People:
    """Unix accounts with names of their own, removed at the end."""

    def __init__(self) -> None:
        self.prefix = "lt" + secrets.token_hex(2)
        self.names: list[str] = []
        with contextlib.suppress(FileExistsError):
            self._ensure_group()

    @staticmethod
    def _ensure_group() -> None:
        try:
            grp.getgrnam(UNIX_GROUP)
        except KeyError:
            subprocess.run(["groupadd", "--force", UNIX_GROUP], check=True)

    def add(self, name: str, *, member: bool = True, password: str = PASSWORD) -> str:
        full = f"{self.prefix}-{name}"
        if full in self.names:  # another test module's
            full += str(len(self.names))
        groups = ["--groups", UNIX_GROUP] if member else []
        comment = ["--comment", leftovers.comment()]
        subprocess.run(
            ["useradd", "--create-home", "--shell", "/bin/bash", *comment, *groups, full],
            check=True,
        )
        self.names.append(full)
        subprocess.run(["chpasswd"], input=f"{full}:{password}\n", text=True, check=True)
        Path(f"/home/{full}").chmod(0o700)
        return full

    def remove_all(self) -> None:
        for name in self.names:
            leftovers.remove_account(name)


class Browser(httpx.Client):
    """An HTTP client with a login: keeps cookies, knows the hub's ``_xsrf``."""

    def __init__(self, portal: Portal) -> None:
        super().__init__(
            base_url=portal.url,
            transport=LocalhostTransport(),
            follow_redirects=True,
            timeout=60,
            event_hooks={"response": [self._keep_session]},
        )
        self.portal = portal

    def _keep_session(self, _: httpx.Response) -> None:
        # Browsers send a cookie for .localhost to localhost; Python's cookie jar does not.
        for cookie in list(self.cookies.jar):
            if cookie.domain == ".localhost" and cookie.value is not None:
                self.cookies.set(cookie.name, cookie.value, domain="localhost.local")

    @property
    def xsrf(self) -> str:
        found = [c.value for c in self.cookies.jar if c.name == "_xsrf" and c.path == "/hub/"]
        return found[-1] or "" if found else ""

    def login(self, name: str, password: str = PASSWORD) -> httpx.Response:
        self.get("/hub/login")
        return self.post(
            "/hub/login", data={"username": name, "password": password, "_xsrf": self.xsrf}
        )

    def hub(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Call the hub's REST API as the page's script would."""
        headers = {"X-XSRFToken": self.xsrf, "Referer": f"{self.portal.url}/hub/home"}
        return self.request(method, f"/hub/api{path}", headers=headers, **kwargs)


class Portal:
    """One portal; use as a context manager.

    Parameters
    ----------
    lab : mapping, optional
        The lab file's content, merged over a small default with stub servers.
    env : mapping, optional
        More environment variables for the hub.
    config : str, optional
        Python text for ``config.d``.
    """

    def __init__(
        self,
        lab: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        config: str = "",
    ) -> None:
        # Not below pytest's 0700 folders: the user servers must reach the environments.
        self.folder = Path(tempfile.mkdtemp(prefix=leftovers.FOLDER_PREFIX, dir=leftovers.FOLDERS))
        self.folder.chmod(0o711)
        leftovers.claim(self.folder)
        self.state = self.folder / "state"
        self.envs = self.folder / "envs"
        for place, mode in (
            (self.state, 0o711),
            (self.state / "secrets", 0o700),
            (self.state / "run", 0o700),
            (self.state / "log", 0o700),
            (self.state / "config.d", 0o700),
            (self.envs, 0o755),
        ):
            place.mkdir()
            place.chmod(mode)
        self._environments()
        self.port, self.hub_port, self.api_port, self.gate_port = free_ports(4)
        self.url = f"http://localhost:{self.port}"
        self.http = client()
        self.admin_token = secrets.token_hex(24)
        self.proxy_token = secrets.token_hex(24)
        self.env = dict(env or {})
        self.lab = self._lab(lab or {})
        self.write_lab()
        (self.state / "secrets" / "cookie_secret").write_text(secrets.token_hex(32))
        (self.state / "secrets" / "cookie_secret").chmod(0o600)
        (self.state / "config.d" / "50-test.py").write_text(
            'c.JupyterHub.services.append({"name": "test-admin", "api_token": '
            '__import__("os").environ["TEST_ADMIN_TOKEN"]})\n'
            'c.JupyterHub.load_roles.append({"name": "test-admin", "scopes": '
            '["admin:users", "admin:servers", "admin:groups", "tokens", "read:hub",'
            ' "access:servers", "access:services", "proxy", "shutdown", "admin:services"],'
            ' "services": ["test-admin"]})\n' + config
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.proxy_options: tuple[str, ...] = ()

    def _environments(self) -> None:
        stub = self.envs / "stub" / "bin"
        stub.mkdir(parents=True)
        program = stub / "jupyterhub-singleuser"
        text = (SUPPORT / "stub_server.py").read_text()
        program.write_text(text.replace("#!/usr/bin/env python3", "#!/usr/bin/python3", 1))
        program.chmod(0o755)
        for name, settings in (("stub-slow", "STUB_DELAY=4"), ("stub-dies", "STUB_EXIT=3")):
            other = self.envs / name / "bin"
            other.mkdir(parents=True)
            wrapper = other / "jupyterhub-singleuser"
            wrapper.write_text(f'#!/bin/sh\n{settings} exec {program} "$@"\n')
            wrapper.chmod(0o755)
        for name in (
            "notebook",
            "r",
            "alignment",
            "cellxgene",
            "cellprofiler",
            "dash",
            "label-studio",
            "proxy",
        ):
            if (built_envs() / name).exists():
                (self.envs / name).symlink_to((built_envs() / name).resolve())

    def _lab(self, lab: Mapping[str, Any]) -> dict[str, Any]:
        # A subnet of its own, so that two portals of one machine do not meet.
        digest = hashlib.sha256(str(self.folder).encode()).digest()
        default: dict[str, Any] = {
            "lab": {"name": "Test lab", "contact": "help@lab.example"},
            "url": self.url,
            "profiles": [
                {"name": "stub", "title": "Stub", "environment": "stub", "memory": "512M"},
                {"name": "slow", "title": "Slow", "environment": "stub-slow", "memory": "512M"},
                {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
                {"name": "notebook", "title": "Notebook", "memory": "2G"},
            ],
            "local": {
                "hub_port": self.hub_port,
                "proxy_api_port": self.api_port,
                "gate_port": self.gate_port,
                "subnet": f"10.{100 + digest[0] % 100}.0.0/16",
            },
        }
        for key, value in lab.items():
            if isinstance(value, Mapping) and isinstance(default.get(key), dict):
                default[key] = {**default[key], **value}
            else:
                default[key] = value
        return default

    def write_lab(self) -> None:
        """Write ``self.lab`` as the lab file; takes effect at the hub's next start."""
        with (self.state / "lab.yaml").open("w") as stream:
            YAML().dump(self.lab, stream)

    @property
    def environ(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "LABHUB_STATE": str(self.state),
            "LABHUB_ENVS": str(self.envs),
            "CONFIGPROXY_AUTH_TOKEN": self.proxy_token,
            "TEST_ADMIN_TOKEN": self.admin_token,
            "LABHUB_CULLER_TOKEN": "",
            "LABHUB_GATE_KEY": "",
            **self.env,
        }

    def __enter__(self) -> Self:
        try:
            self.start_proxy()
            self.start_hub()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.stop_servers()
        for name in ("hub", "proxy"):
            self.stop(name)
        with contextlib.suppress(Exception):
            remove_all(sandboxes_of(read(self.state / "lab.yaml"), Paths(self.state, self.envs)))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.state / "log" / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environ,
                cwd=REPOSITORY,  # the hub's own code; user servers get no PYTHONPATH
            )

    def start_proxy(self) -> None:
        package = self.envs / "proxy" / "node_modules" / "configurable-http-proxy"
        program = package / "bin" / "configurable-http-proxy"
        node = shutil.which("node")
        assert node, "LABHUB's own Node is in PATH: run by labhub test"
        routing = ["--host-routing"] if self.lab.get("isolation") != "path" else []
        command = [node, f"--max-http-header-size={bounded_server.HEADERS}", str(program)]
        command += ["--ip", "127.0.0.1", "--port", str(self.port), *self.proxy_options]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(self.api_port), *routing]
        command += ["--error-target", f"http://127.0.0.1:{self.hub_port}/hub/error"]
        self._start("proxy", command)

    def start_hub(self, wait: bool = True) -> None:
        config = REPOSITORY / "hub" / "jupyterhub_config.py"
        self._start("hub", [sys.executable, "-m", "jupyterhub", "-f", str(config)])
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 120) -> None:
        """Wait until the hub answers through the proxy."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.processes["hub"].poll() is not None:
                raise RuntimeError(f"the hub ended:\n{self.hub_log()[-4000:]}")
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get(f"{self.url}/hub/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the hub did not answer in {timeout} s:\n{self.hub_log()[-4000:]}")

    def stop(self, name: str, sig: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(sig)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart_hub(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self.stop("hub", sig)
        self.start_hub()

    def hub_log(self) -> str:
        return (self.state / "log" / "hub.log").read_text(errors="replace")

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Call the hub's REST API with an administrator service's token."""
        headers = {"Authorization": f"token {self.admin_token}"}
        return self.http.request(method, f"{self.url}/hub/api{path}", headers=headers, **kwargs)

    def user_url(self, name: str, path: str = "", server: str = "") -> str:
        """Address of a path of a user's server, on that user's own origin."""
        host = "localhost" if self.lab.get("isolation") == "path" else f"{name}.localhost"
        middle = f"{server}/" if server else ""
        return f"http://{host}:{self.port}/user/{name}/{middle}{path}"

    def spawn(
        self, name: str, profile: str = "stub", server: str = "", timeout: float = 300
    ) -> dict[str, Any]:
        """Start a user's server and wait until it is ready; returns its model."""
        self.api("POST", f"/users/{name}")
        path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
        answer = self.api("POST", path, json={"profile": profile})
        if answer.status_code not in (201, 202):
            said = f"{answer.status_code} {answer.text}"
            raise RuntimeError(f"{said}\n{start_report(self, name, server)}")
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            servers = self.api("GET", f"/users/{name}").json()["servers"]
            if server not in servers:
                what = f"{name}'s server did not start"
                raise RuntimeError(f"{what}:\n{start_report(self, name, server)}")
            if servers[server].get("ready"):
                return dict(servers[server])
            time.sleep(0.1)
        what = f"{name}'s server is not ready after {timeout:g} s"
        raise RuntimeError(f"{what}:\n{start_report(self, name, server)}")

    def stop_server(self, name: str, server: str = "", timeout: float = 120) -> None:
        path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
        self.api("DELETE", path)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if server not in self.api("GET", f"/users/{name}").json().get("servers", {}):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{name}'s server does not stop:\n{self.hub_log()[-3000:]}")

    def stop_servers(self) -> None:
        if "hub" not in self.processes or self.processes["hub"].poll() is not None:
            return
        for user in self.api("GET", "/users?state=active").json():
            for server in user["servers"]:
                self.stop_server(user["name"], server)

    def browser(self) -> Browser:
        return Browser(self)

    def run(self, name: str, code: str, server: str = "") -> str:
        """Run Python in a user's stub server; returns what it printed."""
        with httpx.Client(transport=LocalhostTransport(), timeout=60) as client:
            answer = client.post(self.user_url(name, "run", server), content=code)
        body = answer.json()
        if not body["ok"]:
            raise RuntimeError(body["out"])
        return str(body["out"])


def secrets_in(text: str, values: Sequence[str]) -> list[str]:
    """Return which of the secret values stand in a text."""
    return [value for value in values if value and re.search(re.escape(value), text)]


@contextlib.contextmanager
def portal(lab: Mapping[str, Any] | None = None, **kwargs: Any) -> Iterator[Portal]:
    """Run a portal for the length of a ``with`` block."""
    with Portal(lab, **kwargs) as running:
        yield running
