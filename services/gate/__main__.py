"""Run the gate: ``python -m services.gate FILE``, with its key in ``LABHUB_GATE_KEY``."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import signal
import ssl
import sys
from pathlib import Path

from tornado import web
from tornado.netutil import bind_sockets

from labkit.base.log_limit import LogLimit
from labkit.relay import bounded_server
from labkit.relay.bounded_server import BoundedHTTPServer
from services.gate import keys, pages
from services.gate.app_registry import AppRegistry
from services.gate.config import Portal
from services.gate.error_page import ErrorPage
from services.gate.handler import Callback, Gate, Messages, State

log = logging.getLogger("labhub.gate")

KEY = "LABHUB_GATE_KEY"
_GRACE = 5.0  # seconds for what is under way when the gate ends


def application(registry: AppRegistry, key: str) -> web.Application:
    """Return the gate as a web application.

    Parameters
    ----------
    registry : AppRegistry
        The apps.
    key : str
        The gate's key.
    """
    app = r"/services/[a-z0-9-]+"
    return web.Application(
        [
            (rf"{app}/oauth_callback", Callback, {"registry": registry}),
            (rf"{app}/\.labhub/state", State, {"registry": registry}),
            (rf"{app}/\.labhub/messages", Messages, {"registry": registry}),
            (r"/error/([45]\d\d)", ErrorPage, {"registry": registry}),
            (rf"{app}/\.labhub/static/([a-z.]+)", pages.Static),
            (rf"{app}(?:/.*)?", Gate, {"registry": registry}),
        ],
        cookie_secret=keys.derived(key, keys.COOKIES),
        portal=registry.portal,
        log_function=_log_request,
    )


def _log_request(handler: web.RequestHandler) -> None:
    # Tornado's own line has the query, which may hold a token.
    request = handler.request
    level = logging.WARNING if handler.get_status() >= 500 else logging.DEBUG
    log.log(level, "%s %s %s", handler.get_status(), request.method, request.path)


def give_up_root(name: str) -> None:
    """Become another account for good; nothing of root is left.

    Raises
    ------
    OSError, KeyError
        There is no such account, or it is root's own.
    """
    account = pwd.getpwnam(name)
    if account.pw_uid == 0:
        raise OSError(f"{name} is root")
    os.setgroups([group.gr_gid for group in grp.getgrall() if name in group.gr_mem])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def tls(portal: Portal) -> ssl.SSLContext | None:
    """Return how the gate speaks to people's servers elsewhere; None: by plain HTTP."""
    if not portal.key:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(portal.certificate, portal.key)
    context.load_verify_locations(portal.clients)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(file: Path, key: str) -> None:
    """Serve until a signal comes."""
    registry = AppRegistry(file, key)
    portal = registry.portal
    # With root's rights still: the key is not for the gate's own account.
    secure = tls(portal)
    everywhere = portal.outside == "0.0.0.0"  # noqa: S104 - the lab file's word
    sockets = [] if everywhere else bind_sockets(portal.port, "127.0.0.1")
    outside = bind_sockets(portal.port, portal.outside) if portal.outside else []
    if registry.portal.account and os.geteuid() == 0:
        give_up_root(registry.portal.account)
    servers = []
    for places, context in ((sockets, None), (outside, secure)):
        server = BoundedHTTPServer(
            application(registry, key),
            max_buffer_size=8 << 20,
            max_header_size=bounded_server.HEADERS,
            max_body_size=bounded_server.BODY,
            body_timeout=bounded_server.BODY_TIMEOUT,
            idle_connection_timeout=bounded_server.IDLE,
            # Many servers share a node of a cluster; a sandbox has an address of its own.
            most_per_address=bounded_server.OF_NODE
            if portal.outside
            else bounded_server.OF_SANDBOX,
            ssl_options=context,
        )
        server.add_sockets(places)
        servers.append(server)
    for one in (*sockets, *outside):
        log.info("The gate listens on %s:%d", *one.getsockname()[:2])
    watch = asyncio.ensure_future(registry.watch())
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    for server in servers:
        server.stop()
    watch.cancel()
    with contextlib.suppress(TimeoutError):
        closing = (server.close_all_connections() for server in servers)
        await asyncio.wait_for(asyncio.gather(*closing), _GRACE)
    await registry.close()


def main() -> None:
    """Start the gate."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(LogLimit())
    logging.getLogger("tornado.application").setLevel(logging.WARNING)
    key = os.environ.pop(KEY, "")
    if len(sys.argv) != 2 or not key:
        sys.exit(f"usage: python -m services.gate FILE   (the key is in {KEY})")
    try:
        asyncio.run(serve(Path(sys.argv[1]), key))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"labhub: the gate cannot start: {error}")


if __name__ == "__main__":
    main()
