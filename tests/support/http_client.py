"""HTTP to the portals and servers of the tests: on this machine, and in the clear.

httpx reads all certificates of the web for each client, which costs more than most requests.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpx


@cache
def no_authorities() -> ssl.SSLContext:
    """Return a context for clients that meet no https: it believes nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(**options: Any) -> httpx.Client:
    """Return a client with a connection for each request, so that restarts do not reach into it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(**{"verify": no_authorities(), "timeout": 60, "limits": limits, **options})


class LocalhostTransport(httpx.HTTPTransport):
    """Sends ``*.localhost`` to 127.0.0.1, as browsers do."""

    def __init__(self) -> None:
        super().__init__(verify=no_authorities())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host.endswith(".localhost"):
            request = httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        return super().handle_request(request)
