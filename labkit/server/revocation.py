"""Who has lost their way in is out soon, also of a WebSocket that is open.

JupyterHub's answer who somebody is is kept for five minutes in a server, and a WebSocket is not
asked about at all once it is open. Here it is 10 seconds, and open ones are asked about again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tornado.ioloop import PeriodicCallback
from tornado.routing import RuleRouter
from tornado.web import Application, HTTPError
from tornado.websocket import WebSocketHandler

if TYPE_CHECKING:
    _Base = WebSocketHandler
else:
    _Base = object

log = logging.getLogger(__name__)

FRESH = 10  # seconds for which the hub's word is taken without asking again
_EVERY = 15.0  # seconds between two questions about those who have something open
_OPEN = "labkit_open_websockets"


class Watched(_Base):
    """Mixin before a WebSocket handler: it is known while it is open."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Note that it is open."""
        self.settings.setdefault(_OPEN, set()).add(self)
        return super().open(*args, **kwargs)

    def on_close(self) -> None:
        """Note that it is not."""
        self.settings.setdefault(_OPEN, set()).discard(self)
        super().on_close()


class Revocation:
    """Asks the hub again about whoever has a WebSocket open.

    Parameters
    ----------
    application : Application
        The server's.
    hub_auth : jupyterhub.services.auth.HubOAuth
        How it asks the hub.
    every : float
        Seconds between two questions.
    """

    def __init__(self, application: Application, hub_auth: Any, every: float = _EVERY) -> None:
        self._application = application
        self._hub_auth = hub_auth
        self._timer = PeriodicCallback(self.look, every * 1000)
        hub_auth.cache_max_age = FRESH

    def start(self) -> None:
        """Watch all WebSockets that the server has an address for; needs the running loop."""
        _watch(self._application.default_router)
        _watch(self._application.wildcard_router)
        self._timer.start()

    def stop(self) -> None:
        """Ask no more."""
        self._timer.stop()

    async def look(self) -> None:
        """Close what belongs to somebody who may no longer come in."""
        for handler in list(self._application.settings.get(_OPEN, ())):
            if not await self._may_stay(handler):
                log.info("A WebSocket is closed: its person may no longer come in")
                handler.close(1008, "You may no longer use this server")

    async def _may_stay(self, handler: WebSocketHandler) -> bool:
        hub = self._hub_auth
        token = hub.get_token(handler)
        if not token:
            return False
        try:
            model = await hub.user_for_token(
                token, session_id=hub.get_session_id(handler), sync=False
            )
        except (HTTPError, OSError):
            return True  # the hub is away: nobody can have been thrown out meanwhile
        return model is not None and bool(hub.check_scopes(hub.access_scopes, model))


def _watch(router: RuleRouter) -> None:
    for rule in router.rules:
        target = rule.target
        if isinstance(target, RuleRouter):
            _watch(target)
        elif (
            isinstance(target, type)
            and issubclass(target, WebSocketHandler)
            and not issubclass(target, Watched)
        ):
            rule.target = type(f"Watched{target.__name__}", (Watched, target), {})
