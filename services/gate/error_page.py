"""The proxy's error pages: the hub's own, and one of the gate's while the hub is away."""

from __future__ import annotations

import time

from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPError

from services.gate import pages
from services.gate.app_registry import AppRegistry

_TIMEOUT = 8.0  # seconds for the hub to make a page
_AT_ONCE = 100


class ErrorPage(web.RequestHandler):
    """``/error/CODE``: what the proxy shows where a request has met an error."""

    _client: AsyncHTTPClient | None = None

    def initialize(self, registry: AppRegistry) -> None:
        """Remember the portal."""
        self.registry = registry

    async def get(self, code: str) -> None:
        """Answer with a page; the proxy takes its text, and sends the status itself."""
        if ErrorPage._client is None:
            ErrorPage._client = AsyncHTTPClient(force_instance=True, max_clients=_AT_ONCE)
        portal = self.registry.portal
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        try:
            answer = await ErrorPage._client.fetch(
                f"{portal.hub_url}/error/{code}", request_timeout=_TIMEOUT, follow_redirects=False
            )
            self.finish(answer.body)
        except (HTTPError, OSError):
            self.finish(pages.away(portal, self.registry.messages.shown((), time.time())))
