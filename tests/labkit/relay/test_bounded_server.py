"""A body that is too large is answered, whichever way it comes, and the next request as well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from labkit.relay.bounded_server import BODY, BODY_TIMEOUT, BoundedHTTPServer


class Whole(web.RequestHandler):
    def post(self) -> None:
        self.write({"bytes": len(self.request.body)})


@web.stream_request_body
class Streaming(web.RequestHandler):
    """As the one that takes members' apps: it asks for more itself."""

    received = 0

    def prepare(self) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(8 * BODY)

    def data_received(self, chunk: bytes) -> None:
        self.received += len(chunk)

    def post(self) -> None:
        self.write({"bytes": self.received})


@pytest.fixture
async def address() -> AsyncIterator[str]:
    routes = [("/api/whole", Whole), ("/whole", Whole), ("/streaming", Streaming)]
    server = BoundedHTTPServer(
        web.Application(routes), xheaders=True, max_body_size=BODY, body_timeout=BODY_TIMEOUT
    )
    assert isinstance(server, HTTPServer)
    (socket,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([socket])
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize("size", [0, BODY, BODY + 1, 40 * BODY])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_over_the_limit_is_answered_with_413(
    address: str, size: int, chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, size, 1000):
            yield b"x" * min(1000, size - first)

    async with httpx.AsyncClient(timeout=60) as client:
        content = pieces() if chunked else b"x" * size
        answer = await client.post(f"{address}/api/whole", content=content)
        if size <= BODY:
            assert answer.json() == {"bytes": size}
        else:
            assert answer.status_code == 413
            assert answer.json()["status"] == 413
            assert "larger than 64" in answer.json()["message"]
        again = await client.post(f"{address}/whole", content=b"next")
        assert again.json() == {"bytes": 4}


async def test_a_page_is_told_in_words(address: str) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{address}/whole", content=b"x" * (BODY + 1))
    assert answer.status_code == 413
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "larger than 64" in answer.text


async def test_whoever_takes_bodies_in_pieces_has_a_limit_of_his_own(address: str) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{address}/streaming", content=b"x" * (4 * BODY))
    assert answer.json() == {"bytes": 4 * BODY}


async def test_what_is_never_sent_is_answered_before(address: str) -> None:
    """A request that says its length and waits, as with ``Expect: 100-continue``."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/whole HTTP/1.1\r\nHost: {host}\r\nContent-Length: {1 << 50}\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    async with asyncio.timeout(60):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].split()[0])
        body = json.loads(await reader.readexactly(length))
    assert head.startswith("HTTP/1.1 413 ")
    assert body["status"] == 413
    writer.close()
