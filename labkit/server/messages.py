"""What the portal's administrators say, for JupyterLab and this server's pages."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.httpclient import AsyncHTTPClient

from labkit.portal.client import own_context
from labkit.server.pages import Api

log = logging.getLogger(__name__)

SETTING = "labkit_messages"
_FRESH = 8.0  # seconds for which the hub's answer is good
_TIMEOUT = 10.0


class Messages:
    """Asks the hub, when a page asks, and not more often than is needed."""

    def __init__(self) -> None:
        self._api = os.environ.get("JUPYTERHUB_API_URL", "").rstrip("/")
        self._asked = -_FRESH
        self._known: list[dict[str, Any]] = []

    async def current(self) -> list[dict[str, Any]]:
        """Return the messages; without an answer of the hub those known before."""
        if self._api and time.monotonic() - self._asked >= _FRESH:
            self._asked = time.monotonic()
            token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
            try:
                answer = await AsyncHTTPClient().fetch(
                    f"{self._api}/labhub/messages",
                    headers={"Authorization": f"token {token}"},
                    request_timeout=_TIMEOUT,
                    follow_redirects=False,
                    ssl_options=own_context() if self._api.startswith("https:") else None,
                )
                self._known = json.loads(answer.body)
            except Exception as error:
                log.debug("The hub does not say its messages: %s", error)
        return self._known


class MessagesHandler(Api):
    """``labkit/api/messages``: for JupyterLab and the pages; asking is no activity."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with a list of messages."""
        messages: Messages = self.settings[SETTING]
        self.finish(json.dumps(await messages.current()))


def rules() -> list[tuple[str, type]]:
    """Return the addresses, below the server's base address."""
    return [(r"/labkit/api/messages", MessagesHandler)]
