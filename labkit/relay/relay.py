"""One request passed on to an app, streaming both ways: what every proxy of ours is made of.

`Relay` is a mixin before a Tornado handler. Who may come in, where the app is and what may
pass are the handler's own: `labkit.server.proxy` inside a user's server, the gate of the
portal's apps.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
from tornado import httputil, iostream, web
from yarl import URL

from labkit.relay.upload import Upload
from labkit.relay.upstream import incoming, outgoing

if TYPE_CHECKING:
    _Base = web.RequestHandler
else:
    _Base = object

_UNLIMITED = 1 << 62
_UPLOAD = 7 * 86400.0  # seconds
_LINGER_BYTES = 64 << 20
_IGNORED_BYTES = 16 << 20


class Relay(_Base):
    """Mixin before a handler: the body streams to the app while it arrives, and back."""

    _stream_request_body = True  # what tornado.web.stream_request_body sets
    _upload: Upload | None = None
    _exchange: asyncio.Task[None] | None = None
    _client_gone = False
    _accepted = False
    _late: Exception | None = None
    _ignored = 0

    # -- the request's body -----------------------------------------------------------

    def set_default_headers(self) -> None:
        """Say that the connection ends with this answer, where Tornado will close it.

        It does so after an answer that comes before the body was read (a login page, a
        refusal). A proxy in front that is not told sends the next person's request into
        the closing connection, and they get a 503.
        """
        super().set_default_headers()
        if not self._accepted:
            self._headers["Connection"] = "close"

    def accept(self) -> None:
        """Let the request in; call it last in ``prepare``."""
        self._accepted = True
        self._headers.pop("Connection", None)

    @property
    def has_body(self) -> bool:
        """Whether a body comes with the request."""
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"

    def begin_ignoring(self, error: Exception) -> None:
        """Read the body and forget it, up to a limit; the handler's method then raises."""
        self._late = error
        self._expect_any_body()

    def begin_upload(self) -> None:
        """Start the handler's method now where a body comes; call it after `accept`.

        Tornado calls the method only once the body is complete.
        """
        if not self.has_body:
            return
        self._expect_any_body()
        self._upload = Upload()
        name = (self.request.method or "").lower()
        method = getattr(self, name)
        task = asyncio.ensure_future(_awaited(method(*self.path_args, **self.path_kwargs)))
        task.add_done_callback(_seen)
        self._upload_answer = task

        async def join(*_: Any, **__: Any) -> None:
            if self._upload is not None:
                self._upload.end()
            await task

        setattr(self, name, join)

    def _expect_any_body(self) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(_UNLIMITED)
        connection.set_body_timeout(_UPLOAD)

    async def data_received(self, chunk: bytes) -> None:
        """Hand a piece of the body on; returns when there is room for the next."""
        upload = self._upload
        if upload is None:
            self._ignored += len(chunk)
            if self._late and self._ignored > _IGNORED_BYTES and not self._finished:
                self._handle_request_exception(self._late)
            return
        task = self._upload_answer
        if not task.done():
            await upload.put(chunk, unless=task)
        if task.done():
            # The app has answered without reading on: be polite for a while.
            upload.ignored += len(chunk)
            if upload.ignored > _LINGER_BYTES and not self._finished:
                error = task.exception()
                if error is not None:
                    self._handle_request_exception(error)
                else:
                    self._finish_early()

    def _finish_early(self) -> None:
        with contextlib.suppress(iostream.StreamClosedError):
            web.RequestHandler.finish(self)

    def on_connection_close(self) -> None:
        """Stop the exchange with the app when the browser has gone."""
        self._client_gone = True
        if self._upload is not None:
            self._upload.abort()
        if self._exchange is not None:
            self._exchange.cancel()
        super().on_connection_close()

    # -- the exchange -----------------------------------------------------------------

    async def exchange(
        self,
        session: aiohttp.ClientSession,
        uri: str,
        headers: httputil.HTTPHeaders,
        drop: frozenset[str],
    ) -> None:
        """Pass the request on and the answer back; ends early where the browser goes away.

        Parameters
        ----------
        session : aiohttp.ClientSession
            The app's connections.
        uri : str
            The app's address for this request, encoded.
        headers : HTTPHeaders
            What the app gets.
        drop : frozenset of str
            Headers of this connection alone.

        Raises
        ------
        aiohttp.ClientError
            The app did not answer.
        """
        self._exchange = asyncio.ensure_future(self._relay(session, uri, headers, drop))
        try:
            await self._exchange
        except asyncio.CancelledError:
            if not self._client_gone:
                raise

    async def _relay(
        self,
        session: aiohttp.ClientSession,
        uri: str,
        headers: httputil.HTTPHeaders,
        drop: frozenset[str],
    ) -> None:
        if self._upload is None:
            headers.pop("Content-Length", None)
        async with session.request(
            self.request.method or "GET",
            URL(uri, encoded=True),
            headers=outgoing(headers, drop),
            data=self._upload.chunks() if self._upload is not None else None,
            allow_redirects=False,
        ) as response:
            self._answer(response)
            try:
                await self._copy(response)
            except iostream.StreamClosedError:
                response.close()  # the browser has gone: the app need not go on
            except (aiohttp.ClientError, ConnectionError) as error:
                self.broke_off(error)
                # An end that looks proper would pass off a part as the whole.
                self.request.connection.close()  # type: ignore[union-attr]
            finally:
                self.record_use()

    def _answer(self, response: aiohttp.ClientResponse) -> None:
        self.set_status(response.status, response.reason)
        self._headers = httputil.HTTPHeaders()
        for name, value in incoming(response):
            confined = self.confine_header(name, value)
            if confined is not None:
                self._headers.add(name, confined)
        self.complete_headers()

    async def _copy(self, response: aiohttp.ClientResponse) -> None:
        # A mixin's own write and flush may drop the future that says "written".
        await web.RequestHandler.flush(self)
        if self.request.method == "HEAD":
            return
        async for chunk in response.content.iter_any():
            web.RequestHandler.write(self, chunk)
            await web.RequestHandler.flush(self)

    # -- what a handler says about it -------------------------------------------------

    def confine_header(self, name: str, value: str) -> str | None:  # noqa: ARG002
        """Return a header of the app's answer as the browser gets it; None: not at all."""
        return value

    def complete_headers(self) -> None:
        """Add to the answer's headers what the app has left out."""

    def record_use(self) -> None:
        """Note that the app was used."""

    def broke_off(self, error: Exception) -> None:
        """Note that the app did not finish its answer."""


async def _awaited(result: Any) -> None:
    if result is not None:
        await result


def _seen(task: asyncio.Task[None]) -> None:
    """Mark a task's error as seen: whoever joins it gets it again."""
    if not task.cancelled():
        task.exception()
