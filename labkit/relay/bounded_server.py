"""A web server that nobody can exhaust: so many connections from one address, and no more."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

BODY = 64 << 10  # bytes of a request's body, where a handler does not ask for more
BODY_TIMEOUT = 60.0  # seconds for such a body
HEADERS = 1 << 20  # bytes of a request's headers: more than all cookies that browsers keep
IDLE = 75.0  # seconds that a connection may wait for its next request
OF_SANDBOX = 64  # connections from one address
OF_NODE = 1024  # of a cluster, with many people's servers
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

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection."""
        super().on_close(server_conn)
        address = server_conn.context.address
        peer = str(address[0]) if address else ""
        self._of_address[peer] -= 1
        if self._of_address[peer] <= 0:
            del self._of_address[peer]
