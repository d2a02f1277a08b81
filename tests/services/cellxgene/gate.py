"""A stand-in for the gate: the real app on its Unix socket, asked with the gate's headers.

A second door, on a port, knows people by tokens: it is what a notebook's ``labkit`` talks to.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp import web

from labkit.base.ports import free_port
from labkit.viewers.cellxgene.memory import limit
from services.appkit.launch import Portal
from services.appkit.published.store import FolderStore, Store
from services.cellxgene.app import Parts, make_app
from services.cellxgene.keys import CATALOGUE, POOL, UPLOADS
from services.cellxgene.pool import Limits as PoolLimits
from services.cellxgene.pool import Pool
from services.cellxgene.records import LAYOUT
from services.cellxgene.uploads import Limits as UploadLimits
from tests.support.portal import built_envs

SECRET = "a secret of the app's own, long enough"
PREFIX = "/services/cellxgene/"
HOST = "cellxgene--service.localhost"


@dataclass(frozen=True)
class Who:
    """A person, as the hub knows them."""

    name: str
    groups: tuple[str, ...] = ()
    admin: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-Labhub-User": self.name,
            "X-Labhub-Groups": ",".join(self.groups),
            "X-Labhub-Admin": "true" if self.admin else "false",
            "X-Labhub-App-Secret": SECRET,
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": HOST,
        }


ADA = Who("ada", ("imaging", "blood"))
BOB = Who("bob", ("imaging",))
EVE = Who("eve", ("plants",))
ROOT = Who("root", (), True)
PEOPLE = {one.name: one for one in (ADA, BOB, EVE, ROOT)}


@dataclass
class Service:
    """The running app, in a thread with its own loop.

    Parameters
    ----------
    folder : Path
        For its data; short, since there are sockets below it.
    """

    folder: Path
    store: Store[Any, Any] | None = None
    viewers: Mapping[str, Any] = field(default_factory=dict)
    uploads: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket = self.folder / "app.sock"
        self.port = free_port()
        memory = self.viewers.get("memory", limit())
        parts = Parts(
            portal=Portal(PREFIX, SECRET),
            store=self.store or FolderStore(self.folder / "datasets", LAYOUT),
            folder=self.folder,
            python=built_envs() / "cellxgene/bin/python",
            viewers=PoolLimits(**{"memory": memory, "settle": 0.5, **self.viewers}),
            uploads=UploadLimits(**{"memory": memory, **self.uploads}),
        )
        self._parts = parts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._up = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread.start()
        assert self._up.wait(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self.app = make_app(self._parts)
        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        door = web.AppRunner(_door(str(self.socket)), access_log=None)
        await door.setup()
        await web.TCPSite(door, "127.0.0.1", self.port).start()
        self._up.set()
        await self._stop.wait()
        await door.cleanup()
        await runner.cleanup()

    def close(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine in the app's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def pool(self) -> Pool:
        return self.app[POOL]

    @property
    def catalogue(self) -> Any:
        return self.app[CATALOGUE]

    @property
    def uploading(self) -> Any:
        return self.app[UPLOADS]

    @property
    def url(self) -> str:
        """The door for ``labkit``."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, who: Who | None = None, **headers: str) -> httpx.Client:
        """Return a client as the gate would be for a person."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url=f"http://{HOST}{PREFIX}",
            headers={**(who.headers if who else {}), **headers},
            timeout=60,
        )


def _door(socket: str) -> web.Application:
    """Pass requests on, streaming: a token is a person's name. No wall, unlike the real gate."""

    async def relay(request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("token ")
        who = PEOPLE.get(token) or PEOPLE.get(request.cookies.get("who", ""))
        if who is None:
            return web.json_response({"message": "Who are you?"}, status=403)
        sent = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        sent |= who.headers
        connector = aiohttp.UnixConnector(socket)
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(
                request.method,
                request.url.with_host("app"),
                headers=sent,
                data=request.content.iter_any() if request.body_exists else None,
                allow_redirects=False,
            ) as answer,
        ):
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    return app


_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "authorization", "host"})


@contextlib.contextmanager
def running(folder: Path, **kwargs: Any) -> Iterator[Service]:
    service = Service(folder, **kwargs)
    try:
        yield service
    finally:
        service.close()
