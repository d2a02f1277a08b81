"""The hub listens twice: on one address for the nodes, on loopback for the portal's programs.

Proxy, gate, culler and the command line are on the hub's host: they go on to use plain HTTP on
127.0.0.1, whatever the nodes must use, and nothing wider than the nodes' address is opened.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.objects import Hub
from tornado.httpserver import HTTPServer

from hub.labfile.slurm import EVERYWHERE, LOOPBACK


def needs_loopback(address: str) -> bool:
    """Whether a hub that listens on an address is not on 127.0.0.1 already."""
    return address not in (EVERYWHERE, LOOPBACK)


def also_on_loopback(port: int) -> None:
    """Let the hub of this process listen on 127.0.0.1, too, by plain HTTP.

    JupyterHub has one listener and no setting for a second.

    Parameters
    ----------
    port : int
        The same as for the nodes, or another.
    """
    stock: Any = getattr(JupyterHub.start, "__wrapped__", JupyterHub.start)

    @wraps(stock)
    async def start(app: Any) -> None:
        server = HTTPServer(
            app.tornado_application,
            xheaders=True,
            trusted_downstream=app.trusted_downstream_ips,
        )
        server.listen(port, LOOPBACK)
        # The proxy is one of them. By TLS it would check the hub's certificate against the
        # browser's Host header, which is anybody's origin.
        app.proxy.hub = Hub(
            base_url=app.hub.base_url,
            routespec=app.hub.routespec,
            public_host=app.hub.public_host,
            bind_url=f"http://{LOOPBACK}:{port}{app.hub.base_url}",
        )
        await stock(app)

    JupyterHub.start = start
