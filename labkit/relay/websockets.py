"""WebSockets to apps: messages of any sensible size, uncompressed, with back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
from tornado import web
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from yarl import URL

from labkit.relay import unreachable
from labkit.relay.upstream import HOP_BY_HOP, outgoing

if TYPE_CHECKING:
    from jupyter_server_proxy.handlers import ProxyHandler as _Base
else:
    _Base = object

MESSAGE_BYTES = 512 << 20
# Each hop shakes hands for itself.
_HANDSHAKE = HOP_BY_HOP | {
    "content-length",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
}


class WebSocketRelay(WebSocketHandler if TYPE_CHECKING else object):  # type: ignore[misc]
    """Mixin before a WebSocket handler: passes messages between a browser and an app."""

    _app: aiohttp.ClientWebSocketResponse | None = None
    _pump: asyncio.Task[None] | None = None

    @property
    def is_websocket(self) -> bool:
        """Whether the browser asks for a WebSocket."""
        return bool(
            self.request.method == "GET"
            and self.request.headers.get("Upgrade", "").lower() == "websocket"
        )

    @property
    def max_message_size(self) -> int:
        """The largest message from the browser, in bytes."""
        return int(self.settings.get("websocket_max_message_size", MESSAGE_BYTES))

    async def dial(self, session: aiohttp.ClientSession, uri: str, headers: HTTPHeaders) -> None:
        """Call the app, before the browser is let in, so that its refusal is seen.

        Raises
        ------
        tornado.web.HTTPError
            The app refuses; with its own status.
        aiohttp.ClientError
            It does not answer.
        """
        offered = [
            word.strip()
            for line in self.request.headers.get_list("Sec-WebSocket-Protocol")
            for word in line.split(",")
            if word.strip()
        ]
        try:
            self._app = await session.ws_connect(
                URL(uri, encoded=True),
                headers=outgoing(headers, _HANDSHAKE),
                protocols=offered,
                compress=0,
                max_msg_size=0,
            )
        except aiohttp.WSServerHandshakeError as error:
            status = error.status if 400 <= error.status < 600 else 502
            raise web.HTTPError(status, f"The app refused the WebSocket: {error.message}") from None

    async def let_in(self, *args: Any, **kwargs: Any) -> None:
        """Shake hands with the browser; hangs up at the app where that fails."""
        try:
            await WebSocketHandler.get(self, *args, **kwargs)
        finally:
            if self.ws_connection is None:
                await self._hang_up()

    async def open(self, *_: Any, **__: Any) -> None:
        """Let messages pass: the browser is in."""
        self._pump = asyncio.ensure_future(self._from_app())

    def select_subprotocol(self, _offered: list[str]) -> str | None:
        """Return the protocol that the app has chosen."""
        return self._app.protocol if self._app is not None else None

    async def on_message(self, message: str | bytes) -> None:
        """Send a message of the browser on; the next is read when this one has left."""
        self.record_use()
        if self._app is None:
            return
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            if isinstance(message, bytes):
                await self._app.send_bytes(message)
            else:
                await self._app.send_str(message)

    def on_ping(self, data: bytes) -> None:
        """Leave pings to each hop: they are no use of the app."""

    def on_close(self) -> None:
        """Close the connection to the app when the browser's is closed."""
        if self._app is not None:
            task = asyncio.ensure_future(self._hang_up())
            task.add_done_callback(lambda done: done.exception())

    def record_use(self) -> None:
        """Note that the app was used."""

    async def _hang_up(self) -> None:
        app, self._app = self._app, None
        if app is None:
            return
        code = self.close_code or aiohttp.WSCloseCode.GOING_AWAY
        await app.close(code=code, message=(self.close_reason or "").encode())

    async def _from_app(self) -> None:
        app = self._app
        if app is None:
            return
        code, reason = None, None
        with contextlib.suppress(WebSocketClosedError):
            async for message in app:
                self.record_use()
                binary = message.type is aiohttp.WSMsgType.BINARY
                await self.write_message(message.data, binary=binary)
        if app.close_code and (1000 <= app.close_code <= 1014 or app.close_code >= 3000):
            code = app.close_code if app.close_code not in (1004, 1005, 1006) else None
        self.close(code, reason)


class StreamingWebSocket(WebSocketRelay, _Base):
    """Mixin before a proxy handler: the app is dialled before the browser is let in."""

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Answer a GET; for a WebSocket dial the app first, so that its refusal is seen."""
        if not self.is_websocket:
            await super().get(*args, **kwargs)
            return
        if not self.check_origin():
            raise web.HTTPError(403, "Cross-origin WebSockets are not allowed")
        # The stock chain (start the process, find the port) ends in `proxy_open`.
        await super(WebSocketRelay, self).open(*args, **kwargs)
        await self.let_in(*args, **kwargs)

    async def proxy_open(self, host: str, port: int | str, proxied_path: str = "") -> None:
        """Dial the app.

        Raises
        ------
        tornado.web.HTTPError
            The host is not allowed, or the app refuses; with the app's own status.
        """
        if not self._check_host_allowlist(host):
            raise web.HTTPError(403, f"Host '{host}' is not allowed.")
        path = proxied_path if proxied_path.startswith("/") else f"/{proxied_path}"
        uri = self.get_client_uri("http", host, port, path)
        self._record_activity()
        unix_socket = getattr(self, "unix_socket", None) or None
        session = self.upstreams.session(unix_socket)
        try:
            await self.dial(session, uri, self.proxy_request_headers())
        except aiohttp.ClientError as error:
            raise unreachable.Unreachable(host, port, unix_socket, error) from error
