"""The proxy of a user's server against stock jupyter-server-proxy and against no proxy.

All routes in one run, by turns: ``python -m bench.proxy [--rounds 5] [--skip-page]``. Needs
LABHUB_ENVS with ``proxy`` and, for the page, ``cellxgene``; nginx where it is installed.
Ratios are direct time / time of the route: 1 is as fast as no proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web

from bench.common import cpu_seconds, machine
from labkit.base.ports import free_port
from tests.labkit.server.conftest import BASE, TOKEN, Server
from tests.support.portal import built_envs

MB = 1 << 20
AUTH = {"Authorization": f"token {TOKEN}"}
STOCK = {"jupyter_server_proxy": True, "labkit.server": False}
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp;
  client_max_body_size 0;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  upstream server {{ server 127.0.0.1:{target}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""
# What Chromium was seen to ask for on the pbmc68k example, in its waves.
PAGE = (
    ("/",),
    ("{main.js}", "/obsolete.js", "{main.css}"),
    ("/api/v0.2/config", "/api/v0.2/schema", "/api/v0.2/colors", "{Regular.ttf}"),
    (
        "/api/v0.2/genesets",
        "/api/v0.2/layout/obs?layout-name=pca",
        "/api/v0.2/layout/obs?layout-name=umap",
        "/api/v0.2/annotations/obs?annotation-name=bulk_labels",
        "/api/v0.2/annotations/obs?annotation-name=louvain",
        "/api/v0.2/annotations/obs?annotation-name=phase",
        "{Bold.ttf}",
        "{Italic.ttf}",
    ),
)


_ASSETS = re.compile(
    r"((?:assets/RobotoCondensed-)?(main|Regular|Bold|Italic)-[0-9a-f]{20,}\.(\w+))"
)


@dataclass
class Route:
    """One way to the app.

    Attributes
    ----------
    name : str
        As the table says it.
    root : str
        Address before the app's port, e.g. ``http://127.0.0.1:8888/user/ada/proxy/``.
    pids : list of int
        Processes on the way, whose CPU and memory count.
    """

    name: str
    root: str
    pids: list[int] = field(default_factory=list)

    def url(self, port: int, path: str) -> str:
        """Return the address of a path of an app."""
        return f"{self.root}{port}{path}"

    def cpu(self) -> float:
        """Return the CPU seconds of all processes on the way."""
        return sum(cpu_seconds(pid) for pid in self.pids)

    def peak(self) -> int:
        """Return the largest resident memory of the processes since `reset`, in bytes."""
        total = 0
        for pid in self.pids:
            text = Path(f"/proc/{pid}/status").read_text()
            total += int(text.split("VmHWM:")[1].split()[0]) * 1024
        return total

    def reset(self) -> None:
        """Forget the peaks."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


def app(port: int) -> None:
    """Serve zeros of any size, by HTTP and WebSocket."""

    async def download(request: web.Request) -> web.StreamResponse:
        # A proxy that gives up closes the connection: not this app's trouble.
        with contextlib.suppress(ConnectionError):
            return await _zeros(request)
        return web.Response(status=500)

    async def _zeros(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        piece = bytes(MB)
        for _ in range(size // MB):
            await response.write(piece)
        return response

    async def messages(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    async def small(_: web.Request) -> web.Response:
        return web.Response(text="small")

    application = web.Application()
    application.router.add_get("/big/{size}", download)
    application.router.add_get("/ws", messages)
    application.router.add_get("/small", small)
    web.run_app(application, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.contextmanager
def routes(with_nginx: bool) -> Iterator[list[Route]]:
    """Start servers and fronts; yield all routes, the direct one first."""
    with contextlib.ExitStack() as stack:
        found = [Route("direct", "http://127.0.0.1:")]
        for name in ("stock", "labkit"):
            server = Server()
            if name == "stock":
                place = server.folder / "config" / "jupyter_server_config.d" / "zz.json"
                place.write_text(json.dumps({"ServerApp": {"jpserver_extensions": STOCK}}))
            stack.callback(server.stop)
            server.start()
            assert server.process is not None
            pid = server.process.pid
            found.append(Route(name, f"{server.base}proxy/", [pid]))
            port, process = _chp(server.port)
            stack.callback(_end, process)
            found.append(Route(f"{name} + CHP", f"{_root(port)}proxy/", [pid, process.pid]))
            if with_nginx:
                folder = Path(tempfile.mkdtemp(prefix="labkit-nginx-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                port, process = _nginx(server.port, folder)
                stack.callback(_end, process)
                worker = psutil.Process(process.pid).children()[0].pid
                pids = [pid, process.pid, worker]
                found.append(Route(f"{name} + nginx", f"{_root(port)}proxy/", pids))
        yield found


def _root(port: int) -> str:
    return f"http://127.0.0.1:{port}{BASE}"


def _chp(target: int) -> tuple[int, subprocess.Popen[bytes]]:
    port, api = free_port(), free_port()
    program = built_envs() / "proxy/node_modules/.bin/configurable-http-proxy"
    words = [str(program), "--ip=127.0.0.1", f"--port={port}", "--api-ip=127.0.0.1"]
    words += [f"--api-port={api}", f"--default-target=http://127.0.0.1:{target}"]
    process = subprocess.Popen([*words, "--log-level=error"])
    _wait(port)
    return port, process


def _nginx(target: int, folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, target=target))
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL
    )
    _wait(port)
    return port, process


def _wait(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing came up on port {port}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def download(session: aiohttp.ClientSession, url: str, size: int) -> None:
    """Download by a bare socket: the client must not be what is measured."""
    place = session._build_url(url)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, _download, place.host, place.port, place.raw_path, size)


def _download(host: str, port: int, path: str, size: int) -> None:
    with socket.create_connection((host, port), timeout=120) as raw:
        lines = (f"GET {path}/{size} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close")
        raw.sendall("\r\n".join([*lines, f"Authorization: token {TOKEN}", "", ""]).encode())
        buffer = bytearray(MB)
        total = 0
        head = b""
        while count := raw.recv_into(buffer):
            if total == 0:
                head = bytes(buffer[:40])
            total += count
    if not head.startswith(b"HTTP/1.1 200") or total < size:
        raise RuntimeError(f"{head!r}: {total} of {size} bytes")


async def websocket(session: aiohttp.ClientSession, url: str) -> None:
    """Send 8 MB and get them back, three times."""
    async with session.ws_connect(url, max_msg_size=0, compress=0) as ws:
        message = os.urandom(8 * MB)
        for _ in range(3):
            await ws.send_bytes(message)
            answer = await ws.receive(timeout=60)
            if answer.data != message:
                raise RuntimeError(f"another message came back: {answer.type}")


async def small(session: aiohttp.ClientSession, url: str) -> None:
    """300 small requests, 6 at a time."""
    gate = asyncio.Semaphore(6)

    async def one() -> None:
        async with gate, session.get(url) as answer:
            if await answer.text() != "small":
                raise RuntimeError(f"{answer.status} from {url}")

    await asyncio.gather(*(one() for _ in range(300)))


async def page(session: aiohttp.ClientSession, root: str) -> None:
    """Load CellxGene's page as Chromium does: wave by wave, 6 connections."""
    gate = asyncio.Semaphore(6)
    names: dict[str, str] = {}

    async def one(path: str) -> bytes:
        for kind, name in names.items():
            path = path.replace(f"{{{kind}}}", f"/{name}")
        headers = {"Accept-Encoding": "gzip", "Accept": "*/*"}
        async with gate, session.get(f"{root}{path}", headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200 and "obsolete" not in path:
                raise RuntimeError(f"{answer.status} for {path}: {body[:200]!r}")
            return body

    for wave in PAGE:
        bodies = await asyncio.gather(*(one(path) for path in wave))
        for body in bodies:
            text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            for path, kind, suffix in _ASSETS.findall(text.decode("latin-1")):
                names.setdefault(f"{kind}.{suffix}", f"static/{path}")


Task = Callable[[aiohttp.ClientSession, Route], Awaitable[None]]


@dataclass
class Result:
    """What a task took on one route, for each round: wall and CPU seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def measure(found: list[Route], task: Task, rounds: int) -> dict[str, Result]:
    """Run a task on all routes by turns; return what each route took."""
    results = {route.name: Result() for route in found}
    for turn in range(rounds + 1):
        for route in found:
            async with aiohttp.ClientSession(headers=AUTH, auto_decompress=False) as session:
                begin, spent = time.perf_counter(), route.cpu()
                try:
                    await task(session, route)
                except (RuntimeError, OSError, aiohttp.ClientError) as error:
                    print(f"{route.name}: {error}")
                    continue
                if turn:  # the first warms up
                    results[route.name].wall.append(time.perf_counter() - begin)
                    results[route.name].cpu.append(route.cpu() - spent)
    return results


def table(title: str, results: dict[str, Result]) -> None:
    """Print one table; the best round is what other work on the machine disturbs least."""
    print(f"\n| {title} | median s | best s | ratio of medians | of best | CPU s on the way |")
    print("|---|---|---|---|---|---|")
    direct = results["direct"].wall
    for name, result in results.items():
        if not result.wall:
            print(f"| {name} | failed | | | | |")
            continue
        middle, best = statistics.median(result.wall), min(result.wall)
        print(
            f"| {name} | {middle:.3f} | {best:.3f} | {statistics.median(direct) / middle:.2f} "
            f"| {min(direct) / best:.2f} | {statistics.mean(result.cpu):.3f} |"
        )


async def cost(found: list[Route], port: int, size: int) -> None:
    """Print what one download of that size costs on each route."""
    print(f"\n| {size // MB} MB once | CPU s per GB | memory peak above idle |\n|---|---|---|")
    for route in found[1:]:
        route.reset()
        before, memory = route.cpu(), route.peak()
        async with aiohttp.ClientSession(headers=AUTH) as session:
            try:
                await download(session, route.url(port, "/big"), size)
                failed = ""
            except (RuntimeError, OSError) as error:
                failed = f" (failed: {str(error)[:60]})"
        spent = (route.cpu() - before) / size * (1 << 30)
        print(f"| {route.name} | {spent:.2f}{failed} | {(route.peak() - memory) / 1e6:.0f} MB |")


@contextlib.contextmanager
def cellxgene() -> Iterator[int]:
    """Start the real CellxGene on the example data that scanpy ships; yield its port."""
    import scanpy

    data = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    port = free_port()
    program = built_envs() / "cellxgene" / "bin" / "cellxgene"
    words = [str(program), "launch", str(data), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*words, "--disable-annotations", "--disable-gene-sets-save"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port)
        yield port
    finally:
        _end(process)


async def run(rounds: int, with_page: bool) -> None:
    """Measure everything and print the tables."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=app, args=(port,), daemon=True)
    process.start()
    _wait(port)
    try:
        with routes(shutil.which("nginx") is not None) as found:
            await cost(found, port, 100 * MB)
            await cost(found, port, 1024 * MB)
            for title, task in (
                ("100 MB", lambda s, r: download(s, r.url(port, "/big"), 100 * MB)),
                ("8 MB WebSocket, there and back", lambda s, r: websocket(s, r.url(port, "/ws"))),
                ("300 small requests", lambda s, r: small(s, r.url(port, "/small"))),
            ):
                table(title, await measure(found, task, rounds))
            if with_page:
                with cellxgene() as viewer:
                    loaded = await measure(
                        found, lambda s, r: page(s, r.url(viewer, "")), rounds * 3
                    )
                table("CellxGene page", loaded)
    finally:
        process.terminate()
        process.join()


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-page", action="store_true")
    arguments = parser.parse_args()
    print(machine())
    asyncio.run(run(arguments.rounds, not arguments.skip_page))


if __name__ == "__main__":
    main()
