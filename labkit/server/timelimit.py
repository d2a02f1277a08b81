"""The cluster's time limit of this server, asked of the hub: an operator may have moved it."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace

from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop, PeriodicCallback

from labkit.portal.client import own_context
from labkit.server.activity import Activity

log = logging.getLogger(__name__)

_EVERY = 60.0  # seconds
_PATH = "labhub/time-limit"


class TimeLimit:
    """Keeps the end of the server's job as the cluster has it.

    Parameters
    ----------
    activity : Activity
        Whose rules hold the end.
    every : float
        Seconds between two questions; only a server that has an end asks.
    """

    def __init__(self, activity: Activity, every: float = _EVERY) -> None:
        self._activity = activity
        self._api = os.environ.get("JUPYTERHUB_API_URL", "").rstrip("/")
        self._timer = PeriodicCallback(self.look, every * 1000)

    def start(self) -> None:
        """Ask now, and again and again; needs the running event loop."""
        if self._activity.rules.ends and self._api:
            self._timer.start()
            IOLoop.current().spawn_callback(self.look)

    def stop(self) -> None:
        """Ask no more."""
        self._timer.stop()

    async def look(self) -> None:
        """Ask; without an answer what was known stays."""
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        secure = self._api.startswith("https:")
        try:
            answer = await AsyncHTTPClient().fetch(
                f"{self._api}/{_PATH}",
                headers={"Authorization": f"token {token}"},
                request_timeout=20,
                follow_redirects=False,
                ssl_options=own_context() if secure else None,
            )
            ends = json.loads(answer.body)["ends"]
        except Exception as error:
            log.debug("The hub does not say when this server ends: %s", error)
            return
        if isinstance(ends, int | float) and ends > 0:
            self._activity.rules = replace(self._activity.rules, ends=float(ends))
