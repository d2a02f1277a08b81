"""Connections to the apps: pooled, kept alive, nothing of them decoded or followed."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from tornado.httputil import HTTPHeaders

# Of one connection, not of the message: RFC 9110, 7.6.1; and what each hop answers itself.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OF_THE_MESSAGE = frozenset(
    {"authorization", "content-length", "content-type", "cookie", "host", "set-cookie"}
)
BUFFER = 1 << 20
_CONNECT_SECONDS = 30.0
_IDLE_SECONDS = 4.0  # less than the 5 s after which uvicorn and Node close
_HEADER_BYTES = 64 << 10


class Upstreams:
    """One client session per place that apps listen at.

    Parameters
    ----------
    unix : callable, optional
        Makes the connector for a Unix socket, from its path and aiohttp's own parameters.
    """

    def __init__(self, unix: Callable[..., aiohttp.BaseConnector] | None = None) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._unix = unix or aiohttp.UnixConnector

    def session(self, unix_socket: str | None = None) -> aiohttp.ClientSession:
        """Return the session for TCP ports, or for one Unix socket."""
        key = unix_socket or ""
        session = self._sessions.get(key)
        if session is None or session.closed:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=self._connector(unix_socket),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=BUFFER,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return session

    def _connector(self, unix_socket: str | None) -> aiohttp.BaseConnector:
        if unix_socket:
            return self._unix(unix_socket, limit=0, keepalive_timeout=_IDLE_SECONDS)
        return aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=_IDLE_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def named_in_connection(headers: HTTPHeaders) -> frozenset[str]:
    """Return the headers that the sender calls those of its connection alone."""
    words = {w.strip().lower() for v in headers.get_list("Connection") for w in v.split(",")}
    # It may not hide the message's own headers in this way.
    return frozenset(words - {"", *_OF_THE_MESSAGE})


def outgoing(headers: HTTPHeaders, drop: frozenset[str]) -> list[tuple[str, str]]:
    """Return a request's headers as aiohttp sends them, without those of the connection."""
    return [(k, _utf8(v)) for k, v in headers.get_all() if k.lower() not in drop]


def _utf8(value: str) -> str:
    """Return a header as aiohttp will encode it back to the bytes that came (Tornado: latin-1)."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def incoming(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    """Return a response's headers as Tornado sends them, without those of the connection."""
    headers = HTTPHeaders()
    for name, value in response.raw_headers:
        headers.add(name.decode("latin-1"), value.decode("latin-1"))
    drop = HOP_BY_HOP | named_in_connection(headers)
    return [(k, v) for k, v in headers.get_all() if k.lower() not in drop]
