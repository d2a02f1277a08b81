"""What strangers and user servers may take of the hub: connections, bodies, lines of its log."""

from __future__ import annotations

from tornado.httpserver import HTTPServer
from traitlets.config import Config

from hub.portal.merge import update
from labkit.relay import bounded_server
from labkit.relay.bounded_server import BoundedHTTPServer

_BUFFER = 2 << 20  # bytes that a connection may have unread


def configure(c: Config) -> None:
    """Limit how fast the hub's log grows, asyncio's own lines included."""
    logging_config = {
        "filters": {"limit": {"()": "labkit.base.log_limit.LogLimit"}},
        "handlers": {"console": {"filters": ["limit"]}},
        "loggers": {"asyncio": {"level": "WARNING", "handlers": ["console"], "propagate": False}},
    }
    update(c.JupyterHub, "logging_config", logging_config)


def bound_server(*, on_this_machine: bool) -> None:
    """Limit the web server that JupyterHub will make in this process.

    JupyterHub has no option for it; Tornado's classes are configurable.

    Parameters
    ----------
    on_this_machine : bool
        User servers are on the hub's own, each with an address of its own.
    """
    HTTPServer.configure(
        BoundedHTTPServer,
        max_body_size=bounded_server.BODY,
        max_buffer_size=_BUFFER,
        max_header_size=bounded_server.HEADERS,
        body_timeout=bounded_server.BODY_TIMEOUT,
        idle_connection_timeout=bounded_server.IDLE,
        most_per_address=bounded_server.OF_SANDBOX if on_this_machine else bounded_server.OF_NODE,
    )
