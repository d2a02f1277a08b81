"""A web server that nobody can exhaust: so many connections from one address, and no more.

A body that is too large is dropped as it comes, and then answered (413). Tornado would close the
connection under the request that is being sent, of which programs and proxies see only that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from labkit.base.units import format_size

BODY = 64 << 10  # bytes of a request's body, where a handler does not ask for more
BODY_TIMEOUT = 60.0  # seconds for such a body
HEADERS = 1 << 20  # bytes of a request's headers: more than all cookies that browsers keep
IDLE = 75.0  # seconds that a connection may wait for its next request
OF_SANDBOX = 64  # connections from one address
OF_NODE = 1024  # of a cluster, with many people's servers
_ENDLESS = 1 << 62  # bytes that may be dropped; the time for a body bounds them
_LOOPBACK = "127."  # the proxy: everybody's browser comes from there


class BoundedHTTPServer(HTTPServer):
    """Tornado's server with a limit on the connections from each address.

    Parameters
    ----------
    most_per_address : int
        Connections from one address at once; this host's own are not counted.
    *args, **kwargs
        As of `tornado.httpserver.HTTPServer`.
    """

    def initialize(  # type: ignore[override]
        self, *args: Any, most_per_address: int = OF_SANDBOX, **kwargs: Any
    ) -> None:
        """Take the limit; Tornado's configurable classes have this in place of ``__init__``."""
        super().initialize(*args, **kwargs)
        self._most_per_address = most_per_address
        self._of_address: Counter[str] = Counter()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, or close it where its address has too many."""
        peer = str(address[0]) if address else ""
        if self._of_address[peer] >= self._most_per_address and not peer.startswith(_LOOPBACK):
            stream.close()
            return
        self._of_address[peer] += 1
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """Serve a request, or refuse it for its body."""
        serving = super().start_request(server_conn, request_conn)
        return _BoundedBody(serving, request_conn, self.conn_params.max_body_size or BODY)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection."""
        super().on_close(server_conn)
        address = server_conn.context.address
        peer = str(address[0]) if address else ""
        self._of_address[peer] -= 1
        if self._of_address[peer] <= 0:
            del self._of_address[peer]


class _BoundedBody(HTTPMessageDelegate):
    """Hands a request on while its body is no larger than that.

    Handlers that take a body piece by piece have a limit of their own, which stays theirs.
    """

    def __init__(self, serving: HTTPMessageDelegate, connection: Any, most: int) -> None:
        self._serving = serving
        self._connection: HTTPConnection = connection
        self._drop = connection.set_max_body_size
        self._most = most
        self._own_limit = True
        self._left = most
        self._refused = False
        self._path = ""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Look at the length that the request says."""
        awaited = self._serving.headers_received(start_line, headers)
        handler = self._serving
        while inner := getattr(handler, "delegate", None):
            handler = inner
        self._own_limit = bool(getattr(handler, "stream_request_body", False))
        if self._own_limit:
            return awaited
        self._path = start_line.path if isinstance(start_line, RequestStartLine) else ""
        length = headers.get("Content-Length", "")
        self._refused = length.isdecimal() and int(length) > self._most
        if self._refused and headers.get("Expect", "").lower() == "100-continue":
            self._refuse()  # nothing is being sent that would have to be read first
        elif self._refused or "Transfer-Encoding" in headers:  # or its length is not said
            self._drop(_ENDLESS)
        return awaited

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Count what came, and drop it where it is too much."""
        self._left -= len(chunk)
        if self._own_limit:
            return self._serving.data_received(chunk)
        self._refused = self._refused or self._left < 0
        return None if self._refused else self._serving.data_received(chunk)

    def finish(self) -> None:
        """Answer."""
        if self._refused:
            self._refuse()
        else:
            self._serving.finish()

    def on_connection_close(self) -> None:
        """Tell that the client is gone."""
        self._serving.on_connection_close()

    def _refuse(self) -> None:
        text = f"The request is larger than {format_size(self._most)}, the most that is taken here."
        body, kind = f"{text}\n", "text/plain; charset=utf-8"
        if "/api/" in self._path:
            body, kind = json.dumps({"status": 413, "message": text}), "application/json"
        headers = HTTPHeaders(
            {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
        )
        line = ResponseStartLine("HTTP/1.1", 413, "Request Entity Too Large")
        self._connection.write_headers(line, headers, body.encode())
        self._connection.finish()
