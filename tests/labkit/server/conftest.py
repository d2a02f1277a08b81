"""A real Jupyter server with labkit's extension, and small apps behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web

from labkit.base.ports import free_port
from tests.support.http_client import no_authorities
from tests.support.portal import REPOSITORY

TOKEN = "0f" * 20
BASE = "/user/ada/"
# What a browser says of a page on another origin of the lab, or of the world.
FOREIGN = [
    {"Origin": "http://bob.lab.example.org", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example.com", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


class Server:
    """A Jupyter server process on a free port, in a home of its own; use as a context manager."""

    def __init__(
        self,
        config: str = "",
        env: dict[str, str] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        self.python = python
        self.folder = Path(tempfile.mkdtemp(prefix="labkit-server-"))
        self.home = self.folder / "home"
        self.home.mkdir()
        place = self.folder / "config" / "jupyter_server_config.d"
        place.mkdir(parents=True)
        config_files = REPOSITORY / "labkit" / "server" / "data" / "config"
        shutil.copy(config_files / "labkit.json", place)
        shutil.copy(config_files / "jupyter_server_config.json", place.parent)
        quiet = dict.fromkeys(("jupyterlab", "jupyter_lsp", "notebook_shim"), False)
        (place / "tests.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": quiet}}))
        (self.folder / "config" / "jupyter_server_config.py").write_text(config)
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}{BASE}"
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "LABHUB"))},
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.home),
            "JUPYTER_CONFIG_PATH": str(self.folder / "config"),
            "JUPYTER_CONFIG_DIR": str(self.folder / "nothing"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "run"),
            "JUPYTER_TOKEN": TOKEN,
            "LABHUB_ENVS": os.environ.get("LABHUB_ENVS", ""),
            **(env or {}),
        }
        if "XDG_DATA_HOME" not in (env or {}):
            self.env.pop("XDG_DATA_HOME", None)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        arguments = [f"--ServerApp.{k}={v}" for k, v in self._options().items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "jupyter_server", "--allow-root", *arguments],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError), self.client() as http:
                if http.get("api", timeout=5).status_code == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(self.log.read_text()[-4000:])

    def _options(self) -> dict[str, Any]:
        return {
            "port": self.port,
            "port_retries": 0,
            "ip": "127.0.0.1",
            "base_url": BASE,
            "open_browser": False,
            "root_dir": self.home,
        }

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @contextlib.contextmanager
    def cookie_client(self) -> Iterator[httpx.Client]:
        """Give a browser that is logged in by a cookie alone."""
        with httpx.Client(base_url=self.base, timeout=60, follow_redirects=True) as client:
            client.get("tree", params={"token": TOKEN})
            assert client.get("api/status").status_code == 200
            yield client

    def restart(self) -> None:
        self._end()
        self.start()

    def client(self, **kwargs: Any) -> httpx.Client:
        headers = {"Authorization": f"token {TOKEN}", **kwargs.pop("headers", {})}
        options = {"timeout": 60, "verify": no_authorities(), **kwargs}
        return httpx.Client(base_url=self.base, headers=headers, **options)

    def rss(self) -> int:
        """Return the largest resident memory that the process had, in bytes."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) * 1024

    def reset_rss(self) -> None:
        assert self.process is not None
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.get("labkit/api/status").json())


class App:
    """A small aiohttp app in a thread of its own."""

    def __init__(self, *, unix_socket: str | None = None) -> None:
        self.app = web.Application(client_max_size=1 << 40)
        self.unix_socket = unix_socket
        self.port = free_port()
        self.seen: list[web.Request] = []
        self.notes: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def on(self, method: str, path: str) -> Callable[[Any], Any]:
        def add(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
            async def seen(request: web.Request) -> web.StreamResponse:
                self.seen.append(request)
                return await handler(request)

            self.app.router.add_route(method, path, seen)
            return handler

        return add

    def start(self) -> App:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def serve() -> None:
            self._runner = web.AppRunner(self.app, access_log=None, handler_cancellation=True)
            await self._runner.setup()
            if self.unix_socket:
                await web.UnixSite(self._runner, self.unix_socket).start()
            else:
                await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
            self._ready.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def wait_for(check: Callable[[], Any], timeout: float = 120) -> Any:
    """Wait until something is true; return it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if value := check():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not become true in time")


def knock(place: Path, account: str = "nobody") -> str:
    """Return what another account of this machine meets at a Unix socket; needs root."""
    program = (
        "import socket, sys\n"
        "try:\n    socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except OSError as error: print(type(error).__name__)\n"
        "else: print('open')\n"
    )
    other = ["setpriv", "--reuid", account, "--regid", "nogroup", "--clear-groups"]
    command = ["/usr/bin/python3", "-c", program, str(place)]
    if account != "root":
        command = [*other, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@contextlib.contextmanager
def small_home(size: str) -> Iterator[Server]:
    """Give a server that is not started yet, whose home is in memory and holds no more than that.

    Parameters
    ----------
    size : str
        As ``mount`` takes it: ``256k``.
    """
    server = Server()
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(server.home)]
    try:
        subprocess.run(mounted, check=True)
        yield server
    finally:
        server._end()
        subprocess.run(["umount", "--lazy", server.home], check=False)
        server.stop()


def kernel_run(server: Server, kernel: str, code: str) -> Any:
    """Send code to a kernel of the server; return the open connection."""
    return kernel_run_at(server.base, TOKEN, kernel, code)


def kernel_run_at(
    base: str, token: str, kernel: str, code: str, wait: bool = False, name: str = "1"
) -> Any:
    """Send code to a kernel over a WebSocket, wait for its end if asked to; return the socket."""
    import websocket  # websocket-client

    parts = urlsplit(base)
    raw = socket.create_connection(("127.0.0.1", parts.port), timeout=20)
    connection = websocket.create_connection(
        f"ws://{parts.netloc}{parts.path}api/kernels/{kernel}/channels",
        header=[f"Authorization: token {token}"],
        timeout=20,
        socket=raw,
    )
    header = {
        "msg_id": name,
        "msg_type": "execute_request",
        "username": "",
        "session": "s",
        "version": "5.3",
        "date": "2026-01-01T00:00:00Z",
    }
    message = {
        "channel": "shell",
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False},
        "buffers": [],
    }
    connection.send(json.dumps(message))
    while wait:
        answer = json.loads(connection.recv())
        if answer["msg_type"] == "execute_reply":
            assert answer["content"]["status"] == "ok", answer
            break
    return connection


def kernel_output(base: str, token: str, kernel: str, code: str) -> str:
    """Run code in a kernel; return what it wrote, tracebacks without their colours included."""
    name = uuid.uuid4().hex
    connection = kernel_run_at(base, token, kernel, code, name=name)
    said: list[str] = []
    idle = replied = False
    try:
        connection.settimeout(120)
        while not (idle and replied):
            message = json.loads(connection.recv())
            if message["parent_header"].get("msg_id") != name:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "error":
                said.append("\n".join(content["traceback"]))
            idle = idle or content.get("execution_state") == "idle"
            replied = replied or message["msg_type"] == "execute_reply"
    finally:
        connection.close()
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(said))
