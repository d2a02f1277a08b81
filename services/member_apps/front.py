"""What stands before a member's code in its sandbox: only the gate's requests reach it.

The member's code runs in a process of its own and listens on a socket that nobody else enters.
This process alone knows the app's secret; neither the variable nor the header is passed on.
"""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import unquote

import aiohttp
from tornado import httputil, web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.websocket import WebSocketHandler

from labkit.relay.relay import Relay
from labkit.relay.upstream import HOP_BY_HOP, Upstreams, named_in_connection
from labkit.relay.websockets import WebSocketRelay
from services.appkit import secrets

log = logging.getLogger("labhub.webapp")

# Where Shiny reads who asks: session$user, session$groups.
_SHINY = "Shiny-Server-Credentials"
_NOT_PASSED = (secrets.HEADER, "Shiny-Shared-Secret", _SHINY)


class Front(WebSocketRelay, Relay, WebSocketHandler):
    """Every request to a member's app."""

    def initialize(self, secret: str, inner: str, upstreams: Upstreams, shiny: bool) -> None:
        """Remember where the app is."""
        self._secret = secret
        self._inner = inner
        self._upstreams = upstreams
        self._shiny = shiny

    async def prepare(self) -> None:
        """Let in the gate, and nobody else."""
        if not secrets.shown(self.request.headers.get_list(secrets.HEADER), self._secret):
            raise web.HTTPError(403)
        self.accept()
        if not self.is_websocket:
            self.begin_upload()

    def check_xsrf_cookie(self) -> None:
        """Leave it to the gate, which refuses what pages of other origins send."""

    def compute_etag(self) -> None:
        """Leave it to the app."""

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002 - tornado's signature
        """Leave it to the gate."""
        return True

    async def _pass(self, *_: Any) -> None:
        session = self._upstreams.session(self._inner)
        drop = HOP_BY_HOP | named_in_connection(self.request.headers)
        try:
            await self.exchange(session, f"http://localhost{self.request.uri}", self._sent(), drop)
        except aiohttp.ClientError as error:
            log.warning("The app did not answer: %s", type(error).__name__)
            raise web.HTTPError(502) from None

    head = post = put = patch = delete = options = _pass  # type: ignore[assignment]

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Pass a GET on, or open a WebSocket."""
        if not self.is_websocket:
            await self._pass()
            return
        session = self._upstreams.session(self._inner)
        try:
            await self.dial(session, f"http://localhost{self.request.uri}", self._sent())
        except (aiohttp.ClientError, OSError):
            raise web.HTTPError(502) from None
        await self.let_in(*args, **kwargs)

    def _sent(self) -> httputil.HTTPHeaders:
        headers = self.request.headers.copy()
        for name in _NOT_PASSED:
            headers.pop(name, None)
        if self._shiny:
            headers[_SHINY] = json.dumps(
                {
                    "user": unquote(headers.get("X-Labhub-User", "")),
                    "groups": [
                        unquote(group)
                        for group in headers.get("X-Labhub-Groups", "").split(",")
                        if group
                    ],
                }
            )
        return headers


def listen(place: str, secret: str, inner: str, *, shiny: bool) -> tuple[HTTPServer, Upstreams]:
    """Begin to serve on the app's socket, which the gate may connect to.

    Parameters
    ----------
    place : str
        The app's socket; its folder gives it the gate's group.
    secret : str
        What the gate shows.
    inner : str
        The socket of the member's code.
    shiny : bool
        Tell the app who asks in Shiny's own way.

    Raises
    ------
    ValueError
        There is no secret: anybody could say who they are.
    """
    secrets.checked(secret)
    upstreams = Upstreams()
    known = {"secret": secret, "inner": inner, "upstreams": upstreams, "shiny": shiny}
    app = web.Application([(r"/.*", Front, known)], log_function=lambda _: None)
    server = HTTPServer(app, idle_connection_timeout=75)
    server.add_socket(bind_unix_socket(place, mode=0o660))
    return server, upstreams
