"""The proxy as the hub sees it. A module of its own: the culler and the commands need no hub.

JupyterHub finds it by its name, in `hub.portal.culling.configure`.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy


class LabProxy(ConfigurableHTTPProxy):
    """The proxy without its own idea of activity.

    configurable-http-proxy takes every byte for use, also the pings of a forgotten tab, so
    that a server with an open tab would never be idle.
    """

    async def get_all_routes(self) -> dict[str, Any]:
        """Return the routes without the times of their last traffic."""
        routes: dict[str, Any] = await super().get_all_routes()
        for route in routes.values():
            route["data"].pop("last_activity", None)
        return routes
