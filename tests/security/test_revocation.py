"""A revoked token, a lost right: out of a person's server, and of what is open there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError
from tornado.websocket import WebSocketHandler, websocket_connect

from labkit.server.revocation import FRESH, Revocation
from tests.conftest import needs_env, needs_root
from tests.support.http_client import LocalhostTransport
from tests.support.portal import Portal, portal

MODEL = {"name": "ada", "scopes": ["access:servers!user=ada"]}


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Hub:
    """Stands for JupyterHub's HubOAuth in a server."""

    cache_max_age = 300
    access_scopes = frozenset({"access:servers!user=ada"})

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"one": MODEL, "two": MODEL}

    def get_token(self, handler: WebSocketHandler) -> str:
        return handler.get_argument("token")

    def get_session_id(self, _: WebSocketHandler) -> str:
        return ""

    async def user_for_token(self, token: str, **_: object) -> Any:
        answer = self.answers[token]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def check_scopes(self, wanted: frozenset[str], model: dict[str, Any]) -> set[str]:
        return set(wanted) & set(model["scopes"])


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Hub, Revocation, list[Any]]]:
    hub, application = Hub(), Application([(r"/first", Echo)])
    application.add_handlers(".*", [(r"/later", Echo)])
    watch = Revocation(application, hub, every=3600)
    watch.start()
    server = HTTPServer(application)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    address = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
    opened = [
        await websocket_connect(f"{address}/{path}?token={token}")
        for path, token in (("first", "one"), ("later", "one"), ("later", "two"))
    ]
    yield hub, watch, opened
    watch.stop()
    for one in opened:
        one.close()
    server.stop()


async def is_open(connection: Any) -> bool:
    with contextlib.suppress(Exception):
        await connection.write_message("here")
        return bool(await asyncio.wait_for(connection.read_message(), 60) == "here")
    return False


@pytest.mark.parametrize("answer", [None, {**MODEL, "scopes": []}])
async def test_who_is_out_loses_what_is_open(
    scene: tuple[Hub, Revocation, list[Any]], answer: Any
) -> None:
    hub, watch, opened = scene
    await watch.look()
    assert [await is_open(one) for one in opened] == [True, True, True]
    hub.answers["one"] = answer
    await watch.look()
    assert [await is_open(one) for one in opened] == [False, False, True]
    await watch.look()
    assert await is_open(opened[2])


async def test_a_hub_that_is_away_throws_nobody_out(
    scene: tuple[Hub, Revocation, list[Any]],
) -> None:
    hub, watch, opened = scene
    hub.answers = dict.fromkeys(hub.answers, HTTPError(500))
    await watch.look()
    assert [await is_open(one) for one in opened] == [True, True, True]
    assert hub.cache_max_age == FRESH <= 10


@pytest.fixture(scope="module")
def lab(ada: str, bob: str) -> Iterator[Portal]:
    guests = {
        "name": "guests-of-ada",
        "scopes": [f"access:servers!user={ada}"],
        "groups": ["guests"],
    }
    with portal(
        {"groups": {"guests": [bob]}}, config=f"c.JupyterHub.load_roles.append({guests})\n"
    ) as running:
        running.spawn(ada, "notebook", timeout=120)
        yield running


def may_enter(lab: Portal, owner: str, token: str) -> bool:
    headers = {"Authorization": f"token {token}"}
    with httpx.Client(transport=LocalhostTransport(), headers=headers, timeout=60) as client:
        return client.get(lab.user_url(owner, "api/status")).status_code == 200


def wait_until_out(lab: Portal, owner: str, token: str) -> None:
    """Wait until a token opens a server no more."""
    began = time.monotonic()
    # The old five minutes are far beyond what a busy machine may add.
    while may_enter(lab, owner, token):
        assert time.monotonic() - began < 120
        time.sleep(0.5)


@needs_root
@needs_env("notebook")
def test_a_revoked_token_opens_the_server_no_more(lab: Portal, ada: str) -> None:
    made = lab.api("POST", f"/users/{ada}/tokens", json={"expires_in": 3600}).json()
    assert may_enter(lab, ada, made["token"])
    lab.api("DELETE", f"/users/{ada}/tokens/{made['id']}")
    wait_until_out(lab, ada, made["token"])


@needs_root
@needs_env("notebook")
async def test_what_a_group_gave_goes_with_it(lab: Portal, ada: str, bob: str) -> None:
    """A group may enter Ada's server; who leaves it is out, also of what is open there."""
    made = await asyncio.to_thread(
        lab.api, "POST", f"/users/{bob}/tokens", json={"expires_in": 3600}
    )
    token = made.json()["token"]
    assert await asyncio.to_thread(may_enter, lab, ada, token)
    host = f"{ada}.localhost:{lab.port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Authorization": f"token {token}"}
    url = f"http://127.0.0.1:{lab.port}/user/{ada}/api/events/subscribe"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers) as open_,
    ):
        left = await asyncio.to_thread(
            lab.api, "DELETE", "/groups/guests/users", json={"users": [bob]}
        )
        assert left.status_code == 200, left.text
        await asyncio.to_thread(wait_until_out, lab, ada, token)
        # Of itself it stays open for ever.
        async with asyncio.timeout(120):
            while (message := await open_.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
