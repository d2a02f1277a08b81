"""Pages of other origins against the apps behind ``/proxy/PORT/``, with the victim's cookie."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import httpx
import pytest
from aiohttp import web

from tests.labkit.server.conftest import FOREIGN, App, Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    made = App()

    @made.on("*", "/act")
    async def act(request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            return socket
        return web.Response(text="done")

    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def victim(server: Server) -> Iterator[httpx.Client]:
    """A browser that is logged in by a cookie alone."""
    with server.cookie_client() as client:
        yield client


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_foreign_page_cannot_act_at_an_app(
    victim: httpx.Client, app: App, headers: dict[str, str], method: str
) -> None:
    seen = len(app.seen)
    answer = victim.request(
        method,
        f"proxy/{app.port}/act",
        content=b"x=1",
        headers={**headers, "Content-Type": "text/plain"},
    )
    assert answer.status_code == 403
    assert "another page" in answer.text
    assert len(app.seen) == seen, "the app was asked"


def test_the_apps_own_page_may(server: Server, victim: httpx.Client, app: App) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    for method in ("POST", "PUT", "DELETE"):
        assert victim.request(method, f"proxy/{app.port}/act", headers=own).text == "done"
    # A link from elsewhere is welcome, and so is a program without a browser.
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert victim.get(f"proxy/{app.port}/act", headers=link).text == "done"
    assert victim.post(f"proxy/{app.port}/act").text == "done"
    # A token is sent by whom it belongs to, never by a browser of itself.
    with server.client(headers=FOREIGN[1]) as program:
        assert program.post(f"proxy/{app.port}/act").text == "done"


def test_a_foreign_page_cannot_read_by_embedding(victim: httpx.Client, app: App) -> None:
    embedded = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
    assert victim.get(f"proxy/{app.port}/act", headers=embedded).status_code == 403


@pytest.mark.parametrize("headers", [*FOREIGN[:4], {}])
async def test_a_foreign_page_opens_no_websocket(
    server: Server, victim: httpx.Client, app: App, headers: dict[str, str]
) -> None:
    seen = len(app.seen)
    url = f"{server.base}proxy/{app.port}/act".replace("http://", "ws://")
    cookies = "; ".join(f"{name}={value}" for name, value in victim.cookies.items())
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url, headers={**headers, "Cookie": cookies})
        assert refusal.value.status == 403
        assert len(app.seen) == seen
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Cookie": cookies}
        async with session.ws_connect(url, headers=own) as opened:
            assert not opened.closed
