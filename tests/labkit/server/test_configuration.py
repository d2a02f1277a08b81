"""jupyter-server-proxy's configuration still does what its documentation says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from jupyter_server_proxy import handlers as stock
from jupyter_server_proxy.rawsocket import RawSocketHandler

from labkit.server.proxy import HOOKS, Streaming, streaming
from tests.labkit.server.conftest import BASE, TOKEN, App, Server

CONFIG = """
import re, sys
def shout(response, port, path):
    response.headers["X-Rewritten"] = f"{{port}} {{path}}"
    response.body = response.body.upper()
def any_test_host(handler, host):
    return host == "127.0.0.2"
c.ServerProxy.host_allowlist = any_test_host
c.ServerProxy.servers = {{
    "plain": {{"port": {port}, "launcher_entry": {{"title": "Plain app", "category": "Own"}}}},
    "socket": {{"unix_socket": "{socket}"}},
    "loud": {{"port": {port}, "rewrite_response": shout}},
    "mapped": {{"port": {port}, "mappath": {{"/": "/index", "/x": "/y"}}}},
    "absolute": {{"port": {port}, "absolute_url": True}},
    "headed": {{
        "port": {port},
        "request_headers_override": {{"Authorization": "Basic {{base_url}}", "X-Own": "1"}},
    }},
    "idle": {{"port": {port}, "update_last_activity": False}},
    "polled": {{"port": {port}, "exclude_last_activity_patterns": [".*/poll$"]}},
    "raw": {{"port": {raw}, "raw_socket_proxy": True}},
    "started": {{
        "command": [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{{port}}"],
        "timeout": 30,
    }},
    "missing": {{"command": ["/nonexistent/program", "{{port}}"], "timeout": 3}},
}}
"""


def echoing(unix_socket: str | None = None) -> App:
    app = App(unix_socket=unix_socket)

    @app.on("*", "/{rest:.*}")
    async def echo(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                await ws.send_str(f"{request.path} {message.data}")
            return ws
        body = await request.text()
        response = web.json_response(
            {"path": request.raw_path, "headers": dict(request.headers), "body": body}
        )
        response.headers["Set-Cookie"] = "session=1; Path=/"
        return response

    return app.start()


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, App, int]]:
    place = str(tmp_path_factory.mktemp("socket") / "app.sock")
    plain, by_socket = echoing(), echoing(place)
    raw = socket.create_server(("127.0.0.1", 0))

    def repeat() -> None:
        while True:
            try:
                one = raw.accept()[0]
            except OSError:
                return
            one.sendall(one.recv(100)[::-1])

    threading.Thread(target=repeat, daemon=True).start()
    yield plain, by_socket, raw.getsockname()[1]
    plain.stop()
    by_socket.stop()
    raw.close()


@pytest.fixture(scope="module")
def configured(apps: tuple[App, App, int]) -> Iterator[Server]:
    plain, by_socket, raw = apps
    server = Server(CONFIG.format(port=plain.port, socket=by_socket.unix_socket, raw=raw))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("plain/a/b?c=d", "/a/b?c=d"),
        ("socket/a", "/a"),
        ("mapped/", "/index"),
        ("mapped/x", "/y"),
        ("mapped/z", "/z"),
        ("absolute/a", f"{BASE}absolute/a"),
    ],
)
def test_named_servers(configured: Server, asked: str, path: str) -> None:
    with configured.client() as client:
        answer = client.post(asked, content="é" * 1000)
        assert answer.json()["path"] == path
        assert answer.json()["body"] == "é" * 1000
        name = asked.split("/")[0]
        own = [c for c in answer.headers.get_list("Set-Cookie") if c.startswith("session=")]
        assert own == [f"session=1; Path={BASE}{name}/"]
        assert client.get(name).headers["Location"] == f"{BASE}{name}/"
        assert client.get(f"{name}/").status_code == 200


def test_rewrite_response_gets_the_whole_body(configured: Server, apps: tuple[App, ...]) -> None:
    with configured.client() as client:
        answer = client.post("loud/x", content="whisper", headers={"Cookie": "_xsrf=1; a=b"})
    assert '"BODY": "WHISPER"' in answer.text
    assert answer.headers["X-Rewritten"] == f"{apps[0].port} /x"
    assert '"COOKIE": "A=B"' in answer.text
    assert TOKEN not in answer.text.lower()
    own = [c for c in answer.headers.get_list("Set-Cookie") if c.startswith("session=")]
    assert own == [f"session=1; Path={BASE}loud/"]


def test_headers_of_the_configuration_win(configured: Server) -> None:
    with configured.client() as client:
        headers = client.get("headed/").json()["headers"]
    assert headers["Authorization"] == f"Basic {BASE}"
    assert headers["X-Own"] == "1"


def test_allow_list_as_a_function(configured: Server, apps: tuple[App, ...]) -> None:
    with configured.client() as client:
        assert client.get(f"proxy/127.0.0.1:{apps[0].port}/").status_code == 403
        assert client.get("proxy/127.0.0.2:9/").status_code == 503  # allowed; nobody is there


@pytest.mark.parametrize(
    ("asked", "counts"), [("idle/x", False), ("polled/poll", False), ("polled/x", True)]
)
def test_what_counts_as_activity(configured: Server, asked: str, counts: bool) -> None:
    before = configured.status()["last_activity"]
    time.sleep(0.02)
    with configured.client() as client:
        client.get(asked)
    assert (configured.status()["last_activity"] > before) is counts


def test_a_command_is_started_on_the_first_request(configured: Server) -> None:
    (configured.home / "hello.txt").write_text("hi")
    with configured.client() as client:
        assert client.get("started/hello.txt").text == "hi"


def test_a_command_that_does_not_start(configured: Server) -> None:
    with configured.client() as client:
        assert client.get("missing/x").status_code == 500
        assert client.post("missing/x", content=b"x" * 100_000).status_code == 500


async def test_sockets_by_name(configured: Server) -> None:
    headers = {"Authorization": f"token {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as browser:
        for name in ("plain", "socket"):
            async with browser.ws_connect(f"{configured.base}{name}/ws") as ws:
                await ws.send_str("hello")
                assert await ws.receive_str() == "/ws hello"
        async with browser.ws_connect(f"{configured.base}raw/") as ws:
            await ws.send_bytes(b"abc")
            assert await ws.receive_bytes() == b"cba"
        async with browser.get(f"{configured.base}raw/") as answer:
            assert answer.status == 405


def test_tiles_of_the_launcher(configured: Server) -> None:
    with configured.client() as client:
        listed = client.get("server-proxy/servers-info").json()["server_processes"]
        tiles = {one["launcher_entry"]["title"]: one["launcher_entry"] for one in listed}
        assert tiles["CellxGene"]["path_info"] == "labkit/cellxgene/"
        assert tiles["My server"]["path_info"] == "labkit/"
        assert tiles["Plain app"]["category"] == "Own"
        for title in ("CellxGene", "My server"):
            icon = client.get(tiles[title]["icon_url"].removeprefix(BASE))
            assert icon.headers["Content-Type"] == "image/svg+xml"
            assert "<svg" in icon.text
            assert client.get(tiles[title]["path_info"]).status_code == 200


@pytest.mark.skipif(
    find_spec("jupyter_rsession_proxy") is not None, reason="this environment has RStudio's proxy"
)
def test_an_environment_without_rstudio_says_so(configured: Server) -> None:
    with configured.client() as client:
        page = client.get("rstudio/")
    assert page.status_code == 404
    assert "profile comes without RStudio" in page.text


def test_the_package_has_the_structure_that_is_built_on() -> None:
    for handler in (stock.LocalProxyHandler, stock.RemoteProxyHandler):
        assert issubclass(streaming(handler), Streaming)
    supervised = streaming(stock.SuperviseAndProxyHandler)
    assert supervised.__mro__.index(Streaming) < supervised.__mro__.index(stock.ProxyHandler)
    assert all(hasattr(stock.ProxyHandler, name) for name in HOOKS)


def test_other_structures_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streaming(RawSocketHandler) is RawSocketHandler
    assert streaming(stock.AddSlashHandler) is stock.AddSlashHandler
    monkeypatch.delattr(stock.ProxyHandler, "_proxy_buffered")
    assert streaming(stock.LocalProxyHandler) is stock.LocalProxyHandler


def test_the_stock_extension_beside_it_is_named_in_the_log(tmp_path: Path) -> None:
    server = Server()
    extra = server.folder / "config" / "jupyter_server_config.d" / "zz.json"
    extra.write_text('{"ServerApp": {"jpserver_extensions": {"jupyter_server_proxy": true}}}')
    try:
        server.start()
        assert "jupyter_server_proxy is enabled beside labkit.server" in server.log.read_text()
        with server.client() as client:
            assert client.get("labkit/").status_code == 200
    finally:
        server.stop()
