"""WebSockets through the proxy of a real Jupyter server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from labkit.base.ports import free_port
from tests.labkit.server.conftest import TOKEN, App, Server, wait_for

MB = 1 << 20


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    app = App()

    @app.on("GET", "/ws")
    async def echo(request: web.Request) -> web.WebSocketResponse:
        if "refuse" in request.query:
            raise web.HTTPForbidden(text="no")
        app.notes["headers"] = [(k, v) for k, v in request.headers.items()]
        app.notes["path"] = request.path_qs
        app.notes["closed"] = None
        socket = web.WebSocketResponse(max_msg_size=0, protocols=("second", "third"))
        await socket.prepare(request)
        async for message in socket:
            if message.data == "close":
                await socket.close(code=4001, message=b"enough")
            elif message.data == "big":
                await socket.send_bytes(bytes(100 * MB))
            elif message.data == "flood":
                for number in range(300):
                    await socket.send_bytes(bytes(MB))
                    app.notes["flood"] = number
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_str(hashlib.sha256(message.data).hexdigest())
        app.notes["closed"] = socket.close_code
        return socket

    app.start()
    yield app
    app.stop()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": f"token {TOKEN}"}) as session:
        yield session


def address(server: Server, app: App, rest: str = "/ws") -> str:
    return f"{server.base}proxy/{app.port}{rest}"


async def test_text_and_bytes_both_ways(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    async with browser.ws_connect(address(server, app)) as ws:
        await ws.send_str("é 測")
        assert await ws.receive_str() == "é 測"
        await ws.send_bytes(b"\0\xff")
        assert await ws.receive_str() == hashlib.sha256(b"\0\xff").hexdigest()
        await ws.send_str("")
        assert await ws.receive_str() == ""


async def test_messages_of_100_mb_both_ways(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    async with browser.ws_connect(address(server, app), max_msg_size=0) as ws:
        await ws.send_bytes(bytes(100 * MB))
        digest = await ws.receive_str(timeout=60)
        assert digest == hashlib.sha256(bytes(100 * MB)).hexdigest()
        await ws.send_str("big")
        assert len(await ws.receive_bytes(timeout=60)) == 100 * MB


async def test_a_slow_browser_slows_the_app(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    server.reset_rss()
    before = server.rss()
    async with browser.ws_connect(address(server, app), max_msg_size=0) as ws:
        await ws.send_str("flood")
        total = 0
        for _ in range(300):
            total += len(await ws.receive_bytes(timeout=30))
        assert total == 300 * MB
    assert server.rss() - before < 60 * MB


async def test_the_app_is_offered_no_compression_and_no_secrets(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    headers = {"Cookie": "jupyterhub-session-id=x; session=app", "X-App": "yes"}
    where = f"{address(server, app)}?token={TOKEN}&a=1"
    async with browser.ws_connect(where, compress=15, headers=headers) as ws:
        await ws.send_str("x")
        await ws.receive_str()
    seen = dict(app.notes["headers"])
    assert "Sec-WebSocket-Extensions" not in seen
    assert seen["Cookie"] == "session=app"
    assert seen["X-App"] == "yes"
    assert app.notes["path"] == "/ws?a=1"
    assert TOKEN not in str(app.notes["headers"])


async def test_the_app_chooses_the_subprotocol(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    where = address(server, app)
    async with browser.ws_connect(where, protocols=("first", "second")) as ws:
        assert ws.protocol == "second"
    async with browser.ws_connect(where) as ws:
        assert ws.protocol is None


async def test_the_apps_close_code_reaches_the_browser(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    async with browser.ws_connect(address(server, app)) as ws:
        await ws.send_str("close")
        message = await ws.receive(timeout=10)
        assert message.type is WSMsgType.CLOSE
        assert ws.close_code == 4001


async def test_the_browsers_close_code_reaches_the_app(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    ws = await browser.ws_connect(address(server, app))
    await ws.close(code=4002)
    wait_for(lambda: app.notes["closed"] == 4002)


async def test_a_browser_that_vanishes_frees_the_app(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    ws = await browser.ws_connect(address(server, app))
    transport: Any = ws._response.connection.transport  # type: ignore[union-attr]
    transport.abort()
    await asyncio.to_thread(wait_for, lambda: app.notes["closed"] is not None)


async def test_a_refusal_of_the_app_is_seen(
    server: Server, app: App, browser: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await browser.ws_connect(address(server, app, "/ws?refuse"))
    assert error.value.status == 403


async def test_nothing_there(server: Server, browser: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await browser.ws_connect(f"{server.base}proxy/{free_port()}/ws")
    assert error.value.status == 503


async def test_strangers_are_refused(server: Server, app: App) -> None:
    app.seen.clear()
    async with aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await stranger.ws_connect(address(server, app))
        assert error.value.status == 403
    assert app.seen == []


async def test_pages_of_other_origins_are_refused(server: Server, app: App) -> None:
    app.seen.clear()
    with server.client() as client:
        client.get("api/status")
        cookie = "; ".join(f"{k}={v}" for k, v in client.cookies.items())
    async with aiohttp.ClientSession(headers={"Cookie": cookie}) as victim:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await victim.ws_connect(address(server, app), origin="http://evil.example")
        assert error.value.status == 403
        assert app.seen == []
        own = server.base.removesuffix("/user/ada/")
        async with victim.ws_connect(address(server, app), origin=own) as ws:
            await ws.send_str("x")
            assert await ws.receive_str() == "x"


async def test_other_hosts_are_refused(server: Server, browser: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await browser.ws_connect(f"{server.base}proxy/10.0.0.1:80/ws")
    assert error.value.status == 403
